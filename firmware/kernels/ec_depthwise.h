/* DEPTHWISE_CONV_2D with int8 activations and int8 or int4 weights. */
#ifndef EC_DEPTHWISE_H
#define EC_DEPTHWISE_H

#include <stdint.h>

#include "ec_conv_shape.h"

/* Output channel c sees input channel c / fan. `taps` is the taps of the kernel, for int4 weights
 * made even.
 *
 * Weights are in blocks of 16 output channels (the last filled with zeros), each tap after tap: 16
 * bytes, one per channel, that hold an int8, or the int4 of two taps (the first in the low nibble).
 * Of taps 2 j and 2 j + 1 of a channel at least one is no -128: 16 bits hold any sum of both
 * products. `bias` holds bias - in_zero * (sum of the weights), modulo 2^32.
 * Factors, bounds and `limited` are as in ec_conv_t.
 *
 * Scratch, in bytes: 8 * taps, and in_channels rounded up to 4. Output pixels come in order
 * (backwards where `reverse`); a pixel's first outputs may be written before its last inputs are
 * read.
 */
typedef struct {
    ec_conv_shape_t shape;
    int32_t fan;
    int32_t taps;
    int32_t in_zero;
    int32_t out_zero;
    int32_t limited;
    int32_t low;
    int32_t high;
    int32_t reverse;
    const uint32_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_depthwise_t;

void ec_depthwise_s8(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch);

/* With int4 weights. */
void ec_depthwise_s4(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch);

#endif
