/* Bits: TFLM reference_integer_ops::DepthwiseConvPerChannel (int8).
 *
 * For every output pixel a list of the inputs under the taps is made; a tap outside points to a
 * pixel of zero points. Four channels at a time are then accumulated along the list.
 */
#include "ec_depthwise.h"

#include <stddef.h>
#include <string.h>

#include "ec_depthwise_sums.h"
#include "ec_math.h"

#if defined(EC_WITH_MVE)
#include "ec_depthwise_mve.h"
#elif defined(EC_WITH_DSP)
#include "ec_depthwise_halves.h"
#else
#include "ec_depthwise_bytes.h"
#endif

static void ec_list_taps(const ec_depthwise_t *p, const int8_t *in, int32_t pixel,
                         const int8_t *outside, const int8_t **list)
{
    const ec_conv_shape_t *s = &p->shape;
    const ec_conv_place_t at = ec_conv_place(s, pixel);
    const int32_t columns = s->in_width * s->in_channels;
    const int32_t step = s->dilation_width * s->in_channels;
    const int32_t left = at.column * s->in_channels;
    const int whole = left >= 0 && left + (s->kernel_width - 1) * step < columns;
    int32_t y = at.row;
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        const int inside = y >= 0 && y < s->in_height;
        const int8_t *row = in + (inside ? ((ptrdiff_t)at.batch * s->in_height + y) * columns : 0);
        const int8_t **const end = list + s->kernel_width;
        int32_t x = left;
        if (inside && whole) {
            for (const int8_t *tap = row + x; list != end; tap += step) {
                *list++ = tap;
            }
        }
        for (; list != end; x += step) {
            *list++ = inside && x >= 0 && x < columns ? row + x : outside;
        }
        y += s->dilation_height;
    }
}

/* One channel, whose inputs lie anywhere in the pixels. */
EC_INLINE uint32_t ec_sum_one(const ec_depthwise_t *p, const int8_t *const *list, int32_t channel,
                              const int nibbles)
{
    const int8_t *const *const end = list + p->taps;
    const int32_t bytes = nibbles ? p->taps / 2 : p->taps;
    const int8_t *w = (const int8_t *)p->weights + channel / EC_BLOCK * EC_BLOCK * bytes;
    const int32_t place = channel / p->fan;
    w += channel % EC_BLOCK;
    uint32_t sum = (uint32_t)p->bias[channel];
    while (list != end) {
        const int32_t x = (*list++)[place];
        sum += (uint32_t)(x * (nibbles ? (int8_t)(*w * 16) >> 4 : *w));
        if (nibbles) sum += (uint32_t)((*list++)[place] * (*w >> 4));
        w += EC_BLOCK;
    }
    return sum;
}

static inline int32_t ec_result(const ec_depthwise_t *p, int32_t channel, uint32_t sum)
{
    const int32_t right = p->shifts[channel];
    return ec_saturate_s8(ec_requantize_right((int32_t)sum, p->multipliers[channel],
                                              ec_rounding_of(p->out_zero, right), right));
}

#if !defined(EC_WITH_MVE)
/* All four results before the first is stored: a store through int8_t may change any parameter, as
 * far as the compiler knows. */
EC_INLINE void ec_results(const ec_depthwise_t *p, int32_t channel, ec_sums_t sums, int8_t *out)
{
    int32_t y0 = ec_result(p, channel, sums.s0);
    EC_ORDER(y0, channel);
    int32_t y1 = ec_result(p, channel + 1, sums.s1);
    EC_ORDER(y1, channel);
    int32_t y2 = ec_result(p, channel + 2, sums.s2);
    EC_ORDER(y2, channel);
    int32_t y3 = ec_result(p, channel + 3, sums.s3);
    if (p->limited) {
        y0 = ec_clamp(y0, p->low, p->high);
        y1 = ec_clamp(y1, p->low, p->high);
        y2 = ec_clamp(y2, p->low, p->high);
        y3 = ec_clamp(y3, p->low, p->high);
    }
    out[0] = (int8_t)y0;
    out[1] = (int8_t)y1;
    out[2] = (int8_t)y2;
    out[3] = (int8_t)y3;
}

/* Channels by fours, where output and input channels are the same; how many have been done. */
EC_INLINE int32_t ec_blocks(const ec_depthwise_t *p, const int8_t *const *list, int8_t *out,
                            const int nibbles)
{
    const int32_t words = EC_TAP_WORDS * (nibbles ? p->taps / 2 : p->taps);
    const uint32_t *weights = p->weights;
    const int32_t whole = p->shape.out_channels & ~3;
    int32_t channel = 0;
    for (; channel < whole; weights += words) {
        const int32_t end = whole - channel > EC_BLOCK ? channel + EC_BLOCK : whole;
        for (const uint32_t *four = weights; channel < end; ++four) {
            const ec_sums_t sums = ec_sum(p, list, four, channel, nibbles);
            ec_results(p, channel, sums, out + channel);
            channel += 4;
        }
    }
    return channel;
}
#endif

EC_INLINE void ec_depthwise(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch,
                            const int nibbles)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int8_t **list = scratch;
    int8_t *outside = (int8_t *)(list + p->taps);
    memset(outside, p->in_zero, (size_t)s->in_channels);
    list[p->taps - 1] = outside; /* the tap without weights where they were made even */
    for (int32_t count = 0; count < pixels; ++count) {
        const int32_t pixel = p->reverse ? pixels - 1 - count : count;
        int8_t *to = out + (ptrdiff_t)pixel * s->out_channels;
        ec_list_taps(p, in, pixel, outside, list);
        int32_t channel = p->fan == 1 ? ec_blocks(p, list, to, nibbles) : 0;
        for (; channel < s->out_channels; ++channel) {
            const int32_t y = ec_result(p, channel, ec_sum_one(p, list, channel, nibbles));
            to[channel] = (int8_t)(p->limited ? ec_clamp(y, p->low, p->high) : y);
        }
    }
}

void ec_depthwise_s8(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    ec_depthwise(p, in, out, scratch, 0);
}

void ec_depthwise_s4(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    ec_depthwise(p, in, out, scratch, 1);
}
