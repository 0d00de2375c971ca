/* DEPTHWISE_CONV_2D, kernels up to 3 x 3, in planes of vertical pairs: for cores with SMLAD. */
#ifndef EC_DEPTHWISE_PAIRS_H
#define EC_DEPTHWISE_PAIRS_H

#include <stdint.h>

#include "ec_conv_shape.h"

enum {
    EC_PAIRS_LANES = 4,      /* channels that are gathered at once */
    EC_PAIRS_FRACTION = 12,  /* fraction bits of a result of the short form */
    EC_PAIRS_CHANNEL = 40,   /* bytes of a channel's constants in scratch */
    EC_PAIRS_COLUMN = 16,    /* bytes of a column of a plane */
};

/* Output channel c sees input channel c; there are 4 or more. The kernel is made 3 x 3 with weights
 * of zero, strides are alike (1 or 2), dilations are 1, paddings before are 2 or less.
 *
 * `weights` holds per channel nine int8, column after column, and a spare one behind all. A `shifts` above 0 is a right
 * shift n in the short form: weights and bias times 2^k, k = EC_PAIRS_FRACTION + 1 - n, k >= 2,
 * with weights within int16 and sums within int32 after that; the sign of a sum does not matter,
 * as results below out_zero are limited anyhow. A `shifts` below 0 is the right shift negated in
 * the long form: any sum below 2^30. `limited`: results are limited to [low, high], within int8.
 *
 * Scratch, in bytes: 4 * EC_PAIRS_CHANNEL + 4 * EC_PAIRS_COLUMN * columns, where columns =
 * (out_width - 1) * stride + 3. Strips of 6 output rows (3 with stride 2) are made in order, one
 * image after the other, backwards where `reverse`. With `by_rows` a strip is read and written for
 * all channels before the next. Otherwise four channels are made for the whole image before the
 * next four, and the output may lie exactly over the input where the shapes are alike; the inputs
 * of a strip have been read, for these channels, before its outputs are written.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t in_zero;
    int32_t out_zero;
    int32_t limited;
    int32_t low;
    int32_t high;
    int32_t reverse;
    int32_t by_rows;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_depthwise_pairs_t;

/* Stride 1. */
void ec_depthwise_pairs_s8(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                           void *scratch);

/* Stride 2. */
void ec_depthwise_pairs_stride2_s8(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                                   void *scratch);

#endif
