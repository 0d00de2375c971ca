/* SOFTMAX over the last axis, quantised. */
#ifndef EC_SOFTMAX_H
#define EC_SOFTMAX_H

#include <stdint.h>

/* int8 inputs; differences to the greatest below `least_difference` count as exp = 0. The factor
 * multiplier * 2^(shift - 31), shift >= 0, turns a difference into Q5.26. */
typedef struct {
    int32_t rows;
    int32_t depth;
    int32_t multiplier;
    int32_t shift;
    int32_t least_difference;
} ec_softmax_t;

void ec_softmax_s8(const ec_softmax_t *p, const int8_t *in, int8_t *out);

void ec_softmax_s8_s16(const ec_softmax_t *p, const int8_t *in, int16_t *out);

/* int16; `exp` is a table of exp(x) over [-10, 0], `reciprocal` one of 1 / (1 + x) over [0, 1]. */
typedef struct {
    int32_t rows;
    int32_t depth;
    int32_t multiplier;
    int32_t shift;
    const int16_t *exp;
    const int16_t *reciprocal;
} ec_softmax_s16_t;

void ec_softmax_s16(const ec_softmax_s16_t *p, const int16_t *in, int16_t *out);

#endif
