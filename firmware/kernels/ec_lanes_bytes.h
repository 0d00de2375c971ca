/* ec_lanes.h for cores that take one byte at a time: 4 channels. */
#ifndef EC_LANES_BYTES_H
#define EC_LANES_BYTES_H

#include "ec_lanes.h"

enum { EC_LANES = 4 };

/* How many channels are taken together when `left` are to do. */
EC_INLINE int32_t ec_lanes(int32_t left) { return left >= EC_LANES ? EC_LANES : 1; }

/* Adds the values of `lanes` channels, a number that ec_lanes gives, to their sums. */
static inline void ec_lanes_add(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                int32_t sums[EC_LANES])
{
    if (lanes == 1) {
        sums[0] += ec_lane_sum(f, in);
        return;
    }
    int32_t a = 0, b = 0, c = 0, d = 0;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            a += x[0];
            b += x[1];
            c += x[2];
            d += x[3];
            x += f->column;
        }
    }
    sums[0] += a;
    sums[1] += b;
    sums[2] += c;
    sums[3] += d;
}

/* The greatest value of each of `lanes` channels, a number that ec_lanes gives. */
static inline void ec_lanes_most(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                 int8_t most[EC_LANES])
{
    if (lanes == 1) {
        most[0] = (int8_t)ec_lane_most(f, in);
        return;
    }
    int32_t a = INT8_MIN, b = a, c = a, d = a;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            a = x[0] > a ? x[0] : a;
            b = x[1] > b ? x[1] : b;
            c = x[2] > c ? x[2] : c;
            d = x[3] > d ? x[3] : d;
            x += f->column;
        }
    }
    most[0] = (int8_t)a;
    most[1] = (int8_t)b;
    most[2] = (int8_t)c;
    most[3] = (int8_t)d;
}

#endif
