/* Two pixels by four channels at a time: the matrix product of ec_conv_pairs. */
#ifndef EC_CONV_BLOCKS_H
#define EC_CONV_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum { EC_BLOCK = 4, EC_STEP_WORDS = 2, EC_BLOCK_WORDS = 16 };

/* What ec_conv_blocks works on. The assembly relies on the order. */
typedef struct {
    int8_t *out;            /* first pixel, next block */
    ptrdiff_t second;       /* from there to the same channel of the second pixel */
    const int8_t *out_end;  /* where `out` is after the last block */
    const uint32_t *acts;   /* per step a pair of either pixel, in the order of the weights */
    const uint32_t *acts_end;
    int32_t steps;
    int32_t rectified;
    uint32_t limits[3];
    const uint32_t *weights; /* as in ec_conv_pairs_t, like `rectified` and `limits` */
} ec_conv_blocks_t;

/* Both pixels of the output channels from `out` to `out_end`, four at a time. The second pixel is
 * written first: they may be the same one. */
void ec_conv_blocks(const ec_conv_blocks_t *b);

#endif
