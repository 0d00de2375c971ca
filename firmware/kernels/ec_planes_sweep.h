/* Sweeps over planes of vertical int16 pairs: one output row or pair of rows (a unit), or several
 * at once, for some channels of a depthwise convolution. */
#ifndef EC_PLANES_SWEEP_H
#define EC_PLANES_SWEEP_H

#include <stdint.h>

enum {
    EC_PLANES_FRACTION = 12, /* fraction bits of a result of the short form */
    EC_PLANES_WORDS = 4,     /* words of a column of a plane */
    EC_PLANES_WIDEST = 7,    /* columns of a kernel */
    EC_PLANES_LEFT = 1,
    EC_PLANES_RIGHT = 2,
};

/* Constants of one output channel; `shift` 0: the short form. They are followed by the weights
 * w0 w1 ... of each column, times 2^k, as pairs (w0, w1), (w1, w2), (w2, w3) ...: one less than
 * the kernel has rows. */
typedef struct {
    int32_t shift;
    int32_t multiplier;
    int32_t rounding;
    int32_t bias;
} ec_planes_channel_t;

/* What a sweep needs beside planes and constants, in bytes. The sweeps rely on the order. */
typedef struct {
    int32_t step;    /* to the lower row of a pair, or from a unit to the next (see below) */
    int32_t pixel;   /* from an output pixel to the next */
    int32_t span;    /* columns of a plane from the first output's to behind the last one's */
    int32_t plane;   /* from a plane to the next */
    int32_t count;   /* channels */
    int32_t back;    /* columns from an output to the next, less those of the kernel */
    int32_t width;   /* columns of the kernel, 1 to EC_PLANES_WIDEST */
    int32_t channel; /* from an output channel to the next */
    int32_t edge;    /* EC_PLANES_LEFT: the first column of the planes is padding; _RIGHT: the last */
    int32_t half;    /* columns whose results go to the first pixels of pairs, see below */
} ec_planes_sweep_t;

enum { EC_PLANES_SCALARS = 4 }; /* words of ec_planes_channel_t */

typedef void ec_planes_sweeper_t(uint32_t *plane, void *out, const ec_planes_sweep_t *s,
                                 const void *channels);

/* Makes the last `words` words of each column the first, in four planes of `plane` bytes. */
typedef void ec_planes_carrier_t(uint32_t *planes, int32_t plane, int32_t words);

/* One form of kernel: its rows (3, 5 or 7), stride from row to row (1 or 2), and sweeps over as
 * many units as a column of a plane has words for, over one, and over one whose lower row does not
 * exist.
 *
 * Results are int8 in rows (`step`: from a row to the next, 0 for one without a lower row), or
 * `halves`: int16, pixels in pairs four bytes apart. The two rows of a unit are the pixels of pairs
 * (`step`: from a unit to the next; 4 for one unit). A single row, with stride 2 or without a lower
 * one, has in the first places its first `half` pixels, in the second ones the others (`step`: from
 * a row to the next). */
typedef struct {
    int32_t height;
    int32_t stride;
    int32_t halves;
    ec_planes_sweeper_t *sweep_units;
    ec_planes_sweeper_t *sweep_unit;
    ec_planes_sweeper_t *sweep_row;
    ec_planes_carrier_t *carry; /* what follows `sweep_units`; NULL: it carries by itself */
} ec_planes_form_t;

/* Units to sweep at once. */
static inline int32_t ec_planes_units(const ec_planes_form_t *f)
{
    return EC_PLANES_WORDS - (f->height - 1) / 2;
}

/* Kernels three columns wide, columns as far apart as rows, for one output channel per input
 * channel; and the others. */
extern const ec_planes_form_t ec_planes_3x3, ec_planes_3x3_stride2;
extern const ec_planes_form_t ec_planes_3, ec_planes_3_stride2;
extern const ec_planes_form_t ec_planes_5, ec_planes_5_stride2;
extern const ec_planes_form_t ec_planes_7, ec_planes_7_stride2;

/* The same to halves. */
extern const ec_planes_form_t ec_planes_3x3_halves, ec_planes_3x3_stride2_halves;
extern const ec_planes_form_t ec_planes_3_halves, ec_planes_3_stride2_halves;
extern const ec_planes_form_t ec_planes_5_halves, ec_planes_5_stride2_halves;
extern const ec_planes_form_t ec_planes_7_halves, ec_planes_7_stride2_halves;

#endif
