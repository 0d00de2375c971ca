/* Bits: TFLM reference_ops::Softmax (float), given its expf. */
#include "ec_softmax_f32.h"

#include <float.h>
#include <math.h>

void ec_softmax_f32(const ec_softmax_f32_t *p, const float *in, float *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        float greatest = -FLT_MAX;
        for (int32_t i = 0; i < p->depth; ++i) {
            greatest = greatest < in[i] ? in[i] : greatest;
        }
        float sum = 0.0f;
        for (int32_t i = 0; i < p->depth; ++i) {
            out[i] = expf((in[i] - greatest) * p->beta);
            sum += out[i];
        }
        for (int32_t i = 0; i < p->depth; ++i) {
            out[i] /= sum;
        }
        in += p->depth;
        out += p->depth;
    }
}
