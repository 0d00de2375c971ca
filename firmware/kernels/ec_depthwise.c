/* Bits: TFLM reference_integer_ops::DepthwiseConvPerChannel (int8).
 *
 * For every output pixel a list of the inputs under the taps is made; a tap outside points to a
 * pixel of zero points. Four channels at a time are then accumulated along the list.
 */
#include "ec_depthwise.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"

enum { EC_BLOCK = 4 };

static void ec_list_taps(const ec_depthwise_t *p, const int8_t *in, int32_t pixel,
                         const int8_t *outside, const int8_t **list)
{
    const ec_conv_shape_t *s = &p->shape;
    const ec_conv_place_t at = ec_conv_place(s, pixel);
    const int32_t columns = s->in_width * s->in_channels;
    const int32_t step = s->dilation_width * s->in_channels;
    int32_t y = at.row;
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        const int inside = y >= 0 && y < s->in_height;
        const int8_t *row = in + (inside ? ((ptrdiff_t)at.batch * s->in_height + y) * columns : 0);
        int32_t x = at.column * s->in_channels;
        for (int32_t kx = 0; kx < s->kernel_width; ++kx) {
            *list++ = inside && x >= 0 && x < columns ? row + x : outside;
            x += step;
        }
        y += s->dilation_height;
    }
}

/* The inputs of `count` output channels from `channel` on. */
static uint32_t ec_gather(const int8_t *pixel, int32_t channel, int32_t fan, int32_t count)
{
    uint32_t word = 0;
    for (int32_t i = 0; i < count; ++i) {
        word |= (uint32_t)(uint8_t)pixel[(channel + i) / fan] << (8 * i);
    }
    return word;
}

typedef struct {
    uint32_t s0;
    uint32_t s1;
    uint32_t s2;
    uint32_t s3;
} ec_sums_t;

/* Adds a tap's product to each sum; `a` holds four inputs, `w` four weights. */
static inline void ec_tap(ec_sums_t *sums, uint32_t a, uint32_t w)
{
    const uint32_t a_even = ec_bytes_even(a), a_odd = ec_bytes_odd(a);
    const uint32_t w_even = ec_bytes_even(w), w_odd = ec_bytes_odd(w);
    sums->s0 = ec_mac_low(a_even, w_even, sums->s0);
    sums->s1 = ec_mac_low(a_odd, w_odd, sums->s1);
    sums->s2 = ec_mac_high(a_even, w_even, sums->s2);
    sums->s3 = ec_mac_high(a_odd, w_odd, sums->s3);
}

/* Two taps a turn, until `list` reaches `end`; the four inputs lie `channel` behind a place in the
 * list. */
static inline void ec_tap_pairs(ec_sums_t *sums, const int8_t *const *list,
                                const int8_t *const *end, const uint32_t *weights,
                                int32_t channel)
{
#if defined(__ARM_FEATURE_DSP)
    /* Compilers spill accumulators here: 23 instructions for 8 products by hand, 30 by gcc. */
    uint32_t p, q, w, a_even, w_even;
    __asm__ volatile(
        "1:\n\t"
        "ldrd %[p], %[q], [%[list]], #8\n\t"
        "ldr %[w], [%[weights]], #4\n\t"
        "ldr %[p], [%[p], %[channel]]\n\t"
        "ldr %[q], [%[q], %[channel]]\n\t"
        "sxtb16 %[a_even], %[p]\n\t"
        "sxtb16 %[w_even], %[w]\n\t"
        "sxtb16 %[p], %[p], ror #8\n\t"
        "sxtb16 %[w], %[w], ror #8\n\t"
        "smlabb %[s0], %[a_even], %[w_even], %[s0]\n\t"
        "smlatt %[s2], %[a_even], %[w_even], %[s2]\n\t"
        "smlabb %[s1], %[p], %[w], %[s1]\n\t"
        "smlatt %[s3], %[p], %[w], %[s3]\n\t"
        "ldr %[w], [%[weights]], #4\n\t"
        "sxtb16 %[a_even], %[q]\n\t"
        "sxtb16 %[w_even], %[w]\n\t"
        "sxtb16 %[q], %[q], ror #8\n\t"
        "sxtb16 %[w], %[w], ror #8\n\t"
        "smlabb %[s0], %[a_even], %[w_even], %[s0]\n\t"
        "smlatt %[s2], %[a_even], %[w_even], %[s2]\n\t"
        "smlabb %[s1], %[q], %[w], %[s1]\n\t"
        "smlatt %[s3], %[q], %[w], %[s3]\n\t"
        "cmp %[list], %[end]\n\t"
        "bne 1b"
        : [s0] "+r"(sums->s0), [s1] "+r"(sums->s1), [s2] "+r"(sums->s2), [s3] "+r"(sums->s3),
          [list] "+r"(list), [weights] "+r"(weights), [p] "=&r"(p), [q] "=&r"(q), [w] "=&r"(w),
          [a_even] "=&r"(a_even), [w_even] "=&r"(w_even)
        : [end] "r"(end), [channel] "r"(channel)
        : "cc", "memory");
#else
    do {
        ec_tap(sums, ec_load_u32(list[0] + channel), weights[0]);
        ec_tap(sums, ec_load_u32(list[1] + channel), weights[1]);
        list += 2;
        weights += 2;
    } while (list != end);
#endif
}

/* Adds the bias of four channels to sums of nibbles times 16. */
static inline ec_sums_t ec_add_bias(ec_sums_t sums, const int32_t *bias)
{
    sums.s0 = (uint32_t)((int32_t)sums.s0 >> 4) + (uint32_t)bias[0];
    sums.s1 = (uint32_t)((int32_t)sums.s1 >> 4) + (uint32_t)bias[1];
    sums.s2 = (uint32_t)((int32_t)sums.s2 >> 4) + (uint32_t)bias[2];
    sums.s3 = (uint32_t)((int32_t)sums.s3 >> 4) + (uint32_t)bias[3];
    return sums;
}

/* Four channels that lie side by side in the input. */
EC_INLINE ec_sums_t ec_sum(const ec_depthwise_t *p, const int8_t *const *list,
                           const uint32_t *weights, int32_t channel, const int nibbles)
{
    const int32_t *bias = p->bias + channel;
    const int32_t even = p->taps & ~1;
    ec_sums_t sums = {0, 0, 0, 0};
    if (nibbles) {
        const int8_t *const *const end = list + even;
        for (; list != end; list += 2) {
            const uint32_t w = *weights++;
            ec_tap(&sums, ec_load_u32(list[0] + channel), ec_nibbles_low(w));
            ec_tap(&sums, ec_load_u32(list[1] + channel), ec_nibbles_high(w));
        }
        return ec_add_bias(sums, bias);
    }
    sums = ec_add_bias(sums, bias);
    if (even > 0) {
        ec_tap_pairs(&sums, list, list + even, weights, channel);
    }
    if (p->taps != even) {
        ec_tap(&sums, ec_load_u32(list[even] + channel), weights[even]);
    }
    return sums;
}

/* The same for `count` output channels that see any input channels, without their bias. */
EC_INLINE ec_sums_t ec_sum_any(const ec_depthwise_t *p, const int8_t *const *list,
                               const uint32_t *weights, int32_t channel, int32_t count,
                               const int nibbles)
{
    ec_sums_t sums = {0, 0, 0, 0};
    const int8_t *const *const end = list + p->taps;
    while (list != end) {
        const uint32_t w = *weights++;
        ec_tap(&sums, ec_gather(*list++, channel, p->fan, count), nibbles ? ec_nibbles_low(w) : w);
        if (nibbles) {
            ec_tap(&sums, ec_gather(*list++, channel, p->fan, count), ec_nibbles_high(w));
        }
    }
    return sums;
}

static inline int32_t ec_result(const ec_depthwise_t *p, int32_t channel, uint32_t sum)
{
    const int32_t right = p->shifts[channel];
    return ec_saturate_s8(ec_requantize_right((int32_t)sum, p->multipliers[channel],
                                              ec_rounding_of(p->out_zero, right), right));
}

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

EC_INLINE void ec_depthwise(const ec_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch,
                            const int nibbles)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t whole = p->fan == 1 ? s->out_channels - s->out_channels % EC_BLOCK : 0;
    const int32_t words = nibbles ? p->taps / 2 : p->taps;
    const int8_t **list = scratch;
    int8_t *outside = (int8_t *)(list + p->taps);
    memset(outside, p->in_zero, (size_t)s->in_channels);
    list[p->taps - 1] = outside; /* the tap without weights where they were made even */
    for (int32_t count = 0; count < pixels; ++count) {
        const int32_t pixel = p->reverse ? pixels - 1 - count : count;
        const uint32_t *weights = p->weights;
        int8_t *to = out + (ptrdiff_t)pixel * s->out_channels;
        int32_t channel = 0;
        ec_list_taps(p, in, pixel, outside, list);
        for (; channel < whole; channel += EC_BLOCK) {
            const ec_sums_t sums = ec_sum(p, list, weights, channel, nibbles);
            ec_results(p, channel, sums, to + channel);
            weights += words;
        }
        for (; channel < s->out_channels; channel += EC_BLOCK) {
            const int32_t left = s->out_channels - channel;
            const int32_t block = left < EC_BLOCK ? left : EC_BLOCK;
            const ec_sums_t sums = ec_sum_any(p, list, weights, channel, block, nibbles);
            const uint32_t each[EC_BLOCK] = {sums.s0, sums.s1, sums.s2, sums.s3};
            for (int32_t i = 0; i < block; ++i) {
                const uint32_t sum = nibbles ? (uint32_t)((int32_t)each[i] >> 4) : each[i];
                const uint32_t bias = (uint32_t)p->bias[channel + i];
                const int32_t y = ec_result(p, channel + i, sum + bias);
                to[channel + i] = (int8_t)(p->limited ? ec_clamp(y, p->low, p->high) : y);
            }
            weights += words;
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
