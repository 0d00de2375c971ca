/* ec_lanes.h for cores with Helium: any number of channels up to 16. */
#ifndef EC_LANES_MVE_H
#define EC_LANES_MVE_H

#include <arm_mve.h>

#include "ec_lanes.h"

enum { EC_LANES = 16 };

/* How many channels are taken together when `left` are to do. */
EC_INLINE int32_t ec_lanes(int32_t left) { return left < EC_LANES ? left : EC_LANES; }

/* Sums of up to EC_LANES channels, for 256 values of each at most. */
static inline void ec_lanes_halves(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                   int16_t halves[EC_LANES])
{
    const mve_pred16_t low = vctp16q((uint32_t)lanes);
    const mve_pred16_t high = vctp16q(lanes > 8 ? (uint32_t)lanes - 8 : 0);
    int16x8_t a = vdupq_n_s16(0), b = vdupq_n_s16(0);
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            a = vaddq_s16(a, vldrbq_z_s16(x, low));
            b = vaddq_s16(b, vldrbq_z_s16(x + 8, high));
            x += f->column;
        }
    }
    vst1q_s16(halves, a);
    vst1q_s16(halves + 8, b);
}

/* The greatest value of each of `lanes` channels, a number that ec_lanes gives. */
static inline void ec_lanes_most(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                 int8_t most[EC_LANES])
{
    const mve_pred16_t some = vctp8q((uint32_t)lanes);
    int8x16_t a = vdupq_n_s8(INT8_MIN);
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            a = vmaxq_s8(a, vldrbq_z_s8(x, some));
            x += f->column;
        }
    }
    vst1q_s8(most, a);
}

#endif
