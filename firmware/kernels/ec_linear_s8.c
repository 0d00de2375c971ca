/* Bits: TFLM reference_integer_ops::Add and reference_ops::Sub (int8). */
#include "ec_linear_s8.h"

#include <string.h>

#include "ec_math.h"

/* a * b + c modulo 2^32, at once: compilers would rather add two products first. */
EC_INLINE int32_t multiplied(int32_t a, int32_t b, int32_t c)
{
#if defined(__thumb2__)
    int32_t sum;
    __asm__("mla %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
#else
    return (int32_t)((uint32_t)a * (uint32_t)b + (uint32_t)c);
#endif
}

EC_INLINE int32_t form(const ec_linear_s8_t *p, int32_t x, int32_t y)
{
    return multiplied(y, p->factor2, multiplied(x, p->factor1, p->constant));
}

EC_INLINE int8_t linear_one(const ec_linear_s8_t *p, int8_t x, int8_t y)
{
    return (int8_t)ec_clamp(form(p, x, y) >> EC_LINEAR_SHIFT, p->low, p->high);
}

#if defined(EC_WITH_MVE)

void ec_linear_s8(const ec_linear_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    __asm__ volatile( /* compilers make no tail-predicated loops */
        "vdup.32 q0, %[factor]\n\t"
        "vdup.32 q1, %[low]\n\t"
        "vdup.32 q2, %[high]\n\t"
        "wlstp.32 lr, %[count], 2f\n\t"
        "1:\n\t"
        "vldrb.s32 q3, [%[in1]], #4\n\t"
        "vldrb.s32 q4, [%[in2]], #4\n\t"
        "vmlas.s32 q3, q0, %[constant]\n\t"
        "vmla.s32 q3, q4, %[factor2]\n\t"
        "vshr.s32 q3, q3, %[shift]\n\t"
        "vmax.s32 q3, q3, q1\n\t"
        "vmin.s32 q3, q3, q2\n\t"
        "vstrb.32 q3, [%[out]], #4\n\t"
        "letp lr, 1b\n\t"
        "2:"
        : [in1] "+r"(in1), [in2] "+r"(in2), [out] "+r"(out)
        : [count] "r"(p->count), [factor] "r"(p->factor1), [factor2] "r"(p->factor2),
          [constant] "r"(p->constant), [low] "r"(p->low), [high] "r"(p->high),
          [shift] "I"(EC_LINEAR_SHIFT)
        : "q0", "q1", "q2", "q3", "q4", "lr", "cc", "memory");
}

#else

enum { EC_BLOCK = 8 };

/* The form without its fraction, saturated to int8: one instruction where the core has it. */
EC_INLINE int32_t saturated(int32_t value)
{
#if defined(__ARM_FEATURE_SAT)
    int32_t byte;
    __asm__("ssat %0, #8, %1, asr %2" : "=r"(byte) : "r"(value), "I"(EC_LINEAR_SHIFT));
    return byte;
#else
    return ec_clamp(value >> EC_LINEAR_SHIFT, INT8_MIN, INT8_MAX);
#endif
}

#if defined(__ARM_FEATURE_DSP)

/* The same plus 128, from the form plus 128, saturated to a byte; `at` bytes to the left of `word`. */
EC_INLINE uint32_t with_byte(uint32_t word, int32_t value, const int at)
{
    uint32_t byte;
    __asm__("usat %0, #8, %1, asr %2" : "=r"(byte) : "r"(value), "I"(EC_LINEAR_SHIFT));
    return word | byte << (8 * at);
}

/* Four elements that are limited in one word. Bytes are limited as EC_LIMIT of ec_pairs.h does. */
EC_INLINE void limited_four(const ec_linear_s8_t *p, const uint32_t limits[3], const int8_t *in1,
                            const int8_t *in2, int8_t *out)
{
    uint32_t word = 0;
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
    {
        word = with_byte(word, form(p, in1[i], in2[i]), i);
    }
    word = (uint32_t)__uqadd8((uint8x4_t)word, (uint8x4_t)limits[0]);
    word = (uint32_t)__uqsub8((uint8x4_t)word, (uint8x4_t)limits[1]);
    word = (uint32_t)__uadd8((uint8x4_t)word, (uint8x4_t)limits[2]);
    memcpy(out, &word, sizeof(word));
}

/* Outputs with limits of their own; returns how many are done. */
static uint32_t limited(const ec_linear_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    ec_linear_s8_t each = *p;
    const uint32_t all = 0x01010101u, above = (uint32_t)(INT8_MAX - each.high);
    const uint32_t limits[3] = {all * above, all * (above + (uint32_t)(each.low - INT8_MIN)),
                                all * (uint8_t)each.low};
    each.constant += INT32_C(128) << EC_LINEAR_SHIFT;
    const uint32_t whole = each.count & ~3u;
    for (const int8_t *end = out + whole; out != end; out += 4) {
        limited_four(&each, limits, in1, in2, out);
        in1 += 4;
        in2 += 4;
    }
    return whole;
}

#endif

/* Saturated outputs alone, EC_BLOCK at a time; returns how many are done. */
static uint32_t unlimited(const ec_linear_s8_t *p, const int8_t *in1, const int8_t *in2,
                          int8_t *out)
{
    const ec_linear_s8_t each = *p;
    const uint32_t whole = each.count & ~(uint32_t)(EC_BLOCK - 1);
    for (const int8_t *end = out + whole; out != end; out += EC_BLOCK) {
        _Pragma("GCC unroll 8") for (int i = 0; i < EC_BLOCK; i++)
        {
            out[i] = (int8_t)saturated(form(&each, in1[i], in2[i]));
        }
        in1 += EC_BLOCK;
        in2 += EC_BLOCK;
    }
    return whole;
}

void ec_linear_s8(const ec_linear_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    uint32_t done = 0;
    if (p->low == INT8_MIN && p->high == INT8_MAX) {
        done = unlimited(p, in1, in2, out);
    }
#if defined(__ARM_FEATURE_DSP)
    else {
        done = limited(p, in1, in2, out);
    }
#endif
    const ec_linear_s8_t each = *p;
    for (; done < each.count; done++) {
        out[done] = linear_one(&each, in1[done], in2[done]);
    }
}

#endif

EC_ELEMENTWISE_DEFINE_BROADCAST(ec_linear_s8, linear_one, ec_linear_s8_t, int8_t, int8_t, int8_t)
