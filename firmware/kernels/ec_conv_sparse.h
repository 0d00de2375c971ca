/* CONV_2D with int8 activations and few int8 weights other than 0, four pixels at a time: pairs of
 * weights are stored, and multiplied, where one of them is not 0. */
#ifndef EC_CONV_SPARSE_H
#define EC_CONV_SPARSE_H

#include <stdint.h>

#include "ec_conv_pairs.h"

/* `conv` says what the windows are, as in ec_conv_pairs.h, with neither weights nor `rectified`; its
 * elements are expanded in their order, (0, 1), (2, 3), ..., each run padded to an even number.
 *
 * `heads` is three words per output channel:
 *   bias - in_zero * (sum of the weights), modulo 2^32
 *   multiplier
 *   entries + (right - 1) * 2^16 + right * 2^24
 * and `weights` the entries of one channel after the other, three bytes each: the weight of the first
 * element, 16 times the pairs that lie between it and the pair of the entry before (the first: before
 * it), the weight of the second element. One byte follows the last entry. What bridges more than 15 pairs
 * has weights of 0.
 *
 * The factor is multiplier * 2^(-31 - right), `half` is 2 * (out_zero + 128) + 1. Sums below 2^30 - 2^14
 * whatever the input, 1 <= right <= 22, and results that fit int16 before they are saturated are for the
 * caller to guarantee.
 *
 * Scratch, in bytes: 16 * steps for four expanded windows, kernel_height * staged_row for each of
 * `slots` (the output rows that four pixels may lie in, or the next power of two: 1, 2 or 4), and
 * 4 * out_channels where the number of pixels is no multiple of four. Output pixels come in order
 * (backwards where `reverse`), four at a time; all have been read before one is written.
 */
typedef struct {
    ec_conv_pairs_t conv;
    int32_t half;
    int32_t slots;
    int32_t reverse;
    const uint32_t *heads;
    const uint8_t *weights;
} ec_conv_sparse_t;

void ec_conv_sparse_s8(const ec_conv_sparse_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
