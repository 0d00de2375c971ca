#include "ec_depthwise_pairs.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"

static void ec_limit(const ec_depthwise_pairs_t *p, int8_t *out)
{
    const int32_t count = p->planes.batches * p->out_image;
    int32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    const uint32_t low = 0x01010101u * (uint8_t)p->low, high = 0x01010101u * (uint8_t)p->high;
    for (; i + 4 <= count; i += 4) {
        uint32_t y = ec_load_u32(out + i), work;
        __asm__("ssub8 %1, %0, %2\n\t"
                "sel %0, %0, %2\n\t"
                "ssub8 %1, %0, %3\n\t"
                "sel %0, %3, %0"
                : "+r"(y), "=&r"(work)
                : "r"(low), "r"(high)
                : "cc");
        memcpy(out + i, &y, sizeof(y));
    }
#endif
    for (; i < count; ++i) {
        out[i] = (int8_t)ec_clamp(out[i], p->low, p->high);
    }
}

static void ec_depthwise_pairs(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                               void *scratch, const ec_planes_form_t *form)
{
    const ec_planes_t *s = &p->planes;
    ec_planes_work_t w;
    ec_planes_begin(&w, s, form, scratch);
    w.unit = w.rows * p->out_row;
    w.step = w.sweep.step = p->out_row;
    w.sweep.pixel = p->out_column;
    const int32_t bands = (w.units + s->band - 1) / s->band;
    for (int32_t i = 0; i < s->batches * bands; ++i) {
        const int32_t at = p->reverse ? s->batches * bands - 1 - i : i;
        const int32_t batch = at / bands, unit = (at - batch * bands) * s->band;
        const int32_t end = unit + s->band < w.units ? unit + s->band : w.units;
        ec_planes_band(&w, in + (ptrdiff_t)batch * s->in_image,
                       out + (ptrdiff_t)batch * p->out_image + (ptrdiff_t)unit * w.unit, unit, end);
    }
    if (p->limited) {
        ec_limit(p, out);
    }
}

#define EC_DEPTHWISE_PAIRS(name)                                                                   \
    void ec_depthwise_pairs_##name##_s8(const ec_depthwise_pairs_t *p, const int8_t *in,           \
                                        int8_t *out, void *scratch)                                \
    {                                                                                              \
        ec_depthwise_pairs(p, in, out, scratch, &ec_planes_##name);                                \
    }

EC_DEPTHWISE_PAIRS(3x3)
EC_DEPTHWISE_PAIRS(3x3_stride2)
EC_DEPTHWISE_PAIRS(3)
EC_DEPTHWISE_PAIRS(3_stride2)
EC_DEPTHWISE_PAIRS(5)
EC_DEPTHWISE_PAIRS(5_stride2)
EC_DEPTHWISE_PAIRS(7)
EC_DEPTHWISE_PAIRS(7_stride2)
