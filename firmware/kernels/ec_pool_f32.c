#include "ec_pool_f32.h"

#include <float.h>

#include "ec_math.h"

/* Sums in the order of TFLM: the bits depend on it. */
static float ec_pool_average_f32(const ec_part_t *part, const float *in)
{
    float sum = 0.0f;
    for (int32_t y = 0; y < part->rows; y++) {
        for (int32_t x = 0; x < part->columns; x++) {
            sum += in[y * part->row + x * part->channels];
        }
    }
    return sum / (float)(part->rows * part->columns);
}

static float ec_pool_max_f32(const ec_part_t *part, const float *in)
{
    float most = -FLT_MAX;
    for (int32_t y = 0; y < part->rows; y++) {
        for (int32_t x = 0; x < part->columns; x++) {
            const float value = in[y * part->row + x * part->channels];
            most = most < value ? value : most;
        }
    }
    return most;
}

static void ec_pool_walk_f32(const ec_pool_f32_t *p, const float *in, float *out,
                             float (*cell)(const ec_part_t *part, const float *in))
{
    const ec_window_t *w = &p->window;
    const int32_t rows = w->batches * w->out_height;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < w->out_width; j++) {
            const ec_part_t part = ec_window_part(w, p->reverse ? rows - 1 - i : i,
                                                  p->reverse ? w->out_width - 1 - j : j);
            for (int32_t k = 0; k < w->channels; k++) {
                const int32_t channel = p->reverse ? w->channels - 1 - k : k;
                out[part.out + channel] =
                    ec_clamp_f32(cell(&part, in + part.in + channel), p->low, p->high);
            }
        }
    }
}

void ec_average_pool_f32(const ec_pool_f32_t *p, const float *in, float *out)
{
    ec_pool_walk_f32(p, in, out, ec_pool_average_f32);
}

void ec_max_pool_f32(const ec_pool_f32_t *p, const float *in, float *out)
{
    ec_pool_walk_f32(p, in, out, ec_pool_max_f32);
}
