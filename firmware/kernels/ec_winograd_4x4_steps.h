/* The steps of ec_winograd_4x4 but the product: see ec_winograd_steps_t.
 *
 *   edges  [places][6][columns], each pair as high * 2^16 + low, so that words can be added,
 *          subtracted and shifted as a whole
 *   v      [36][places][2]
 *   u      [36][places][4]
 */
#ifndef EC_WINOGRAD_4X4_STEPS_H
#define EC_WINOGRAD_4X4_STEPS_H

#include <stdint.h>

#include "ec_winograd_map.h"

enum { EC_WINOGRAD_4X4_POSITIONS = 36 };

void ec_winograd_4x4_weights(const uint32_t *weights, uint32_t *u, int32_t places);

void ec_winograd_4x4_columns(const int8_t *const *rows, uint32_t *edges, int32_t width,
                             int32_t words, int32_t columns);

void ec_winograd_4x4_tiles(const uint32_t *edges, uint32_t *v, int32_t places, int32_t columns);

void ec_winograd_4x4_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                             int32_t row);

#endif
