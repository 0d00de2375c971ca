/* Where the outputs of a pair of tiles go. */
#ifndef EC_WINOGRAD_STORE_H
#define EC_WINOGRAD_STORE_H

#include "ec_winograd_map.h"

/* The first output of a pair of tiles and a group of channels, and what the pair makes. */
typedef struct {
    int32_t y;
    int32_t x;
    int32_t channel;
    int32_t rows;
    int32_t columns;
} ec_winograd_tile_t;

/* The outputs of `sums` into the image `out`. */
void ec_winograd_store(const ec_winograd_t *p, ec_winograd_outputs_t outputs, const int32_t *sums,
                       int8_t *out, ec_winograd_tile_t at);

/* A row of inputs, or of padding where `from` is NULL, as `words` words. */
void ec_winograd_stage(const int8_t *from, uint32_t *to, int32_t words, uint32_t pad);

#endif
