/* int8 ADD, SUB, MUL and PRELU with TFLite Micro's bits. */
#ifndef EC_ELEMENTWISE_S8_H
#define EC_ELEMENTWISE_S8_H

#include "ec_elementwise.h"

/* x + y or x - y, with x the input of the greater scale.
 *
 * TFLM shifts both by 20 bits, scales the first by exactly 1/2 and the second by no more, and adds:
 * x becomes x * factor1 + constant1, with no product of 64 bits; y becomes sign2 * (y + offset) *
 * 2^20 scaled, where constant2 is the offset * 2^21. All right shifts are 1..31; a second factor of
 * 1/2, which needs none, is -1 * 2^-1 (multiplier2 = INT32_MIN, with sign2 turned). */
typedef struct {
    uint32_t count;
    int32_t factor1;
    int32_t constant1;
    int32_t constant2;
    int32_t multiplier2;
    int32_t shift2;
    int32_t sign2;
    int32_t multiplier;
    int32_t shift;
    int32_t offset;
    int32_t low;
    int32_t high;
} ec_add_s8_t;

/* (x + offset1) * (y + offset2), then scaled, plus offset, clamped. */
typedef struct {
    uint32_t count;
    int32_t offset1;
    int32_t offset2;
    int32_t multiplier;
    int32_t shift;
    int32_t offset;
    int32_t low;
    int32_t high;
} ec_mul_s8_t;

/* The same for a factor below 1/2: (x + offset1) * (2 * y + offset2), where offset2 is twice that of
 * the input, times multiplier * 2^(-32 - shift), with 1 <= shift <= 22; `rounding` is half of 2^shift
 * plus the output's zero point times 2^shift (ec_rounding_of). */
typedef struct {
    uint32_t count;
    int32_t offset1;
    int32_t offset2;
    int32_t multiplier;
    int32_t rounding;
    int32_t shift;
    int32_t low;
    int32_t high;
} ec_mul_right_s8_t;

/* x + offset1 scaled by the first factor, or where it is negative (x + offset1) * (y + offset2)
 * by the second. */
typedef struct {
    uint32_t count;
    int32_t offset1;
    int32_t offset2;
    int32_t multiplier1;
    int32_t shift1;
    int32_t multiplier2;
    int32_t shift2;
    int32_t offset;
} ec_prelu_s8_t;

EC_ELEMENTWISE_DECLARE(ec_add_s8, ec_add_s8_t, int8_t, int8_t, int8_t);
EC_ELEMENTWISE_DECLARE(ec_mul_s8, ec_mul_s8_t, int8_t, int8_t, int8_t);
EC_ELEMENTWISE_DECLARE(ec_mul_right_s8, ec_mul_right_s8_t, int8_t, int8_t, int8_t);
EC_ELEMENTWISE_DECLARE(ec_prelu_s8, ec_prelu_s8_t, int8_t, int8_t, int8_t);

#endif
