/* Bilinear resizing of NHWC images of floats. */
#ifndef EC_RESIZE_F32_H
#define EC_RESIZE_F32_H

#include <stdint.h>

typedef struct {
    const uint16_t *rows; /* per output row the input rows below and above it */
    const uint16_t *columns;
    const float *row_fractions; /* per output row its distance from the lower input row */
    const float *column_fractions;
    int32_t batches;
    int32_t channels;
    int32_t in_height;
    int32_t in_width;
    int32_t out_height;
    int32_t out_width;
} ec_resize_bilinear_f32_t;

/* Bits: TFLM ResizeBilinear (float). */
void ec_resize_bilinear_f32(const ec_resize_bilinear_f32_t *p, const float *in, float *out);

#endif
