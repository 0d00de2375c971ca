/* Weights without those of 0, or as places in a list of values, in flash; words of four bytes again in
 * memory. docs/sparse-weights.md. */
#ifndef EC_DECODE_H
#define EC_DECODE_H

#include <stdint.h>

/* `blocks` blocks, each of `head` words as they are, `words` decoded ones and, where `scaled`, the scales of
 * four output channels as ec_unpack gives them. In `packed` a block is its head, where `scaled` the
 * four multipliers and a word with a byte for each right, then
 *   where `masked` a bit per weight, the first in the lowest: whether it is one of the fields; others are 0
 *   the fields, the first in the lowest: 1 to 5 `bits`, places in `values`, or where `masked` 8, the weights
 * either filled up to a whole word. `paired`: two weights become 256 times the second plus the first, in a
 * halfword. Written, in words: blocks * (head + words + 12 if scaled). */
typedef struct {
    int32_t blocks;
    int32_t head;
    int32_t words;
    int32_t scaled;
    int32_t half;
    int32_t paired;
    int32_t masked;
    int32_t bits;
    int8_t values[32];
    const uint32_t *packed;
} ec_decode_t;

/* Returns what is behind the last block in `packed`. */
const uint32_t *ec_decode(const ec_decode_t *p, void *to);

#endif
