/* Bits: TFLM reference_integer_ops::DepthwiseConvPerChannel (int8).
 *
 * Four channels of the NHWC map are gathered at a time into four planes of int16 pairs, input minus
 * zero point: word j of a column holds rows 2j - pad_rows (low half) and 2j + 1 - pad_rows. A unit,
 * a pair of output rows (stride 1) or one row (stride 2), needs word j and the next one, two or
 * three of each column (kernels of 3, 5 or 7 rows).
 *
 * A plane holds one strip: four words to a column, then the next column; its columns are those that
 * the outputs need, padding included, as zeros. The words that a strip shares with the next one are
 * carried to the front of each column.
 */
#include "ec_planes.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"

#define EC_NOINLINE static __attribute__((noinline))

EC_COLD void ec_planes_begin(ec_planes_work_t *w, const ec_planes_t *p, const ec_planes_form_t *form,
                     void *scratch)
{
    const int32_t columns = (p->out_columns - 1) * p->column_stride + p->width;
    const int32_t met = columns - p->pad_columns;
    const int32_t plane = columns * EC_PLANES_COLUMN;
    const uint32_t zero = (uint32_t)-p->in_zero & 0xFFFFu;
    w->p = p;
    w->form = form;
    w->pairs = (form->height - 1) / 2;
    w->rows = 3 - form->stride;
    w->units = (p->out_rows + w->rows - 1) / w->rows;
    w->channel = EC_PLANES_SCALARS + 2 * w->pairs * p->width;
    w->block = form->halves ? 2 : EC_PLANES_LANES * p->fan;
    w->next = form->halves ? 30 : w->block;
    w->channels = scratch;
    w->planes = (uint32_t *)scratch +
                EC_PLANES_LANES * p->fan * w->channel;
    w->inside = w->planes + p->pad_columns * EC_PLANES_WORDS;
    w->gather.row = p->in_row;
    w->gather.plane = plane;
    w->gather.planes3 = 3 * plane;
    w->gather.zero = zero | zero << 16;
    w->gather.back = p->in_column - 4 * p->in_row;
    w->gather.span = EC_PLANES_COLUMN * (met < p->in_columns ? met : p->in_columns);
    w->sweep.span = EC_PLANES_COLUMN * p->column_stride * p->out_columns;
    w->sweep.plane = plane;
    w->sweep.back = EC_PLANES_COLUMN * (p->column_stride - p->width);
    w->sweep.width = p->width;
    w->sweep.channel = form->halves ? 8 : p->fan;
    w->sweep.edge = (p->pad_columns > 0 ? EC_PLANES_LEFT : 0) +
                    (met > p->in_columns ? EC_PLANES_RIGHT : 0);
    memset(w->planes, 0, (size_t)plane * EC_PLANES_LANES);
}

/* The weights of a channel as pairs times 2^`scale`; where the next channel's constants go. */
static uint32_t *ec_pair_weights(uint32_t *to, const int8_t *from, int32_t width, int32_t pairs,
                                 int32_t scale)
{
    const uint32_t mask = 0xFFFF0000u | 0xFFFFu >> scale; /* what would come into the high half */
#if defined(__ARM_FEATURE_DSP)
    uint32_t even, odd;
    int32_t left;
    __asm__ volatile("1:\n\t"
                     "mov %[left], %[pairs]\n"
                     "2:\n\t"
                     "ldr %[odd], [%[from]], #2\n\t"
                     "sxtb16 %[even], %[odd]\n\t"
                     "sxtb16 %[odd], %[odd], ror #8\n\t"
                     "pkhbt r12, %[even], %[odd], lsl #16\n\t"
                     "pkhbt %[odd], %[odd], %[even]\n\t"
                     "and r12, r12, %[mask]\n\t"
                     "and %[odd], %[odd], %[mask]\n\t"
                     "lsl r12, r12, %[scale]\n\t"
                     "lsl %[odd], %[odd], %[scale]\n\t"
                     "strd r12, %[odd], [%[to]], #8\n\t"
                     "subs %[left], #1\n\t"
                     "bne 2b\n\t"
                     "add %[from], #1\n\t"
                     "subs %[width], #1\n\t"
                     "bne 1b"
                     : [to] "+r"(to), [from] "+r"(from), [width] "+r"(width), [left] "=&r"(left),
                       [even] "=&r"(even), [odd] "=&r"(odd)
                     : [pairs] "r"(pairs), [scale] "r"(scale), [mask] "r"(mask)
                     : "r12", "cc", "memory");
#else
    for (; width > 0; --width, ++from) {
        for (int32_t i = 0; i < pairs; ++i, from += 2, to += 2) {
            const uint32_t word = ec_load_u32(from);
            const uint32_t even = ec_bytes_even(word), odd = ec_bytes_odd(word);
            to[0] = (((even & 0xFFFFu) | odd << 16) & mask) << scale;
            to[1] = (((odd & 0xFFFFu) | (even & 0xFFFF0000u)) & mask) << scale;
        }
    }
#endif
    return to;
}

/* The constants of an output channel, to `to`; where the next one's go. */
EC_NOINLINE uint32_t *ec_prepare(const ec_planes_t *p, int32_t channel, uint32_t *to,
                                 int32_t pairs)
{
    const int8_t *from = p->weights + (ptrdiff_t)channel * (2 * pairs + 1) * p->width;
    int32_t scale = 1, fraction = EC_PLANES_FRACTION, shift = p->shifts[channel], rounding = 0;
    if (shift > 0) {
        scale = EC_PLANES_FRACTION + 1 - shift;
        rounding = ec_shift_left(1, scale - 2);
        shift = 0;
    } else {
        shift = -shift;
        fraction = shift;
    }
    to[0] = (uint32_t)shift;
    to[1] = (uint32_t)p->multipliers[channel];
    to[2] = (uint32_t)(ec_rounding_of(p->out_zero, fraction) + rounding);
    to[3] = (uint32_t)p->bias[channel] << scale;
    return ec_pair_weights(to + EC_PLANES_SCALARS, from, p->width, pairs, scale);
}

/* Word number `word` of the columns, from the rows `y` and `y` + 1 of the map, which may not
 * exist. */
static void ec_gather_rows(const ec_planes_work_t *w, const int8_t *in, int32_t y, uint32_t *to)
{
    const ec_planes_t *p = w->p;
    const uint32_t outside = 0x01010101u * (uint8_t)p->in_zero;
    const int8_t *rows[2];
    int32_t steps[2];
    for (int32_t i = 0; i < 2; ++i, ++y) {
        const int inside = y >= 0 && y < p->in_rows;
        rows[i] = inside ? in + (ptrdiff_t)y * p->in_row : (const int8_t *)&outside;
        steps[i] = inside ? p->in_column : 0;
    }
    ec_planes_gather_word(rows[0], rows[1], to, &w->gather, steps[0], steps[1]);
}

/* The words from `first` on, of a strip that begins at row `y`, up to the one before `end`. */
EC_NOINLINE void ec_gather_words(const ec_planes_work_t *w, const int8_t *in, int32_t y,
                                 int32_t first, int32_t end)
{
    const ec_planes_t *p = w->p;
    uint32_t *to = w->inside + first;
    y += 2 * first;
    if (end - first == 3 && y >= 0 && y + 6 <= p->in_rows) {
        ec_planes_gather_six(in + (ptrdiff_t)y * p->in_row, to, &w->gather);
        return;
    }
    for (; first < end; ++first, ++to, y += 2) {
        ec_gather_rows(w, in, y, to);
    }
}

/* The output channels of the input channels in `planes`, one of each at a time. */
EC_NOINLINE void ec_sweep_channels(const ec_planes_work_t *w, ec_planes_sweeper_t *sweeper,
                                   uint32_t *planes, int8_t *out, const ec_planes_sweep_t *sweep)
{
    const uint32_t *channels = w->channels;
    for (int32_t i = w->p->fan; ; ++out) {
        sweeper(planes, out, sweep, channels);
        if (--i == 0) {
            return;
        }
        channels += sweep->count * w->channel;
    }
}

/* Four channels from number `first` on, or those that are left: the last four are gathered, the
 * ones that have been made are passed over. */
static void ec_make_units(const ec_planes_work_t *w, const int8_t *in, int8_t *out, int32_t first,
                          int32_t unit, int32_t end)
{
    const ec_planes_t *p = w->p;
    const ec_planes_form_t *f = w->form;
    const int32_t pairs = w->pairs, units = EC_PLANES_WORDS - pairs;
    const int32_t left = p->in_channels - first;
    const int32_t known = left < EC_PLANES_LANES ? EC_PLANES_LANES - left : 0;
    uint32_t *planes = w->planes + known * (w->gather.plane / 4);
    ec_planes_sweep_t sweep = w->sweep;
    int32_t y = 2 * unit - p->pad_rows;
    sweep.count = EC_PLANES_LANES - known;
    uint32_t *to = w->channels;
    for (int32_t i = 0; i < p->fan; ++i) {
        for (int32_t lane = 0; lane < sweep.count; ++lane) {
            to = ec_prepare(p, (first + lane) * p->fan + i, to, pairs);
        }
    }
    in += first - known;
    ec_gather_words(w, in, y, 0, pairs);
    for (; unit + units <= end && (unit + units) * w->rows <= p->out_rows; unit += units) {
        ec_gather_words(w, in, y, pairs, EC_PLANES_WORDS);
        ec_sweep_channels(w, f->sweep_units, planes, out, &sweep);
        if (f->carry != NULL) {
            f->carry(w->planes, w->gather.plane, pairs);
        }
        y += 2 * units;
        out += units * w->unit;
    }
    ec_gather_words(w, in, y, pairs, pairs + end - unit);
    sweep.step = w->step;
    for (; unit < end; ++unit, ++planes, out += w->unit) {
        ec_planes_sweeper_t *sweeper = f->sweep_unit;
        if ((unit + 1) * w->rows > p->out_rows) {
            sweep.step = 0;
            sweeper = f->sweep_row;
        }
        ec_sweep_channels(w, sweeper, planes, out, &sweep);
    }
}

void ec_planes_band(const ec_planes_work_t *w, const int8_t *in, int8_t *out, int32_t unit,
                    int32_t end)
{
    const int32_t both = w->block + w->next;
    int32_t block = w->block;
    for (int32_t first = 0; first < w->p->in_channels; first += EC_PLANES_LANES) {
        ec_make_units(w, in, out, first, unit, end);
        out += block;
        block = both - block;
    }
}
