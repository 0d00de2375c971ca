/* CONV_2D with int8 activations and weights, 3x3 taps and stride 1: exact integer Winograd along the
 * rows, F(1x4), in little scratch.
 *
 * 4 outputs of a row are made of 6 inputs in each of 3 rows, with 18 multiplications per channel
 * instead of 36. With G, B and A of ec_winograd_4x4, U = w G^T and V = d B^T, M is the sum over
 * channels and the three rows of U * V, and A M is 24 times the sums; 4 of that come out by halving
 * early, 3 by a multiplication. |U| <= 7 * 128 and -2040 <= V <= 1275 are halfwords.
 *
 * Of ec_winograd_t, `strips` is the rows of a band, at least 1; `weights` are in the order of the
 * kernel's rows 0, 1, 2; the bias in `scales` is -6 * (bias - (in_zero + 128) * sum of the weights),
 * modulo 2^32. With m[j] a bound on |M|,
 *   m[3] + m[4] < 2^31 and 3 m[0] + (m[3] + m[4]) / 2 < 2^31, and 6 times a sum is below 2^31.
 *
 * Scratch, in words, for `pairs` of tiles in a row, 8 outputs each:
 *   (strips + 2) * pairs * 6 * n + max((8 * pairs + 2) * n / 4, 36 * n + 48)
 */
#ifndef EC_WINOGRAD_1X4_H
#define EC_WINOGRAD_1X4_H

#include "ec_winograd_map.h"

void ec_winograd_1x4_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
