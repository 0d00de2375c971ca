/* int8 ADD and SUB as one linear form, with TFLite Micro's bits. */
#ifndef EC_LINEAR_S8_H
#define EC_LINEAR_S8_H

#include "ec_elementwise.h"

/* Fraction bits of the form. */
#define EC_LINEAR_SHIFT 21

/* (x * factor1 + y * factor2 + constant) / 2^EC_LINEAR_SHIFT rounded down, then clamped to
 * [low, high]. Whoever makes the factors has held the form against TFLM's for every x and y. The
 * form and the form plus 128 stay in 32 bits. */
typedef struct {
    uint32_t count;
    int32_t factor1;
    int32_t factor2;
    int32_t constant;
    int32_t low;
    int32_t high;
} ec_linear_s8_t;

EC_ELEMENTWISE_DECLARE(ec_linear_s8, ec_linear_s8_t, int8_t, int8_t, int8_t);

#endif
