#include "ec_mirror_pad.h"

#include <string.h>

/* Where place `place` of the output comes from (TFLM mirror_pad.cc, GetInputDimension). */
static int32_t ec_mirror_source(const int32_t *axis, int32_t place, int32_t offset)
{
    const int32_t size = axis[1];
    const int32_t before = axis[2];
    if (place < before) {
        return before - 1 + offset - place;
    }
    place -= before;
    return place < size ? place : 2 * size - 1 - offset - place;
}

void ec_mirror_pad(const ec_mirror_pad_t *p, const void *in, void *out)
{
    int32_t index[EC_MIRROR_PAD_AXES] = {0};
    uint8_t *to = (uint8_t *)out;
    for (;;) {
        int32_t from = 0;
        for (int32_t i = 0; i < p->rank; i++) {
            const int32_t *axis = p->axes + 3 * i;
            from = from * axis[1] + ec_mirror_source(axis, index[i], p->offset);
        }
        memcpy(to, (const uint8_t *)in + from * p->run, (size_t)p->run);
        to += p->run;
        int32_t i = p->rank - 1;
        while (i >= 0 && ++index[i] == p->axes[3 * i]) {
            index[i--] = 0;
        }
        if (i < 0) {
            return;
        }
    }
}
