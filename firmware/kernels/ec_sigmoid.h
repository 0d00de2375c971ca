/* Logistic function and hyperbolic tangent of int16 values, by a table and linear interpolation
 * (TFLM reference_integer_ops::Logistic and Tanh). */
#ifndef EC_SIGMOID_H
#define EC_SIGMOID_H

#include <stdint.h>

/* 65536 * sigmoid(i / 24) up to 1.2 off, exactly as TFLM has it; tanh(x) = 2 * sigmoid(2 * x) - 1. */
extern const uint16_t ec_sigmoid_table[256];

/* x * multiplier / 2^shift, halves up; |x * multiplier| and half of 2^shift are at most 2^30. */
static inline int32_t ec_sigmoid_scaled(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t half = shift > 0 ? INT32_C(1) << (shift - 1) : 0;
    return (x * multiplier + half) >> shift;
}

/* The table at |x| / 2^bits, interpolated, in units of 2^-(16 + bits); `limit` past its end. */
static inline int32_t ec_sigmoid_at(int32_t x, int32_t bits, int32_t limit)
{
    const int32_t size = x < 0 ? -x : x;
    const int32_t place = size >> bits;
    if (place >= 255) {
        return limit;
    }
    const int32_t low = ec_sigmoid_table[place];
    const int32_t high = ec_sigmoid_table[place + 1];
    const int32_t part = size & ((INT32_C(1) << bits) - 1);
    return low * (INT32_C(1) << bits) + part * (high - low);
}

/* logistic(x) in units of 2^-15, for x in units of 1 / 12288. */
static inline int16_t ec_logistic_of_s16(int32_t x)
{
    const int32_t y = ec_sigmoid_at(x, 9, INT32_C(0x7FFF) << 10);
    return (int16_t)((x >= 0 ? y + (1 << 9) : (INT32_C(1) << 25) - y + (1 << 9) - 1) >> 10);
}

/* tanh(x) in units of 2^-15, for x in units of 1 / 12288. */
static inline int16_t ec_tanh_of_s16(int32_t x)
{
    const int32_t y = ec_sigmoid_at(x, 8, INT32_C(0xFFFF) << 8) - (INT32_C(1) << 23);
    return (int16_t)((x >= 0 ? y + (1 << 7) : -y + (1 << 7) - 1) >> 8);
}

#endif
