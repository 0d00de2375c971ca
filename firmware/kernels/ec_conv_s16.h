/* CONV_2D with int16 activations and int8 weights, four pixels by two channels at a time. */
#ifndef EC_CONV_S16_H
#define EC_CONV_S16_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* Pairs of inputs whose products fit 32 bits, whatever the operands: 2 * 255 * 2^22 < 2^31. */
enum { EC_CONV_S16_SEGMENT = 255 };

/* A window (what one output pixel sees) is taken in runs of `run` elements that lie side by side in
 * the input: one per kernel row, or with dilated columns (`runs_per_row` = kernel_width) one per
 * tap. Each becomes (run + 1) / 2 pairs of int16, `steps` pairs over all.
 *
 * `weights` is one block after the other, each for output channels 2 i and 2 i + 1 (a missing one is
 * zeros), in words. Of every pair of inputs one word of weights: the even channel's in bytes 0 and 2,
 * the odd one's in bytes 1 and 3. There are two forms.
 *
 * `multipliers` NULL: a block is the biases of both channels, the `steps` words, and the factors f of
 * both; the result is round(sum * f / 2^32), halves up. That the sums fit int32 is for the caller to
 * guarantee, whatever the input.
 *
 * Otherwise words come in segments of EC_CONV_S16_SEGMENT (the last one shorter), two words of zeros
 * before each. The factor of channel c is multipliers[c] * 2^(shifts[c] - 31). With `wide` the sums
 * have 64 bits, results are rounded once by a multiplier cut to 16 bits, and shifts are at most 7;
 * without it they have 32 bits and results are rounded twice. `bias` may be NULL.
 *
 * `ending` is 0 where the range [low, high] is that of int16, 1 where it is [0, 32767], otherwise 2.
 *
 * Scratch, in bytes: 16 * steps for four windows. Output pixels come in order (backwards where
 * `reverse`), four at a time; all have been read before one is written.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t run;
    int32_t runs_per_row;
    int32_t steps;
    int32_t ending;
    int32_t low;
    int32_t high;
    int32_t wide;
    int32_t reverse;
    const uint32_t *weights;
    const int64_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_conv_s16_t;

void ec_conv_s16(const ec_conv_s16_t *p, const int16_t *in, int16_t *out, void *scratch);

#endif
