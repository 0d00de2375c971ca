/* TRANSPOSE_CONV for int8, int16 and float32 activations. */
#ifndef EC_TRANSPOSE_CONV_H
#define EC_TRANSPOSE_CONV_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* Here the kernel slides over the output: tap (ky, kx) of input (y, x) meets the output at row
 * y * stride_height - pad_top + ky, and columns alike; dilations are 1. Weights are in the order
 * output channel, kernel row, kernel column, input channel. A channel's factor is
 * multiplier * 2^(shift - 31). `bias` may be NULL.
 *
 * No scratch. Output elements come in memory order (backwards where `reverse`, pixel by pixel);
 * an element's inputs have been read before it is written, but not those of the next channel.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t in_zero;
    int32_t out_zero;
    int32_t low;
    int32_t high;
    int32_t reverse;
    const int8_t *weights;
    const int32_t *bias;
    const int64_t *bias_wide;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_transpose_conv_t;

void ec_transpose_conv_s8(const ec_transpose_conv_t *p, const int8_t *in, int8_t *out);

/* 64-bit accumulators and `bias_wide`; shifts are at most 7. */
void ec_transpose_conv_s16(const ec_transpose_conv_t *p, const int16_t *in, int16_t *out);

typedef struct {
    ec_conv_shape_t shape;
    float low;
    float high;
    int32_t reverse;
    const float *weights;
    const float *bias;
} ec_transpose_conv_f32_t;

/* Products are added in the order of the inputs. */
void ec_transpose_conv_f32(const ec_transpose_conv_f32_t *p, const float *in, float *out);

#endif
