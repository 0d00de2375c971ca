/* ec_conv for cores with Helium: sixteen products at once (VMLADAVA).
 *
 * Scratch holds the inputs of both pixels one behind the other, each as many bytes as there are
 * weights to a whole number of vectors, with zeros at the end: what is read of the weights beyond a
 * channel's own (the next channel's, or the zeros behind the last) counts nothing. VLD2 tells the
 * words of two channels apart, and with int4 weights the inputs of low and of high nibbles.
 */
#ifndef EC_CONV_MVE_H
#define EC_CONV_MVE_H

#include <stddef.h>

#include "ec_conv.h"
#include "ec_conv_source.h"
#include "ec_math.h"
#include "ec_mve.h"

/* The bytes that the inputs of one pixel take in scratch, for `weights` weights per channel. */
static inline int32_t ec_width(int32_t weights, int nibbles)
{
    return nibbles ? (weights + 31) & ~31 : (weights + 15) & ~15;
}

/* Copies the inputs of one pixel and group to `to`; returns where the next ones would go. */
static int8_t *ec_gather_any(const ec_conv_t *p, const int8_t *in, ec_conv_place_t at,
                             int32_t group, int8_t *to)
{
    const ec_source_t source = ec_source(p, in, at, group);
    const int32_t row_size = p->shape.kernel_width * (p->shape.in_channels / p->groups);
    const int8_t *row = source.from;
    to = ec_mve_fill(to, p->in_zero, source.rows.first * row_size);
    for (int32_t ky = source.rows.first; ky < source.rows.end; ++ky) {
        const int8_t *from = row;
        to = ec_mve_fill(to, p->in_zero, source.left);
        for (int32_t i = 0; i < source.runs; ++i) {
            to = ec_mve_copy(to, from, source.run);
            from += source.run_step;
        }
        to = ec_mve_fill(to, p->in_zero, source.right);
        row += source.row_step;
    }
    return ec_mve_fill(to, p->in_zero, (p->shape.kernel_height - source.rows.end) * row_size);
}

/* The same for a pixel without padding, where the kernel's rows lie in one piece. */
static inline int8_t *ec_gather_inner(const ec_conv_shape_t *s, const int8_t *in,
                                      ec_conv_place_t at, int8_t *to)
{
    const int32_t run = s->kernel_width * s->in_channels;
    const int32_t row_size = s->in_width * s->in_channels;
    in += (at.batch * s->in_height + at.row) * row_size + at.column * s->in_channels;
    for (int32_t ky = s->kernel_height; ky > 0; --ky) {
        to = ec_mve_copy(to, in, run);
        in += s->dilation_height * row_size;
    }
    return to;
}

/* Gathers the inputs of pixels `pixel` and `last` for one group. */
static void ec_gather(const ec_conv_t *p, const int8_t *in, int32_t pixel, int32_t last,
                      int32_t group, int32_t weights, void *scratch, const int nibbles)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t width = ec_width(weights, nibbles);
    const int32_t high = (s->kernel_height - 1) * s->dilation_height;
    const int32_t wide = s->kernel_width - 1;
    const int joined = p->groups == 1 && (s->dilation_width == 1 || wide == 0);
    int8_t *acts = scratch;
    for (int32_t i = 0; i < 2; ++i) {
        const ec_conv_place_t at = ec_conv_place(s, i ? last : pixel);
        const int8_t *end = acts + width;
        if (joined && at.row >= 0 && at.column >= 0 && at.row + high < s->in_height &&
            at.column + wide < s->in_width) {
            acts = ec_gather_inner(s, in, at, acts);
        } else {
            acts = ec_gather_any(p, in, at, group, acts);
        }
        acts = ec_mve_fill(acts, 0, (int32_t)(end - acts));
    }
}

/* The weights in low nibbles, and in high ones, times 16. */
static inline int8x16_t ec_low(int8x16_t eight)
{
    return vshlq_n_s8(eight, 4);
}

static inline int8x16_t ec_high(int8x16_t eight)
{
    return vandq_s8(eight, vdupq_n_s8(-16));
}

static inline int8x16_t ec_bytes(int32x4_t words)
{
    return vreinterpretq_s8_s32(words);
}

/* Products of two channels (or of one `alone`) and two pixels, `width` bytes apart from `a` on:
 * sums[0] and [1] of the first pixel, [4] and [5] of the second. */
EC_INLINE void ec_products(const int8_t *a, int32_t width, const uint32_t *weights, int32_t *sums,
                           const int alone, const int nibbles)
{
    const int8_t *b = a + width;
    int32_t au = 0, av = 0, bu = 0, bv = 0;
    uint32_t turns = (uint32_t)width / (nibbles ? 32 : 16);
    do {
        int8x16_t u, v = vdupq_n_s8(0);
        if (alone) {
            u = ec_bytes(vldrwq_s32((const int32_t *)weights));
            weights += 4;
        } else {
            const int32x4x2_t both = vld2q_s32((const int32_t *)weights);
            u = ec_bytes(both.val[0]);
            v = ec_bytes(both.val[1]);
            weights += 8;
        }
        if (nibbles) {
            const int32x4x2_t x = vld2q_s32((const int32_t *)(const void *)a);
            const int32x4x2_t y = vld2q_s32((const int32_t *)(const void *)b);
            au = vmladavaq_s8(au, ec_bytes(x.val[0]), ec_low(u));
            bu = vmladavaq_s8(bu, ec_bytes(y.val[0]), ec_low(u));
            au = vmladavaq_s8(au, ec_bytes(x.val[1]), ec_high(u));
            bu = vmladavaq_s8(bu, ec_bytes(y.val[1]), ec_high(u));
            if (!alone) {
                av = vmladavaq_s8(av, ec_bytes(x.val[0]), ec_low(v));
                bv = vmladavaq_s8(bv, ec_bytes(y.val[0]), ec_low(v));
                av = vmladavaq_s8(av, ec_bytes(x.val[1]), ec_high(v));
                bv = vmladavaq_s8(bv, ec_bytes(y.val[1]), ec_high(v));
            }
        } else {
            const int8x16_t x = vldrbq_s8(a), y = vldrbq_s8(b);
            au = vmladavaq_s8(au, x, u);
            bu = vmladavaq_s8(bu, y, u);
            if (!alone) {
                av = vmladavaq_s8(av, x, v);
                bv = vmladavaq_s8(bv, y, v);
            }
        }
        a += nibbles ? 32 : 16;
        b += nibbles ? 32 : 16;
    } while (--turns != 0);
    sums[0] = au;
    sums[1] = av;
    sums[4] = bu;
    sums[5] = bv;
}

/* The channels of one group: where they start, and what their results need. */
typedef struct {
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
    int8_t *first;
    int8_t *second;
    int32_t zero;
    int32x4_t low;
    int32x4_t high;
} ec_results_t;

/* The results of the next four channels (of `left`, where not `whole`). */
EC_INLINE void ec_store(ec_results_t *r, const int32_t *sums, int32_t left, const int whole,
                        const int nibbles)
{
    const mve_pred16_t some = whole ? 0xFFFF : vctp32q((uint32_t)left);
    const int32x4_t bias = whole ? vldrwq_s32(r->bias) : vldrwq_z_s32(r->bias, some);
    const int32x4_t multipliers =
        whole ? vldrwq_s32(r->multipliers) : vldrwq_z_s32(r->multipliers, some);
    const int32x4_t right = vnegq_s32(whole ? vldrbq_s32(r->shifts) : vldrbq_z_s32(r->shifts, some));
    int32x4_t x = vldrwq_s32(sums), y = vldrwq_s32(sums + 4);
    if (nibbles) {
        x = vshrq_n_s32(x, 4);
        y = vshrq_n_s32(y, 4);
    }
    x = ec_mve_requantize(vaddq_s32(x, bias), multipliers, right);
    y = ec_mve_requantize(vaddq_s32(y, bias), multipliers, right);
    x = vminq_s32(vmaxq_s32(vaddq_n_s32(x, r->zero), r->low), r->high);
    y = vminq_s32(vmaxq_s32(vaddq_n_s32(y, r->zero), r->low), r->high);
    if (whole) {
        vstrbq_s32(r->second, y);
        vstrbq_s32(r->first, x);
    } else {
        vstrbq_p_s32(r->second, y, some);
        vstrbq_p_s32(r->first, x, some);
    }
    r->bias += 4;
    r->multipliers += 4;
    r->shifts += 4;
    r->first += 4;
    r->second += 4;
}

/* All channels of one group for the two pixels in scratch. */
EC_INLINE void ec_product(const ec_conv_t *p, const void *scratch, int32_t count, int32_t group,
                          int8_t *first, int8_t *second, const int nibbles)
{
    const int32_t channels = p->shape.out_channels / p->groups;
    const int32_t channel = group * channels;
    const int32_t pair = 2 * p->words;
    const int32_t width = ec_width(count, nibbles);
    const int8_t *acts = scratch;
    const uint32_t *weights = p->weights + (ptrdiff_t)channel * p->words;
    int32_t sums[8];
    ec_results_t results = {
        .bias = p->bias + channel,
        .multipliers = p->multipliers + channel,
        .shifts = p->shifts + channel,
        .first = first + channel,
        .second = second + channel,
        .zero = p->out_zero,
        .low = vdupq_n_s32(p->low),
        .high = vdupq_n_s32(p->high),
    };
    int32_t left = channels;
    for (; left >= 4; left -= 4) {
        ec_products(acts, width, weights, sums, 0, nibbles);
        ec_products(acts, width, weights + pair, sums + 2, 0, nibbles);
        weights += 2 * pair;
        ec_store(&results, sums, 4, 1, nibbles);
    }
    if (left == 0) return;
    vstrwq_s32(sums, vdupq_n_s32(0));
    vstrwq_s32(sums + 4, vdupq_n_s32(0));
    if (left > 1) {
        ec_products(acts, width, weights, sums, 0, nibbles);
        weights += pair;
    }
    if (left % 2 != 0) {
        ec_products(acts, width, weights, sums + (left - 1), 1, nibbles);
    }
    ec_store(&results, sums, left, 0, nibbles);
}

#endif
