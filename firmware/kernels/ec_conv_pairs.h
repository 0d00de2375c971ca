/* CONV_2D with int8 activations and weights, two pixels by four channels at a time, with the
 * weights of two channels in one halfword. */
#ifndef EC_CONV_PAIRS_H
#define EC_CONV_PAIRS_H

#include <stdint.h>

#include "ec_conv_shape.h"
#include "ec_decode.h"
#include "ec_unpack.h"

/* A window (what one output pixel sees) is taken in runs of `run` elements that lie side by side in
 * the input: one per kernel row, or with dilated columns (`runs_per_row` = kernel_width) one per
 * tap. Each becomes (run + 1) / 2 pairs of int16, `steps` pairs over all: of every four elements
 * (0, 2) and (1, 3), as SXTB16 gives them; of three left over (0, 2) and (1, nothing), of two
 * (0, 1), of one (0, nothing).
 *
 * `weights` is one block after the other, each for output channels 4 i to 4 i + 3 (missing ones
 * have any weights), in words:
 *   256 * b1 + b0, b0, 256 * b3 + b2, b2     b = bias - in_zero * (sum of the weights), mod 2^32
 *   per step two words, for channels 0 and 1, then 2 and 3: in the halfword of either element
 *                                            256 * (odd channel's weight) + (even channel's)
 *   per channel multiplier, rounding, right  the factor is multiplier * 2^(-31 - right) and
 *                                            rounding = (2 * (out_zero + 128) + 1) << (right - 1)
 * A product with such a word adds 256 * P + Q, with its even bytes Q alone: both are exact where
 * -2^23 <= P < 2^23. That, |Q| < 2^30, 1 <= right <= 22, and results that fit int16 before they are
 * saturated are for the caller to guarantee, whatever the input.
 *
 * `rectified` promises the range [out_zero, 127] with out_zero = -128: negative sums may then be
 * rounded either way. Otherwise results x + 128 are limited, four bytes at once, by saturating x
 * plus limits[0], minus limits[1], and adding limits[2] without carry: 255 - h, 255 - h + l and
 * l - 128 in every byte for the range [l - 128, h - 128].
 *
 * Where a window leaves the map, the input rows that an output row needs are first copied, padding
 * around them: `staged_row` elements each (a multiple of 4; 0: no copy is needed), of which
 * `staged_inside` come from the map, the first to place `staged_left`.
 *
 * Scratch, in bytes: 8 * steps for two expanded windows, and kernel_height * staged_row for an
 * output row, twice that where out_width is odd. Output pixels come in order (backwards where
 * `reverse`), two at a time; both have been read before either is written.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t in_zero;
    int32_t run;
    int32_t runs_per_row;
    int32_t steps;
    int32_t staged_row;
    int32_t staged_left;
    int32_t staged_inside;
    int32_t rectified;
    uint32_t limits[3];
    int32_t reverse;
    const uint32_t *weights;
} ec_conv_pairs_t;

void ec_conv_pairs_s8(const ec_conv_pairs_t *p, const int8_t *in, int8_t *out, void *scratch);

/* The same with packed weights, of which `part` blocks at a time are unpacked to the front of the
 * scratch; `conv` has no weights. All pixels are made for those channels, then for the next ones: the
 * output may not lie over the input. The scratch has room for `part` unpacked blocks more. */
typedef struct {
    ec_conv_pairs_t conv;
    int32_t part;
    ec_unpack_t unpack;
} ec_conv_pairs_packed_t;

void ec_conv_pairs_packed_s8(const ec_conv_pairs_packed_t *p, const int8_t *in, int8_t *out,
                             void *scratch);

/* The same with encoded weights. */
typedef struct {
    ec_conv_pairs_t conv;
    int32_t part;
    ec_decode_t decode;
} ec_conv_pairs_decoded_t;

void ec_conv_pairs_decoded_s8(const ec_conv_pairs_decoded_t *p, const int8_t *in, int8_t *out,
                              void *scratch);

#endif
