/* The five steps of ec_winograd, on its buffers.
 *
 * Words hold two int16, a pair of input channels; a place is such a pair, `places` an even number.
 *   edges  [places][columns][4]  B d of a strip: for each column of inputs 4 values
 *   v      [places][16][2]       V of two neighbouring tiles
 *   u      [16][places][4]       U of four output channels
 *   sums   [16][4][2]            M, int32, of four output channels and two tiles
 * Positions of a tile are numbered row by row. Where there are up to EC_WINOGRAD_BLOCK_PLACES of
 * them, place j of u is that of place (places - j) % places of v; else they agree.
 *
 * All buffers are 16-byte aligned. Sums are modulo 2^32.
 */
#ifndef EC_WINOGRAD_STEPS_H
#define EC_WINOGRAD_STEPS_H

#include <stdint.h>

enum {
    EC_WINOGRAD_POSITIONS = 16,
    EC_WINOGRAD_GROUP = 4,       /* output channels */
    EC_WINOGRAD_PAIR = 2,        /* tiles */
    EC_WINOGRAD_TAPS = 9,
    EC_WINOGRAD_EDGE_WORDS = 4,  /* of a column */
    EC_WINOGRAD_PLACE_WORDS = EC_WINOGRAD_POSITIONS * EC_WINOGRAD_PAIR, /* of v */
    EC_WINOGRAD_SCALE_WORDS = 4,
    EC_WINOGRAD_BLOCK_PLACES = 8
};

/* U of four output channels from `weights`, [places / 2][4][9] words of four input channels; taps
 * in the order of the kernel's rows 0, 2, 1. */
void ec_winograd_weights(const uint32_t *weights, uint32_t *u, int32_t places);

/* B d of a strip's four `rows` of inputs, `width` pixels of `words` words each at any address.
 * `edges` is the first pixel's column, `block` the words from place to place. */
void ec_winograd_columns(const int8_t *const rows[4], uint32_t *edges, int32_t width, int32_t words,
                         int32_t block);

/* V of two tiles from their six columns; `edges` is the first. */
void ec_winograd_tiles(const uint32_t *edges, uint32_t *v, int32_t places, int32_t block);

/* M of two tiles and four output channels. */
void ec_winograd_product(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places);

/* A M A^T, and the four outputs of each of two tiles and four channels: `pixel` and `row` are the
 * bytes from output to output. `scales` as in ec_winograd_t. */
void ec_winograd_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                         int32_t row);

#endif
