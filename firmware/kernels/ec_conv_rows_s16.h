/* CONV_2D, FULLY_CONNECTED and DEPTHWISE_CONV_2D with int16 activations and int8 weights, pixel by
 * pixel: for cores with Helium, and for those without the DSP extension. */
#ifndef EC_CONV_ROWS_S16_H
#define EC_CONV_ROWS_S16_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* The result for a sum is round(sum * factor / 2^32), halves up. That the sums fit int32 is for the
 * caller to guarantee, whatever the input. Output pixels come in order (backwards where `reverse`).
 * Behind the last channel come zeros: weights, `bias` and `factors` of a multiple of 4 channels (of 8
 * for a depthwise convolution).
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t low;
    int32_t high;
    int32_t reverse;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *factors;
} ec_conv_rows_s16_t;

/* Weights are in the order output channel, kernel row, kernel column, input channel. Scratch holds
 * what a pixel sees, two bytes per weight of a channel: all of it has been read before one channel is
 * written. */
void ec_conv_rows_s16(const ec_conv_rows_s16_t *p, const int16_t *in, int16_t *out, void *scratch);

/* As many output as input channels, in blocks of 8. Weights are in the order block, kernel row, kernel
 * column, channel; `bias` and `factors` of a block are those of its even channels, then of its odd
 * ones. An element's inputs have been read before it is written, but not those of the next block. */
void ec_depthwise_rows_s16(const ec_conv_rows_s16_t *p, const int16_t *in, int16_t *out);

#endif
