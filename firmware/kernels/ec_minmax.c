#include "ec_minmax.h"

#include "ec_math.h"

#define MINMAX(suffix, type)                                                                      \
    EC_INLINE type minimum_##suffix(const ec_minmax_t *p, type x, type y)                         \
    {                                                                                             \
        (void)p;                                                                                  \
        return x < y ? x : y;                                                                     \
    }                                                                                             \
    EC_INLINE type maximum_##suffix(const ec_minmax_t *p, type x, type y)                         \
    {                                                                                             \
        (void)p;                                                                                  \
        return x > y ? x : y;                                                                     \
    }                                                                                             \
    EC_ELEMENTWISE_DEFINE(ec_minimum_##suffix, minimum_##suffix, ec_minmax_t, type, type, type)   \
    EC_ELEMENTWISE_DEFINE(ec_maximum_##suffix, maximum_##suffix, ec_minmax_t, type, type, type)

MINMAX(s8, int8_t)
MINMAX(s16, int16_t)
MINMAX(s32, int32_t)
MINMAX(f32, float)
