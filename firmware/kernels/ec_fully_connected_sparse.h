/* FULLY_CONNECTED with int8 activations and few int8 weights other than 0: only those are stored, and
 * only those are multiplied. */
#ifndef EC_FULLY_CONNECTED_SPARSE_H
#define EC_FULLY_CONNECTED_SPARSE_H

#include <stdint.h>

/* `weights` is one output after the other, in words (docs/sparse-weights.md):
 *   bias - in_zero * (sum of the weights), modulo 2^32
 *   multiplier
 *   steps + (right - 1) * 2^16 + right * 2^24
 *   per step two words, each of two entries: gap + 256 * (byte of the weight) in 16 bits, the first in
 *   the low half
 * An entry's input lies `gap` behind that of the entry before (the first: behind input 0). What fills
 * up a step, or a distance above 255, has a weight of 0.
 *
 * ec_fully_connected_sparse_coded_s8 has one word per step, of four entries: 16 * gap + (place of the
 * weight among `values`) in 8 bits, the first in the low ones.
 *
 * ec_fully_connected_sparse_masked_s8 has a word per 32 inputs (`steps` of them), the first in the lowest
 * bit: whether its weight is not 0; then the bytes of those weights, filled up to a word.
 *
 * The factor is multiplier * 2^(-31 - right); `half` is 2 * (out_zero + 128) + 1, `limits` as in
 * ec_conv_pairs_t. Sums below 2^30 - 2^14 whatever the input, and 1 <= right <= 22, are for the caller to
 * guarantee. An output is written before all inputs of its row have been read.
 */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    int32_t half;
    uint32_t limits[3];
    int8_t values[16];
    const uint32_t *weights;
} ec_fully_connected_sparse_t;

void ec_fully_connected_sparse_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                  int8_t *out);

void ec_fully_connected_sparse_coded_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                        int8_t *out);

void ec_fully_connected_sparse_masked_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                         int8_t *out);

#endif
