/* Average and maximum over windows of an NHWC tensor of floats. */
#ifndef EC_POOL_F32_H
#define EC_POOL_F32_H

#include <stdint.h>

#include "ec_window.h"

typedef struct {
    ec_window_t window;
    float low; /* least and greatest output */
    float high;
    uint8_t reverse; /* from the last output to the first */
} ec_pool_f32_t;

void ec_average_pool_f32(const ec_pool_f32_t *p, const float *in, float *out);
void ec_max_pool_f32(const ec_pool_f32_t *p, const float *in, float *out);

#endif
