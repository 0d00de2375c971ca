/* Each step twice: in assembly for cores with the DSP extension (it takes all registers, and
 * compilers spill), and in C. */
#include "ec_winograd_1x4_steps.h"

#include <stddef.h>

#include "ec_winograd_lines.h"
#include "ec_winograd_map.h"

#if defined(__ARM_FEATURE_DSP)

/* r0 weights, r1 u, r3 the step from position to position, r2 and lr 3 and 5 times as much, r10 that
 * from row to row; r11 back to the next channel; r12 the end of r1; r4..r9 values. */
__asm__(
    /* One of the two pairs of input channels in the words, for four output channels. */
    ".macro ec_winograd_1x4_u_half turn\n"
    "1:\n"
    ".rept 3\n"
    "    ldmia.w r0!, {r4, r5, r6}\n"
    "    sxtb16 r4, r4, ror #\\turn\n"
    "    sxtb16 r5, r5, ror #\\turn\n"
    "    sxtb16 r6, r6, ror #\\turn\n"
    "    ec_line_u r4, r5, r6, r7, r8, r9\n"
    "    add r1, r10\n"
    ".endr\n"
    "    sub r1, r11\n"
    "    tst r1, #15\n"               /* four output channels are 16 bytes */
    "    bne 1b\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_1x4_weights)
    "    push {r4-r11, lr}\n"
    "    lsl r10, r2, #4\n"
    "    add r3, r10, r10, lsl #1\n"
    "    add r12, r1, r10\n"
    "    sub r11, r3, #4\n"
    "    add r2, r3, r3, lsl #1\n"
    "    add lr, r3, r3, lsl #2\n"
    "2:\n"
    "    ec_winograd_1x4_u_half 0\n"
    "    sub r0, #144\n"
    "    ec_winograd_1x4_u_half 8\n"
    "    cmp r1, r12\n"
    "    bne 2b\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_1x4_weights));

/* r0 a pixel, r12 the step to the next; r1 v, r3 the step between positions and r2 three of them; lr
 * what keeps low halfwords from borrowing; r4..r9 six pixels, r10, r11 others. On the stack: six
 * words; the end of the pixel in r0. */
__asm__(
    ".macro ec_winograd_1x4_v turn\n"
    "    mov r10, #0x00800080\n"
    "    sxtab16 r4, r10, r4, ror #\\turn\n"
    "    sxtab16 r5, r10, r5, ror #\\turn\n"
    "    sxtab16 r6, r10, r6, ror #\\turn\n"
    "    sxtab16 r7, r10, r7, ror #\\turn\n"
    "    add r10, lr\n"
    "    sxtab16 r8, r10, r8, ror #\\turn\n"
    "    sxtab16 r9, r10, r9, ror #\\turn\n"
    "    ec_line_b\n"
    "    ec_line_v\n"
    "    add r1, #8\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_1x4_tile)
    "    push {r4-r11, lr}\n"
    "    lsl r12, r2, #1\n"
    "    lsl r3, r3, #2\n"
    "    add r2, r3, r3, lsl #1\n"
    "    add r4, r0, r12\n"
    "    mov lr, #0x800\n"
    "    sub sp, #28\n"
    "    str r4, [sp, #24]\n"
    "1:  add r11, r0, r12\n"
    "    ldr r5, [r0, r12]\n"
    "    ldr r6, [r0, r12, lsl #1]\n"
    "    ldr r7, [r11, r12, lsl #1]\n"
    "    ldr r8, [r0, r12, lsl #2]\n"
    "    ldr r9, [r11, r12, lsl #2]\n"
    "    ldr r4, [r0], #4\n"
    "    stmia.w sp, {r4-r9}\n"
    "    ec_winograd_1x4_v 0\n"
    "    ldmia.w sp, {r4-r9}\n"
    "    ec_winograd_1x4_v 8\n"
    "    ldr r4, [sp, #24]\n"
    "    cmp r0, r4\n"
    "    bne 1b\n"
    "    add sp, #28\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_1x4_tile));

/* r0 sums, r1 out; others are values of two tiles. On the stack: 2^32 / 3; scales; pixel; the sums;
 * out; the end of the sums. */
__asm__(
    EC_FUNCTION(ec_winograd_1x4_outputs)
    "    push {r4-r11, lr}\n"
    "    mov r5, #0x55555555\n"
    "    add r6, r0, #32\n"
    "    sub sp, #24\n"
    "    str r5, [sp]\n"
    "    str r3, [sp, #8]\n"
    "    str r6, [sp, #20]\n"
    "1:  strd r0, r2, [sp, #12]\n"
    "    str r1, [sp, #4]\n"
    "    ldr r12, [r1]\n"
    "    mov r1, r2\n"
    "    ec_line_a r0, 0, 32, 1\n"
    "    ec_line_outputs 0\n"
    "    ldr r1, [sp, #4]\n"
    "    ldrd r0, r2, [sp, #12]\n"
    "    ldr r3, [sp, #20]\n"
    "    add r0, #8\n"
    "    add r1, #16\n"
    "    add r2, #1\n"
    "    cmp r0, r3\n"
    "    bne 1b\n"
    "    add sp, #24\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_1x4_outputs)
    ".text\n");

#else

void ec_winograd_1x4_weights(const uint32_t *weights, uint32_t *u, int32_t places)
{
    const ptrdiff_t row = (ptrdiff_t)places * EC_WINOGRAD_GROUP;
    const ptrdiff_t position = EC_WINOGRAD_1X4_ROWS * row;
    for (int32_t place = 0; place < places; ++place) {
        const uint32_t *w = weights + place / 2 * EC_WINOGRAD_GROUP * EC_WINOGRAD_TAPS;
        for (int32_t channel = 0; channel < EC_WINOGRAD_GROUP; ++channel) {
            for (int32_t y = 0; y < EC_WINOGRAD_1X4_ROWS; ++y) {
                int32_t taps[2][3], line[2][6];
                for (int32_t x = 0; x < 3; ++x) {
                    const uint32_t word = *w++ >> (8 * (place % 2));
                    taps[0][x] = (int8_t)word;
                    taps[1][x] = (int8_t)(word >> 16);
                }
                ec_u_line(taps[0], 1, line[0]);
                ec_u_line(taps[1], 1, line[1]);
                for (int32_t x = 0; x < EC_WINOGRAD_1X4_POSITIONS; ++x) {
                    u[y * row + x * position] = (uint16_t)line[0][x] | (uint32_t)line[1][x] << 16;
                }
            }
            ++u;
        }
    }
}

void ec_winograd_1x4_tile(const uint32_t *in, uint32_t *v, int32_t places, int32_t position)
{
    for (int32_t place = 0; place < places; ++place) {
        uint32_t d[6];
        for (int32_t x = 0; x < 6; ++x) {
            d[x] = ec_shifted_pair(in[x * (places / 2) + place / 2], place % 2);
        }
        ec_v_line(d, v, position);
        v += EC_WINOGRAD_PAIR;
    }
}

void ec_winograd_1x4_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                             int32_t row)
{
    enum { SUMS = EC_WINOGRAD_GROUP * EC_WINOGRAD_PAIR };
    (void)row;
    for (int32_t i = 0; i < SUMS; ++i) {
        int8_t *const to = out + i / EC_WINOGRAD_PAIR + i % EC_WINOGRAD_PAIR * 4 * pixel;
        uint32_t m[EC_WINOGRAD_1X4_POSITIONS], y[4];
        for (int32_t x = 0; x < EC_WINOGRAD_1X4_POSITIONS; ++x) {
            m[x] = (uint32_t)sums[x * SUMS + i] + (x == 1 ? (uint32_t)scales[0] : 0);
        }
        ec_a_line(m, 1, y);
        for (int32_t x = 0; x < 4; ++x) {
            to[x * pixel] = (int8_t)ec_saturate_s8(
                ec_requantize_right((int32_t)y[x] / 6, scales[1], scales[2], scales[3]));
        }
        scales += i % EC_WINOGRAD_PAIR ? EC_WINOGRAD_SCALE_WORDS : 0;
    }
}

#endif
