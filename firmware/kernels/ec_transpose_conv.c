/* Bits: TFLM reference_integer_ops::TransposeConv and reference_ops::TransposeConv, which scatter
 * every input over the output. Here every output gathers its inputs, in the same order. */
#include "ec_exact.h"

#include "ec_transpose_conv.h"

#include <stddef.h>

#include "ec_math.h"

/* The inputs [first, end) of one axis that reach output `at`: those with
 * 0 <= at + pad - input * stride < kernel. */
static ec_conv_taps_t ec_reaching(int32_t at, int32_t size, int32_t kernel, int32_t stride)
{
    const int32_t least = at - kernel + 1;
    ec_conv_taps_t inputs = {.first = 0, .end = at / stride + 1};
    if (least > 0) inputs.first = (least + stride - 1) / stride;
    if (inputs.end > size) inputs.end = size;
    return inputs;
}

/* Runs `step` for every product of one output element: `x` is its input, `w` its weight. */
#define EC_FOR_PRODUCTS(type, weight_type, step)                                                  \
    do {                                                                                          \
        for (int32_t y = rows.first; y < rows.end; ++y) {                                         \
            const int32_t ky = row + s->pad_top - y * s->stride_height;                           \
            for (int32_t x0 = columns.first; x0 < columns.end; ++x0) {                            \
                const int32_t kx = column + s->pad_left - x0 * s->stride_width;                   \
                const weight_type *taps = weights + ((ptrdiff_t)ky * s->kernel_width + kx) *      \
                                                        s->in_channels;                           \
                const type *from = image + ((ptrdiff_t)y * s->in_width + x0) * s->in_channels;    \
                for (int32_t i = 0; i < s->in_channels; ++i) {                                    \
                    const type x = from[i];                                                       \
                    const weight_type w = taps[i];                                                \
                    step;                                                                         \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
    } while (0)

/* Runs `element` for every output element; `at` is its place, `weights` its weights. */
#define EC_FOR_ELEMENTS(type, weight_type, element)                                               \
    do {                                                                                          \
        const ec_conv_shape_t *s = &p->shape;                                                     \
        const int32_t pixels = ec_conv_pixels(s);                                                 \
        const ptrdiff_t image_size = (ptrdiff_t)s->in_height * s->in_width * s->in_channels;      \
        const ptrdiff_t size = (ptrdiff_t)s->kernel_height * s->kernel_width * s->in_channels;    \
        for (int32_t count = 0; count < pixels; ++count) {                                        \
            const int32_t pixel = p->reverse ? pixels - 1 - count : count;                        \
            const int32_t line = pixel / s->out_width;                                            \
            const int32_t column = pixel - line * s->out_width;                                   \
            const int32_t row = line % s->out_height;                                             \
            const ec_conv_taps_t rows =                                                           \
                ec_reaching(row + s->pad_top, s->in_height, s->kernel_height, s->stride_height);  \
            const ec_conv_taps_t columns = ec_reaching(column + s->pad_left, s->in_width,         \
                                                       s->kernel_width, s->stride_width);         \
            const type *image = in + line / s->out_height * image_size;                           \
            const weight_type *weights = p->weights;                                              \
            ptrdiff_t at = (ptrdiff_t)pixel * s->out_channels;                                    \
            for (int32_t channel = 0; channel < s->out_channels; ++channel) {                     \
                element;                                                                          \
                weights += size;                                                                  \
                ++at;                                                                             \
            }                                                                                     \
        }                                                                                         \
    } while (0)

void ec_transpose_conv_s8(const ec_transpose_conv_t *p, const int8_t *in, int8_t *out)
{
    EC_FOR_ELEMENTS(int8_t, int8_t, {
        uint32_t sum = p->bias == NULL ? 0u : (uint32_t)p->bias[channel];
        EC_FOR_PRODUCTS(int8_t, int8_t, sum += (uint32_t)(w * (x - p->in_zero)));
        const int32_t y =
            ec_requantize((int32_t)sum, p->multipliers[channel], p->shifts[channel]);
        const uint32_t shifted = (uint32_t)y + (uint32_t)p->out_zero;
        out[at] = (int8_t)ec_clamp((int32_t)shifted, p->low, p->high);
    });
}

void ec_transpose_conv_s16(const ec_transpose_conv_t *p, const int16_t *in, int16_t *out)
{
    EC_FOR_ELEMENTS(int16_t, int8_t, {
        uint64_t sum = p->bias_wide == NULL ? 0 : (uint64_t)p->bias_wide[channel];
        EC_FOR_PRODUCTS(int16_t, int8_t, sum += (uint64_t)(int64_t)(w * x));
        const int32_t y =
            ec_requantize_wide((int64_t)sum, p->multipliers[channel], p->shifts[channel]);
        out[at] = (int16_t)ec_clamp(y, p->low, p->high);
    });
}

void ec_transpose_conv_f32(const ec_transpose_conv_f32_t *p, const float *in, float *out)
{
    EC_FOR_ELEMENTS(float, float, {
        float sum = 0.0f;
        EC_FOR_PRODUCTS(float, float, sum += x * w);
        const float bias = p->bias == NULL ? 0.0f : p->bias[channel];
        out[at] = ec_clamp_f32(p->bias == NULL ? sum : sum + bias, p->low, p->high);
    });
}
