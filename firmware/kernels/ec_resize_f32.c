#include "ec_exact.h"

#include "ec_resize_f32.h"

/* TFLM ResizeBilinear: products and sums in its order. */
void ec_resize_bilinear_f32(const ec_resize_bilinear_f32_t *p, const float *in, float *out)
{
    const int32_t row = p->in_width * p->channels;
    for (int32_t batch = 0; batch < p->batches; batch++, in += p->in_height * row) {
        for (int32_t y = 0; y < p->out_height; y++) {
            const float *low = in + p->rows[2 * y] * row;
            const float *high = in + p->rows[2 * y + 1] * row;
            const float down = p->row_fractions[y];
            for (int32_t x = 0; x < p->out_width; x++) {
                const int32_t left = p->columns[2 * x] * p->channels;
                const int32_t right = p->columns[2 * x + 1] * p->channels;
                const float along = p->column_fractions[x];
                for (int32_t c = 0; c < p->channels; c++) {
                    *out++ = low[left + c] * (1.0f - down) * (1.0f - along) +
                             high[left + c] * down * (1.0f - along) +
                             low[right + c] * (1.0f - down) * along +
                             high[right + c] * down * along + 0.0f;
                }
            }
        }
    }
}
