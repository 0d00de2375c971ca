/* int32 ADD, SUB and MUL: modulo 2^32, then clamped (TFLM reference_ops::Add, Sub and Mul). */
#ifndef EC_ELEMENTWISE_S32_H
#define EC_ELEMENTWISE_S32_H

#include "ec_elementwise.h"

typedef struct {
    uint32_t count;
    int32_t low;
    int32_t high;
} ec_arithmetic_s32_t;

EC_ELEMENTWISE_DECLARE(ec_add_s32, ec_arithmetic_s32_t, int32_t, int32_t, int32_t);
EC_ELEMENTWISE_DECLARE(ec_sub_s32, ec_arithmetic_s32_t, int32_t, int32_t, int32_t);
EC_ELEMENTWISE_DECLARE(ec_mul_s32, ec_arithmetic_s32_t, int32_t, int32_t, int32_t);

#endif
