/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8).
 *
 * Output pixels are taken two at a time, over rows and images; the last of an odd number twice. How
 * their inputs are gathered in scratch and multiplied depends on the core.
 */
#include "ec_conv.h"

#include <stddef.h>

#include "ec_math.h"

#if defined(EC_WITH_MVE)
#include "ec_conv_mve.h"
#elif defined(EC_WITH_DSP)
#include "ec_conv_halves.h"
#else
#include "ec_conv_lanes.h"
#endif

#if !defined(EC_WITH_MVE)
/* All channels of one group for the two pixels in `acts`. */
EC_INLINE void ec_product(const ec_conv_t *p, const void *scratch, int32_t count, int32_t group,
                          int8_t *first, int8_t *second, const int nibbles)
{
    const int32_t channels = p->shape.out_channels / p->groups;
    const uint32_t *weights = p->weights + (ptrdiff_t)group * channels * p->words;
    const int32_t end = (group + 1) * channels;
    const uint32_t *acts = scratch;
    int32_t channel = group * channels;
    (void)count;
    first += channel;
    second += channel;
    for (; channel + 1 < end; channel += 2) {
        weights = ec_channels(p, acts, weights, channel, first, second, 0, nibbles);
        first += 2;
        second += 2;
    }
    if (channel < end) {
        ec_channels(p, acts, weights, channel, first, second, 1, nibbles);
    }
}
#endif

EC_INLINE void ec_conv(const ec_conv_t *p, const int8_t *in, int8_t *out, void *scratch,
                       const int nibbles)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t pairs = (pixels + 1) / 2;
    const int32_t weights = (nibbles ? 8 : 4) * p->words;
    for (int32_t count = 0; count < pairs; ++count) {
        const int32_t pixel = 2 * (p->reverse ? pairs - 1 - count : count);
        const int32_t last = pixel + 1 < pixels ? pixel + 1 : pixel;
        int8_t *first = out + (ptrdiff_t)pixel * s->out_channels;
        int8_t *second = out + (ptrdiff_t)last * s->out_channels;
        for (int32_t group = 0; group < p->groups; ++group) {
            ec_gather(p, in, pixel, last, group, weights, scratch, nibbles);
            ec_product(p, scratch, weights, group, first, second, nibbles);
        }
    }
}

void ec_conv_s8(const ec_conv_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    ec_conv(p, in, out, scratch, 0);
}

void ec_conv_s4(const ec_conv_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    ec_conv(p, in, out, scratch, 1);
}
