/* FULLY_CONNECTED with int16 activations and int8 weights, six outputs at a time, with the weights of
 * two outputs in one halfword. */
#ifndef EC_FULLY_CONNECTED_PAIRS_S16_H
#define EC_FULLY_CONNECTED_PAIRS_S16_H

#include <stdint.h>

/* A row of inputs is taken as `steps` pairs, the last one with a zero where `inputs` is odd.
 *
 * `weights` is one block after the other, each for outputs 6 i to 6 i + 5 (missing ones have any
 * weights), in words:
 *   b4; 256 * b1 + b0, 256 * b3 + b2, 256 * b5 + b4 in 64 bits each; b0, b2       b = bias
 *   per step a word for outputs 0 and 1, 2 and 3, 4 and 5: in the halfword of either input
 *   256 * (odd output's weight) + (even output's)
 * The product of an input with such a halfword adds 256 * P + Q (kept in 64 bits), with its low byte
 * Q; the result for a sum is round(sum * factor / 2^32), halves up. That all sums fit int32 is for the
 * caller to guarantee, whatever the input.
 *
 * `limited` is set where [low, high] is not all of int16.
 *
 * Scratch, in bytes: 4 * steps where `inputs` is odd, else none. A row of inputs is needed until all
 * its outputs are written.
 */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    int32_t steps;
    int32_t factor;
    int32_t limited;
    int32_t low;
    int32_t high;
    const uint32_t *weights;
} ec_fully_connected_pairs_s16_t;

void ec_fully_connected_pairs_s16(const ec_fully_connected_pairs_s16_t *p, const int16_t *in,
                                  int16_t *out, void *scratch);

#endif
