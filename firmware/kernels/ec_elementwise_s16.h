/* int16 ADD, SUB, MUL and PRELU with TFLite Micro's bits; all zero points are 0, PRELU's slopes
 * are int8. */
#ifndef EC_ELEMENTWISE_S16_H
#define EC_ELEMENTWISE_S16_H

#include "ec_elementwise.h"

/* x + y or x - y, with x the input of the greater scale.
 *
 * TFLM shifts both by 15 bits, scales the first by exactly 1/2 and the second by less, and adds:
 * x becomes x * factor1, and y is shifted and scaled; sign2 is 1 or -1. */
typedef struct {
    uint32_t count;
    int32_t factor1;
    int32_t multiplier2;
    int32_t shift2;
    int32_t sign2;
    int32_t multiplier;
    int32_t shift;
    int32_t low;
    int32_t high;
} ec_add_s16_t;

/* x * y, then scaled, clamped. */
typedef struct {
    uint32_t count;
    int32_t multiplier;
    int32_t shift;
    int32_t low;
    int32_t high;
} ec_mul_s16_t;

/* x scaled by the first factor, or where it is negative x * (y + offset2) by the second. */
typedef struct {
    uint32_t count;
    int32_t offset2;
    int32_t multiplier1;
    int32_t shift1;
    int32_t multiplier2;
    int32_t shift2;
} ec_prelu_s16_t;

EC_ELEMENTWISE_DECLARE(ec_add_s16, ec_add_s16_t, int16_t, int16_t, int16_t);
EC_ELEMENTWISE_DECLARE(ec_mul_s16, ec_mul_s16_t, int16_t, int16_t, int16_t);
EC_ELEMENTWISE_DECLARE(ec_prelu_s16, ec_prelu_s16_t, int16_t, int8_t, int16_t);

#endif
