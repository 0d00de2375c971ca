#include "ec_elementwise_s16.h"

#include "ec_math.h"

/* TFLM reference_ops::AddElementwise and SubElementwise. Nothing overflows: |first| and |second|
 * are at most 2^29. */
EC_INLINE int16_t add_one(const ec_add_s16_t *p, int16_t x, int16_t y)
{
    const int32_t first = x * p->factor1;
    const int32_t second = ec_requantize(y * (INT32_C(1) << 15), p->multiplier2, p->shift2);
    const int32_t sum = first + second * p->sign2;
    return (int16_t)ec_clamp(ec_requantize(sum, p->multiplier, p->shift), p->low, p->high);
}

/* TFLM reference_integer_ops::MulElementwise */
EC_INLINE int16_t mul_one(const ec_mul_s16_t *p, int16_t x, int16_t y)
{
    return (int16_t)ec_clamp(ec_requantize(x * y, p->multiplier, p->shift), p->low, p->high);
}

/* TFLM reference_ops::BroadcastPrelu4DSlow */
EC_INLINE int16_t prelu_one(const ec_prelu_s16_t *p, int16_t x, int8_t y)
{
    int32_t value;
    if (x >= 0) {
        value = ec_requantize(x, p->multiplier1, p->shift1);
    } else {
        value = ec_requantize(x * (y + p->offset2), p->multiplier2, p->shift2);
    }
    return (int16_t)ec_clamp(value, INT16_MIN, INT16_MAX);
}

EC_ELEMENTWISE_DEFINE(ec_add_s16, add_one, ec_add_s16_t, int16_t, int16_t, int16_t)
EC_ELEMENTWISE_DEFINE(ec_mul_s16, mul_one, ec_mul_s16_t, int16_t, int16_t, int16_t)
EC_ELEMENTWISE_DEFINE(ec_prelu_s16, prelu_one, ec_prelu_s16_t, int16_t, int8_t, int16_t)
