/* What the forms of ec_winograd share: parameters, and the walk over a map.
 *
 * A tile is `tile` x `tile` outputs, made of as many inputs and two more each way. With U = G w G^T
 * of the weights w, V = B d B^T of the inputs d and M the sum over channels of U * V (element by
 * element), A M A^T is a multiple of the tile's sums: G, B and A are matrices of integers, so that
 * nothing is ever rounded (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks").
 */
#ifndef EC_WINOGRAD_MAP_H
#define EC_WINOGRAD_MAP_H

#include <stdint.h>

#include "ec_conv_shape.h"

enum {
    EC_WINOGRAD_GROUP = 4,       /* output channels made at once */
    EC_WINOGRAD_PAIR = 2,        /* neighbouring tiles made at once */
    EC_WINOGRAD_TAPS = 9,
    EC_WINOGRAD_MOST_TILE = 4,
    EC_WINOGRAD_SCALE_WORDS = 4
};

/* in_channels (n below) is a multiple of 4; out_channels may be any, they are taken in groups of 4,
 * the last filled up with zeros. A strip is a row of tiles; `pairs` below is how many pairs of tiles
 * cover it, with 2 * tile * pairs + 2 columns of inputs.
 *
 * `strips` is 0: U of the whole layer is made first, then strip after strip. Or strips are taken
 * `strips` at a time (a band): V of all of them, then U and the outputs, group after group.
 *
 * `weights` are words of 4 input channels, [group][n / 4][4 output channels][9 taps], the taps in
 * the order of the kernel's rows 0, 2, 1. Bytes 0 and 2 of word number w go to place 2 * w of U,
 * bytes 1 and 3 to place 2 * w + 1; which channels meet there the form says.
 *
 * `scales` is {bias, multiplier, rounding, shift} for each output channel, groups filled up: the
 * factor is multiplier * 2^(-31 - shift) with 1 <= shift <= 22, rounding = ec_rounding_of(output's
 * zero point, shift); the bias and the bounds on sums are the form's. `limited` is set where
 * low > -128 or high < 127.
 *
 * Scratch, in words, for k = tile + 2, c = the 2 * tile * pairs + 2 columns; Z, where tiles reach
 * above or below the map, the in_width * n / 4 of a row of inputs (k rows where tile is 4), else 0:
 *   strips == 0: groups * 2 * k * k * n + k * n * c / 2 + max(k * k * n + 8 * k * k, Z)
 *   else:        strips * pairs * k * k * n + max(k * n * c / 2 + Z, 2 * k * k * n + 8 * k * k)
 * Bands (strips one by one, for `strips` 0) come in order, or backwards where `reverse`; each has
 * been read when the first of its outputs is written. Bands do not reach across images.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t in_zero;
    int32_t limited;
    int32_t low;
    int32_t high;
    int32_t reverse;
    int32_t strips;
    const uint32_t *weights;
    const int32_t *scales;
} ec_winograd_t;

/* Makes the outputs of two tiles and four channels: `pixel` and `row` are the bytes from output to
 * output. `scales` as in ec_winograd_t. */
typedef void (*ec_winograd_outputs_t)(const int32_t *sums, const int32_t *scales, int8_t *out,
                                      int32_t pixel, int32_t row);

/* A form: its sizes, and its steps on buffers of words that hold two int16, a pair of input channels
 * (a place is such a pair, `places` an even number):
 *   edges  [places][columns][k], or [places][k][columns] where `edges_by_row`: B d of a strip
 *   v      V of two neighbouring tiles, k * k * places * 2 words
 *   u      U of four output channels, k * k * places * 4 words
 *   sums   [k * k][4][2]: M, int32, of four output channels and two tiles
 * Positions of a tile are numbered row by row; the form orders v and u. All buffers are 16-byte
 * aligned. Sums are modulo 2^32. */
typedef struct {
    int32_t tile;
    int32_t edges_by_row;

    /* `rows` lie at equal distances; otherwise each lies anywhere. */
    int32_t rows_together;

    /* U of four output channels from `weights`, [places / 2][4][9] words. */
    void (*weights)(const uint32_t *weights, uint32_t *u, int32_t places);

    /* B d of a strip's `rows` of inputs, `width` pixels of `words` words each at any address.
     * `edges` is the first pixel's column. */
    void (*columns)(const int8_t *const *rows, uint32_t *edges, int32_t width, int32_t words,
                    int32_t columns);

    /* V of two tiles from their columns; `edges` is the first. */
    void (*tiles)(const uint32_t *edges, uint32_t *v, int32_t places, int32_t columns);

    /* M of two tiles and four output channels. */
    void (*product)(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places);

    ec_winograd_outputs_t outputs;
} ec_winograd_steps_t;

/* The convolution in the form of `steps`; `pad` is value 1 of B d where d is padding alone, all
 * other values are 0. */
void ec_winograd_map(const ec_winograd_t *p, const ec_winograd_steps_t *steps, uint32_t pad,
                     const int8_t *in, int8_t *out, void *scratch);

#endif
