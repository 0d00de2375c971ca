/* UNIDIRECTIONAL_SEQUENCE_LSTM in float32 (uses expf and tanhf of libm). */
#ifndef EC_LSTM_F32_H
#define EC_LSTM_F32_H

#include <stdint.h>

/* Weights [units, 4, inputs], [units, 4, units] and bias [units, 4]; gates are in the order input,
 * forget, cell, output. Sequences are as in ec_lstm.h. `clip` is 0 for none. Scratch: 4 bytes per
 * unit. */
typedef struct {
    int32_t batches;
    int32_t steps;
    int32_t inputs;
    int32_t units;
    int32_t time_major;
    float clip;
    const float *weights_input;
    const float *weights_recurrent;
    const float *bias;
} ec_lstm_f32_t;

/* `hidden` and `cell` are the state; both are updated. */
void ec_lstm_f32(const ec_lstm_f32_t *p, const float *in, float *hidden, float *cell, float *out,
                 void *scratch);

#endif
