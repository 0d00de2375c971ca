/* Mean, sum, maximum and minimum along any axes, of int8 or int16. */
#ifndef EC_REDUCE_H
#define EC_REDUCE_H

#include <stdint.h>

#include "ec_axes.h"

typedef struct {
    ec_axes_t axes;
    int32_t input_zero; /* the zero point of the input times the count of elements per output */
    int32_t output_zero;
    int32_t multiplier;
    int32_t shift;
} ec_reduce_t;

/* Sums, rescaled; a mean carries 1 / count in its multiplier. The output may begin where the input
 * begins, or before it. */
void ec_reduce_sum_s8(const ec_reduce_t *p, const int8_t *in, int8_t *out);
void ec_reduce_sum_s16(const ec_reduce_t *p, const int16_t *in, int16_t *out);

void ec_reduce_max_s8(const ec_axes_t *p, const int8_t *in, int8_t *out);
void ec_reduce_min_s8(const ec_axes_t *p, const int8_t *in, int8_t *out);

#endif
