#include "ec_elementwise_f32.h"

#include "ec_math.h"

EC_INLINE float add_one(const ec_arithmetic_f32_t *p, float x, float y)
{
    return ec_clamp_f32(x + y, p->low, p->high);
}

EC_INLINE float sub_one(const ec_arithmetic_f32_t *p, float x, float y)
{
    return ec_clamp_f32(x - y, p->low, p->high);
}

EC_INLINE float mul_one(const ec_arithmetic_f32_t *p, float x, float y)
{
    return ec_clamp_f32(x * y, p->low, p->high);
}

/* TFLM BroadcastPrelu4DSlowFloat */
EC_INLINE float prelu_one(const ec_prelu_f32_t *p, float x, float y)
{
    (void)p;
    return x >= 0.0f ? x : x * y;
}

EC_ELEMENTWISE_DEFINE(ec_add_f32, add_one, ec_arithmetic_f32_t, float, float, float)
EC_ELEMENTWISE_DEFINE(ec_sub_f32, sub_one, ec_arithmetic_f32_t, float, float, float)
EC_ELEMENTWISE_DEFINE(ec_mul_f32, mul_one, ec_arithmetic_f32_t, float, float, float)
EC_ELEMENTWISE_DEFINE(ec_prelu_f32, prelu_one, ec_prelu_f32_t, float, float, float)
