/* What ec_dot.h promises, for cores with Helium. An "expanded" vector is bytes, padded with zeros to
 * whole steps, in the first half of its place. */
#ifndef EC_DOT_MVE_H
#define EC_DOT_MVE_H

#include "ec_mve.h"

/* `count` elements of `from`, as bytes at `to`. */
static inline void ec_dot_expand(const int8_t *from, int32_t count, int16_t *to)
{
    int8_t *next = ec_mve_copy((int8_t *)to, from, count);
    ec_mve_fill(next, 0, ec_dot_steps(count) * EC_DOT_STEP - count);
}

/* The sum of an expanded vector. */
static inline uint32_t ec_dot_sum(const int16_t *x, int32_t steps)
{
    const int8_t *from = (const int8_t *)x;
    int32_t sum = 0;
    for (int32_t left = steps * EC_DOT_STEP; left > 0; left -= 16) {
        sum = vaddvaq_s8(sum, vldrbq_z_s8(from, vctp8q((uint32_t)left)));
        from += 16;
    }
    return (uint32_t)sum;
}

/* Every `step`th word, as bytes; zeros where `some` says no. */
static inline int8x16_t ec_dot_words(const int8_t *from, int32_t place, int32_t step,
                                     mve_pred16_t some)
{
    const int32_t *words = (const int32_t *)(const void *)from + place;
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)step);
    return vreinterpretq_s8_s32(vldrwq_gather_shifted_offset_z_s32(words, at, some));
}

/* The products of `rows` (1 or 4) int8 rows with x. */
EC_INLINE void ec_dot_s8(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    const int8_t *from = (const int8_t *)x;
    int32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps >= 2; steps -= 2) {
        const int8x16_t v = vldrbq_s8(from);
        if (rows == 1) {
            sum[0] = vmladavaq_s8(sum[0], v, vldrbq_s8(weights));
        } else {
            const int32x4x4_t w = vld4q_s32((const int32_t *)(const void *)weights);
            EC_UNROLL for (int32_t row = 0; row < EC_DOT_ROWS; ++row) {
                sum[row] = vmladavaq_s8(sum[row], v, vreinterpretq_s8_s32(w.val[row]));
            }
        }
        weights += 2 * EC_DOT_STEP * rows;
        from += 2 * EC_DOT_STEP;
    }
    if (steps > 0) {
        const mve_pred16_t some = vctp32q(2);
        const int8x16_t v = ec_dot_words(from, 0, 1, some);
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            sum[row] = vmladavaq_s8(sum[row], v, ec_dot_words(weights, row, rows, some));
        }
    }
    memcpy(sums, sum, (uint32_t)rows * sizeof(sum[0]));
}

/* The products of `rows` (1 or 4) int4 rows with x, exact below 2^27: nibbles are taken as the high
 * ones of their bytes, 16 times too large. */
EC_INLINE void ec_dot_s4(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    const int8_t *from = (const int8_t *)x;
    int32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps > 0; steps -= 4) {
        const mve_pred16_t some = vctp32q((uint32_t)steps);
        const int8x16_t low = ec_dot_words(from, 0, 2, some);
        const int8x16_t high = ec_dot_words(from, 1, 2, some);
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            const int8x16_t w = ec_dot_words(weights, row, rows, some);
            sum[row] = vmladavaq_s8(sum[row], low, vshlq_n_s8(w, 4));
            sum[row] = vmladavaq_s8(sum[row], high, vandq_s8(w, vdupq_n_s8(-16)));
        }
        weights += 16 * rows;
        from += 32;
    }
    EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
        sums[row] = (uint32_t)(sum[row] >> 4);
    }
}

#endif
