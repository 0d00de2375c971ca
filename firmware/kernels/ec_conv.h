/* CONV_2D with int8 activations and int8 or int4 weights, as a matrix product. */
#ifndef EC_CONV_H
#define EC_CONV_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* Output channels are spread evenly over `groups`; each sees in_channels / groups inputs.
 *
 * `words` is the weight words of one output channel, first weight in the low bits, padded with zeros
 * to 8 weights: two words for 8 int8, one for 8 int4 (four in the low nibbles, then four in the high
 * ones). Within a group two channels are interleaved word by word; the last of an odd number stands
 * alone. Behind the last word come zeros up to a whole number of vectors of four words per channel:
 * Helium reads them. `bias` holds bias - in_zero * (sum of the weights), modulo 2^32: padding is
 * in_zero, so that the input's zero point needs no further care.
 *
 * Every channel's factor is multiplier * 2^(-31 - shift) with 1 <= shift <= 22, and its accumulator
 * below 2^30 - 2^14 (2^27 with int4) whatever the input (ec_requantize_right). `limited` is set where
 * low > -128 or high < 127.
 *
 * Scratch, in bytes: with n weights per channel after padding, 4 * n for the inputs of two pixels,
 * and n more where in_channels / groups is no multiple of 4; at least 64. Output pixels come in order
 * (backwards where `reverse`), two at a time: with one group both have been read before either is
 * written.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t groups;
    int32_t words;
    int32_t in_zero;
    int32_t out_zero;
    int32_t limited;
    int32_t low;
    int32_t high;
    int32_t reverse;
    const uint32_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_conv_t;

void ec_conv_s8(const ec_conv_t *p, const int8_t *in, int8_t *out, void *scratch);

/* With int4 weights. */
void ec_conv_s4(const ec_conv_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
