#include "ec_reduce_f32.h"

#include <float.h>

/* One step of a reduction; NaN and infinity fare as in TFLM reduce.cc. */
typedef float (*ec_reduce_step_t)(float current, float value);

static float ec_reduce_add(float current, float value) { return value + current; }

static float ec_reduce_most(float current, float value) { return value > current ? value : current; }

static float ec_reduce_least(float current, float value) { return value < current ? value : current; }

static void ec_reduce_walk_f32(const ec_reduce_f32_t *p, const float *in, float *out, float start,
                               ec_reduce_step_t step)
{
    const ec_axes_t *axes = &p->axes;
    const int32_t *last = axes->kept + 2 * (axes->kept_rank - 1);
    const int32_t *inner = axes->gone + 2 * (axes->gone_rank - 1);
    ec_place_t outer = {{0}, 0};
    do {
        for (int32_t i = 0; i < last[0]; i++) {
            float value = start;
            ec_place_t place = {{0}, outer.offset + i * last[1]};
            do {
                for (int32_t k = 0; k < inner[0]; k++) {
                    value = step(value, in[place.offset + k * inner[1]]);
                }
            } while (ec_axes_next(axes->gone, axes->gone_rank, &place));
            *out++ = value / p->divisor;
        }
    } while (ec_axes_next(axes->kept, axes->kept_rank, &outer));
}

void ec_reduce_sum_f32(const ec_reduce_f32_t *p, const float *in, float *out)
{
    ec_reduce_walk_f32(p, in, out, 0.0f, ec_reduce_add);
}

void ec_reduce_max_f32(const ec_reduce_f32_t *p, const float *in, float *out)
{
    ec_reduce_walk_f32(p, in, out, -FLT_MAX, ec_reduce_most);
}

void ec_reduce_min_f32(const ec_reduce_f32_t *p, const float *in, float *out)
{
    ec_reduce_walk_f32(p, in, out, FLT_MAX, ec_reduce_least);
}
