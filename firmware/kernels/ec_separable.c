#include "ec_separable.h"

#include <stddef.h>

#include "ec_conv_pairs.h"

/* `count` pairs of pixels, side by side in either row; the last is `alone`, or not. */
static void ec_pairs(ec_conv_blocks_t *b, const uint32_t *acts, int8_t *out, ptrdiff_t second,
                     int32_t count, int32_t alone, int32_t channels)
{
    for (; count > 0; --count) {
        b->acts = acts;
        acts += EC_STEP_WORDS * (ptrdiff_t)b->steps;
        b->acts_end = acts;
        b->out = out;
        out += channels;
        b->out_end = out;
        b->second = count == 1 && alone ? 0 : second;
        ec_conv_blocks(b);
    }
}

/* The outputs of the units `unit` to `end` - 1, from their depthwise results; `out` is the image. */
static void ec_points(const ec_separable_t *p, const ec_planes_work_t *w, const uint32_t *acts,
                      int8_t *out, int32_t unit, int32_t end)
{
    const int32_t columns = p->planes.out_columns, row = columns * p->out_channels;
    ec_conv_blocks_t b = {
        .steps = p->steps,
        .rectified = p->rectified,
        .limits = {p->limits[0], p->limits[1], p->limits[2]},
        .weights = p->weights,
    };
    out += (ptrdiff_t)unit * w->rows * row;
    for (; unit < end; ++unit) {
        if ((unit + 1) * w->rows <= p->planes.out_rows && w->rows == 2) {
            ec_pairs(&b, acts, out, row, columns, 0, p->out_channels);
        } else {
            const int32_t half = w->sweep.half;
            ec_pairs(&b, acts, out, (ptrdiff_t)half * p->out_channels, half, columns % 2,
                     p->out_channels);
        }
        acts += w->unit / 4;
        out += w->rows * row;
    }
}

static void ec_separable(const ec_separable_t *p, const int8_t *in, int8_t *out, void *scratch,
                         const ec_planes_form_t *form)
{
    const ec_planes_t *s = &p->planes;
    ec_planes_work_t w;
    ec_planes_begin(&w, s, form, scratch);
    w.sweep.pixel = 8 * p->steps;
    w.sweep.half = (s->out_columns + 1) / 2;
    w.unit = w.sweep.pixel * (w.rows == 2 ? s->out_columns : w.sweep.half);
    w.step = 4;
    w.sweep.step = w.pairs + 1 < EC_PLANES_WORDS ? w.unit : w.step; /* one unit at a time, or more */
    uint32_t *const acts = w.planes + w.gather.plane; /* four planes, in words */
    const int32_t bands = (w.units + s->band - 1) / s->band;
    for (int32_t i = 0; i < s->batches * bands; ++i) {
        const int32_t at = p->reverse ? s->batches * bands - 1 - i : i;
        const int32_t batch = at / bands, unit = (at - batch * bands) * s->band;
        const int32_t end = unit + s->band < w.units ? unit + s->band : w.units;
        ec_planes_band(&w, in + (ptrdiff_t)batch * s->in_image, (int8_t *)acts, unit, end);
        ec_points(p, &w, acts,
                  out + (ptrdiff_t)batch * s->out_rows * s->out_columns * p->out_channels, unit,
                  end);
    }
}

#define EC_SEPARABLE(name)                                                                         \
    void ec_separable_##name##_s8(const ec_separable_t *p, const int8_t *in, int8_t *out,          \
                                  void *scratch)                                                   \
    {                                                                                              \
        ec_separable(p, in, out, scratch, &ec_planes_##name##_halves);                             \
    }

EC_SEPARABLE(3x3)
EC_SEPARABLE(3x3_stride2)
EC_SEPARABLE(3)
EC_SEPARABLE(3_stride2)
EC_SEPARABLE(5)
EC_SEPARABLE(5_stride2)
EC_SEPARABLE(7)
EC_SEPARABLE(7_stride2)
