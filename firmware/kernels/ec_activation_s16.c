#include "ec_activation_s16.h"

#include "ec_math.h"
#include "ec_sigmoid.h"

void ec_logistic_s16(const ec_sigmoid_s16_t *p, const int16_t *in, int16_t *out)
{
    const ec_sigmoid_s16_t each = *p;
    for (uint32_t i = 0; i < each.count; i++) {
        out[i] = ec_logistic_of_s16(ec_sigmoid_scaled(in[i], each.multiplier, each.shift));
    }
}

void ec_tanh_s16(const ec_sigmoid_s16_t *p, const int16_t *in, int16_t *out)
{
    const ec_sigmoid_s16_t each = *p;
    for (uint32_t i = 0; i < each.count; i++) {
        out[i] = ec_tanh_of_s16(ec_sigmoid_scaled(in[i], each.multiplier, each.shift));
    }
}

/* TFLM reference_ops::QuantizeLeakyRelu */
void ec_leaky_relu_s16(const ec_leaky_relu_s16_t *p, const int16_t *in, int16_t *out)
{
    const ec_leaky_relu_s16_t each = *p;
    for (uint32_t i = 0; i < each.count; i++) {
        const int32_t x = in[i];
        const int32_t value = x >= 0 ? ec_requantize(x, each.multiplier1, each.shift1)
                                     : ec_requantize(x, each.multiplier2, each.shift2);
        out[i] = (int16_t)ec_clamp(value, INT16_MIN, INT16_MAX);
    }
}
