/* What output pixels of a convolution see: windows in the input, or in rows with padding around them. */
#ifndef EC_CONV_WINDOWS_H
#define EC_CONV_WINDOWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ec_conv_pairs.h"

/* Copies `count` bytes, words first; newlib's small memcpy goes byte by byte. */
static inline void ec_copy(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count >= 16; count -= 16) {
        memcpy(to, from, 16);
        to += 16;
        from += 16;
    }
    for (; count >= 4; count -= 4) {
        memcpy(to, from, 4);
        to += 4;
        from += 4;
    }
    for (; count > 0; --count) {
        *to++ = *from++;
    }
}

static inline void ec_fill(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; --count) {
        *to++ = (int8_t)value;
    }
}

/* Copies what the windows of output row `line` (counted over images) see to `to`, padding around
 * it; the columns left and right of the map are filled already. */
static inline void ec_stage(const ec_conv_pairs_t *p, const int8_t *in, int32_t line, int8_t *to)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t batch = line / s->out_height;
    const int32_t columns = s->in_width * s->in_channels;
    int32_t row = (line - batch * s->out_height) * s->stride_height - s->pad_top;
    to += p->staged_left;
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        if (row >= 0 && row < s->in_height) {
            ec_copy(to, in + (ptrdiff_t)(batch * s->in_height + row) * columns, p->staged_inside);
        } else {
            ec_fill(to, p->in_zero, p->staged_inside);
        }
        row += s->dilation_height;
        to += p->staged_row;
    }
}

enum { EC_MOST_SLOTS = 4 };

/* Output rows that are staged, by their numbers; none: -1. There are as many slots (1, 2 or 4) as rows that
 * pixels taken together may lie in. */
typedef struct {
    int8_t *rows;
    int32_t slots;
    int32_t lines[EC_MOST_SLOTS];
} ec_staged_t;

/* The first element that output pixel `pixel` sees, in the input or staged. */
static inline const int8_t *ec_window(const ec_conv_pairs_t *p, const int8_t *in,
                                      ec_staged_t *staged, int32_t pixel)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t line = pixel / s->out_width;
    const int32_t step = s->stride_width * s->in_channels;
    const int32_t column = (pixel - line * s->out_width) * step;
    if (p->staged_row == 0) {
        const int32_t batch = line / s->out_height;
        const int32_t row = (line - batch * s->out_height) * s->stride_height;
        return in + (ptrdiff_t)(batch * s->in_height + row) * s->in_width * s->in_channels + column;
    }
    const int32_t place = line & (staged->slots - 1);
    int8_t *rows = staged->rows + (ptrdiff_t)place * s->kernel_height * p->staged_row;
    if (staged->lines[place] != line) {
        staged->lines[place] = line;
        ec_stage(p, in, line, rows);
    }
    return rows + column;
}

#endif
