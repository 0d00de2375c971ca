/* Bits: TFLM's EvalLstm<float, float, float, float>, given its expf and tanhf. */
#include "ec_exact.h"

#include "ec_lstm_f32.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "ec_math.h"

enum { EC_INPUT, EC_FORGET, EC_CELL, EC_OUTPUT, EC_GATES };

static float ec_limited(float x)
{
    return ec_clamp_f32(x, -FLT_MAX, FLT_MAX);
}

static float ec_product(const float *a, const float *b, int32_t count)
{
    float sum = 0.0f;
    for (int32_t i = 0; i < count; ++i) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* TFLM reference_ops::Logistic with its cut-offs. */
static float ec_logistic(float x)
{
    if (x > 16.619047164916992188f) {
        return 1.0f;
    }
    return x < -9.0f ? expf(x) : 1.0f / (1.0f + expf(-x));
}

/* One step of one sequence; `old` is a copy of the hidden state. */
static void ec_step(const ec_lstm_f32_t *p, const float *in, const float *old, float *hidden,
                    float *cell, float *out)
{
    for (int32_t unit = 0; unit < p->units; ++unit) {
        float gates[EC_GATES];
        for (int32_t gate = 0; gate < EC_GATES; ++gate) {
            const int32_t row = unit * EC_GATES + gate;
            const float a =
                ec_limited(ec_product(in, p->weights_input + row * p->inputs, p->inputs) +
                           p->bias[row]);
            const float b =
                ec_limited(ec_product(old, p->weights_recurrent + row * p->units, p->units));
            gates[gate] = gate == EC_CELL ? tanhf(a + b) : ec_logistic(a + b);
        }
        const float kept = ec_limited(gates[EC_FORGET] * cell[unit]);
        float state = kept + ec_limited(gates[EC_INPUT] * gates[EC_CELL]);
        if (p->clip > 0.0f) {
            state = p->clip < state ? p->clip : state;
            state = state < -p->clip ? -p->clip : state;
        }
        cell[unit] = state;
        hidden[unit] = ec_limited(tanhf(state) * gates[EC_OUTPUT]);
        out[unit] = hidden[unit];
    }
}

void ec_lstm_f32(const ec_lstm_f32_t *p, const float *in, float *hidden, float *cell, float *out,
                 void *scratch)
{
    float *old = (float *)scratch;
    for (int32_t row = 0; row < p->steps * p->batches; ++row) {
        const int32_t state = (p->time_major ? row % p->batches : row / p->steps) * p->units;
        memcpy(old, hidden + state, (uint32_t)p->units * sizeof(float));
        ec_step(p, in, old, hidden + state, cell + state, out);
        in += p->inputs;
        out += p->units;
    }
}
