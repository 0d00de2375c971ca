#include "ec_activation_f32.h"

#include "ec_math.h"

#include <math.h>

/* Each mirrors TFLM's float function of that name, NaN and -0 included. */
EC_INLINE float relu_one(float x, float alpha)
{
    (void)alpha;
    return x < 0.0f ? 0.0f : x;
}

EC_INLINE float relu6_one(float x, float alpha)
{
    (void)alpha;
    return ec_clamp_f32(x, 0.0f, 6.0f);
}

EC_INLINE float leaky_relu_one(float x, float alpha)
{
    return x > 0.0f ? x : x * alpha;
}

EC_INLINE float hard_swish_one(float x, float alpha)
{
    (void)alpha;
    const float high = 0.0f < x + 3.0f ? x + 3.0f : 0.0f;
    return x * (high < 6.0f ? high : 6.0f) / 6.0f;
}

EC_INLINE float abs_one(float x, float alpha)
{
    (void)alpha;
    return fabsf(x);
}

#define ACTIVATION(name, one)                                           \
    void name(const ec_activation_f32_t *p, const float *in, float *out) \
    {                                                                   \
        const ec_activation_f32_t each = *p;                            \
        for (uint32_t i = 0; i < each.count; i++) {                     \
            out[i] = one(in[i], each.alpha);                            \
        }                                                               \
    }

ACTIVATION(ec_relu_f32, relu_one)
ACTIVATION(ec_relu6_f32, relu6_one)
ACTIVATION(ec_leaky_relu_f32, leaky_relu_one)
ACTIVATION(ec_hard_swish_f32, hard_swish_one)
ACTIVATION(ec_abs_f32, abs_one)
