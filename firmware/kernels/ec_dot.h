/* Products of int8 or int4 weight rows with a vector of int8, shared by the matrix kernels.
 *
 * Vectors are expanded once to int16, four elements at a time in the order 0, 2, 1, 3 that SXTB16
 * gives a word of int8 weights, and padded with zeros to a multiple of EC_DOT_STEP elements.
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

/* The loop that follows runs at most four times and becomes straight code. */
#define EC_UNROLL _Pragma("GCC unroll 4")

/* Loads below stay below: gathered at the top they would not fit the registers. */
#define EC_DOT_ORDER __asm__ volatile("" ::: "memory")

enum { EC_DOT_STEP = 8, EC_DOT_ROWS = 4 };

/* Steps that `count` elements take. */
static inline int32_t ec_dot_steps(int32_t count)
{
    return (count + EC_DOT_STEP - 1) / EC_DOT_STEP;
}

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

/* Two expanded elements as one word. */
static inline uint32_t ec_dot_pair(const int16_t *x)
{
    uint32_t pair;
    memcpy(&pair, x, sizeof(pair));
    return pair;
}

/* Adds the products of four int8 weights and four expanded elements. */
static inline uint32_t ec_dot_word(uint32_t weights, const int16_t *x, uint32_t sum)
{
    sum = ec_mac_pair(ec_bytes_even(weights), ec_dot_pair(x), sum);
    return ec_mac_pair(ec_bytes_odd(weights), ec_dot_pair(x + 2), sum);
}

/* Adds 16 times the products of eight int4 weights and eight expanded elements. */
static inline uint32_t ec_dot_nibbles(uint32_t weights, const int16_t *x, uint32_t sum)
{
    sum = ec_dot_word((weights << 4) & 0xF0F0F0F0u, x, sum);
    return ec_dot_word(weights & 0xF0F0F0F0u, x + 4, sum);
}

/* The products of `rows` (1 or 4) int8 rows with x. */
EC_INLINE void ec_dot_s8(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    uint32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps > 0; --steps) {
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            sum[row] = ec_dot_word(ec_load_u32(weights + 4 * row), x, sum[row]);
        }
        EC_DOT_ORDER;
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            sum[row] = ec_dot_word(ec_load_u32(weights + 4 * (rows + row)), x + 4, sum[row]);
        }
        weights += EC_DOT_STEP * rows;
        x += EC_DOT_STEP;
    }
    memcpy(sums, sum, (uint32_t)rows * sizeof(sum[0]));
}

/* The products of `rows` (1 or 4) int4 rows with x; exact below 2^27. */
EC_INLINE void ec_dot_s4(const int8_t *weights, const int16_t *x, int32_t steps, int32_t rows,
                         uint32_t *sums)
{
    uint32_t sum[EC_DOT_ROWS] = {0, 0, 0, 0};
    for (; steps > 0; --steps) {
        EC_UNROLL for (int32_t row = 0; row < rows; ++row) {
            sum[row] = ec_dot_nibbles(ec_load_u32(weights + 4 * row), x, sum[row]);
        }
        weights += 4 * rows;
        x += EC_DOT_STEP;
    }
    for (int32_t row = 0; row < rows; ++row) {
        sums[row] = (uint32_t)((int32_t)sum[row] >> 4);
    }
}

#endif
