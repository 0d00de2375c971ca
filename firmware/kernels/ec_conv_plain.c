/* Bits: TFLM reference_integer_ops::ConvPerChannel, DepthwiseConvPerChannel, reference_ops::Conv
 * and DepthwiseConv. Padding is skipped. */
#include "ec_exact.h"

#include "ec_conv_plain.h"

#include <stddef.h>

#include "ec_conv_view.h"
#include "ec_math.h"

/* Runs `step` for every product of one output element: `x` is its input, `w` its weight. */
#define EC_FOR_PRODUCTS(type, weight_type, step)                                                  \
    do {                                                                                          \
        const type *row = in + view.start + (ptrdiff_t)(channel / fan) * depth;                   \
        for (int32_t ky = view.rows.first; ky < view.rows.end; ++ky) {                            \
            const type *from = row;                                                               \
            const weight_type *taps =                                                             \
                weights + ((ptrdiff_t)ky * s->kernel_width + view.columns.first) * depth;         \
            for (int32_t kx = view.columns.first; kx < view.columns.end; ++kx) {                  \
                for (int32_t i = 0; i < depth; ++i) {                                             \
                    const type x = from[i];                                                       \
                    const weight_type w = *taps++;                                                \
                    step;                                                                         \
                }                                                                                 \
                from += view.column_step;                                                         \
            }                                                                                     \
            row += view.row_step;                                                                 \
        }                                                                                         \
    } while (0)

/* Runs `element` for every output element: pixel by pixel, channel by channel; `at` is its place,
 * `weights` its weights. */
#define EC_FOR_ELEMENTS(weight_type, element)                                                     \
    do {                                                                                          \
        const ec_conv_shape_t *s = &p->shape;                                                     \
        const int32_t pixels = ec_conv_pixels(s);                                                 \
        const int32_t depth = s->in_channels / p->groups;                                         \
        const int32_t fan = s->out_channels / p->groups;                                          \
        const ptrdiff_t size = (ptrdiff_t)s->kernel_height * s->kernel_width * depth;             \
        for (int32_t count = 0; count < pixels; ++count) {                                        \
            const int32_t pixel = p->reverse ? pixels - 1 - count : count;                        \
            const ec_view_t view = ec_view(s, pixel);                                             \
            const weight_type *weights = p->weights;                                              \
            ptrdiff_t at = (ptrdiff_t)pixel * s->out_channels;                                    \
            for (int32_t channel = 0; channel < s->out_channels; ++channel) {                     \
                element;                                                                          \
                weights += size;                                                                  \
                ++at;                                                                             \
            }                                                                                     \
        }                                                                                         \
    } while (0)

static inline int32_t ec_scaled(const ec_conv_plain_t *p, int32_t channel, uint32_t sum)
{
    if (p->bias != NULL) sum += (uint32_t)p->bias[channel];
    return ec_requantize((int32_t)sum, p->multipliers[channel], p->shifts[channel]);
}

void ec_conv_plain_s8(const ec_conv_plain_t *p, const int8_t *in, int8_t *out)
{
    EC_FOR_ELEMENTS(int8_t, {
        uint32_t sum = 0;
        EC_FOR_PRODUCTS(int8_t, int8_t, sum += (uint32_t)(w * (x - p->in_zero)));
        const uint32_t y = (uint32_t)ec_scaled(p, channel, sum) + (uint32_t)p->out_zero;
        out[at] = (int8_t)ec_clamp((int32_t)y, p->low, p->high);
    });
}

void ec_conv_plain_s16(const ec_conv_plain_t *p, const int16_t *in, int16_t *out)
{
    EC_FOR_ELEMENTS(int8_t, {
        uint32_t sum = 0;
        EC_FOR_PRODUCTS(int16_t, int8_t, sum += (uint32_t)(w * x));
        out[at] = (int16_t)ec_clamp(ec_scaled(p, channel, sum), p->low, p->high);
    });
}

void ec_conv_plain_s16_wide(const ec_conv_plain_t *p, const int16_t *in, int16_t *out)
{
    EC_FOR_ELEMENTS(int8_t, {
        uint64_t sum = p->bias_wide == NULL ? 0 : (uint64_t)p->bias_wide[channel];
        EC_FOR_PRODUCTS(int16_t, int8_t, sum += (uint64_t)(int64_t)(w * x));
        const int32_t y =
            ec_requantize_wide((int64_t)sum, p->multipliers[channel], p->shifts[channel]);
        out[at] = (int16_t)ec_clamp(y, p->low, p->high);
    });
}

void ec_conv_plain_f32(const ec_conv_plain_f32_t *p, const float *in, float *out)
{
    EC_FOR_ELEMENTS(float, {
        float sum = 0.0f;
        EC_FOR_PRODUCTS(float, float, sum += x * w);
        const float bias = p->bias == NULL ? 0.0f : p->bias[channel];
        out[at] = ec_clamp_f32(sum + bias, p->low, p->high);
    });
}
