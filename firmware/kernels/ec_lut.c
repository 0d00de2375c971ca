#include "ec_lut.h"

void ec_lut_8(const ec_lut_t *p, const void *in, void *out)
{
    const uint8_t *table = p->table;
    const uint8_t *from = (const uint8_t *)in;
    uint8_t *to = (uint8_t *)out;
    for (const uint8_t *end = to + p->count; to != end;) {
        *to++ = table[*from++];
    }
}
