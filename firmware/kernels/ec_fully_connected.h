/* FULLY_CONNECTED: rows of inputs times a constant matrix. */
#ifndef EC_FULLY_CONNECTED_H
#define EC_FULLY_CONNECTED_H

#include <stdint.h>

/* int8 activations, weights packed as ec_dot.h wants them (int8 or int4).
 *
 * Accumulators are sum(weight * input) - weights_zero * sum(input) + bias: the generator folds the
 * input's zero point into `bias` (modulo 2^32, never NULL). The factor of output c is
 * multipliers[c * scale_step] and shifts[c * scale_step]: scale_step is 0 with one scale for all.
 *
 * Scratch: 2 bytes per input, inputs rounded up to a multiple of 8. A row of inputs is read before
 * its outputs are written.
 */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    int32_t weights_zero;
    int32_t out_zero;
    int32_t low;
    int32_t high;
    int32_t scale_step;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_fully_connected_t;

void ec_fully_connected_s8(const ec_fully_connected_t *p, const int8_t *in, int8_t *out,
                           void *scratch);

void ec_fully_connected_s4(const ec_fully_connected_t *p, const int8_t *in, int8_t *out,
                           void *scratch);

/* int16 activations, int8 weights [outputs, inputs], one scale, zero points 0 except weights_zero;
 * `bias` may be NULL. */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    int32_t weights_zero;
    int32_t low;
    int32_t high;
    int32_t multiplier;
    int32_t shift;
    const int8_t *weights;
    const int64_t *bias;
} ec_fully_connected_s16_t;

void ec_fully_connected_s16(const ec_fully_connected_s16_t *p, const int16_t *in, int16_t *out);

/* float32, weights [outputs, inputs]; `bias` may be NULL. */
typedef struct {
    int32_t batches;
    int32_t inputs;
    int32_t outputs;
    float low;
    float high;
    const float *weights;
    const float *bias;
} ec_fully_connected_f32_t;

void ec_fully_connected_f32(const ec_fully_connected_f32_t *p, const float *in, float *out);

#endif
