/* Blocks of channels, and the accumulators of four of them. */
#ifndef EC_DEPTHWISE_SUMS_H
#define EC_DEPTHWISE_SUMS_H

#include <stdint.h>

enum { EC_BLOCK = 16, EC_TAP_WORDS = 4 };

typedef struct {
    uint32_t s0;
    uint32_t s1;
    uint32_t s2;
    uint32_t s3;
} ec_sums_t;

#endif
