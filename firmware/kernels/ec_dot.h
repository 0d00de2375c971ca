/* Products of int8 or int4 weight rows with a vector of int8, shared by the matrix kernels.
 *
 * Vectors are expanded once to int16, four elements at a time in the order 0, 2, 1, 3 that SXTB16
 * gives a word of int8 weights, and padded with zeros to a multiple of EC_DOT_STEP elements; with
 * Helium they stay bytes.
 *
 * Weight rows are padded with zeros to whole steps. Rows come in fours, interleaved: four weights of
 * row 0, four of row 1, ...; up to three rows at the end stand alone. With int4, eight weights share
 * a word: the first four in the low nibbles of its bytes, the others in the high nibbles.
 *
 * All sums are modulo 2^32.
 */
#ifndef EC_DOT_H
#define EC_DOT_H

#include <stdint.h>

#include "ec_math.h"

/* Loads below stay below: gathered at the top they would not fit the registers. */
#define EC_DOT_ORDER __asm__ volatile("" ::: "memory")

#define EC_DOT_NIBBLES 0xF0F0F0F0u

enum { EC_DOT_STEP = 8, EC_DOT_ROWS = 4 };

/* Steps that `count` elements take. */
static inline int32_t ec_dot_steps(int32_t count)
{
    return (count + EC_DOT_STEP - 1) / EC_DOT_STEP;
}

#if defined(EC_WITH_MVE)
#include "ec_dot_mve.h"
#else

/* `count` elements of `from`, expanded to ec_dot_steps(count) * EC_DOT_STEP elements at `to`. */
static inline void ec_dot_expand(const int8_t *from, int32_t count, int16_t *to)
{
    int32_t left = ec_dot_steps(count) * EC_DOT_STEP;
    for (; count > 0; count -= 4, left -= 4) {
        uint32_t word = 0;
        if (count >= 4) {
            word = ec_load_u32(from);
        } else {
            memcpy(&word, from, (uint32_t)count);
        }
        const uint32_t pairs[2] = {ec_bytes_even(word), ec_bytes_odd(word)};
        memcpy(to, pairs, sizeof(pairs));
        from += 4;
        to += 4;
    }
    memset(to, 0, (uint32_t)left * sizeof(int16_t));
}

/* The sum of an expanded vector. */
static inline uint32_t ec_dot_sum(const int16_t *x, int32_t steps)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < steps * EC_DOT_STEP; ++i) {
        sum += x[i];
    }
    return (uint32_t)sum;
}

/* Eight aligned bytes at once (LDRD on Arm). */
static inline uint64_t ec_dot_load(const void *at)
{
    uint64_t both;
    memcpy(&both, __builtin_assume_aligned(at, 8), sizeof(both));
    return both;
}

/* Adds the products of four int8 weights and four expanded elements. */
static inline uint32_t ec_dot_word(uint32_t weights, const int16_t *x, uint32_t sum)
{
#if defined(EC_WITH_DSP)
    const uint64_t four = ec_dot_load(x);
    sum = ec_mac_pair(ec_bytes_even(weights), (uint32_t)four, sum);
    return ec_mac_pair(ec_bytes_odd(weights), (uint32_t)(four >> 32), sum);
#else
    sum += (uint32_t)((int8_t)weights * x[0]);
    sum += (uint32_t)((int8_t)(weights >> 16) * x[1]);
    sum += (uint32_t)((int8_t)(weights >> 8) * x[2]);
    return sum + (uint32_t)((int8_t)(weights >> 24) * x[3]);
#endif
}

#if !defined(EC_WITH_DSP)
/* The products of `rows` (1 or 4) int8 rows with x, byte by byte. */
EC_INLINE void ec_dot_s8(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    uint32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (steps *= 2; steps > 0; --steps) {
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            const int8_t *four = weights + 4 * row;
            sum[row] += (uint32_t)(four[0] * x[0]);
            sum[row] += (uint32_t)(four[2] * x[1]);
            sum[row] += (uint32_t)(four[1] * x[2]);
            sum[row] += (uint32_t)(four[3] * x[3]);
        }
        weights += 4 * rows;
        x += 4;
    }
    memcpy(sums, sum, (uint32_t)rows * sizeof(sum[0]));
}
#else
/* The products of `rows` (1 or 4) int8 rows with x. */
EC_INLINE void ec_dot_s8(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    uint32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps > 0; --steps) {
        EC_UNROLL for (int32_t part = 0; part < 2; ++part) {
            if (rows == 1) {
                sum[0] = ec_dot_word(ec_load_u32(weights + 4 * part), x + 4 * part, sum[0]);
                continue;
            }
            EC_UNROLL for (int32_t row = 0; row < rows; row += 2) {
                const uint64_t words = ec_dot_load(weights + 4 * (part * rows + row));
                sum[row] = ec_dot_word((uint32_t)words, x + 4 * part, sum[row]);
                sum[row + 1] =
                    ec_dot_word((uint32_t)(words >> 32), x + 4 * part, sum[row + 1]);
            }
            EC_DOT_ORDER;
        }
        weights += EC_DOT_STEP * rows;
        x += EC_DOT_STEP;
    }
    memcpy(sums, sum, (uint32_t)rows * sizeof(sum[0]));
}
#endif

/* The products of `rows` (1 or 4) int4 rows with x, exact below 2^27: nibbles are taken as the high
 * ones of their bytes, 16 times too large. */
EC_INLINE void ec_dot_s4(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    uint32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps > 0; --steps) {
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            const uint32_t eight = ec_load_u32(weights + 4 * row);
            sum[row] = ec_dot_word((eight << 4) & EC_DOT_NIBBLES, x, sum[row]);
            sum[row] = ec_dot_word(eight & EC_DOT_NIBBLES, x + 4, sum[row]);
        }
        weights += 4 * rows;
        x += EC_DOT_STEP;
    }
    for (int32_t row = 0; row < rows; ++row) {
        sums[row] = (uint32_t)((int32_t)sum[row] >> 4);
    }
}
#endif

#endif
