/* int8 ADD, SUB and MUL for cores with Helium: four elements at once. */
#ifndef EC_ELEMENTWISE_S8_MVE_H
#define EC_ELEMENTWISE_S8_MVE_H

#include "ec_elementwise_s8.h"
#include "ec_math.h"
#include "ec_mve.h"

/* `value`, rounded twice already but for the shift: halves away from zero, by the sign of `from`. */
EC_INLINE int32x4_t shifted(int32x4_t value, int32x4_t from, int32_t shift)
{
    return vrshlq_n_s32(vaddq_s32(value, vshrq_n_s32(from, 31)), -shift);
}

/* What add_one does. */
EC_INLINE int32x4_t add_four(const ec_add_s8_t *p, int32x4_t x, int32x4_t y)
{
    const int32x4_t first = vmlasq_n_s32(x, vdupq_n_s32(p->factor1), p->constant1);
    const int32x4_t twice = vaddq_n_s32(vshlq_n_s32(y, 21), p->constant2);
    const int32x4_t high = vrmulhq_s32(twice, vdupq_n_s32(p->multiplier2));
    const int32x4_t second = shifted(high, twice, p->shift2);
    const int32x4_t sum = vmlaq_n_s32(first, second, p->sign2);
    const int32x4_t scaled_sum = shifted(vqrdmulhq_n_s32(sum, p->multiplier), sum, p->shift);
    const int32x4_t moved = vaddq_n_s32(scaled_sum, p->offset);
    return vminq_s32(vmaxq_s32(moved, vdupq_n_s32(p->low)), vdupq_n_s32(p->high));
}

EC_INLINE void add_all(const ec_add_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    const ec_add_s8_t each = *p;
    uint32_t left = each.count;
    for (; left >= 4; left -= 4) {
        vstrbq_s32(out, add_four(&each, vldrbq_s32(in1), vldrbq_s32(in2)));
        in1 += 4;
        in2 += 4;
        out += 4;
    }
    if (left > 0) {
        const mve_pred16_t some = vctp32q(left);
        const int32x4_t x = vldrbq_z_s32(in1, some), y = vldrbq_z_s32(in2, some);
        vstrbq_p_s32(out, add_four(&each, x, y), some);
    }
}

/* What mul_right_one does. */
EC_INLINE int32x4_t mul_four(const ec_mul_right_s8_t *p, int32x4_t x, int32x4_t y)
{
    const int32x4_t doubled = vaddq_n_s32(vshlq_n_s32(y, 1), p->offset2);
    const int32x4_t twice = vmulq_s32(vaddq_n_s32(x, p->offset1), doubled);
    const int32x4_t high = vrmulhq_s32(twice, vdupq_n_s32(p->multiplier));
    const int32x4_t sum = vaddq_s32(vaddq_n_s32(high, p->rounding), vshrq_n_s32(twice, 31));
    const int32x4_t value = vshlq_s32(sum, vdupq_n_s32(-p->shift));
    return vminq_s32(vmaxq_s32(value, vdupq_n_s32(p->low)), vdupq_n_s32(p->high));
}

EC_INLINE void mul_all(const ec_mul_right_s8_t *p, const int8_t *in1, const int8_t *in2, int8_t *out)
{
    const ec_mul_right_s8_t each = *p;
    uint32_t left = each.count;
    for (; left >= 4; left -= 4) {
        vstrbq_s32(out, mul_four(&each, vldrbq_s32(in1), vldrbq_s32(in2)));
        in1 += 4;
        in2 += 4;
        out += 4;
    }
    if (left > 0) {
        const mve_pred16_t some = vctp32q(left);
        const int32x4_t x = vldrbq_z_s32(in1, some), y = vldrbq_z_s32(in2, some);
        vstrbq_p_s32(out, mul_four(&each, x, y), some);
    }
}

#endif
