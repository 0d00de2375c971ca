/* DEPTHWISE_CONV_2D with int16 activations and int8 weights: two channels at a time, four pixels in a
 * line at a time. */
#ifndef EC_DEPTHWISE_S16_H
#define EC_DEPTHWISE_S16_H

#include <stdint.h>

/* One axis of the maps. Lines lie along one axis (rows, or columns where that is cheaper). Steps are
 * the elements from a place to the next one. */
typedef struct {
    int32_t size;
    int32_t out;
    int32_t stride;
    int32_t pad;
    int32_t in_step;
    int32_t out_step;
} ec_depthwise_s16_axis_t;

/* Output channel c sees input channel c / fan. For two channels at a time the map is first copied to
 * scratch, padding around it: `lines` lines of 2 * `pairs` places, of each pair of places a word per
 * channel.
 *
 * `weights` has for every output channel (one of zeros behind an odd number) and each kernel line
 * (`dilation` lines apart) `groups` groups of three weights, (t0, t1, t2), (0, t3, t4), ..., which
 * meet the places from 0, 2, ... on. `along.stride` is 1 or 2.
 *
 * The result is round(sum * factor / 2^32), halves up. That the sums fit int32 is for the caller to
 * guarantee, whatever the input. `bias` and `factors` have a value per channel, and one behind an odd
 * number. `ending` is as in ec_conv_s16_t.
 *
 * Scratch, in bytes: 8 * pairs * lines and 4 * (3 + 5 * groups * kernel). All inputs of two channels
 * have been read before their first output is written: with fan 1 and maps of one size the output may
 * lie over the input.
 */
typedef struct {
    int32_t batches;
    int32_t in_channels;
    int32_t out_channels;
    int32_t fan;
    ec_depthwise_s16_axis_t along;
    ec_depthwise_s16_axis_t across;
    int32_t kernel; /* lines */
    int32_t dilation;
    int32_t groups;
    int32_t lines;
    int32_t pairs;
    int32_t ending;
    int32_t low;
    int32_t high;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *factors;
} ec_depthwise_s16_t;

void ec_depthwise_s16(const ec_depthwise_s16_t *p, const int16_t *in, int16_t *out, void *scratch);

#endif
