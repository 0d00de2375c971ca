/* QUANTIZE and DEQUANTIZE between float32 and integers. */
#ifndef EC_QUANTIZE_H
#define EC_QUANTIZE_H

#include <stdint.h>

/* low and high: the least and greatest stored value less the zero point. */
typedef struct {
    uint32_t count;
    float scale;
    float low;
    float high;
    int32_t zero_point;
} ec_quantize_t;

typedef struct {
    uint32_t count;
    float scale;
    int32_t zero_point;
} ec_dequantize_t;

/* round(in / scale) + zero point, halves away from zero, saturated (TFLM AffineQuantize). NaN gives
 * the least value. From first to last; an element is read before anything after it is written. */
void ec_quantize_f32_s8(const ec_quantize_t *p, const float *in, int8_t *out);
void ec_quantize_f32_s16(const ec_quantize_t *p, const float *in, int16_t *out);

/* scale * (in - zero point) (TFLM reference_ops::Dequantize), from first to last. */
void ec_dequantize_s8_f32(const ec_dequantize_t *p, const int8_t *in, float *out);
void ec_dequantize_u8_f32(const ec_dequantize_t *p, const uint8_t *in, float *out);
void ec_dequantize_s16_f32(const ec_dequantize_t *p, const int16_t *in, float *out);

#endif
