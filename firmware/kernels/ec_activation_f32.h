/* float32 activations without a library function; from first to last. */
#ifndef EC_ACTIVATION_F32_H
#define EC_ACTIVATION_F32_H

#include <stdint.h>

/* alpha: the slope of LEAKY_RELU where x is negative; 0 and unused elsewhere. */
typedef struct {
    uint32_t count;
    float alpha;
} ec_activation_f32_t;

void ec_relu_f32(const ec_activation_f32_t *p, const float *in, float *out);
void ec_relu6_f32(const ec_activation_f32_t *p, const float *in, float *out);
void ec_leaky_relu_f32(const ec_activation_f32_t *p, const float *in, float *out);
void ec_hard_swish_f32(const ec_activation_f32_t *p, const float *in, float *out);
void ec_abs_f32(const ec_activation_f32_t *p, const float *in, float *out);

#endif
