/* ec_depthwise for cores with Helium: sixteen channels at once.
 *
 * Products of bytes are halfwords (VMULLB, VMULLT: even and odd channels); the products of two taps
 * are added before the sum is widened. So the four vectors of accumulators hold channels 0, 4, 8,
 * 12; 1, 5, 9, 13; and so on; narrowing brings them back into order.
 */
#ifndef EC_DEPTHWISE_MVE_H
#define EC_DEPTHWISE_MVE_H

#include "ec_depthwise.h"
#include "ec_math.h"
#include "ec_mve.h"

/* Every fourth of 16 values, from `place` on. */
static inline int32x4_t ec_fourth(const int32_t *values, int32_t place)
{
    const uint32x4_t steps = vidupq_n_u32(0, 4);
    return vldrwq_gather_shifted_offset_s32(values + place, steps);
}

/* What 16 channels need besides their weights. */
typedef struct {
    const int32_t *bias;
    const int32_t *multipliers;
    const int8_t *shifts;
} ec_constants_t;

/* The accumulators: of channels 0, 4, 8, 12; 1, 5, 9, 13; and so on. */
typedef struct {
    int32x4_t s0;
    int32x4_t s1;
    int32x4_t s2;
    int32x4_t s3;
} ec_vectors_t;

EC_INLINE int8x16_t ec_inputs(const int8_t *at, mve_pred16_t some, const int whole)
{
    return whole ? vldrbq_s8(at) : vldrbq_z_s8(at, some);
}

EC_INLINE void ec_add(ec_vectors_t *sums, int16x8_t even, int16x8_t odd)
{
    sums->s0 = vaddq_s32(sums->s0, vmovlbq_s16(even));
    sums->s2 = vaddq_s32(sums->s2, vmovltq_s16(even));
    sums->s1 = vaddq_s32(sums->s1, vmovlbq_s16(odd));
    sums->s3 = vaddq_s32(sums->s3, vmovltq_s16(odd));
}

/* The sums of 16 channels (of `some` of them, where not `whole`) from `channel` on. */
EC_INLINE ec_vectors_t ec_sums(const ec_depthwise_t *p, const int8_t *const *list,
                               const int8_t *weights, int32_t channel, const int32_t *bias,
                               mve_pred16_t some, const int whole, const int nibbles)
{
    ec_vectors_t sums = {ec_fourth(bias, 0), ec_fourth(bias, 1), ec_fourth(bias, 2),
                         ec_fourth(bias, 3)};
    for (int32_t pairs = p->taps / 2; pairs > 0; --pairs) {
        int8x16_t x = ec_inputs(list[0] + channel, some, whole);
        int8x16_t w = vldrbq_s8(weights);
        if (nibbles) w = vshrq_n_s8(vshlq_n_s8(w, 4), 4);
        int16x8_t even = vmullbq_int_s8(x, w), odd = vmulltq_int_s8(x, w);
        x = ec_inputs(list[1] + channel, some, whole);
        weights += nibbles ? 0 : 16;
        w = vldrbq_s8(weights);
        if (nibbles) w = vshrq_n_s8(w, 4);
        even = vaddq_s16(even, vmullbq_int_s8(x, w));
        EC_PIN(weights); /* read again: there is no register for both products and their factors */
        w = vldrbq_s8(weights);
        if (nibbles) w = vshrq_n_s8(w, 4);
        odd = vaddq_s16(odd, vmulltq_int_s8(x, w));
        ec_add(&sums, even, odd);
        weights += 16;
        list += 2;
    }
    if (p->taps % 2 != 0) {
        const int8x16_t x = ec_inputs(*list + channel, some, whole), w = vldrbq_s8(weights);
        ec_add(&sums, vmullbq_int_s8(x, w), vmulltq_int_s8(x, w));
    }
    return sums;
}

/* Sums scaled, moved and clamped, in order. */
EC_INLINE int8x16_t ec_results(const ec_depthwise_t *p, ec_vectors_t sums, const ec_constants_t *c)
{
    const int8x16_t right = vnegq_s8(vldrbq_s8(c->shifts));
    const int16x8_t even_right = vmovlbq_s8(right), odd_right = vmovltq_s8(right);
    const int32_t *m = c->multipliers;
    int16x8_t even = even_right, odd = odd_right;
    sums.s0 = ec_mve_requantize(sums.s0, ec_fourth(m, 0), vmovlbq_s16(even_right));
    even = vqmovnbq_s32(even, sums.s0);
    sums.s2 = ec_mve_requantize(sums.s2, ec_fourth(m, 2), vmovltq_s16(even_right));
    even = vqaddq_n_s16(vqmovntq_s32(even, sums.s2), (int16_t)p->out_zero);
    sums.s1 = ec_mve_requantize(sums.s1, ec_fourth(m, 1), vmovlbq_s16(odd_right));
    odd = vqmovnbq_s32(odd, sums.s1);
    sums.s3 = ec_mve_requantize(sums.s3, ec_fourth(m, 3), vmovltq_s16(odd_right));
    odd = vqaddq_n_s16(vqmovntq_s32(odd, sums.s3), (int16_t)p->out_zero);
    const int8x16_t y = vqmovntq_s16(vqmovnbq_s16(right, even), odd);
    return vminq_s8(vmaxq_s8(y, vdupq_n_s8((int8_t)p->low)), vdupq_n_s8((int8_t)p->high));
}

/* All channels, where output and input channels are the same; how many they are. */
EC_INLINE int32_t ec_blocks(const ec_depthwise_t *p, const int8_t *const *list, int8_t *out,
                            const int nibbles)
{
    const int32_t channels = p->shape.out_channels;
    const int32_t bytes = EC_BLOCK * (nibbles ? p->taps / 2 : p->taps);
    const int8_t *weights = (const int8_t *)p->weights;
    int32_t channel = 0;
    for (; channel + EC_BLOCK <= channels; channel += EC_BLOCK) {
        const ec_constants_t c = {p->bias + channel, p->multipliers + channel, p->shifts + channel};
        const ec_vectors_t sums = ec_sums(p, list, weights, channel, c.bias, 0, 1, nibbles);
        vstrbq_s8(out + channel, ec_results(p, sums, &c));
        weights += bytes;
    }
    if (channel < channels) {
        int32_t bias[EC_BLOCK], multipliers[EC_BLOCK];
        int8_t shifts[EC_BLOCK];
        const mve_pred16_t some = vctp8q((uint32_t)(channels - channel));
        const ec_constants_t c = {bias, multipliers, shifts};
        for (int32_t i = 0; i < EC_BLOCK; i += 4) {
            const mve_pred16_t four = vctp32q((uint32_t)(channels - channel - i));
            vstrwq_s32(bias + i, vldrwq_z_s32(p->bias + channel + i, four));
            vstrwq_s32(multipliers + i, vldrwq_z_s32(p->multipliers + channel + i, four));
        }
        vstrbq_s8(shifts, vldrbq_z_s8(p->shifts + channel, some));
        const ec_vectors_t sums = ec_sums(p, list, weights, channel, bias, some, 0, nibbles);
        vstrbq_p_s8(out + channel, ec_results(p, sums, &c), some);
    }
    return channels;
}

#endif
