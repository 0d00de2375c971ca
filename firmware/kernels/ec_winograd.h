/* CONV_2D with int8 activations and weights, 3x3 taps and stride 1: exact integer Winograd, F(2x2).
 *
 * 2x2 outputs are made of 4x4 inputs with 16 multiplications per channel instead of 36. With
 *
 *        | 1  0  0 |        | 1  0 -1  0 |
 *   G =  | 1  1  1 |    B = | 0  1  1  0 |    A = | 2  1  1  0 |
 *        | 1 -1  1 |        | 0 -1  1  0 |        | 0  1 -1 -2 |
 *        | 0  0  1 |        | 0  1  0 -1 |
 *
 * A M A^T is 4 times the sums: G has no halves. |U| <= 1152 and |V| <= 512 are halfwords. Inputs are
 * taken as stored, padding is the zero point, and the bias makes up for it (as in ec_conv).
 *
 * Place j of the weights meets channels 4 * (v / 2) + v % 2 and that + 2 with v = j; but
 * v = (n / 2 - j) % (n / 2) where n <= 16. The bias in `scales` is 4 * (bias - in_zero * sum of the
 * weights). With S the sum of the absolute weights and b the folded bias, 4 * (384 * S + |b|) < 2^31
 * keeps all sums in 32 bits.
 */
#ifndef EC_WINOGRAD_H
#define EC_WINOGRAD_H

#include "ec_winograd_map.h"

void ec_winograd_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
