/* The average over a whole map of int8, band of rows after band of rows. */
#ifndef EC_POOL_ROWS_H
#define EC_POOL_ROWS_H

#include <stdint.h>

typedef struct {
    int32_t channels;
    int32_t pixels; /* of this band */
    int32_t count;  /* of the map */
    int32_t low;    /* least and greatest output */
    int32_t high;
    uint8_t first; /* this band is the first one: the sums start at 0 */
    uint8_t last;  /* it is the last one: the output is written */
} ec_pool_rows_t;

/* `sums` has a word per channel and keeps it from band to band. */
void ec_average_pool_rows_s8(const ec_pool_rows_t *p, const int8_t *in, int32_t *sums, int8_t *out);

#endif
