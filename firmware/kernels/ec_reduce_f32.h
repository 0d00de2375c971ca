/* Mean, sum, maximum and minimum along any axes, of floats. */
#ifndef EC_REDUCE_F32_H
#define EC_REDUCE_F32_H

#include <stdint.h>

#include "ec_axes.h"

typedef struct {
    ec_axes_t axes;
    float divisor; /* of the sum: the count of elements per output for a mean, else 1 */
} ec_reduce_f32_t;

/* The output may begin where the input begins, or before it. */
void ec_reduce_sum_f32(const ec_reduce_f32_t *p, const float *in, float *out);
void ec_reduce_max_f32(const ec_reduce_f32_t *p, const float *in, float *out);
void ec_reduce_min_f32(const ec_reduce_f32_t *p, const float *in, float *out);

#endif
