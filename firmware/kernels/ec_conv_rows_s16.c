/* Bits: TFLM reference_integer_ops::ConvPerChannel, DepthwiseConvPerChannel and FullyConnected
 * (int16). */
#include "ec_conv_rows_s16.h"

#include <stddef.h>
#include <string.h>

#include "ec_conv_view.h"
#include "ec_math.h"

enum { EC_ROWS = 4, EC_DEEP = 8 };

#if defined(EC_WITH_MVE)
#include "ec_conv_rows_s16_mve.h"
#else

enum { EC_TOGETHER = EC_FEW_REGISTERS ? 1 : 4, EC_NEAR = 4 };

static inline int16_t *ec_copy(int16_t *to, const int16_t *from, int32_t count)
{
    for (; count > 0; --count) *to++ = *from++;
    return to;
}

static inline int16_t *ec_fill(int16_t *to, int32_t count)
{
    for (; count > 0; --count) *to++ = 0;
    return to;
}

static inline int16_t ec_result(const ec_conv_rows_s16_t *p, uint32_t sum, int32_t factor)
{
    const int64_t product = (int64_t)(int32_t)sum * factor;
    return (int16_t)ec_clamp((int32_t)((product + (INT64_C(1) << 31)) >> 32), p->low, p->high);
}

/* Four channels (or the `left` last ones) from `channel` on: the products of `count` elements of x and
 * of each channel's weights. */
static inline void ec_four(const ec_conv_rows_s16_t *p, const int16_t *x, int32_t count,
                           int32_t channel, int32_t left, int16_t *out)
{
    for (int32_t i = 0; i < EC_ROWS && i < left; i += EC_TOGETHER) {
        const int8_t *w = p->weights + (ptrdiff_t)(channel + i) * count;
        const int16_t *const end = x + count;
        uint32_t sums[EC_TOGETHER];
        memcpy(sums, p->bias + channel + i, sizeof(sums));
        for (const int16_t *from = x; from != end; ++from) {
            const int32_t value = *from;
            EC_UNROLL for (int32_t j = 0; j < EC_TOGETHER; ++j) {
                sums[j] += (uint32_t)(w[j * count] * value);
            }
            ++w;
        }
        for (int32_t j = 0; j < EC_TOGETHER && i + j < left; ++j) {
            out[i + j] = ec_result(p, sums[j], p->factors[channel + i + j]);
        }
    }
}

/* The sums of four channels over the taps of a view, or of the `count` that there are. */
EC_INLINE void ec_taps(const ec_conv_shape_t *s, const ec_view_t *view, const int16_t *from,
                       const int8_t *weights, int32_t count, uint32_t *sums)
{
    const ptrdiff_t skipped = s->kernel_width - (view->columns.end - view->columns.first);
    uint32_t sum[EC_NEAR] = {0};
    weights += (view->rows.first * s->kernel_width + view->columns.first) * EC_DEEP;
    for (int32_t ky = view->rows.first; ky < view->rows.end; ++ky) {
        const int16_t *x = from;
        for (int32_t kx = view->columns.first; kx < view->columns.end; ++kx) {
            EC_UNROLL for (int32_t i = 0; i < EC_NEAR; ++i) {
                if (i < count) sum[i] += (uint32_t)(x[i] * weights[i]);
            }
            x += view->column_step;
            weights += EC_DEEP;
        }
        from += view->row_step;
        weights += skipped * EC_DEEP;
    }
    memcpy(sums, sum, sizeof(sum));
}

/* Eight channels from `channel` on, or the last ones. */
static inline void ec_deep(const ec_conv_rows_s16_t *p, const ec_view_t *view, const int16_t *in,
                           int32_t channel, int16_t *out)
{
    const ec_conv_shape_t *s = &p->shape;
    const ptrdiff_t taps = (ptrdiff_t)s->kernel_height * s->kernel_width;
    for (int32_t near = 0; near < EC_DEEP && channel + near < s->in_channels; near += EC_NEAR) {
        const int32_t left = s->in_channels - channel - near;
        const int16_t *from = in + view->start + channel + near;
        const int8_t *weights = p->weights + channel * taps + near;
        uint32_t sums[EC_NEAR];
        if (left >= EC_NEAR) {
            ec_taps(s, view, from, weights, EC_NEAR, sums);
        } else {
            ec_taps(s, view, from, weights, left, sums);
        }
        for (int32_t i = 0; i < EC_NEAR && i < left; ++i) {
            const int32_t place = channel + (near + i) / 2 + i % 2 * (EC_DEEP / 2);
            out[near + i] = ec_result(p, sums[i] + (uint32_t)p->bias[place], p->factors[place]);
        }
    }
}

#endif

/* Copies what a pixel sees to `to`, padding around it. */
static void ec_gather(const ec_conv_shape_t *s, const int16_t *in, int32_t pixel, int16_t *to)
{
    const ec_view_t view = ec_view(s, pixel);
    const int32_t row = s->kernel_width * s->in_channels;
    const int32_t first = view.columns.first, end = view.columns.end;
    const int joined = s->dilation_width == 1;
    const int32_t run = joined ? (end - first) * s->in_channels : s->in_channels;
    const int16_t *from = in + view.start;
    if (view.rows.first >= view.rows.end) {
        ec_fill(to, s->kernel_height * row);
        return;
    }
    to = ec_fill(to, view.rows.first * row);
    for (int32_t ky = view.rows.first; ky < view.rows.end; ++ky) {
        const int16_t *x = from;
        to = ec_fill(to, first * s->in_channels);
        for (int32_t kx = joined ? end - 1 : first; kx < end; ++kx) {
            to = ec_copy(to, x, run);
            x += view.column_step;
        }
        to = ec_fill(to, (s->kernel_width - end) * s->in_channels);
        from += view.row_step;
    }
    ec_fill(to, (s->kernel_height - view.rows.end) * row);
}

void ec_conv_rows_s16(const ec_conv_rows_s16_t *p, const int16_t *in, int16_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t weights = s->kernel_height * s->kernel_width * s->in_channels;
    int16_t *const x = scratch;
    for (int32_t count = 0; count < pixels; ++count) {
        const int32_t pixel = p->reverse ? pixels - 1 - count : count;
        int16_t *to = out + (ptrdiff_t)pixel * s->out_channels;
        ec_gather(s, in, pixel, x);
        for (int32_t channel = 0; channel < s->out_channels; channel += EC_ROWS) {
            ec_four(p, x, weights, channel, s->out_channels - channel, to + channel);
        }
    }
}

void ec_depthwise_rows_s16(const ec_conv_rows_s16_t *p, const int16_t *in, int16_t *out)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    for (int32_t count = 0; count < pixels; ++count) {
        const int32_t pixel = p->reverse ? pixels - 1 - count : count;
        const ec_view_t view = ec_view(s, pixel);
        int16_t *to = out + (ptrdiff_t)pixel * s->out_channels;
        for (int32_t channel = 0; channel < s->out_channels; channel += EC_DEEP) {
            ec_deep(p, &view, in, channel, to + channel);
        }
    }
}
