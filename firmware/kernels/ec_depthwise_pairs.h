/* DEPTHWISE_CONV_2D, kernels up to 7 x 7, in planes of vertical pairs: for cores with SMLAD. */
#ifndef EC_DEPTHWISE_PAIRS_H
#define EC_DEPTHWISE_PAIRS_H

#include <stdint.h>

#include "ec_planes.h"

/* `limited`: results are limited to [low, high], within int8.
 *
 * Scratch is that of ec_planes_begin. Bands of output rows are made in order, one image after the
 * other, backwards where `reverse`; one is read and written for all channels before the next. Where
 * a band is an image, the output may lie exactly over an input of the same shape. */
typedef struct {
    ec_planes_t planes;
    int32_t out_image; /* bytes from an image to the next; the same of rows and columns */
    int32_t out_row;
    int32_t out_column;
    int32_t limited;
    int32_t low;
    int32_t high;
    int32_t reverse;
} ec_depthwise_pairs_t;

/* Kernels of the width and height in the name (any width without), strides of 1 or 2 from row to
 * row; the columns of 3x3 are as far apart. */
#define EC_DEPTHWISE_PAIRS(name)                                                                   \
    void ec_depthwise_pairs_##name##_s8(const ec_depthwise_pairs_t *p, const int8_t *in,           \
                                        int8_t *out, void *scratch);
EC_DEPTHWISE_PAIRS(3x3)
EC_DEPTHWISE_PAIRS(3x3_stride2)
EC_DEPTHWISE_PAIRS(3)
EC_DEPTHWISE_PAIRS(3_stride2)
EC_DEPTHWISE_PAIRS(5)
EC_DEPTHWISE_PAIRS(5_stride2)
EC_DEPTHWISE_PAIRS(7)
EC_DEPTHWISE_PAIRS(7_stride2)
#undef EC_DEPTHWISE_PAIRS

#endif
