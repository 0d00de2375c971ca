/* ec_depthwise for cores without the DSP extension: byte by byte, which fits their loads. */
#ifndef EC_DEPTHWISE_BYTES_H
#define EC_DEPTHWISE_BYTES_H

#include "ec_depthwise.h"
#include "ec_depthwise_sums.h"
#include "ec_math.h"

/* Adds a tap's product to each sum: four inputs, four weights. */
EC_INLINE void ec_tap(ec_sums_t *sums, const int8_t *x, int32_t w0, int32_t w1, int32_t w2,
                      int32_t w3)
{
    sums->s0 += (uint32_t)(x[0] * w0);
    sums->s1 += (uint32_t)(x[1] * w1);
    sums->s2 += (uint32_t)(x[2] * w2);
    sums->s3 += (uint32_t)(x[3] * w3);
}

/* Four channels that lie side by side in the input. */
EC_INLINE ec_sums_t ec_sum(const ec_depthwise_t *p, const int8_t *const *list,
                           const uint32_t *weights, int32_t channel, const int nibbles)
{
    const uint32_t *bias = (const uint32_t *)p->bias + channel;
    const int8_t *const *const end = list + p->taps;
    const int8_t *w = (const int8_t *)weights;
    ec_sums_t sums = {bias[0], bias[1], bias[2], bias[3]};
    if (nibbles) {
        for (; list != end; list += 2) {
            ec_tap(&sums, list[0] + channel, (int8_t)(w[0] * 16) >> 4, (int8_t)(w[1] * 16) >> 4,
                   (int8_t)(w[2] * 16) >> 4, (int8_t)(w[3] * 16) >> 4);
            ec_tap(&sums, list[1] + channel, w[0] >> 4, w[1] >> 4, w[2] >> 4, w[3] >> 4);
            w += 4 * EC_TAP_WORDS;
        }
        return sums;
    }
    for (; list != end; ++list) {
        ec_tap(&sums, *list + channel, w[0], w[1], w[2], w[3]);
        w += 4 * EC_TAP_WORDS;
    }
    return sums;
}

#endif
