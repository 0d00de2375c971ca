/* MINIMUM and MAXIMUM of the stored values (TFLM MaximumMinimumBroadcastSlow). */
#ifndef EC_MINMAX_H
#define EC_MINMAX_H

#include "ec_elementwise.h"

typedef struct {
    uint32_t count;
} ec_minmax_t;

EC_ELEMENTWISE_DECLARE(ec_minimum_s8, ec_minmax_t, int8_t, int8_t, int8_t);
EC_ELEMENTWISE_DECLARE(ec_maximum_s8, ec_minmax_t, int8_t, int8_t, int8_t);
EC_ELEMENTWISE_DECLARE(ec_minimum_s16, ec_minmax_t, int16_t, int16_t, int16_t);
EC_ELEMENTWISE_DECLARE(ec_maximum_s16, ec_minmax_t, int16_t, int16_t, int16_t);
EC_ELEMENTWISE_DECLARE(ec_minimum_s32, ec_minmax_t, int32_t, int32_t, int32_t);
EC_ELEMENTWISE_DECLARE(ec_maximum_s32, ec_minmax_t, int32_t, int32_t, int32_t);
EC_ELEMENTWISE_DECLARE(ec_minimum_f32, ec_minmax_t, float, float, float);
EC_ELEMENTWISE_DECLARE(ec_maximum_f32, ec_minmax_t, float, float, float);

#endif
