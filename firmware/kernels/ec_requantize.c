#include "ec_requantize.h"

#include "ec_math.h"

EC_INLINE int32_t requantize_one(const ec_requantize_t *p, int32_t x)
{
    const int32_t moved = (int32_t)((uint32_t)x + (uint32_t)p->offset1);
    const uint32_t value = (uint32_t)ec_requantize(moved, p->multiplier, p->shift);
    return ec_clamp((int32_t)(value + (uint32_t)p->offset), p->low, p->high);
}

#define REQUANTIZE(name, from, to)                                \
    void name(const ec_requantize_t *p, const from *in, to *out)  \
    {                                                             \
        const ec_requantize_t each = *p;                          \
        for (uint32_t i = 0; i < each.count; i++) {               \
            out[i] = (to)requantize_one(&each, in[i]);            \
        }                                                         \
    }

REQUANTIZE(ec_requantize_s8_s16, int8_t, int16_t)
REQUANTIZE(ec_requantize_s8_s32, int8_t, int32_t)
REQUANTIZE(ec_requantize_s16_s8, int16_t, int8_t)
REQUANTIZE(ec_requantize_s16_s16, int16_t, int16_t)
REQUANTIZE(ec_requantize_s16_s32, int16_t, int32_t)
REQUANTIZE(ec_requantize_s32_s8, int32_t, int8_t)
REQUANTIZE(ec_requantize_s32_s16, int32_t, int16_t)
