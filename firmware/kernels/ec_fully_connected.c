/* Bits: TFLM reference_integer_ops::FullyConnected, FullyConnectedPerChannel and
 * reference_ops::FullyConnected (float). */
#include "ec_exact.h"

#include "ec_fully_connected.h"

#include <stddef.h>

#include "ec_dot.h"

EC_INLINE void ec_finish(const ec_fully_connected_t *p, int32_t channel, uint32_t sum, int8_t *out)
{
    const int32_t place = channel * p->scale_step;
    const int32_t x = ec_requantize((int32_t)(sum + (uint32_t)p->bias[channel]),
                                    p->multipliers[place], p->shifts[place]);
    *out = (int8_t)ec_clamp((int32_t)((uint32_t)x + (uint32_t)p->out_zero), p->low, p->high);
}

/* One row of inputs; `int4` is a constant that chooses the packing of the weights. */
EC_INLINE void ec_row(const ec_fully_connected_t *p, const int16_t *x, int8_t *out, int32_t int4)
{
    const int32_t steps = ec_dot_steps(p->inputs);
    const int32_t row_bytes = int4 ? 4 * steps : 8 * steps;
    const uint32_t shared =
        p->weights_zero == 0 ? 0u : (uint32_t)-p->weights_zero * ec_dot_sum(x, steps);
    const int8_t *weights = p->weights;
    int32_t channel = 0;
    for (; channel + EC_DOT_ROWS <= p->outputs; channel += EC_DOT_ROWS) {
        uint32_t sums[EC_DOT_ROWS];
        if (int4) {
            ec_dot_s4(weights, x, steps, EC_DOT_ROWS, sums);
        } else {
            ec_dot_s8(weights, x, steps, EC_DOT_ROWS, sums);
        }
        for (int32_t row = 0; row < EC_DOT_ROWS; ++row) {
            ec_finish(p, channel + row, sums[row] + shared, out + channel + row);
        }
        weights += EC_DOT_ROWS * row_bytes;
    }
    for (; channel < p->outputs; ++channel) {
        uint32_t sum;
        if (int4) {
            ec_dot_s4(weights, x, steps, 1, &sum);
        } else {
            ec_dot_s8(weights, x, steps, 1, &sum);
        }
        ec_finish(p, channel, sum + shared, out + channel);
        weights += row_bytes;
    }
}

void ec_fully_connected_s8(const ec_fully_connected_t *p, const int8_t *in, int8_t *out,
                           void *scratch)
{
    int16_t *x = (int16_t *)scratch;
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_dot_expand(in, p->inputs, x);
        ec_row(p, x, out, 0);
        in += p->inputs;
        out += p->outputs;
    }
}

void ec_fully_connected_s4(const ec_fully_connected_t *p, const int8_t *in, int8_t *out,
                           void *scratch)
{
    int16_t *x = (int16_t *)scratch;
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_dot_expand(in, p->inputs, x);
        ec_row(p, x, out, 1);
        in += p->inputs;
        out += p->outputs;
    }
}

/* A sum of `count` products; below 2^31 for 128 of them, whatever the operands. */
static int64_t ec_wide_dot(const int16_t *x, const int8_t *weights, int32_t count, int32_t zero)
{
    int64_t total = 0;
    while (count > 0) {
        const int32_t part = count < 128 ? count : 128;
        int32_t sum = 0;
        for (int32_t i = 0; i < part; ++i) {
            sum += x[i] * (weights[i] - zero);
        }
        total += sum;
        x += part;
        weights += part;
        count -= part;
    }
    return total;
}

void ec_fully_connected_s16(const ec_fully_connected_s16_t *p, const int16_t *in, int16_t *out)
{
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        const int8_t *weights = p->weights;
        for (int32_t channel = 0; channel < p->outputs; ++channel) {
            const int64_t product = ec_wide_dot(in, weights, p->inputs, p->weights_zero);
            const int64_t bias = p->bias == NULL ? 0 : p->bias[channel];
            const int64_t sum = (int64_t)((uint64_t)product + (uint64_t)bias);
            const int32_t x = ec_requantize_wide(sum, p->multiplier, p->shift);
            *out++ = (int16_t)ec_clamp(x, p->low, p->high);
            weights += p->inputs;
        }
        in += p->inputs;
    }
}

void ec_fully_connected_f32(const ec_fully_connected_f32_t *p, const float *in, float *out)
{
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        const float *weights = p->weights;
        for (int32_t channel = 0; channel < p->outputs; ++channel) {
            float sum = 0.0f;
            for (int32_t i = 0; i < p->inputs; ++i) {
                sum += in[i] * weights[i];
            }
            sum += p->bias == NULL ? 0.0f : p->bias[channel];
            *out++ = ec_clamp_f32(sum, p->low, p->high);
            weights += p->inputs;
        }
        in += p->inputs;
    }
}
