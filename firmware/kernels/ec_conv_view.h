/* The part of a map that one output pixel of a convolution sees, padding skipped. */
#ifndef EC_CONV_VIEW_H
#define EC_CONV_VIEW_H

#include <stddef.h>

#include "ec_conv_shape.h"

/* What the accumulation for one output pixel needs: the taps inside the input, the input at the
 * first of them, the elements from row to row and column to column. */
typedef struct {
    ec_conv_taps_t rows;
    ec_conv_taps_t columns;
    ptrdiff_t start;
    ptrdiff_t row_step;
    ptrdiff_t column_step;
} ec_view_t;

static inline ec_view_t ec_view(const ec_conv_shape_t *s, int32_t pixel)
{
    const ec_conv_place_t at = ec_conv_place(s, pixel);
    ec_view_t view = {
        .rows = ec_conv_rows(s, at),
        .columns = ec_conv_columns(s, at),
        .start = 0,
        .row_step = (ptrdiff_t)s->dilation_height * s->in_width * s->in_channels,
        .column_step = (ptrdiff_t)s->dilation_width * s->in_channels,
    };
    if (view.rows.first >= view.rows.end || view.columns.first >= view.columns.end) {
        view.rows.end = view.rows.first;
    } else {
        const ptrdiff_t row = at.batch * s->in_height + at.row;
        view.start = (row * s->in_width + at.column) * s->in_channels +
                     view.rows.first * view.row_step + view.columns.first * view.column_step;
    }
    return view;
}

#endif
