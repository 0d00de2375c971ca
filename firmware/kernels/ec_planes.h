/* Depthwise convolution in planes of vertical int16 pairs: what its kernels share. */
#ifndef EC_PLANES_H
#define EC_PLANES_H

#include <stdint.h>

#include "ec_planes_gather.h"
#include "ec_planes_sweep.h"

enum {
    EC_PLANES_LANES = 4,   /* input channels that are gathered at once */
    EC_PLANES_COLUMN = 16, /* bytes of a column of a plane */
};

/* A kernel of 3, 5 or 7 rows (made so with weights of zero), up to seven columns, no dilation,
 * strides of 1 or 2 from row to row and any from column to column, over maps of int8. "Rows" may
 * be the columns of the image and "columns" its rows: the steps between them are free. Output
 * channel c sees input channel c / fan.
 *
 * `weights` holds per output channel int8, column after column, and a spare one behind all. A
 * `shifts` above 0 is a right shift n in the short form: weights and bias times 2^k,
 * k = EC_PLANES_FRACTION + 1 - n, k >= 2, with weights within int16 and sums within int32 after
 * that; the sign of a sum does not matter, as results below out_zero are limited anyhow. A `shifts`
 * below 0 is the right shift negated in the long form: any sum below 2^30. */
typedef struct {
    int32_t batches;
    int32_t in_channels;
    int32_t fan;
    int32_t in_rows;
    int32_t in_columns;
    int32_t in_image;  /* bytes from an image to the next; the same of rows and columns */
    int32_t in_row;
    int32_t in_column;
    int32_t out_rows;
    int32_t out_columns;
    int32_t width; /* columns of the kernel */
    int32_t column_stride;
    int32_t pad_rows;
    int32_t pad_columns;
    int32_t in_zero;
    int32_t out_zero;
    int32_t band; /* units to a band, which is made for all channels before the next */
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_planes_t;

/* A call at work. The maker of a call sets `unit`, `step` and those of `sweep`. */
typedef struct {
    const ec_planes_t *p;
    const ec_planes_form_t *form;
    int32_t pairs; /* words of a column that a unit needs, less one */
    int32_t rows;  /* of a unit: 2, or 1 with stride 2 */
    int32_t units; /* of an image */
    int32_t unit;  /* bytes from a unit of the output to the next */
    int32_t step;  /* `sweep.step` of a single unit; that of several is set in `sweep` */
    int32_t block; /* bytes from four channels of the output to the next four */
    int32_t next;  /* and from there to the four behind them */
    int32_t channel; /* words of a channel's constants */
    uint32_t *channels; /* constants of the channels at work */
    uint32_t *planes;
    uint32_t *inside; /* the first column that is no padding */
    ec_planes_gather_t gather;
    ec_planes_sweep_t sweep; /* with `step`, `pixel` and `half` */
} ec_planes_work_t;

/* Scratch, in bytes: EC_PLANES_LANES times fan * (16 + 4 * width * (rows of the kernel - 1)), the
 * constants, and EC_PLANES_COLUMN * columns, a plane; columns = (out_columns - 1) * column_stride +
 * width. There are at least EC_PLANES_LANES input channels. */
void ec_planes_begin(ec_planes_work_t *work, const ec_planes_t *p, const ec_planes_form_t *form,
                     void *scratch);

/* Makes the units `unit` to `end` - 1 of the image `in`, four channels after the other; `out` is the
 * first pixel's first channel. All inputs of a strip (as many units as are swept at once) have been
 * read, for these channels, before its outputs are written. */
void ec_planes_band(const ec_planes_work_t *work, const int8_t *in, int8_t *out, int32_t unit,
                    int32_t end);

#endif
