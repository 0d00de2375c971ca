/* CONV_2D with int8 activations and weights, 3x3 taps and stride 1: exact integer Winograd.
 *
 * F(2x2, 3x3): a tile is 2x2 outputs, made of 4x4 inputs with 16 multiplications per channel
 * instead of 36. With
 *
 *        | 1  0  0 |        | 1  0 -1  0 |
 *   G =  | 1  1  1 |    B = | 0  1  1  0 |    A = | 2  1  1  0 |
 *        | 1 -1  1 |        | 0 -1  1  0 |        | 0  1 -1 -2 |
 *        | 0  0  1 |        | 0  1  0 -1 |
 *
 * U = G w G^T of the weights w, V = B d B^T of the inputs d, M the sum over channels of U * V
 * (element by element), A M A^T is 4 times the 2x2 sums: G has no halves, so that nothing is ever
 * rounded. |U| <= 1152 and |V| <= 512 are halfwords. Inputs are taken as stored, padding is the
 * zero point, and the bias makes up for it (as in ec_conv).
 */
#ifndef EC_WINOGRAD_H
#define EC_WINOGRAD_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* in_channels (n below) is a multiple of 4; out_channels may be any, they are taken in groups of 4,
 * the last filled up with zeros. A strip is a row of tiles, two rows of outputs; `pairs` below is
 * how many pairs of tiles cover it, with 4 * pairs + 2 columns of inputs.
 *
 * `strips` is 0: U of the whole layer is made first, then strip after strip. Or strips are taken
 * `strips` at a time (a band): V of all of them, then U and the outputs, group after group.
 *
 * `weights` are words of 4 input channels, [group][n / 4][4 output channels][9 taps], the taps in
 * the order of the kernel's rows 0, 2, 1. Bytes 0 and 2 of word number w go to place 2 * w of U,
 * bytes 1 and 3 to place 2 * w + 1, where place j meets channels 4 * (v / 2) + v % 2 and that + 2
 * with v = j; but v = (n / 2 - j) % (n / 2) where n <= 16.
 *
 * `scales` is {4 * (bias - in_zero * sum of the weights), multiplier, rounding, shift} for each
 * output channel, groups filled up: the factor is multiplier * 2^(-31 - shift) with
 * 1 <= shift <= 22, rounding = ec_rounding_of(output's zero point, shift). With S the sum of the
 * absolute weights and b the folded bias, 4 * (384 * S + |b|) < 2^31 keeps all sums in 32 bits.
 * `limited` is set where low > -128 or high < 127.
 *
 * Scratch, in words, c = the 4 * pairs + 2 columns; Z = in_width * n / 4 where tiles reach above or
 * below the map, else 0:
 *   strips == 0: groups * 32 * n + 2 * n * c + max(16 * n + 128, Z)
 *   else:        strips * pairs * 16 * n + max(2 * n * c + Z, 32 * n + 128)
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

void ec_winograd_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
