/* The scales of four output channels of ec_conv_pairs, with less to store. */
#ifndef EC_UNPACK_SCALES_H
#define EC_UNPACK_SCALES_H

#include <stdint.h>

enum { EC_SCALES = 4 };

/* Multiplier, rounding and right shift of four channels; from the packed five words. */
static inline void ec_scales(const uint32_t *from, int32_t half, uint32_t *to)
{
    uint32_t rights = from[EC_SCALES];
    for (int32_t i = 0; i < EC_SCALES; ++i) {
        const uint32_t right = rights & 255u;
        to[0] = from[i];
        to[1] = (uint32_t)half << (right - 1u);
        to[2] = right;
        to += 3;
        rights >>= 8;
    }
}

#endif
