/* What the kernels share whose weights hold two output channels in one halfword, 256 times the odd
 * one's plus the even one's: a product with such a word adds 256 * P + Q, with its even bytes Q. */
#ifndef EC_PAIRS_H
#define EC_PAIRS_H

#include <stdint.h>
#include <string.h>

#include "ec_math.h"

#if defined(__ARM_FEATURE_DSP)

/* 256 P + Q and Q become 2 P and 2 Q. */
#define EC_SPLIT(s, q)                 \
    "sub " s ", " s ", " q "\n\t"      \
    "lsl " q ", " q ", #1\n\t"         \
    "asr " s ", " s ", #7\n\t"

/* Four channels become a word of bytes in a, 128 too large. */
#define EC_PACK(a, b, c, d)                    \
    "pkhbt " a ", " a ", " c ", lsl #16\n\t"   \
    "pkhbt " b ", " b ", " d ", lsl #16\n\t"   \
    "usat16 " a ", #8, " a "\n\t"              \
    "usat16 " b ", #8, " b "\n\t"              \
    "orr " a ", " a ", " b ", lsl #8\n\t"

/* Limits four bytes that are 128 too large, and takes 128 off: r2 is what is added to saturate above,
 * r3 what is taken off to saturate below, r12 what is added without carry. */
#define EC_LIMIT(a)                            \
    "uqadd8 " a ", " a ", r2\n\t"              \
    "uqsub8 " a ", " a ", r3\n\t"              \
    "uadd8 " a ", " a ", r12\n\t"

#else

/* Halfword number `i` from `at` on. */
static inline int32_t ec_half(const uint32_t *at, int32_t i)
{
    int16_t half;
    memcpy(&half, __builtin_assume_aligned((const int8_t *)at + 2 * i, 2), sizeof(half));
    return half;
}

/* sum + a * b, at once: compilers would rather add two products first. */
static inline uint32_t ec_mac(int32_t a, int32_t b, uint32_t sum)
{
#if defined(__thumb2__)
    __asm__("mla %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return sum + (uint32_t)(a * b);
#endif
}

#endif

/* x + 128 in 0 to 255, limited as EC_LIMIT does. */
static inline int8_t ec_pairs_limit(int32_t x, const uint32_t *limits)
{
    x = ec_clamp(x + (int32_t)(limits[0] & 255), 0, 255);
    x = ec_clamp(x - (int32_t)(limits[1] & 255), 0, 255);
    return (int8_t)(uint8_t)((uint32_t)x + limits[2]);
}

#endif
