/* SOFTMAX over the last axis, float32 (uses expf of libm). */
#ifndef EC_SOFTMAX_F32_H
#define EC_SOFTMAX_F32_H

#include <stdint.h>

typedef struct {
    int32_t rows;
    int32_t depth;
    float beta;
} ec_softmax_f32_t;

void ec_softmax_f32(const ec_softmax_f32_t *p, const float *in, float *out);

#endif
