/* Gathering of four channels of a map of int8 into planes of vertical int16 pairs. */
#ifndef EC_PLANES_GATHER_H
#define EC_PLANES_GATHER_H

#include <stdint.h>

/* In bytes. The code relies on the order. */
typedef struct {
    int32_t row;     /* from an input row to the next */
    int32_t plane;   /* from a plane to the next */
    int32_t planes3; /* three times that */
    uint32_t zero;   /* the zero point negated, in both halves */
    int32_t back;    /* from the fifth row of a pixel to the first row of the next */
    int32_t span;    /* of a plane, from the first column that is gathered to behind the last */
} ec_planes_gather_t;

/* One word of each plane, inputs minus zero point, from an upper and a lower row of pixels as far
 * apart as given (0: one pixel). Four channels are read. */
void ec_planes_gather_word(const int8_t *upper, const int8_t *lower, uint32_t *to,
                           const ec_planes_gather_t *g, int32_t upper_step, int32_t lower_step);

/* Three words of each plane, side by side, from six rows. */
void ec_planes_gather_six(const int8_t *in, uint32_t *to, const ec_planes_gather_t *g);

#endif
