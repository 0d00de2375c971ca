/* CONV_2D with int8 activations and weights, 3x3 taps and stride 1: exact integer Winograd, F(4x4).
 *
 * 4x4 outputs are made of 6x6 inputs with 36 multiplications per channel instead of 144. With
 *
 *        | 1  0  0 |        | 4  0 -5  0  1  0 |
 *        | 1  1  1 |        | 0 -4 -4  1  1  0 |        | 6 -4 -4  1  1  0 |
 *   G =  | 1 -1  1 |    B = | 0  4 -4 -1  1  0 |    A = | 0 -4  4  2 -2  0 |
 *        | 1  2  4 |        | 0 -2 -1  2  1  0 |        | 0 -4 -4  4  4  0 |
 *        | 1 -2  4 |        | 0  2 -1 -2  1  0 |        | 0 -4  4  8 -8 24 |
 *        | 0  0  1 |        | 0  4  0 -5  0  1 |
 *
 * A M A^T is 576 times the sums; 16 of that come out by halving early, 18 by a multiplication.
 * Inputs are taken as stored plus 128, padding is the zero point plus 128, and the bias makes up for
 * it. |U| <= 49 * 128 and -8160 <= V <= 17340 are halfwords.
 *
 * Place j of the weights meets channels 4 * (j / 2) + j % 2 and that + 2. The bias in `scales` is
 * 36 * (bias - (in_zero + 128) * sum of the weights), modulo 2^32. Sums are modulo 2^32 too, but what
 * is halved must not wrap: with m[i][j] a bound on |M|, and c[j] on a quarter of A M, for every j
 *   m[3][j] + m[4][j] < 2^31 and 3 m[0][j] + (m[3][j] + m[4][j]) / 2 < 2^31,
 * the same for c, and 36 times an output's sum below 2^31.
 */
#ifndef EC_WINOGRAD_4X4_H
#define EC_WINOGRAD_4X4_H

#include "ec_winograd_map.h"

void ec_winograd_4x4_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
