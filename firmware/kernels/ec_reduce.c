#include "ec_reduce.h"

#include <stddef.h>

#include "ec_lanes.h"
#include "ec_math.h"

/* Reduces to `lanes` neighbouring outputs, the first of which begins at `in`. */
typedef void (*ec_reduce_cell_t)(const ec_axes_t *axes, const void *in, int32_t lanes,
                                 int32_t result[EC_LANES]);

static void ec_reduce_add_s8(const ec_axes_t *axes, const void *in, int32_t lanes,
                             int32_t result[EC_LANES])
{
    const int32_t *last = axes->gone + 2 * (axes->gone_rank - 1);
    const ec_field_t field = {1, 0, last[0], last[1]};
    ec_place_t place = {{0}, 0};
    for (int32_t k = 0; k < lanes; k++) {
        result[k] = 0;
    }
    do {
        ec_lanes_add(&field, (const int8_t *)in + place.offset, lanes, result);
    } while (ec_axes_next(axes->gone, axes->gone_rank, &place));
}

static void ec_reduce_add_s16(const ec_axes_t *axes, const void *in, int32_t lanes,
                              int32_t result[EC_LANES])
{
    const int32_t *last = axes->gone + 2 * (axes->gone_rank - 1);
    const int32_t end = last[0] * last[1];
    for (int32_t k = 0; k < lanes; k++) {
        ec_place_t place = {{0}, 0};
        int32_t sum = 0;
        do {
            const int16_t *x = (const int16_t *)in + place.offset + k;
            for (int32_t i = 0; i < end; i += last[1]) {
                sum += x[i];
            }
        } while (ec_axes_next(axes->gone, axes->gone_rank, &place));
        result[k] = sum;
    }
}

#define EC_REDUCE_PICK(name, compare, start)                                                       \
    static void name(const ec_axes_t *axes, const void *in, int32_t lanes,                         \
                     int32_t result[EC_LANES])                                                      \
    {                                                                                              \
        const int32_t *last = axes->gone + 2 * (axes->gone_rank - 1);                              \
        for (int32_t k = 0; k < lanes; k++) {                                                      \
            ec_place_t place = {{0}, 0};                                                           \
            int32_t best = start;                                                                  \
            do {                                                                                   \
                const int8_t *x = (const int8_t *)in + place.offset + k;                           \
                for (int32_t i = 0; i < last[0]; i++) {                                            \
                    const int32_t value = x[i * last[1]];                                          \
                    best = value compare best ? value : best;                                      \
                }                                                                                  \
            } while (ec_axes_next(axes->gone, axes->gone_rank, &place));                           \
            result[k] = best;                                                                      \
        }                                                                                          \
    }

EC_REDUCE_PICK(ec_reduce_most_s8, >, INT8_MIN)
EC_REDUCE_PICK(ec_reduce_least_s8, <, INT8_MAX)

static void ec_reduce_store(const ec_reduce_t *p, const int32_t result[EC_LANES], int32_t lanes,
                            int32_t width, void *out, int32_t at)
{
    for (int32_t k = 0; k < lanes; k++) {
        int32_t value = result[k];
        if (p != NULL) {
            value = ec_requantize(value - p->input_zero, p->multiplier, p->shift);
            value = (int32_t)((uint32_t)value + (uint32_t)p->output_zero);
        }
        if (width == 1) {
            ((int8_t *)out)[at + k] = (int8_t)ec_clamp(value, INT8_MIN, INT8_MAX);
        } else {
            ((int16_t *)out)[at + k] = (int16_t)ec_clamp(value, INT16_MIN, INT16_MAX);
        }
    }
}

/* Every output in order; rescaled where `p` is given. */
static void ec_reduce_walk(const ec_axes_t *axes, const ec_reduce_t *p, const void *in, void *out,
                           int32_t width, ec_reduce_cell_t cell)
{
    const int32_t *last = axes->kept + 2 * (axes->kept_rank - 1);
    ec_place_t place = {{0}, 0};
    int32_t at = 0;
    do {
        for (int32_t i = 0, lanes; i < last[0]; i += lanes) {
            lanes = last[1] == 1 ? ec_lanes(last[0] - i) : 1;
            int32_t result[EC_LANES];
            const int32_t from = place.offset + i * last[1];
            cell(axes, (const uint8_t *)in + from * width, lanes, result);
            ec_reduce_store(p, result, lanes, width, out, at);
            at += lanes;
        }
    } while (ec_axes_next(axes->kept, axes->kept_rank, &place));
}

void ec_reduce_sum_s8(const ec_reduce_t *p, const int8_t *in, int8_t *out)
{
    ec_reduce_walk(&p->axes, p, in, out, 1, ec_reduce_add_s8);
}

void ec_reduce_sum_s16(const ec_reduce_t *p, const int16_t *in, int16_t *out)
{
    ec_reduce_walk(&p->axes, p, in, out, 2, ec_reduce_add_s16);
}

void ec_reduce_max_s8(const ec_axes_t *p, const int8_t *in, int8_t *out)
{
    ec_reduce_walk(p, NULL, in, out, 1, ec_reduce_most_s8);
}

void ec_reduce_min_s8(const ec_axes_t *p, const int8_t *in, int8_t *out)
{
    ec_reduce_walk(p, NULL, in, out, 1, ec_reduce_least_s8);
}
