/* int16 LOGISTIC, TANH and LEAKY_RELU with zero points of 0; from first to last. RELU and RELU6
 * are ec_requantize_s16_s16. */
#ifndef EC_ACTIVATION_S16_H
#define EC_ACTIVATION_S16_H

#include <stdint.h>

typedef struct {
    uint32_t count;
    int32_t multiplier;
    int32_t shift;
} ec_sigmoid_s16_t;

/* x scaled by the first factor, or by the second, which may be negative, where x is. */
typedef struct {
    uint32_t count;
    int32_t multiplier1;
    int32_t shift1;
    int32_t multiplier2;
    int32_t shift2;
} ec_leaky_relu_s16_t;

void ec_logistic_s16(const ec_sigmoid_s16_t *p, const int16_t *in, int16_t *out);
void ec_tanh_s16(const ec_sigmoid_s16_t *p, const int16_t *in, int16_t *out);
void ec_leaky_relu_s16(const ec_leaky_relu_s16_t *p, const int16_t *in, int16_t *out);

#endif
