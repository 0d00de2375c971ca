/* CONV_2D and DEPTHWISE_CONV_2D straight from the definition: float32, int16, and int8 with factors
 * that the faster kernels do not take. */
#ifndef EC_CONV_PLAIN_H
#define EC_CONV_PLAIN_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* Output channels are spread evenly over `groups`; each sees in_channels / groups inputs (a
 * depthwise convolution has as many groups as input channels). Weights are in the order output
 * channel, kernel row, kernel column, input channel. A channel's factor is
 * multiplier * 2^(shift - 31). `bias` may be NULL.
 *
 * No scratch. Output elements come in memory order (backwards where `reverse`, pixel by pixel);
 * an element's inputs have been read before it is written, but not those of the next channel.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t groups;
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
} ec_conv_plain_t;

void ec_conv_plain_s8(const ec_conv_plain_t *p, const int8_t *in, int8_t *out);

/* 32-bit accumulators and `bias`. */
void ec_conv_plain_s16(const ec_conv_plain_t *p, const int16_t *in, int16_t *out);

/* 64-bit accumulators and `bias_wide`; shifts are at most 7. */
void ec_conv_plain_s16_wide(const ec_conv_plain_t *p, const int16_t *in, int16_t *out);

typedef struct {
    ec_conv_shape_t shape;
    int32_t groups;
    float low;
    float high;
    int32_t reverse;
    const float *weights;
    const float *bias;
} ec_conv_plain_f32_t;

/* Products are added in the order of the weights. */
void ec_conv_plain_f32(const ec_conv_plain_f32_t *p, const float *in, float *out);

#endif
