/* ec_depthwise for cores with the DSP extension: bytes become pairs of halfwords (SXTB16). */
#ifndef EC_DEPTHWISE_HALVES_H
#define EC_DEPTHWISE_HALVES_H

#include "ec_depthwise.h"
#include "ec_depthwise_sums.h"
#include "ec_math.h"

/* Adds a tap's product to each sum; `a` holds four inputs, `w` four weights. */
static inline void ec_tap(ec_sums_t *sums, uint32_t a, uint32_t w)
{
    const uint32_t a_even = ec_bytes_even(a), a_odd = ec_bytes_odd(a);
    const uint32_t w_even = ec_bytes_even(w), w_odd = ec_bytes_odd(w);
    sums->s0 = ec_mac_low(a_even, w_even, sums->s0);
    sums->s1 = ec_mac_low(a_odd, w_odd, sums->s1);
    sums->s2 = ec_mac_high(a_even, w_even, sums->s2);
    sums->s3 = ec_mac_high(a_odd, w_odd, sums->s3);
}

/* Two taps a turn, until `list` reaches `end`; the four inputs lie `channel` behind a place in the
 * list. */
static inline void ec_tap_pairs(ec_sums_t *sums, const int8_t *const *list,
                                const int8_t *const *end, const uint32_t *weights,
                                int32_t channel)
{
#if defined(__ARM_FEATURE_DSP)
    /* Compilers spill accumulators here: 23 instructions for 8 products by hand, 30 by gcc. */
    uint32_t p, q, w, a_even, w_even;
    __asm__ volatile(
        "1:\n\t"
        "ldrd %[p], %[q], [%[list]], #8\n\t"
        "ldr %[w], [%[weights]], #16\n\t"
        "ldr %[p], [%[p], %[channel]]\n\t"
        "ldr %[q], [%[q], %[channel]]\n\t"
        "sxtb16 %[a_even], %[p]\n\t"
        "sxtb16 %[w_even], %[w]\n\t"
        "sxtb16 %[p], %[p], ror #8\n\t"
        "sxtb16 %[w], %[w], ror #8\n\t"
        "smlabb %[s0], %[a_even], %[w_even], %[s0]\n\t"
        "smlatt %[s2], %[a_even], %[w_even], %[s2]\n\t"
        "smlabb %[s1], %[p], %[w], %[s1]\n\t"
        "smlatt %[s3], %[p], %[w], %[s3]\n\t"
        "ldr %[w], [%[weights]], #16\n\t"
        "sxtb16 %[a_even], %[q]\n\t"
        "sxtb16 %[w_even], %[w]\n\t"
        "sxtb16 %[q], %[q], ror #8\n\t"
        "sxtb16 %[w], %[w], ror #8\n\t"
        "smlabb %[s0], %[a_even], %[w_even], %[s0]\n\t"
        "smlatt %[s2], %[a_even], %[w_even], %[s2]\n\t"
        "smlabb %[s1], %[q], %[w], %[s1]\n\t"
        "smlatt %[s3], %[q], %[w], %[s3]\n\t"
        "cmp %[list], %[end]\n\t"
        "bne 1b"
        : [s0] "+r"(sums->s0), [s1] "+r"(sums->s1), [s2] "+r"(sums->s2), [s3] "+r"(sums->s3),
          [list] "+r"(list), [weights] "+r"(weights), [p] "=&r"(p), [q] "=&r"(q), [w] "=&r"(w),
          [a_even] "=&r"(a_even), [w_even] "=&r"(w_even)
        : [end] "r"(end), [channel] "r"(channel)
        : "cc", "memory");
#else
    do {
        ec_tap(sums, ec_load_u32(list[0] + channel), weights[0]);
        ec_tap(sums, ec_load_u32(list[1] + channel), weights[EC_TAP_WORDS]);
        list += 2;
        weights += 2 * EC_TAP_WORDS;
    } while (list != end);
#endif
}

/* Adds the bias of four channels to sums of nibbles times 16. */
static inline ec_sums_t ec_add_bias(ec_sums_t sums, const int32_t *bias)
{
    sums.s0 = (uint32_t)((int32_t)sums.s0 >> 4) + (uint32_t)bias[0];
    sums.s1 = (uint32_t)((int32_t)sums.s1 >> 4) + (uint32_t)bias[1];
    sums.s2 = (uint32_t)((int32_t)sums.s2 >> 4) + (uint32_t)bias[2];
    sums.s3 = (uint32_t)((int32_t)sums.s3 >> 4) + (uint32_t)bias[3];
    return sums;
}

/* Four channels that lie side by side in the input. */
EC_INLINE ec_sums_t ec_sum(const ec_depthwise_t *p, const int8_t *const *list,
                           const uint32_t *weights, int32_t channel, const int nibbles)
{
    const int32_t *bias = p->bias + channel;
    const int32_t even = p->taps & ~1;
    ec_sums_t sums = {0, 0, 0, 0};
    if (nibbles) {
        const int8_t *const *const end = list + even;
        for (; list != end; list += 2) {
            const uint32_t w = *weights;
            weights += EC_TAP_WORDS;
            ec_tap(&sums, ec_load_u32(list[0] + channel), ec_nibbles_low(w));
            ec_tap(&sums, ec_load_u32(list[1] + channel), ec_nibbles_high(w));
        }
        return ec_add_bias(sums, bias);
    }
    sums = ec_add_bias(sums, bias);
    if (even > 0) {
        ec_tap_pairs(&sums, list, list + even, weights, channel);
    }
    if (p->taps != even) {
        ec_tap(&sums, ec_load_u32(list[even] + channel), weights[EC_TAP_WORDS * even]);
    }
    return sums;
}

#endif
