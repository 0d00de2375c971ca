/* The inputs of an output pixel of ec_conv, as runs to be copied. */
#ifndef EC_CONV_SOURCE_H
#define EC_CONV_SOURCE_H

#include "ec_conv.h"

/* What is copied for one output pixel and group, in elements: from each row of taps inside the map
 * `runs` runs of `run`, `run_step` apart, between `left` and `right` of padding. */
typedef struct {
    ec_conv_taps_t rows;
    const int8_t *from;
    int32_t row_step;
    int32_t left;
    int32_t runs;
    int32_t run;
    int32_t run_step;
    int32_t right;
} ec_source_t;

static inline ec_source_t ec_source(const ec_conv_t *p, const int8_t *in, ec_conv_place_t at,
                                    int32_t group)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t depth = s->in_channels / p->groups;
    const ec_conv_taps_t xs = ec_conv_columns(s, at);
    const int32_t inside = xs.end - xs.first;
    const int joined = p->groups == 1 && s->dilation_width == 1;
    ec_source_t source = {
        .rows = ec_conv_rows(s, at),
        .from = in,
        .row_step = s->dilation_height * s->in_width * s->in_channels,
        .left = xs.first * depth,
        .runs = joined ? 1 : inside,
        .run = joined ? inside * depth : depth,
        .run_step = s->dilation_width * s->in_channels,
        .right = (s->kernel_width - xs.end) * depth,
    };
    if (source.rows.first >= source.rows.end || inside <= 0) {
        source.rows.first = source.rows.end = 0; /* all padding; first may lie behind the kernel */
    } else {
        const int32_t row = at.batch * s->in_height + at.row +
                            source.rows.first * s->dilation_height;
        const int32_t column = at.column + xs.first * s->dilation_width;
        source.from += (ptrdiff_t)(row * s->in_width + column) * s->in_channels + group * depth;
    }
    return source;
}

#endif
