/* Functions in fixed point, bit for bit those of gemmlowp's fixedpoint.h. Qm.n has m integer bits
 * besides the sign and n fraction bits. */
#ifndef EC_FIXEDPOINT_H
#define EC_FIXEDPOINT_H

#include <stdint.h>

#include "ec_math.h"

/* exp(x) as Q0.31 for -32 <= x <= 0 as Q5.26 (gemmlowp exp_on_negative_values): a polynomial on
 * [-1/4, 0), times exp(-2^k) for every bit of the rest. */
static inline int32_t ec_exp_q26(int32_t x)
{
    static const int32_t factors[] = {1672461947, 1302514674, 790015084, 290630308,
                                      39332535,   720401,     242};
    const int32_t quarter = INT32_C(1) << 24;
    if (x == 0) {
        return INT32_MAX;
    }
    const int32_t part = (x & (quarter - 1)) - quarter;
    const int32_t y = ec_shift_left(part, 5) + (INT32_C(1) << 28);
    const int32_t y2 = ec_doubling_high_mul(y, y);
    const int32_t y3 = ec_doubling_high_mul(y2, y);
    const int32_t y4 = ec_doubling_high_mul(y2, y2);
    const int32_t third = ec_doubling_high_mul(ec_rounding_shift_right(y4, 2) + y3, 715827883);
    const int32_t sum = y + ec_rounding_shift_right(third + y2, 1);
    const int32_t exp_eighth = 1895147668;
    int32_t result = exp_eighth + ec_doubling_high_mul(exp_eighth, sum);
    const int32_t rest = (part - x) >> 24;
    for (int32_t bit = 0; bit < 7; ++bit) {
        if ((rest >> bit & 1) != 0) {
            result = ec_doubling_high_mul(result, factors[bit]);
        }
    }
    return result;
}

/* 1 / (1 + x) as Q0.31 for 0 <= x < 1 as Q0.31, by three steps of Newton and Raphson (gemmlowp
 * one_over_one_plus_x_for_x_in_0_1). */
static inline int32_t ec_one_over_one_plus(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + ec_doubling_high_mul(half, -1010580540);
    for (int32_t step = 0; step < 3; ++step) {
        const int32_t error = (INT32_C(1) << 29) - ec_doubling_high_mul(half, y);
        y += ec_shift_left(ec_doubling_high_mul(y, error), 2);
    }
    return y > (INT32_C(1) << 30) - 1 ? INT32_MAX : y * 2;
}

/* A table of 513 int16 over all int16 values, interpolated (TFLM LUTLookup). */
static inline int32_t ec_lookup_s16(const int16_t *table, int32_t value)
{
    const int16_t *at = table + 256 + (value >> 7);
    const int32_t slope = (int16_t)(at[1] - at[0]);
    return (int16_t)(at[0] + ((slope * (value & 0x7F) + 64) >> 7));
}

#endif
