/* ec_conv_rows_s16 for cores with Helium: eight products at once. */
#ifndef EC_CONV_ROWS_S16_MVE_H
#define EC_CONV_ROWS_S16_MVE_H

#include "ec_conv_rows_s16.h"
#include "ec_conv_view.h"
#include "ec_mve.h"

static inline int16_t *ec_copy(int16_t *to, const int16_t *from, int32_t count)
{
    int8_t *const end = ec_mve_copy((int8_t *)to, (const int8_t *)from, 2 * count);
    return (int16_t *)(void *)end;
}

static inline int16_t *ec_fill(int16_t *to, int32_t count)
{
    return (int16_t *)(void *)ec_mve_fill((int8_t *)to, 0, 2 * count);
}

/* Sums scaled and limited (VRMULH rounds halves up). */
static inline int32x4_t ec_scale(const ec_conv_rows_s16_t *p, int32x4_t sums, const int32_t *factors)
{
    sums = vrmulhq_s32(sums, vldrwq_s32(factors));
    return vminq_s32(vmaxq_s32(sums, vdupq_n_s32(p->low)), vdupq_n_s32(p->high));
}

/* Four channels (or the `left` last ones) from `channel` on: the products of `count` elements of x and
 * of each channel's weights. */
static inline void ec_four(const ec_conv_rows_s16_t *p, const int16_t *x, int32_t count,
                           int32_t channel, int32_t left, int16_t *out)
{
    const int8_t *w0 = p->weights + (ptrdiff_t)channel * count;
    const int8_t *w1 = w0 + count, *w2 = w1 + count, *w3 = w2 + count;
    const int32_t *bias = p->bias + channel;
    int32_t s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
    __asm__ volatile( /* compilers make no tail-predicated loops */
        "wlstp.16 lr, %[count], 2f\n\t"
        "1:\n\t"
        "vldrh.u16 q0, [%[x]], #16\n\t"
        "vldrb.s16 q1, [%[w0]], #8\n\t"
        "vmladava.s16 %[s0], q0, q1\n\t"
        "vldrb.s16 q2, [%[w1]], #8\n\t"
        "vmladava.s16 %[s1], q0, q2\n\t"
        "vldrb.s16 q1, [%[w2]], #8\n\t"
        "vmladava.s16 %[s2], q0, q1\n\t"
        "vldrb.s16 q2, [%[w3]], #8\n\t"
        "vmladava.s16 %[s3], q0, q2\n\t"
        "letp lr, 1b\n\t"
        "2:"
        : [s0] "+Te"(s0), [s1] "+Te"(s1), [s2] "+Te"(s2), [s3] "+Te"(s3), [x] "+r"(x),
          [w0] "+l"(w0), [w1] "+l"(w1), [w2] "+l"(w2), [w3] "+l"(w3)
        : [count] "r"(count)
        : "q0", "q1", "q2", "lr", "cc", "memory");
    const int32x4_t sums = {s0, s1, s2, s3};
    const int32x4_t y = ec_scale(p, sums, p->factors + channel);
    if (left >= EC_ROWS) {
        vstrhq_s32(out, y);
    } else {
        vstrhq_p_s32(out, y, vctp32q((uint32_t)left));
    }
}

/* Eight channels from `channel` on, or the last ones: the even ones' sums in one vector, the odd ones'
 * in another. */
static inline void ec_deep(const ec_conv_rows_s16_t *p, const ec_view_t *view, const int16_t *in,
                           int32_t channel, int16_t *out)
{
    const ec_conv_shape_t *s = &p->shape;
    const mve_pred16_t some = vctp16q((uint32_t)(s->in_channels - channel));
    const int32_t step = 2 * (int32_t)view->column_step;
    const int32_t row_step = 2 * (int32_t)view->row_step;
    const int32_t inside = view->columns.end - view->columns.first;
    const int32_t skipped = (s->kernel_width - inside) * EC_DEEP;
    const int8_t *weights = p->weights + (ptrdiff_t)s->kernel_height * s->kernel_width * channel +
                            (view->rows.first * s->kernel_width + view->columns.first) * EC_DEEP;
    const int8_t *from = (const int8_t *)(in + view->start + channel);
    int32x4_t even = vldrwq_s32(p->bias + channel), odd = vldrwq_s32(p->bias + channel + 4);
    for (int32_t rows = view->rows.end - view->rows.first; rows > 0; --rows) {
        const int8_t *x = from;
        __asm__ volatile(
            "vmsr p0, %[some]\n\t"
            "dls lr, %[inside]\n\t"
            "1:\n\t"
            "vpst\n\t"
            "vldrht.u16 q0, [%[x]]\n\t"
            "vldrb.s16 q1, [%[weights]], #8\n\t"
            "add %[x], %[x], %[step]\n\t"
            "vmullb.s16 q2, q0, q1\n\t"
            "vmullt.s16 q3, q0, q1\n\t"
            "vadd.i32 %q[even], %q[even], q2\n\t"
            "vadd.i32 %q[odd], %q[odd], q3\n\t"
            "le lr, 1b"
            : [even] "+w"(even), [odd] "+w"(odd), [x] "+r"(x), [weights] "+l"(weights)
            : [inside] "r"(inside), [step] "r"(step), [some] "r"((int32_t)some)
            : "q0", "q1", "q2", "q3", "lr", "memory"); /* P0, which has no name here, holds `some` or nothing */
        from += row_step;
        weights += skipped;
    }
    int16x8_t y = vmovnbq_s32(vreinterpretq_s16_s32(even), ec_scale(p, even, p->factors + channel));
    y = vmovntq_s32(y, ec_scale(p, odd, p->factors + channel + 4));
    vstrhq_p_s16(out, y, some);
}

#endif
