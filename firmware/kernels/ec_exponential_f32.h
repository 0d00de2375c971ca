/* float32 activations that need libm; the last bit is the library's, as it is in TFLM. */
#ifndef EC_EXPONENTIAL_F32_H
#define EC_EXPONENTIAL_F32_H

#include <stdint.h>

typedef struct {
    uint32_t count;
} ec_exponential_f32_t;

/* From first to last; an element is read before it is written. */
void ec_logistic_f32(const ec_exponential_f32_t *p, const float *in, float *out);
void ec_tanh_f32(const ec_exponential_f32_t *p, const float *in, float *out);
void ec_elu_f32(const ec_exponential_f32_t *p, const float *in, float *out);

#endif
