/* Bits: TFLM's EvalLstm<int8_t, int8_t, int16_t, int32_t> and what it calls. */
#include "ec_lstm.h"

#include "ec_dot.h"
#include "ec_sigmoid.h"

enum { EC_INPUT, EC_FORGET, EC_CELL, EC_OUTPUT };

static int32_t ec_clamp_s16(int32_t x)
{
    return ec_clamp(x, INT16_MIN, INT16_MAX);
}

static int32_t ec_scaled(int32_t x, ec_factor_t factor)
{
    return ec_requantize(x, factor.multiplier, factor.shift);
}

/* The four gates of a unit, as Q0.15: from the products of its input and of the hidden state, both
 * brought to Q3.12. */
static void ec_gates(const ec_lstm_t *p, int32_t unit, const int16_t *x, const int16_t *h,
                     int32_t *gates)
{
    const int32_t input_steps = ec_dot_steps(p->inputs);
    const int32_t hidden_steps = ec_dot_steps(p->units);
    const int32_t row = unit * EC_LSTM_GATES;
    uint32_t from_input[EC_LSTM_GATES];
    uint32_t from_hidden[EC_LSTM_GATES];
    ec_dot_s8(p->weights_input + row * input_steps * EC_DOT_STEP, x, input_steps, EC_LSTM_GATES,
              from_input);
    ec_dot_s8(p->weights_recurrent + row * hidden_steps * EC_DOT_STEP, h, hidden_steps,
              EC_LSTM_GATES, from_hidden);
    for (int32_t gate = 0; gate < EC_LSTM_GATES; ++gate) {
        const uint32_t a = from_input[gate] + (uint32_t)p->input_bias[row + gate];
        const uint32_t b = from_hidden[gate] + (uint32_t)p->recurrent_bias[row + gate];
        const int32_t sum =
            ec_clamp_s16(
                ec_requantize((int32_t)a, p->input_multipliers[gate], p->input_shifts[gate])) +
            ec_clamp_s16(ec_requantize((int32_t)b, p->recurrent_multipliers[gate],
                                       p->recurrent_shifts[gate]));
        const int32_t argument = ec_sigmoid_scaled(ec_clamp_s16(sum), 3, 0);
        gates[gate] = gate == EC_CELL ? ec_tanh_of_s16(argument)
                                      : ec_logistic_of_s16(argument);
    }
}

/* One step of one sequence; `x` and `h` are its input and the old hidden state, expanded. */
static void ec_step(const ec_lstm_t *p, const int16_t *x, const int16_t *h, int8_t *hidden,
                    int16_t *cell, int8_t *out)
{
    for (int32_t unit = 0; unit < p->units; ++unit) {
        int32_t gates[EC_LSTM_GATES];
        ec_gates(p, unit, x, h, gates);
        const int32_t kept =
            ec_clamp_s16(ec_scaled(gates[EC_FORGET] * cell[unit], p->forget_cell));
        const int32_t added =
            ec_clamp_s16(ec_scaled(gates[EC_INPUT] * gates[EC_CELL], p->input_cell));
        const int32_t state = ec_clamp(ec_clamp_s16(kept + added), -p->clip, p->clip);
        cell[unit] = (int16_t)state;
        const int32_t argument = ec_sigmoid_scaled(state, p->tanh_multiplier, p->tanh_shift);
        const int32_t value = ec_scaled(ec_tanh_of_s16(argument) * gates[EC_OUTPUT],
                                        p->output_hidden);
        hidden[unit] = (int8_t)ec_clamp(value + p->hidden_zero, INT8_MIN, INT8_MAX);
        out[unit] = hidden[unit];
    }
}

void ec_lstm_s8(const ec_lstm_t *p, const int8_t *in, int8_t *hidden, int16_t *cell, int8_t *out,
                void *scratch)
{
    int16_t *x = (int16_t *)scratch;
    int16_t *h = x + ec_dot_steps(p->inputs) * EC_DOT_STEP;
    for (int32_t row = 0; row < p->steps * p->batches; ++row) {
        const int32_t state = (p->time_major ? row % p->batches : row / p->steps) * p->units;
        ec_dot_expand(in, p->inputs, x);
        ec_dot_expand(hidden + state, p->units, h);
        ec_step(p, x, h, hidden + state, cell + state, out);
        in += p->inputs;
        out += p->units;
    }
}
