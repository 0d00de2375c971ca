/* One row or column of six values in ec_winograd_4x4 and ec_winograd_1x4: G, B and A times it, in
 * assembly for cores with the DSP extension and in C. */
#ifndef EC_WINOGRAD_LINES_H
#define EC_WINOGRAD_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "ec_assembly.h"
#include "ec_math.h"

#if defined(__ARM_FEATURE_DSP)

__asm__(
    ".syntax unified\n"
    /* Three weights a, b, c become six values of u: r3 is the step from one to the next, r2 and lr 3
     * and 5 of them; x, y, z are for others. */
    ".macro ec_line_u a, b, c, x, y, z\n"
    "    str \\a, [r1]\n"
    "    sadd16 \\x, \\a, \\c\n"
    "    sadd16 \\z, \\b, \\b\n"
    "    sadd16 \\y, \\x, \\b\n"
    "    str \\y, [r1, r3]\n"
    "    ssub16 \\x, \\x, \\b\n"
    "    str \\x, [r1, r3, lsl #1]\n"
    "    sadd16 \\x, \\c, \\c\n"
    "    sadd16 \\x, \\x, \\x\n"
    "    sadd16 \\x, \\x, \\a\n"
    "    sadd16 \\y, \\x, \\z\n"
    "    str \\y, [r1, r2]\n"
    "    ssub16 \\x, \\x, \\z\n"
    "    str \\x, [r1, r3, lsl #2]\n"
    "    str \\c, [r1, lr]\n"
    ".endm\n"
    /* B times r4..r9 in r4, r6, r10, r7, r8, r9; r5 and r11 are for others. */
    ".macro ec_line_b\n"
    "    sub r10, r8, r6, lsl #2\n"
    "    sub r11, r7, r5, lsl #2\n"
    "    sub r5, r7, r5\n"
    "    sub r8, r8, r6\n"
    "    sub r4, r4, r6\n"
    "    add r4, r8, r4, lsl #2\n"
    "    sub r9, r9, r7\n"
    "    sub r9, r9, r5, lsl #2\n"
    "    add r6, r10, r11\n"
    "    sub r10, r10, r11\n"
    "    add r7, r8, r5, lsl #1\n"
    "    sub r8, r8, r5, lsl #1\n"
    ".endm\n"
    /* Those six, whose low halves are lr too large, as pairs in v: r3 is the step from one to the next,
     * r2 three of them; r11 is for others. */
    ".macro ec_line_v\n"
    "    ssub16 r4, r4, lr\n"
    "    ssub16 r6, r6, lr\n"
    "    ssub16 r10, r10, lr\n"
    "    ssub16 r7, r7, lr\n"
    "    ssub16 r8, r8, lr\n"
    "    ssub16 r9, r9, lr\n"
    "    add r11, r1, r2\n"
    "    str r4, [r1]\n"
    "    str r6, [r1, r3]\n"
    "    str r10, [r1, r3, lsl #1]\n"
    "    str r7, [r11]\n"
    "    str r8, [r11, r3]\n"
    "    str r9, [r11, r3, lsl #1]\n"
    ".endm\n"
    /* A times six values of each tile at [base, #at + step * i], a quarter of it: r2 r3, r12 r10,
     * r11 lr, r4 r5. What is halved is even: 24 times a sum less even multiples of other values. */
    ".macro ec_line_a base, at, step, bias\n"
    "    ldrd r4, r5, [\\base, #\\at + \\step]\n"
    "    ldrd r6, r7, [\\base, #\\at + 2 * \\step]\n"
    ".if \\bias\n"
    "    add r4, r4, r12\n"
    "    add r5, r5, r12\n"
    ".endif\n"
    "    add r8, r4, r6\n"
    "    sub r4, r4, r6\n"
    "    add r6, r5, r7\n"
    "    sub r5, r5, r7\n"
    "    ldrd r7, r9, [\\base, #\\at + 3 * \\step]\n"
    "    ldrd r10, r11, [\\base, #\\at + 4 * \\step]\n"
    "    add r12, r7, r10\n"
    "    sub r7, r7, r10\n"
    "    add r10, r9, r11\n"
    "    sub r9, r9, r11\n"
    "    sub r11, r12, r8\n"
    "    sub lr, r10, r6\n"
    "    ldrd r2, r3, [\\base, #\\at]\n"
    "    add r2, r2, r2, lsl #1\n"
    "    add r3, r3, r3, lsl #1\n"
    "    add r2, r2, r12, asr #1\n"
    "    add r3, r3, r10, asr #1\n"
    "    rsb r2, r8, r2, asr #1\n"
    "    rsb r3, r6, r3, asr #1\n"
    "    ldrd r8, r6, [\\base, #\\at + 5 * \\step]\n"
    "    rsb r12, r4, r7, asr #1\n"
    "    rsb r10, r5, r9, asr #1\n"
    "    rsb r4, r4, r7, lsl #1\n"
    "    rsb r5, r5, r9, lsl #1\n"
    "    add r8, r8, r8, lsl #1\n"
    "    add r6, r6, r6, lsl #1\n"
    "    add r4, r4, r8, lsl #1\n"
    "    add r5, r5, r6, lsl #1\n"
    ".endm\n"
    /* The eight outputs of those eight values: [sp, #frame] holds the fraction of 2^32 that makes twice
     * a sum of a value, the scales, and the bytes from pixel to pixel; r1 is where the first goes. It
     * ends at the sixth. */
    ".macro ec_line_outputs frame\n"
    "    ldr r0, [sp, #\\frame]\n"
    ".irp sum, r2, r3, r12, r10, r11, lr, r4, r5\n"
    "    smmulr \\sum, \\sum, r0\n"
    ".endr\n"
    "    ldr r6, [sp, #\\frame + 4]\n"
    "    ldr r9, [sp, #\\frame + 8]\n"
    "    ldr r8, [r6, #12]\n"
    "    ldrd r6, r7, [r6, #4]\n"
    "    ec_line_output r2, [r1]\n"
    "    ec_line_output r12, [r1, r9]\n"
    "    ec_line_output r11, [r1, r9, lsl #1]\n"
    "    ec_line_output r3, [r1, r9, lsl #2]\n"
    "    add r1, r1, r9\n"
    "    ec_line_output r4, [r1, r9, lsl #1]\n"
    "    add r1, r1, r9, lsl #2\n"
    "    ec_line_output r10, [r1]\n"
    "    ec_line_output lr, [r1, r9]\n"
    "    ec_line_output r5, [r1, r9, lsl #1]\n"
    ".endm\n"
    ".macro ec_line_output sum, to:vararg\n"
    "    smmlar r0, \\sum, r6, r7\n"
    "    add r0, r0, \\sum, asr #31\n"
    "    asr r0, r0, r8\n"
    "    ssat r0, #8, r0\n"
    "    strb r0, \\to\n"
    ".endm\n");

#else

/* A pair, as high * 2^16 + low, of two bytes plus 128. */
static inline uint32_t ec_shifted_pair(uint32_t word, int odd)
{
    word ^= UINT32_C(0x80808080);
    return (odd ? word >> 8 : word) & UINT32_C(0x00FF00FF);
}

/* Three values of one row of weights times G, each `step` from the last. */
static inline void ec_u_line(const int32_t *w, int32_t step, int32_t *u)
{
    const int32_t a = w[0], b = w[step], c = w[2 * step];
    u[0] = a;
    u[1] = a + b + c;
    u[2] = a - b + c;
    u[3] = a + 2 * b + 4 * c;
    u[4] = a - 2 * b + 4 * c;
    u[5] = c;
}

/* B times six values. */
static inline void ec_b_line(const uint32_t *d, uint32_t *e)
{
    const uint32_t a = d[4] - 4 * d[2], b = d[3] - 4 * d[1];
    const uint32_t c = d[4] - d[2], f = 2 * (d[3] - d[1]);
    e[0] = c + 4 * (d[0] - d[2]);
    e[1] = a + b;
    e[2] = a - b;
    e[3] = c + f;
    e[4] = c - f;
    e[5] = d[5] - d[3] - 2 * f;
}

/* Those six as pairs, each `step` from the last: a negative low half has borrowed. */
static inline void ec_v_line(const uint32_t *d, uint32_t *v, ptrdiff_t step)
{
    uint32_t line[6];
    ec_b_line(d, line);
    for (int32_t i = 0; i < 6; ++i) {
        v[i * step] = line[i] + ((line[i] & UINT32_C(0x8000)) << 1);
    }
}

/* Half of a value that is even and does not wrap. */
static inline uint32_t ec_half(uint32_t x)
{
    return (uint32_t)((int32_t)x >> 1);
}

/* A quarter of A times six values, each `step` from the last. */
static inline void ec_a_line(const uint32_t *m, int32_t step, uint32_t *y)
{
    const uint32_t t1 = m[step] + m[2 * step], t2 = m[step] - m[2 * step];
    const uint32_t t3 = m[3 * step] + m[4 * step], t4 = m[3 * step] - m[4 * step];
    y[0] = ec_half(3 * m[0] + ec_half(t3)) - t1;
    y[1] = ec_half(t4) - t2;
    y[2] = t3 - t1;
    y[3] = 2 * t4 - t2 + 6 * m[5 * step];
}

#endif

#endif
