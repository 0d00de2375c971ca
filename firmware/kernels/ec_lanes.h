/* Sums and maxima of int8 over a window, for channels that lie side by side: several at a time. */
#ifndef EC_LANES_H
#define EC_LANES_H

#include <stdint.h>
#include <string.h>

#include "ec_math.h"

/* Where the values of the first channel lie: `rows` times `columns` of them, in elements from row to
 * row and from column to column. */
typedef struct {
    int32_t rows;
    int32_t row;
    int32_t columns;
    int32_t column;
} ec_field_t;

/* The values of one channel added up. */
static inline int32_t ec_lane_sum(const ec_field_t *f, const int8_t *in)
{
    int32_t sum = 0;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            sum += *x;
            x += f->column;
        }
    }
    return sum;
}

/* The greatest value of one channel. */
static inline int32_t ec_lane_most(const ec_field_t *f, const int8_t *in)
{
    int32_t most = INT8_MIN;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            most = *x > most ? *x : most;
            x += f->column;
        }
    }
    return most;
}

#if defined(EC_WITH_MVE)
#include "ec_lanes_mve.h"
#elif defined(EC_WITH_DSP)
#include "ec_lanes_words.h"
#else
#include "ec_lanes_bytes.h"
#endif

/* `rows` and `columns` of a field as few rows as can be. */
static inline ec_field_t ec_field(int32_t rows, int32_t row, int32_t columns, int32_t column)
{
    ec_field_t field = {rows, row, columns, column};
    if (row == columns * column) {
        field.rows = 1;
        field.columns = rows * columns;
    }
    return field;
}

#if defined(EC_WITH_MVE) || defined(EC_WITH_DSP)

/* Values whose sum fits 16 bits. */
enum { EC_HALF_ROOM = 256 };

static __attribute__((noinline)) void ec_lanes_add_halves(const ec_field_t *f, const int8_t *in,
                                                          int32_t lanes, int32_t sums[EC_LANES])
{
    int16_t halves[EC_LANES];
    ec_lanes_halves(f, in, lanes, halves);
    for (int32_t k = 0; k < lanes; k++) {
        sums[k] += halves[k];
    }
}

/* Adds the values of `lanes` channels, a number that ec_lanes gives, to their sums. */
static inline void ec_lanes_add(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                int32_t sums[EC_LANES])
{
    if (lanes == 1) {
        sums[0] += ec_lane_sum(f, in);
        return;
    }
    if (f->rows * f->columns <= EC_HALF_ROOM) {
        ec_lanes_add_halves(f, in, lanes, sums);
        return;
    }
    ec_field_t part = {1, 0, EC_HALF_ROOM, f->column};
    for (int32_t y = 0; y < f->rows; y++) {
        for (int32_t done = 0; done < f->columns; done += part.columns) {
            const int32_t left = f->columns - done;
            part.columns = left < EC_HALF_ROOM ? left : EC_HALF_ROOM;
            ec_lanes_add_halves(&part, in + y * f->row + done * f->column, lanes, sums);
        }
    }
}

#endif

#endif
