/* The five steps of ec_winograd: see ec_winograd_steps_t.
 *
 *   edges  [places][columns][4]
 *   v      [places][16][2]
 *   u      [16][places][4]
 * Where there are up to EC_WINOGRAD_BLOCK_PLACES of them, place j of u is that of place
 * (places - j) % places of v; else they agree.
 */
#ifndef EC_WINOGRAD_STEPS_H
#define EC_WINOGRAD_STEPS_H

#include <stdint.h>

#include "ec_winograd_map.h"

enum {
    EC_WINOGRAD_POSITIONS = 16,
    EC_WINOGRAD_EDGE_WORDS = 4,  /* of a column */
    EC_WINOGRAD_PLACE_WORDS = EC_WINOGRAD_POSITIONS * EC_WINOGRAD_PAIR, /* of v */
    EC_WINOGRAD_BLOCK_PLACES = 8
};

void ec_winograd_weights(const uint32_t *weights, uint32_t *u, int32_t places);

void ec_winograd_columns(const int8_t *const *rows, uint32_t *edges, int32_t width, int32_t words,
                         int32_t columns);

void ec_winograd_tiles(const uint32_t *edges, uint32_t *v, int32_t places, int32_t columns);

void ec_winograd_product(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places);

void ec_winograd_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                         int32_t row);

#endif
