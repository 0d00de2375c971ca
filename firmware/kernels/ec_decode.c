#include "ec_decode.h"

#include "ec_math.h"
#include "ec_unpack_scales.h"

/* 256 times each second byte plus each first, both signed, in halfwords. */
static inline uint32_t ec_paired(uint32_t word)
{
    const uint32_t borrowed = (word & 0x00800080u) << 1;
    return ((word - borrowed) & 0xFFFFu) | ((word & 0xFFFF0000u) - (borrowed & 0xFFFF0000u));
}

/* The words of a block whose weights are all places in `values`; returns what is behind it. `have` bits
 * (fewer than 32) of the last word that was read are left, in the low ones of `buffer`. */
static const uint32_t *ec_decode_all(const ec_decode_t *p, const uint32_t *from, uint32_t *to)
{
    const uint8_t *const values = (const uint8_t *)p->values;
    const uint32_t bits = (uint32_t)p->bits, ones = (UINT32_C(1) << bits) - 1u;
    const uint32_t *const end = to + p->words;
    uint32_t buffer = 0, have = 0;
    while (to != end) {
        uint32_t fields = buffer;
        buffer >>= 4 * bits;
        if (have < 4 * bits) {
            fields |= *from << have;
            buffer = *from++ >> (4 * bits - have);
            have += 32;
        }
        have -= 4 * bits;
        uint32_t word = 0;
        EC_UNROLL for (uint32_t k = 0; k < 4; ++k) {
            word |= (uint32_t)values[fields >> (k * bits) & ones] << (8 * k);
        }
        *to++ = p->paired ? ec_paired(word) : word;
    }
    return from;
}

/* The same where a bit per weight tells whether it is one of the fields; others are 0. */
static const uint32_t *ec_decode_masked(const ec_decode_t *p, const uint32_t *from, uint32_t *to)
{
    const uint32_t bits = (uint32_t)p->bits, ones = (UINT32_C(1) << bits) - 1u;
    const uint32_t *masks = from;
    uint32_t mask = 0, buffer = 0, have = 0;
    from += (p->words + 7) / 8;
    for (int32_t i = 0; i < p->words; ++i) {
        mask = i % 8 == 0 ? *masks++ : mask >> 4;
        uint32_t word = 0;
        EC_UNROLL for (uint32_t k = 0; k < 4; ++k) {
            if ((mask >> k & 1u) == 0) continue;
            uint32_t value = buffer;
            buffer >>= bits;
            if (have < bits) {
                value |= *from << have;
                buffer = *from++ >> (bits - have);
                have += 32;
            }
            have -= bits;
            value &= ones;
            if (bits < 8) value = (uint8_t)p->values[value];
            word |= value << (8 * k);
        }
        to[i] = p->paired ? ec_paired(word) : word;
    }
    return from;
}

const uint32_t *ec_decode(const ec_decode_t *p, void *scratch)
{
    const uint32_t *from = p->packed;
    uint32_t *to = scratch;
    for (int32_t block = 0; block < p->blocks; ++block) {
        for (int32_t i = 0; i < p->head; ++i) {
            *to++ = *from++;
        }
        const uint32_t *const scales = from;
        from += p->scaled ? EC_SCALES + 1 : 0;
        from = p->masked ? ec_decode_masked(p, from, to) : ec_decode_all(p, from, to);
        to += p->words;
        if (p->scaled) {
            ec_scales(scales, p->half, to);
            to += 3 * EC_SCALES;
        }
    }
    return from;
}
