/* UNIDIRECTIONAL_SEQUENCE_LSTM with int8 activations and weights and an int16 cell state. */
#ifndef EC_LSTM_H
#define EC_LSTM_H

#include <stdint.h>

enum { EC_LSTM_GATES = 4 };

/* A real factor (ec_math.h). */
typedef struct {
    int32_t multiplier;
    int32_t shift;
} ec_factor_t;

/* Gates are in the order input, forget, cell, output. Weights and biases have the four gates of
 * unit 0, then those of unit 1, ...; weights are packed as ec_dot.h wants them. The zero points of
 * input and hidden state are folded into `input_bias` and `recurrent_bias`, modulo 2^32.
 *
 * Sequences are [steps, batches, inputs] where `time_major`, else [batches, steps, inputs]. `in` may
 * lie under `out`: a step's input is read before its output is written. The cell state is clamped
 * to +-clip; `tanh_multiplier` and `tanh_shift` bring it to the input of ec_tanh_of_s16 (ec_sigmoid.h).
 *
 * Scratch: 2 bytes per input and per unit, each rounded up to a multiple of 8.
 */
typedef struct {
    int32_t batches;
    int32_t steps;
    int32_t inputs;
    int32_t units;
    int32_t time_major;
    int32_t hidden_zero;
    int32_t clip;
    int32_t tanh_multiplier;
    int32_t tanh_shift;
    ec_factor_t forget_cell;
    ec_factor_t input_cell;
    ec_factor_t output_hidden;
    int32_t input_multipliers[EC_LSTM_GATES];
    int32_t input_shifts[EC_LSTM_GATES];
    int32_t recurrent_multipliers[EC_LSTM_GATES];
    int32_t recurrent_shifts[EC_LSTM_GATES];
    const int8_t *weights_input;
    const int8_t *weights_recurrent;
    const int32_t *input_bias;
    const int32_t *recurrent_bias;
} ec_lstm_t;

/* `hidden` and `cell` are the state; both are updated. */
void ec_lstm_s8(const ec_lstm_t *p, const int8_t *in, int8_t *hidden, int16_t *cell, int8_t *out,
                void *scratch);

#endif
