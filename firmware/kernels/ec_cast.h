/* CAST between float32, int32, int16, int8 and bool (TFLM's CAST: a plain C conversion). */
#ifndef EC_CAST_H
#define EC_CAST_H

#include <stdint.h>

typedef struct {
    uint32_t count;
} ec_cast_t;

/* From first to last. Integers are cut to the width of the output; a float is cut towards zero and
 * kept within the output's range (TFLM leaves that undefined), NaN becomes 0; anything but 0 is
 * true. */
void ec_cast_f32_s32(const ec_cast_t *p, const float *in, int32_t *out);
void ec_cast_f32_s16(const ec_cast_t *p, const float *in, int16_t *out);
void ec_cast_f32_s8(const ec_cast_t *p, const float *in, int8_t *out);
void ec_cast_f32_bool(const ec_cast_t *p, const float *in, uint8_t *out);
void ec_cast_s32_f32(const ec_cast_t *p, const int32_t *in, float *out);
void ec_cast_s32_s16(const ec_cast_t *p, const int32_t *in, int16_t *out);
void ec_cast_s32_s8(const ec_cast_t *p, const int32_t *in, int8_t *out);
void ec_cast_s32_bool(const ec_cast_t *p, const int32_t *in, uint8_t *out);
void ec_cast_s16_f32(const ec_cast_t *p, const int16_t *in, float *out);
void ec_cast_s16_s32(const ec_cast_t *p, const int16_t *in, int32_t *out);
void ec_cast_s16_s8(const ec_cast_t *p, const int16_t *in, int8_t *out);
void ec_cast_s16_bool(const ec_cast_t *p, const int16_t *in, uint8_t *out);
void ec_cast_s8_f32(const ec_cast_t *p, const int8_t *in, float *out);
void ec_cast_s8_s32(const ec_cast_t *p, const int8_t *in, int32_t *out);
void ec_cast_s8_s16(const ec_cast_t *p, const int8_t *in, int16_t *out);
void ec_cast_s8_bool(const ec_cast_t *p, const int8_t *in, uint8_t *out);
void ec_cast_bool_f32(const ec_cast_t *p, const uint8_t *in, float *out);
void ec_cast_bool_s32(const ec_cast_t *p, const uint8_t *in, int32_t *out);
void ec_cast_bool_s16(const ec_cast_t *p, const uint8_t *in, int16_t *out);
void ec_cast_bool_s8(const ec_cast_t *p, const uint8_t *in, int8_t *out);

#endif
