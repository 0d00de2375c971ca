#include "ec_elementwise_s32.h"

#include "ec_math.h"

EC_INLINE int32_t add_one(const ec_arithmetic_s32_t *p, int32_t x, int32_t y)
{
    return ec_clamp((int32_t)((uint32_t)x + (uint32_t)y), p->low, p->high);
}

EC_INLINE int32_t sub_one(const ec_arithmetic_s32_t *p, int32_t x, int32_t y)
{
    return ec_clamp((int32_t)((uint32_t)x - (uint32_t)y), p->low, p->high);
}

EC_INLINE int32_t mul_one(const ec_arithmetic_s32_t *p, int32_t x, int32_t y)
{
    return ec_clamp((int32_t)((uint32_t)x * (uint32_t)y), p->low, p->high);
}

EC_ELEMENTWISE_DEFINE(ec_add_s32, add_one, ec_arithmetic_s32_t, int32_t, int32_t, int32_t)
EC_ELEMENTWISE_DEFINE(ec_sub_s32, sub_one, ec_arithmetic_s32_t, int32_t, int32_t, int32_t)
EC_ELEMENTWISE_DEFINE(ec_mul_s32, mul_one, ec_arithmetic_s32_t, int32_t, int32_t, int32_t)
