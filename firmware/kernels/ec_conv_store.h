/* What becomes of ec_conv's accumulators. */
#ifndef EC_CONV_STORE_H
#define EC_CONV_STORE_H

#include <stdint.h>

#include "ec_conv.h"
#include "ec_math.h"

/* Accumulators of two pixels (a, b) and two channels (u, v). */
typedef struct {
    uint32_t au;
    uint32_t av;
    uint32_t bu;
    uint32_t bv;
} ec_sums_t;

/* One channel's results for both pixels. */
EC_INLINE void ec_scale(const ec_conv_t *p, int32_t channel, uint32_t a, uint32_t b, int32_t *x,
                        int32_t *y)
{
    const int32_t multiplier = p->multipliers[channel];
    const int32_t right = p->shifts[channel];
    const int32_t rounding = ec_rounding_of(p->out_zero, right);
    *x = ec_saturate_s8(ec_requantize_right((int32_t)a, multiplier, rounding, right));
    *y = ec_saturate_s8(ec_requantize_right((int32_t)b, multiplier, rounding, right));
}

/* Stores one channel (`alone`) or two of both pixels; the second pixel comes before the first, for
 * they may be the same. Nothing is stored before all is computed: a store through int8_t may change
 * any parameter, as far as the compiler knows. */
EC_INLINE void ec_store(const ec_conv_t *p, int32_t channel, ec_sums_t sums, int8_t *first,
                        int8_t *second, const int alone)
{
    int32_t au, av = 0, bu, bv = 0;
    ec_scale(p, channel, sums.au, sums.bu, &au, &bu);
    if (!alone) {
        EC_ORDER(au, channel);
        ec_scale(p, channel + 1, sums.av, sums.bv, &av, &bv);
    }
    if (p->limited) {
        au = ec_clamp(au, p->low, p->high);
        av = ec_clamp(av, p->low, p->high);
        bu = ec_clamp(bu, p->low, p->high);
        bv = ec_clamp(bv, p->low, p->high);
    }
    second[0] = (int8_t)bu;
    if (!alone) second[1] = (int8_t)bv;
    first[0] = (int8_t)au;
    if (!alone) first[1] = (int8_t)av;
}

#endif
