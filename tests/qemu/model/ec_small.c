#include "ec_small.h"

void ec_small_add(const ec_small_t *p, const int8_t *in, int8_t *out) {
    for (uint32_t i = 0; i < p->count; i++) out[i] = (int8_t)(in[i] + p->weights[i]);
}

void ec_small_reverse(const ec_small_t *p, const int8_t *in, int8_t *out) {
    for (uint32_t i = 0; i < p->count; i++) out[i] = in[p->count - 1 - i];
}
