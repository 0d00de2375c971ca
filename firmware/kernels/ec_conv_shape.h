/* Geometry of a convolution: a kernel that slides over maps in NHWC order. */
#ifndef EC_CONV_SHAPE_H
#define EC_CONV_SHAPE_H

#include <stdint.h>

/* Sizes are in elements; tap (ky, kx) of output (y, x) meets the input at row
 * y * stride_height - pad_top + ky * dilation_height, and columns alike. */
typedef struct {
    int32_t batches;
    int32_t in_height;
    int32_t in_width;
    int32_t in_channels;
    int32_t out_height;
    int32_t out_width;
    int32_t out_channels;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_height;
    int32_t stride_width;
    int32_t dilation_height;
    int32_t dilation_width;
    int32_t pad_top;
    int32_t pad_left;
} ec_conv_shape_t;

/* Where one output pixel looks: its image and the input place of tap (0, 0), which may lie
 * outside. */
typedef struct {
    int32_t batch;
    int32_t row;
    int32_t column;
} ec_conv_place_t;

/* The taps [first, end) of one axis that meet the map; empty where end <= first. */
typedef struct {
    int32_t first;
    int32_t end;
} ec_conv_taps_t;

static inline int32_t ec_conv_pixels(const ec_conv_shape_t *s)
{
    return s->batches * s->out_height * s->out_width;
}

/* Output pixel number `pixel`, counted over rows and images. */
static inline ec_conv_place_t ec_conv_place(const ec_conv_shape_t *s, int32_t pixel)
{
    const int32_t line = pixel / s->out_width;
    const int32_t batch = line / s->out_height;
    const ec_conv_place_t place = {
        .batch = batch,
        .row = (line - batch * s->out_height) * s->stride_height - s->pad_top,
        .column = (pixel - line * s->out_width) * s->stride_width - s->pad_left,
    };
    return place;
}

/* Taps of a kernel of `kernel` taps that starts at `origin` on an axis of `size` elements. */
static inline ec_conv_taps_t ec_conv_taps(int32_t origin, int32_t size, int32_t kernel,
                                          int32_t dilation)
{
    ec_conv_taps_t taps = {.first = 0, .end = kernel};
    if (origin < 0) {
        taps.first = (dilation - 1 - origin) / dilation;
    }
    if (origin + (kernel - 1) * dilation >= size) {
        taps.end = size > origin ? (size - origin + dilation - 1) / dilation : 0;
    }
    return taps;
}

static inline ec_conv_taps_t ec_conv_rows(const ec_conv_shape_t *s, ec_conv_place_t at)
{
    return ec_conv_taps(at.row, s->in_height, s->kernel_height, s->dilation_height);
}

static inline ec_conv_taps_t ec_conv_columns(const ec_conv_shape_t *s, ec_conv_place_t at)
{
    return ec_conv_taps(at.column, s->in_width, s->kernel_width, s->dilation_width);
}

#endif
