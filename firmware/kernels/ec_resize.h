/* Resizing of NHWC images: nearest neighbour, and bilinear for int8. */
#ifndef EC_RESIZE_H
#define EC_RESIZE_H

#include <stdint.h>

typedef struct {
    const uint16_t *rows;    /* per output row the input row */
    const uint16_t *columns; /* per output column the input column */
    int32_t batches;
    int32_t in_height;
    int32_t in_width;
    int32_t out_height;
    int32_t out_width;
    int32_t pixel;   /* bytes of a pixel */
    uint8_t reverse; /* from the last pixel to the first */
} ec_resize_nearest_t;

typedef struct {
    int32_t batches;
    int32_t channels;
    int32_t in_height;
    int32_t in_width;
    int32_t out_height;
    int32_t out_width;
    int32_t scale_height; /* input rows per output row, times 2^10 */
    int32_t scale_width;
    uint8_t half_pixel; /* pixels have their centres at half coordinates */
} ec_resize_bilinear_t;

void ec_resize_nearest(const ec_resize_nearest_t *p, const void *in, void *out);
void ec_resize_bilinear_s8(const ec_resize_bilinear_t *p, const int8_t *in, int8_t *out);

#endif
