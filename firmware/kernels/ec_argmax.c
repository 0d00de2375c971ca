#include "ec_argmax.h"

void ec_argmax_s8(const ec_argmax_t *p, const int8_t *in, int32_t *out)
{
    for (int32_t i = 0; i < p->outer; i++) {
        for (int32_t j = 0; j < p->inner; j++) {
            const int8_t *x = in + i * p->count * p->inner + j;
            int32_t best = x[0];
            int32_t place = 0;
            for (int32_t k = 1; k < p->count; k++) {
                const int32_t value = x[k * p->inner];
                if (p->least ? value < best : value > best) {
                    best = value;
                    place = k;
                }
            }
            *out++ = place;
        }
    }
}

void ec_argmax_f32(const ec_argmax_t *p, const float *in, int32_t *out)
{
    for (int32_t i = 0; i < p->outer; i++) {
        for (int32_t j = 0; j < p->inner; j++) {
            const float *x = in + i * p->count * p->inner + j;
            float best = x[0];
            int32_t place = 0;
            for (int32_t k = 1; k < p->count; k++) {
                const float value = x[k * p->inner];
                if (p->least ? value < best : value > best) {
                    best = value;
                    place = k;
                }
            }
            *out++ = place;
        }
    }
}
