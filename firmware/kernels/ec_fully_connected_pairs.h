/* FULLY_CONNECTED with int8 activations and weights, eight outputs at a time, with the weights of two
 * outputs in one halfword. */
#ifndef EC_FULLY_CONNECTED_PAIRS_H
#define EC_FULLY_CONNECTED_PAIRS_H

#include <stdint.h>

#include "ec_decode.h"

/* A row of inputs is padded with zeros to a multiple of 4 and becomes `steps` pairs of int16: of
 * every four elements (0, 2) and (1, 3), as SXTB16 gives them.
 *
 * `weights` is one block after the other, each for outputs 8 i to 8 i + 7 (missing ones have any
 * weights), in words:
 *   for outputs 0 and 1, 2 and 3, ...    256 * b1 + b0, b0
 *                                        b = bias - in_zero * (sum of the weights), mod 2^32
 *   per step a word for 0 and 1, ...     in the halfword of either element
 *                                        256 * (odd output's weight) + (even output's)
 * A product with such a word adds 256 * P + Q, with its even bytes Q alone: both are exact where
 * -2^23 <= P < 2^23.
 *
 * ec_fully_connected_pairs_packed_s8 has in each block those of all steps packed, `bits` per weight
 * (ec_unpack.h).
 *
 * `scales` is multiplier, rounding, right: the factor is multiplier * 2^(-31 - right) and rounding =
 * (2 * (out_zero + 128) + 1) << (right - 1). Output c has those at c * scale_step: 3, with zeros for
 * the missing outputs of the last block; or 0, the same for all.
 *
 * The bound above, |Q| < 2^30, 1 <= right <= 22, and results that fit int16 before they are saturated
 * are for the caller to guarantee, whatever the input. `limits` is as for ec_conv_pairs_t.
 *
 * Scratch, in bytes: 4 * steps, and for packed or encoded weights 32 + 16 * steps more. A row of inputs
 * is read before its outputs are written.
 */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    int32_t steps;
    int32_t scale_step;
    uint32_t limits[3];
    int32_t bits;
    const uint32_t *weights;
    const uint32_t *scales;
} ec_fully_connected_pairs_t;

void ec_fully_connected_pairs_s8(const ec_fully_connected_pairs_t *p, const int8_t *in, int8_t *out,
                                 void *scratch);

void ec_fully_connected_pairs_packed_s8(const ec_fully_connected_pairs_t *p, const int8_t *in,
                                        int8_t *out, void *scratch);

/* The same with encoded weights: `decode` is for one block, and `matrix` has no weights. */
typedef struct {
    ec_fully_connected_pairs_t matrix;
    ec_decode_t decode;
} ec_fully_connected_pairs_decoded_t;

void ec_fully_connected_pairs_decoded_s8(const ec_fully_connected_pairs_decoded_t *p,
                                         const int8_t *in, int8_t *out, void *scratch);

#endif
