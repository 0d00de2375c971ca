#include "ec_quantize.h"

#include "ec_math.h"

/* The bounds are whole numbers, so clamping before rounding is the same as after it, and the
 * conversion is always defined: the fraction that it cuts off is exact, and decides. */
EC_INLINE int32_t quantize_one(const ec_quantize_t *p, float x)
{
    x /= p->scale;
    x = x > p->low ? x : p->low;
    x = x < p->high ? x : p->high;
    const int32_t whole = (int32_t)x;
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0) + p->zero_point;
}

#define QUANTIZE(name, type)                                      \
    void name(const ec_quantize_t *p, const float *in, type *out) \
    {                                                             \
        const ec_quantize_t each = *p;                            \
        for (uint32_t i = 0; i < each.count; i++) {               \
            out[i] = (type)quantize_one(&each, in[i]);            \
        }                                                         \
    }

#define DEQUANTIZE(name, type)                                         \
    void name(const ec_dequantize_t *p, const type *in, float *out)    \
    {                                                                  \
        const ec_dequantize_t each = *p;                               \
        for (uint32_t i = 0; i < each.count; i++) {                    \
            out[i] = each.scale * (float)(in[i] - each.zero_point);    \
        }                                                              \
    }

QUANTIZE(ec_quantize_f32_s8, int8_t)
QUANTIZE(ec_quantize_f32_s16, int16_t)
DEQUANTIZE(ec_dequantize_s8_f32, int8_t)
DEQUANTIZE(ec_dequantize_u8_f32, uint8_t)
DEQUANTIZE(ec_dequantize_s16_f32, int16_t)
