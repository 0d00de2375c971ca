/* The steps of ec_winograd_1x4. Words hold two int16, a pair of input channels, of which there are
 * `places`, an even number. */
#ifndef EC_WINOGRAD_1X4_STEPS_H
#define EC_WINOGRAD_1X4_STEPS_H

#include <stdint.h>

enum {
    EC_WINOGRAD_1X4_POSITIONS = 6,
    EC_WINOGRAD_1X4_ROWS = 3
};

/* u [6][3 rows][places][4] of four output channels from `weights`, [places / 2][4][9] words. */
void ec_winograd_1x4_weights(const uint32_t *weights, uint32_t *u, int32_t places);

/* V of six pixels of places / 2 words each: place after place every second word, the six positions
 * `position` words apart. */
void ec_winograd_1x4_tile(const uint32_t *in, uint32_t *v, int32_t places, int32_t position);

/* The outputs of two tiles and four channels, an ec_winograd_outputs_t; there is but one row. */
void ec_winograd_1x4_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                             int32_t row);

#endif
