#include "ec_elementwise_s8.h"

#include "ec_math.h"

#if defined(EC_WITH_MVE)
#include "ec_elementwise_s8_mve.h"
#endif

/* round(a * b / 2^32) + c, halves up. One instruction (SMMLAR) where the core has it. */
EC_INLINE int32_t high_mul_add(int32_t a, int32_t b, int32_t c)
{
#if defined(__ARM_FEATURE_DSP)
    int32_t sum;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
#elif defined(EC_WITH_THUMB1)
    return ec_high_mul(a, b) + c;
#else
    const uint64_t start = ((uint64_t)(uint32_t)c << 32) | UINT32_C(0x80000000);
    return (int32_t)((int64_t)(start + (uint64_t)((int64_t)a * b)) >> 32);
#endif
}

/* x times multiplier * 2^(-31 - shift), rounded twice, for 1 <= shift and |twice| < 2^30, where
 * twice = 2 * x (TFLM MultiplyByQuantizedMultiplierSmallerThanOneExp). The product has the sign of
 * x or is 0, and then the result is 0 with either sign: no need to wait for it. */
EC_INLINE int32_t scaled(int32_t twice, int32_t multiplier, int32_t shift)
{
    const int32_t half = INT32_C(1) << (shift - 1);
    return (high_mul_add(twice, multiplier, half) + (twice >> 31)) >> shift;
}

/* TFLM reference_integer_ops::AddFunc and reference_ops::SubElementwise */
EC_INLINE int8_t add_one(const ec_add_s8_t *p, int8_t x, int8_t y)
{
    const int32_t first = x * p->factor1 + p->constant1;
    const int32_t twice = y * (INT32_C(1) << 21) + p->constant2;
    const int32_t second = scaled(twice, p->multiplier2, p->shift2);
    const int32_t sum = first + second * p->sign2;
    return (int8_t)ec_clamp(scaled(2 * sum, p->multiplier, p->shift) + p->offset, p->low, p->high);
}

/* TFLM reference_integer_ops::MulElementwise */
EC_INLINE int8_t mul_one(const ec_mul_s8_t *p, int8_t x, int8_t y)
{
    const int32_t product = (x + p->offset1) * (y + p->offset2);
    const int32_t value = ec_requantize(product, p->multiplier, p->shift);
    return (int8_t)ec_clamp(value + p->offset, p->low, p->high);
}

/* The same, for the signs as in `scaled`; before it is clamped. */
EC_INLINE int32_t mul_right(const ec_mul_right_s8_t *p, int8_t x, int8_t y)
{
    const int32_t twice = (x + p->offset1) * (y + y + p->offset2);
    return (high_mul_add(twice, p->multiplier, p->rounding) + (twice >> 31)) >> p->shift;
}

EC_INLINE int8_t mul_right_one(const ec_mul_right_s8_t *p, int8_t x, int8_t y)
{
    return (int8_t)ec_clamp(mul_right(p, x, y), p->low, p->high);
}

/* TFLM reference_ops::BroadcastPrelu4DSlow */
EC_INLINE int8_t prelu_one(const ec_prelu_s8_t *p, int8_t x, int8_t y)
{
    int32_t value = x + p->offset1;
    if (value >= 0) {
        value = ec_requantize(value, p->multiplier1, p->shift1);
    } else {
        value = ec_requantize(value * (y + p->offset2), p->multiplier2, p->shift2);
    }
    return (int8_t)ec_clamp(value + p->offset, INT8_MIN, INT8_MAX);
}

#if defined(EC_WITH_MVE)
void ec_add_s8(const ec_add_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    add_all(p, in1, in2, out);
}

void ec_mul_right_s8(const ec_mul_right_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    mul_all(p, in1, in2, out);
}

EC_ELEMENTWISE_DEFINE_BROADCAST(ec_add_s8, add_one, ec_add_s8_t, int8_t, int8_t, int8_t)
#else
void ec_mul_right_s8(const ec_mul_right_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    const ec_mul_right_s8_t each = *p;
    const int8_t *const end = out + each.count;
    if (each.low == INT8_MIN && each.high == INT8_MAX) {
        const int8_t *const last = out + (each.count & ~3u);
        while (out != last) {
            EC_UNROLL for (int32_t i = 0; i < 4; i++) {
                out[i] = (int8_t)ec_saturate_s8(mul_right(&each, in1[i], in2[i]));
            }
            in1 += 4;
            in2 += 4;
            out += 4;
        }
    }
    while (out != end) {
        *out++ = mul_right_one(&each, *in1++, *in2++);
    }
}

EC_ELEMENTWISE_DEFINE(ec_add_s8, add_one, ec_add_s8_t, int8_t, int8_t, int8_t)
#endif
EC_ELEMENTWISE_DEFINE(ec_mul_s8, mul_one, ec_mul_s8_t, int8_t, int8_t, int8_t)
EC_ELEMENTWISE_DEFINE_BROADCAST(ec_mul_right_s8, mul_right_one, ec_mul_right_s8_t, int8_t, int8_t,
                                int8_t)
EC_ELEMENTWISE_DEFINE(ec_prelu_s8, prelu_one, ec_prelu_s8_t, int8_t, int8_t, int8_t)
