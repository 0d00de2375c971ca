#include "ec_pool.h"

#include "ec_math.h"

/* Reduces `lanes` (1 or 4) channels of a window, in sight of `in`, to as many values. */
typedef void (*ec_pool_cell_t)(const ec_part_t *part, const void *in, int32_t lanes,
                               int32_t result[4]);

/* acc / count, halves away from zero (TFLM AveragePool). */
static int32_t ec_pool_mean(int32_t acc, int32_t count)
{
    return (acc > 0 ? acc + count / 2 : acc - count / 2) / count;
}

#define EC_POOL_CELLS(type, suffix, lowest)                                                        \
    static void ec_pool_average_##suffix(const ec_part_t *part, const void *in, int32_t lanes,     \
                                         int32_t result[4])                                        \
    {                                                                                              \
        const int32_t count = part->rows * part->columns;                                          \
        int32_t a = 0, b = 0, c = 0, d = 0;                                                        \
        const int32_t end = part->columns * part->channels;                                        \
        for (int32_t y = 0; y < part->rows; y++) {                                                 \
            const type *x = (const type *)in + y * part->row;                                      \
            if (lanes == 1) {                                                                      \
                for (int32_t i = 0; i < end; i += part->channels) {                                \
                    a += x[i];                                                                     \
                }                                                                                  \
                continue;                                                                          \
            }                                                                                      \
            for (int32_t i = 0; i < end; i += part->channels) {                                    \
                a += x[i];                                                                         \
                b += x[i + 1];                                                                     \
                c += x[i + 2];                                                                     \
                d += x[i + 3];                                                                     \
            }                                                                                      \
        }                                                                                          \
        result[0] = ec_pool_mean(a, count);                                                        \
        if (lanes > 1) {                                                                           \
            result[1] = ec_pool_mean(b, count);                                                    \
            result[2] = ec_pool_mean(c, count);                                                    \
            result[3] = ec_pool_mean(d, count);                                                    \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static void ec_pool_max_##suffix(const ec_part_t *part, const void *in, int32_t lanes,         \
                                     int32_t result[4])                                            \
    {                                                                                              \
        int32_t a = lowest, b = lowest, c = lowest, d = lowest;                                    \
        const int32_t end = part->columns * part->channels;                                        \
        for (int32_t y = 0; y < part->rows; y++) {                                                 \
            const type *x = (const type *)in + y * part->row;                                      \
            if (lanes == 1) {                                                                      \
                for (int32_t i = 0; i < end; i += part->channels) {                                \
                    a = x[i] > a ? x[i] : a;                                                       \
                }                                                                                  \
                continue;                                                                          \
            }                                                                                      \
            for (int32_t i = 0; i < end; i += part->channels) {                                    \
                a = x[i] > a ? x[i] : a;                                                           \
                b = x[i + 1] > b ? x[i + 1] : b;                                                   \
                c = x[i + 2] > c ? x[i + 2] : c;                                                   \
                d = x[i + 3] > d ? x[i + 3] : d;                                                   \
            }                                                                                      \
        }                                                                                          \
        result[0] = a;                                                                             \
        result[1] = b;                                                                             \
        result[2] = c;                                                                             \
        result[3] = d;                                                                             \
    }

EC_POOL_CELLS(int8_t, s8, INT8_MIN)
EC_POOL_CELLS(int16_t, s16, INT16_MIN)

/* Every window, in order or in reverse, with `cell`; elements of `width` bytes. */
static void ec_pool_walk(const ec_pool_t *p, const void *in, void *out, int32_t width,
                         ec_pool_cell_t cell)
{
    const ec_window_t *w = &p->window;
    const int32_t rows = w->batches * w->out_height;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < w->out_width; j++) {
            const ec_part_t part = ec_window_part(w, p->reverse ? rows - 1 - i : i,
                                                  p->reverse ? w->out_width - 1 - j : j);
            for (int32_t done = 0, lanes; done < w->channels; done += lanes) {
                lanes = ec_window_lanes(w->channels - done);
                const int32_t channel = p->reverse ? w->channels - done - lanes : done;
                int32_t result[4];
                cell(&part, (const uint8_t *)in + (part.in + channel) * width, lanes, result);
                for (int32_t k = 0; k < lanes; k++) {
                    const int32_t value = ec_clamp(result[k], p->low, p->high);
                    if (width == 1) {
                        ((int8_t *)out)[part.out + channel + k] = (int8_t)value;
                    } else {
                        ((int16_t *)out)[part.out + channel + k] = (int16_t)value;
                    }
                }
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
