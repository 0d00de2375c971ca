/* Bits: TFLM reference_integer_ops::AveragePool and MaxPool. */
#include "ec_pool.h"

#include <string.h>

#include "ec_lanes.h"
#include "ec_math.h"

/* Reduces `lanes` channels of a window, which begins at `in`, to as many values at `out`. */
typedef void (*ec_pool_cell_t)(const ec_pool_t *p, const ec_part_t *part, const void *in, void *out,
                               int32_t lanes);

static ec_field_t ec_pool_field(const ec_part_t *part)
{
    return ec_field(part->rows, part->row, part->columns, part->channels);
}

static EC_COLD void ec_pool_average_s8(const ec_pool_t *p, const ec_part_t *part, const void *in, void *out,
                               int32_t lanes)
{
    const ec_field_t field = ec_pool_field(part);
    const int32_t count = part->rows * part->columns;
    int32_t sums[EC_LANES] = {0};
    ec_lanes_add(&field, in, lanes, sums);
    int8_t *to = out;
    for (int32_t k = 0; k < lanes; k++) {
        to[k] = (int8_t)ec_clamp(ec_pool_mean(sums[k], count), p->low, p->high);
    }
}

static void ec_pool_max_s8(const ec_pool_t *p, const ec_part_t *part, const void *in, void *out,
                           int32_t lanes)
{
    const ec_field_t field = ec_pool_field(part);
    int8_t most[EC_LANES];
    ec_lanes_most(&field, in, lanes, most);
    if (p->low != INT8_MIN || p->high != INT8_MAX) {
        for (int32_t k = 0; k < lanes; k++) {
            most[k] = (int8_t)ec_clamp(most[k], p->low, p->high);
        }
    }
    memcpy(out, most, (uint32_t)lanes);
}

/* One channel, or four, of int16. */
static void ec_pool_average_s16(const ec_pool_t *p, const ec_part_t *part, const void *in, void *out,
                                int32_t lanes)
{
    const int32_t count = part->rows * part->columns;
    const int32_t end = part->columns * part->channels;
    int32_t a = 0, b = 0, c = 0, d = 0;
    for (int32_t y = 0; y < part->rows; y++) {
        const int16_t *x = (const int16_t *)in + y * part->row;
        for (int32_t i = 0; i < end; i += part->channels) {
            a += x[i];
            if (lanes > 1) {
                b += x[i + 1];
                c += x[i + 2];
                d += x[i + 3];
            }
        }
    }
    const int32_t sums[4] = {a, b, c, d};
    for (int32_t k = 0; k < lanes; k++) {
        ((int16_t *)out)[k] = (int16_t)ec_clamp(ec_pool_mean(sums[k], count), p->low, p->high);
    }
}

static void ec_pool_max_s16(const ec_pool_t *p, const ec_part_t *part, const void *in, void *out,
                            int32_t lanes)
{
    const int32_t end = part->columns * part->channels;
    int32_t a = INT16_MIN, b = a, c = a, d = a;
    for (int32_t y = 0; y < part->rows; y++) {
        const int16_t *x = (const int16_t *)in + y * part->row;
        for (int32_t i = 0; i < end; i += part->channels) {
            a = x[i] > a ? x[i] : a;
            if (lanes > 1) {
                b = x[i + 1] > b ? x[i + 1] : b;
                c = x[i + 2] > c ? x[i + 2] : c;
                d = x[i + 3] > d ? x[i + 3] : d;
            }
        }
    }
    const int32_t most[4] = {a, b, c, d};
    for (int32_t k = 0; k < lanes; k++) {
        ((int16_t *)out)[k] = (int16_t)ec_clamp(most[k], p->low, p->high);
    }
}

/* Every window, in order or in reverse, with `cell`; elements of `width` bytes. */
static EC_COLD void ec_pool_walk(const ec_pool_t *p, const void *in, void *out, int32_t width,
                         ec_pool_cell_t cell)
{
    const ec_window_t *w = &p->window;
    const int32_t rows = w->batches * w->out_height;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < w->out_width; j++) {
            const ec_part_t part = ec_window_part(w, p->reverse ? rows - 1 - i : i,
                                                  p->reverse ? w->out_width - 1 - j : j);
            for (int32_t done = 0, lanes; done < w->channels; done += lanes) {
                lanes = width == 1 ? ec_lanes(w->channels - done)
                                   : ec_window_lanes(w->channels - done);
                const int32_t channel = p->reverse ? w->channels - done - lanes : done;
                cell(p, &part, (const uint8_t *)in + (part.in + channel) * width,
                     (uint8_t *)out + (part.out + channel) * width, lanes);
            }
        }
    }
}

void ec_average_pool_s8(const ec_pool_t *p, const int8_t *in, int8_t *out)
{
    ec_pool_walk(p, in, out, 1, ec_pool_average_s8);
}

void ec_average_pool_s16(const ec_pool_t *p, const int16_t *in, int16_t *out)
{
    ec_pool_walk(p, in, out, 2, ec_pool_average_s16);
}

void ec_max_pool_s8(const ec_pool_t *p, const int8_t *in, int8_t *out)
{
    ec_pool_walk(p, in, out, 1, ec_pool_max_s8);
}

void ec_max_pool_s16(const ec_pool_t *p, const int16_t *in, int16_t *out)
{
    ec_pool_walk(p, in, out, 2, ec_pool_max_s16);
}
