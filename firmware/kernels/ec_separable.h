/* DEPTHWISE_CONV_2D and the 1 x 1 CONV_2D behind it at once, int8: for cores with SMLAD. */
#ifndef EC_SEPARABLE_H
#define EC_SEPARABLE_H

#include <stdint.h>

#include "ec_conv_blocks.h"
#include "ec_planes.h"

/* Bands of output rows are made in order, one image after the other, backwards where `reverse`. The
 * depthwise results of a band, requantised and as wide as int8, go to scratch as int16, in pairs of
 * pixels and in the order in which the matrix product reads them (see ec_planes_sweep.h): the map
 * between the two convolutions does not exist. Then the outputs of the band are written.
 *
 * `planes` has a multiplier of 1 and rows that are rows of the image. `steps` is four for every
 * eight channels between the convolutions, or part of eight: word 4 i + j of a pixel holds channels
 * 8 i + j and 8 i + 4 + j, missing ones anything. `weights` is as in ec_conv_pairs_t in that order,
 * with zeros for missing channels; `out_channels` is a multiple of 4.
 *
 * Scratch, in bytes: that of ec_planes_begin, and 8 * steps for every pair of pixels of a band:
 * out_columns for two rows, half of it, rounded up, for a single row (each with stride 2). */
typedef struct {
    ec_planes_t planes;
    int32_t out_channels;
    int32_t steps;
    int32_t rectified;
    uint32_t limits[3];
    int32_t reverse;
    const uint32_t *weights;
} ec_separable_t;

/* Depthwise kernels as those of ec_depthwise_pairs.h. */
#define EC_SEPARABLE(name)                                                                         \
    void ec_separable_##name##_s8(const ec_separable_t *p, const int8_t *in, int8_t *out,          \
                                  void *scratch);
EC_SEPARABLE(3x3)
EC_SEPARABLE(3x3_stride2)
EC_SEPARABLE(3)
EC_SEPARABLE(3_stride2)
EC_SEPARABLE(5)
EC_SEPARABLE(5_stride2)
EC_SEPARABLE(7)
EC_SEPARABLE(7_stride2)
#undef EC_SEPARABLE

#endif
