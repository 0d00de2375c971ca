/* Integers of one scale to integers of another: QUANTIZE of integers, and int16 RELU and RELU6. */
#ifndef EC_REQUANTIZE_H
#define EC_REQUANTIZE_H

#include <stdint.h>

typedef struct {
    uint32_t count;
    int32_t offset1;
    int32_t multiplier;
    int32_t shift;
    int32_t offset;
    int32_t low;
    int32_t high;
} ec_requantize_t;

/* (in + offset1) scaled, plus offset, clamped (TFLM reference_ops::Requantize), from first to last;
 * an element is read before it is written. 8 bits to 8 bits is a table: ec_lut_8. */
void ec_requantize_s8_s16(const ec_requantize_t *p, const int8_t *in, int16_t *out);
void ec_requantize_s8_s32(const ec_requantize_t *p, const int8_t *in, int32_t *out);
void ec_requantize_s16_s8(const ec_requantize_t *p, const int16_t *in, int8_t *out);
void ec_requantize_s16_s16(const ec_requantize_t *p, const int16_t *in, int16_t *out);
void ec_requantize_s16_s32(const ec_requantize_t *p, const int16_t *in, int32_t *out);
void ec_requantize_s32_s8(const ec_requantize_t *p, const int32_t *in, int8_t *out);
void ec_requantize_s32_s16(const ec_requantize_t *p, const int32_t *in, int16_t *out);

#endif
