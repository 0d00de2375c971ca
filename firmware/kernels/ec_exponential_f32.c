#include "ec_exponential_f32.h"

#include <math.h>

/* TFLM reference_ops::Logistic: above the first bound the result is 1 in float32, below the second
 * exp(x) is good enough for it. */
void ec_logistic_f32(const ec_exponential_f32_t *p, const float *in, float *out)
{
    const uint32_t count = p->count;
    for (uint32_t i = 0; i < count; i++) {
        const float x = in[i];
        if (x > 16.619047164916992188f) {
            out[i] = 1.0f;
        } else if (x < -9.0f) {
            out[i] = expf(x);
        } else {
            out[i] = 1.0f / (1.0f + expf(-x));
        }
    }
}

/* TFLM reference_ops::Tanh */
void ec_tanh_f32(const ec_exponential_f32_t *p, const float *in, float *out)
{
    const uint32_t count = p->count;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = tanhf(in[i]);
    }
}

/* TFLM reference_ops::Elu */
void ec_elu_f32(const ec_exponential_f32_t *p, const float *in, float *out)
{
    const uint32_t count = p->count;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = in[i] < 0.0f ? expm1f(in[i]) : in[i];
    }
}
