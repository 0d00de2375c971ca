#include "ec_cast.h"

#include "ec_math.h"

/* x cut towards zero within [low, high), both powers of two and so exact; NaN gives 0. */
EC_INLINE int32_t from_float(float x, float low, float high, int32_t greatest)
{
    if (x != x) {
        return 0;
    }
    if (x >= high) {
        return greatest;
    }
    return (int32_t)(x > low ? x : low);
}

#define TO_F32(x) ((float)(x))
#define TO_S32(x) ((int32_t)(x))
#define TO_S16(x) ((int16_t)(x))
#define TO_S8(x) ((int8_t)(x))
#define TO_BOOL(x) ((uint8_t)((x) != 0))
#define FLOAT_TO_S32(x) from_float(x, -2147483648.0f, 2147483648.0f, INT32_MAX)
#define FLOAT_TO_S16(x) ((int16_t)from_float(x, -32768.0f, 32768.0f, INT16_MAX))
#define FLOAT_TO_S8(x) ((int8_t)from_float(x, -128.0f, 128.0f, INT8_MAX))

#define CAST(name, from, to, convert)                     \
    void name(const ec_cast_t *p, const from *in, to *out) \
    {                                                     \
        const uint32_t count = p->count;                  \
        for (uint32_t i = 0; i < count; i++) {            \
            out[i] = convert(in[i]);                      \
        }                                                 \
    }

CAST(ec_cast_f32_s32, float, int32_t, FLOAT_TO_S32)
CAST(ec_cast_f32_s16, float, int16_t, FLOAT_TO_S16)
CAST(ec_cast_f32_s8, float, int8_t, FLOAT_TO_S8)
CAST(ec_cast_f32_bool, float, uint8_t, TO_BOOL)
CAST(ec_cast_s32_f32, int32_t, float, TO_F32)
CAST(ec_cast_s32_s16, int32_t, int16_t, TO_S16)
CAST(ec_cast_s32_s8, int32_t, int8_t, TO_S8)
CAST(ec_cast_s32_bool, int32_t, uint8_t, TO_BOOL)
CAST(ec_cast_s16_f32, int16_t, float, TO_F32)
CAST(ec_cast_s16_s32, int16_t, int32_t, TO_S32)
CAST(ec_cast_s16_s8, int16_t, int8_t, TO_S8)
CAST(ec_cast_s16_bool, int16_t, uint8_t, TO_BOOL)
CAST(ec_cast_s8_f32, int8_t, float, TO_F32)
CAST(ec_cast_s8_s32, int8_t, int32_t, TO_S32)
CAST(ec_cast_s8_s16, int8_t, int16_t, TO_S16)
CAST(ec_cast_s8_bool, int8_t, uint8_t, TO_BOOL)
CAST(ec_cast_bool_f32, uint8_t, float, TO_F32)
CAST(ec_cast_bool_s32, uint8_t, int32_t, TO_S32)
CAST(ec_cast_bool_s16, uint8_t, int16_t, TO_S16)
CAST(ec_cast_bool_s8, uint8_t, int8_t, TO_S8)
