/* Constants of 2 to 7 bits in flash, words of four bytes again in memory. docs/packed-weights.md. */
#ifndef EC_UNPACK_H
#define EC_UNPACK_H

#include <stdint.h>

enum { EC_UNPACK_GROUP = 8 };

/* Words that `count` words take packed, in whole groups. */
static inline int32_t ec_packed_words(int32_t count, int32_t bits)
{
    return (count + EC_UNPACK_GROUP - 1) / EC_UNPACK_GROUP * bits;
}

/* Unpacks `count` words (more than 0), rounded up to whole groups of eight. */
void ec_unpack_words(const uint32_t *from, int32_t bits, int32_t count, uint32_t *to);

/* `blocks` blocks: `head` words as they are, `words` packed ones (more than 0) and, where `scaled`, the
 * scales of four output channels as in ec_conv_pairs.h: multiplier, rounding = half << (right - 1),
 * right. In `packed` a block is its head, where `scaled` the four multipliers and a word with a byte
 * for each right, and the packed words.
 *
 * Written, in words: blocks * (head + words + 12 if scaled), and without scales up to seven behind. */
typedef struct {
    int32_t bits;
    int32_t blocks;
    int32_t head;
    int32_t words;
    int32_t scaled;
    int32_t half;
    const uint32_t *packed;
} ec_unpack_t;

/* Returns what is behind the last block in `packed`. */
const uint32_t *ec_unpack(const ec_unpack_t *p, void *to);

#endif
