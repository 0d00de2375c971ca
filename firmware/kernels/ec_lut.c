#include "ec_lut.h"

#include "ec_math.h"

#if defined(EC_WITH_MVE)
#include <arm_mve.h>

/* Sixteen bytes at once, by a gathering load; all are read before the first is written. */
void ec_lut_8(const ec_lut_t *p, const void *in, void *out)
{
    const uint8_t *table = p->table;
    const uint8_t *from = (const uint8_t *)in;
    uint8_t *to = (uint8_t *)out;
    uint32_t left = p->count;
    for (; left >= 16; left -= 16) {
        vstrbq_u8(to, vldrbq_gather_offset_u8(table, vldrbq_u8(from)));
        from += 16;
        to += 16;
    }
    if (left > 0) {
        const mve_pred16_t some = vctp8q(left);
        const uint8x16_t places = vldrbq_z_u8(from, some);
        vstrbq_p_u8(to, vldrbq_gather_offset_z_u8(table, places, some), some);
    }
}
#else
void ec_lut_8(const ec_lut_t *p, const void *in, void *out)
{
    const uint8_t *table = p->table;
    const uint8_t *from = (const uint8_t *)in;
    uint8_t *to = (uint8_t *)out;
    for (const uint8_t *end = to + p->count; to != end;) {
        *to++ = table[*from++];
    }
}
#endif
