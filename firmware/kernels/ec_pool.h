/* Average and maximum over windows of an NHWC tensor of int8 or int16. */
#ifndef EC_POOL_H
#define EC_POOL_H

#include <stdint.h>

#include "ec_window.h"

typedef struct {
    ec_window_t window;
    int32_t low; /* least and greatest output */
    int32_t high;
    uint8_t reverse; /* from the last output to the first */
} ec_pool_t;

/* In every direction a window's channels are read before they are written, some at a time, so that
 * the output may follow the input in memory. */
void ec_average_pool_s8(const ec_pool_t *p, const int8_t *in, int8_t *out);
void ec_average_pool_s16(const ec_pool_t *p, const int16_t *in, int16_t *out);
void ec_max_pool_s8(const ec_pool_t *p, const int8_t *in, int8_t *out);
void ec_max_pool_s16(const ec_pool_t *p, const int16_t *in, int16_t *out);

#endif
