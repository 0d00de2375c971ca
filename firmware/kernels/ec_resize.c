#include "ec_resize.h"

#include <string.h>

void ec_resize_nearest(const ec_resize_nearest_t *p, const void *in, void *out)
{
    const int32_t rows = p->batches * p->out_height;
    for (int32_t i = 0; i < rows; i++) {
        const int32_t row = p->reverse ? rows - 1 - i : i;
        const int32_t batch = row / p->out_height;
        const int32_t from = batch * p->in_height + p->rows[row - batch * p->out_height];
        for (int32_t j = 0; j < p->out_width; j++) {
            const int32_t x = p->reverse ? p->out_width - 1 - j : j;
            memmove((uint8_t *)out + (row * p->out_width + x) * p->pixel,
                    (const uint8_t *)in + (from * p->in_width + p->columns[x]) * p->pixel,
                    (size_t)p->pixel);
        }
    }
}

/* Between which rows or columns of the input a place of the output lies. */
typedef struct {
    int32_t lower;
    int32_t upper;
    int32_t fraction; /* distance from the lower one, times 2^10; negative before the first pixel */
} ec_between_t;

/* TFLM ComputeInterpolationValuesInteger. */
static ec_between_t ec_resize_between(int32_t place, int32_t scale, int32_t half_pixel, int32_t size)
{
    const int32_t scaled = place * scale + (half_pixel ? scale / 2 - 512 : 0);
    const int32_t above = (scaled + 1023) / 1024;
    ec_between_t between;
    between.lower = scaled > 0 ? scaled / 1024 : 0;
    between.upper = above < size ? above : size - 1;
    between.fraction = scaled - 1024 * between.lower;
    return between;
}

/* TFLM ResizeBilinearInteger with double rounding; |sum| < 2^30, since both pairs of weights add up
 * to 2^10 and none is below -2^9. */
void ec_resize_bilinear_s8(const ec_resize_bilinear_t *p, const int8_t *in, int8_t *out)
{
    const int32_t image = p->in_height * p->in_width * p->channels;
    for (int32_t batch = 0; batch < p->batches; batch++, in += image) {
        for (int32_t y = 0; y < p->out_height; y++) {
            const ec_between_t v =
                ec_resize_between(y, p->scale_height, p->half_pixel, p->in_height);
            const int8_t *low = in + v.lower * p->in_width * p->channels;
            const int8_t *high = in + v.upper * p->in_width * p->channels;
            for (int32_t x = 0; x < p->out_width; x++) {
                const ec_between_t h =
                    ec_resize_between(x, p->scale_width, p->half_pixel, p->in_width);
                const int32_t left = h.lower * p->channels;
                const int32_t right = h.upper * p->channels;
                for (int32_t c = 0; c < p->channels; c++) {
                    const int32_t sum =
                        (low[left + c] * (1024 - v.fraction) + high[left + c] * v.fraction) *
                            (1024 - h.fraction) +
                        (low[right + c] * (1024 - v.fraction) + high[right + c] * v.fraction) *
                            h.fraction;
                    *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
                }
            }
        }
    }
}
