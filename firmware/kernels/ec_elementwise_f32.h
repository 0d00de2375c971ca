/* float32 ADD, SUB, MUL (clamped; TFLM reference_ops::Add, Sub and Mul) and PRELU. */
#ifndef EC_ELEMENTWISE_F32_H
#define EC_ELEMENTWISE_F32_H

#include "ec_elementwise.h"

typedef struct {
    uint32_t count;
    float low;
    float high;
} ec_arithmetic_f32_t;

typedef struct {
    uint32_t count;
} ec_prelu_f32_t;

EC_ELEMENTWISE_DECLARE(ec_add_f32, ec_arithmetic_f32_t, float, float, float);
EC_ELEMENTWISE_DECLARE(ec_sub_f32, ec_arithmetic_f32_t, float, float, float);
EC_ELEMENTWISE_DECLARE(ec_mul_f32, ec_arithmetic_f32_t, float, float, float);
EC_ELEMENTWISE_DECLARE(ec_prelu_f32, ec_prelu_f32_t, float, float, float);

#endif
