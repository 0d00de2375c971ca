/* Each step twice: in assembly for cores with the DSP extension (it takes all registers, and
 * compilers spill), and in C. */
#include "ec_winograd_4x4_steps.h"

#include <stddef.h>

#include "ec_winograd_lines.h"

#if defined(__ARM_FEATURE_DSP)

/* r0 weights, r1 u, r3 the step from position to position, r2 and lr 3 and 5 times as much; r4..r12
 * values. On the stack: twice w1 and w0 + 4 w2; w2; from the end of a channel's u to the start of
 * the next one's; the end of r1. */
__asm__(
    /* `op` on three values each. */
    ".macro ec_winograd_4x4_three op, a, b, c, d, e, f, g, h, i\n"
    "    \\op \\a, \\d, \\g\n"
    "    \\op \\b, \\e, \\h\n"
    "    \\op \\c, \\f, \\i\n"
    ".endm\n"
    ".macro ec_winograd_4x4_next\n"
    "    add r1, r1, r2, lsl #1\n"
    ".endm\n"
    /* One of the two pairs of input channels in the words, for four output channels. */
    ".macro ec_winograd_4x4_u_half turn\n"
    "1:  ldmia.w r0!, {r4-r9}\n"
    "    sxtb16 r4, r4, ror #\\turn\n"
    "    sxtb16 r5, r5, ror #\\turn\n"
    "    sxtb16 r6, r6, ror #\\turn\n"
    "    sxtb16 r7, r7, ror #\\turn\n"
    "    sxtb16 r8, r8, ror #\\turn\n"
    "    sxtb16 r9, r9, ror #\\turn\n"
    "    ec_line_u r4, r5, r6, r10, r11, r12\n"
    "    ec_winograd_4x4_next\n"
    "    add r10, sp, #24\n"
    "    stmia.w r10, {r7, r8, r9}\n"
    "    ec_winograd_4x4_three sadd16, r10, r11, r12, r4, r5, r6, r7, r8, r9\n"
    "    ec_winograd_4x4_three sadd16, r7, r8, r9, r7, r8, r9, r7, r8, r9\n"
    "    ec_winograd_4x4_three sadd16, r7, r8, r9, r7, r8, r9, r7, r8, r9\n"
    "    ec_winograd_4x4_three sadd16, r7, r8, r9, r7, r8, r9, r4, r5, r6\n"
    "    ldmia.w r0!, {r4, r5, r6}\n"
    "    strd r7, r8, [sp, #12]\n"
    "    str r9, [sp, #20]\n"
    "    sxtb16 r4, r4, ror #\\turn\n"
    "    sxtb16 r5, r5, ror #\\turn\n"
    "    sxtb16 r6, r6, ror #\\turn\n"
    "    ec_winograd_4x4_three ssub16, r7, r8, r9, r10, r11, r12, r4, r5, r6\n"
    "    ec_winograd_4x4_three sadd16, r10, r11, r12, r10, r11, r12, r4, r5, r6\n"
    "    ec_winograd_4x4_three sadd16, r4, r5, r6, r4, r5, r6, r4, r5, r6\n"
    "    stmia.w sp, {r4, r5, r6}\n"
    "    ec_line_u r10, r11, r12, r4, r5, r6\n"
    "    ec_winograd_4x4_next\n"
    "    ec_line_u r7, r8, r9, r4, r5, r6\n"
    "    ec_winograd_4x4_next\n"
    "    ldmia.w sp, {r4-r9}\n"
    "    ec_winograd_4x4_three sadd16, r10, r11, r12, r4, r5, r6, r7, r8, r9\n"
    "    ec_winograd_4x4_three ssub16, r7, r8, r9, r7, r8, r9, r4, r5, r6\n"
    "    ec_line_u r10, r11, r12, r4, r5, r6\n"
    "    ec_winograd_4x4_next\n"
    "    ec_line_u r7, r8, r9, r4, r5, r6\n"
    "    ec_winograd_4x4_next\n"
    "    add r10, sp, #24\n"
    "    ldmia.w r10, {r7, r8, r9, r10}\n"
    "    ec_line_u r7, r8, r9, r4, r5, r6\n"
    "    sub r1, r1, r10\n"
    "    tst r1, #15\n"               /* four output channels are 16 bytes */
    "    bne.w 1b\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_4x4_weights)
    "    push {r4-r11, lr}\n"
    "    lsl r3, r2, #4\n"
    "    add r5, r1, r3\n"
    "    add r2, r3, r3, lsl #1\n"
    "    add lr, r3, r3, lsl #2\n"
    "    lsl r4, r2, #3\n"            /* 24 steps, and 6 */
    "    add r4, r4, r2, lsl #1\n"
    "    sub r4, #4\n"
    "    sub sp, #44\n"
    "    strd r4, r5, [sp, #36]\n"
    "2:\n"
    "    ec_winograd_4x4_u_half 0\n"
    "    sub r0, #144\n"
    "    ec_winograd_4x4_u_half 8\n"
    "    ldr r4, [sp, #40]\n"
    "    cmp r1, r4\n"
    "    bne.w 2b\n"
    "    add sp, #44\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_4x4_weights));

/* r0 and r1 the rows 0 and 3, r2 the step between rows; r3 where a column goes, r12 the step between
 * its values; lr what is added to bytes; r4..r9 a word of each row, r10, r11 others. On the stack:
 * six words; the column of place 0, pixels left, bytes of a pixel, the end of this pixel in r0. */
__asm__(
    ".macro ec_winograd_4x4_column turn\n"
    "    sxtab16 r4, lr, r4, ror #\\turn\n"
    "    sxtab16 r5, lr, r5, ror #\\turn\n"
    "    sxtab16 r6, lr, r6, ror #\\turn\n"
    "    sxtab16 r7, lr, r7, ror #\\turn\n"
    "    sxtab16 r8, lr, r8, ror #\\turn\n"
    "    sxtab16 r9, lr, r9, ror #\\turn\n"
    "    ec_line_b\n"
    "    add r11, r12, r12, lsl #1\n"
    "    str r4, [r3]\n"
    "    str r6, [r3, r12]\n"
    "    str r10, [r3, r12, lsl #1]\n"
    "    str r7, [r3, r11]\n"
    "    str r8, [r3, r12, lsl #2]\n"
    "    add r3, r3, r11, lsl #1\n"
    "    sub r11, r3, r12\n"
    "    str r9, [r11]\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_4x4_columns)
    "    push {r4-r11, lr}\n"
    "    ldr r12, [sp, #36]\n"
    "    lsl r12, r12, #2\n"
    "    mov r4, r1\n"
    "    mov r5, r2\n"
    "    lsl r6, r3, #2\n"
    "    ldmia r0, {r0, r1}\n"
    "    sub r2, r1, r0\n"
    "    add r1, r1, r2, lsl #1\n"
    "    mov r3, r4\n"
    "    add r7, r0, r6\n"
    "    mov lr, #0x00800080\n"
    "    sub sp, #40\n"
    "    strd r4, r5, [sp, #24]\n"
    "    strd r6, r7, [sp, #32]\n"
    "1:  ldr r5, [r0, r2]\n"
    "    ldr r6, [r0, r2, lsl #1]\n"
    "    ldr r8, [r0, r2, lsl #2]\n"
    "    ldr r4, [r0], #4\n"
    "    ldr r9, [r1, r2, lsl #1]\n"
    "    ldr r7, [r1], #4\n"
    "    stmia.w sp, {r4-r9}\n"
    "    ec_winograd_4x4_column 0\n"
    "    ldmia.w sp, {r4-r9}\n"
    "    ec_winograd_4x4_column 8\n"
    "    ldr r4, [sp, #36]\n"
    "    cmp r0, r4\n"
    "    bne 1b\n"
    "    ldr r5, [sp, #32]\n"
    "    add r4, r4, r5\n"
    "    str r4, [sp, #36]\n"
    "    ldrd r3, r5, [sp, #24]\n"
    "    add r3, #4\n"
    "    subs r5, #1\n"
    "    strd r3, r5, [sp, #24]\n"
    "    bne 1b\n"
    "    add sp, #40\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_4x4_columns));

/* r0 edges, r12 the step between rows; r1 v, r3 the step between positions and r2 three of them;
 * lr what keeps low halfwords from borrowing; the rest values. On the stack, twice, as two tiles are
 * taken one after the other: the end of r1 for this place; for all places; the edges; v. */
__asm__(
    ".macro ec_winograd_4x4_v\n"
    "    ldmia.w r0, {r4-r9}\n"
    "    add r0, r12\n"
    "    add r8, r8, lr\n"
    "    add r9, r9, lr\n"
    "    ec_line_b\n"
    "    ec_line_v\n"
    "    add r1, r1, r2, lsl #1\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_4x4_tiles)
    "    push {r4-r11, lr}\n"
    "    lsl r12, r3, #2\n"
    "    lsl r3, r2, #3\n"
    "    add r2, r3, r3, lsl #1\n"
    "    mov lr, #0x4000\n"
    "    add r4, r1, r2, lsl #2\n"
    "    add r4, r4, r2, lsl #3\n"
    "    add r5, r4, r3\n"
    "    mov r6, r0\n"
    "    mov r7, r1\n"
    "    sub sp, #16\n"
    "3:  stmia.w sp, {r4-r7}\n"
    "1:\n"
    ".rept 3\n"
    "    ec_winograd_4x4_v\n"
    ".endr\n"
    "    ldrd r4, r5, [sp]\n"
    "    cmp r1, r4\n"
    "    bne.w 1b\n"
    "    sub r1, r1, r2, lsl #2\n"    /* 36 positions back */
    "    sub r1, r1, r2, lsl #3\n"
    "    add r1, #8\n"
    "    add r4, #8\n"
    "    str r4, [sp]\n"
    "    cmp r4, r5\n"
    "    bne.w 1b\n"
    "    ldrd r6, r7, [sp, #8]\n"
    "    adds r1, r7, #4\n"           /* the second tile, if this was the first */
    "    tst r1, #4\n"
    "    itttt ne\n"
    "    addne r0, r6, #16\n"
    "    subne r4, r4, r3\n"
    "    addne r4, #4\n"
    "    addne r5, #4\n"
    "    mov r7, r1\n"
    "    bne.w 3b\n"
    "    add sp, #16\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_4x4_tiles));

/* r0 sums, 512 bytes ahead to be in reach of loads, r1 out; others are values of two tiles. On the
 * stack: [4][6][2] column sums; 2^32 / 18; scales; pixel; from the sixth output of a row to the next
 * row; the sums; out; the end of the sums. */
__asm__(
    EC_FUNCTION(ec_winograd_4x4_outputs)
    "    push {r4-r11, lr}\n"
    "    ldr r4, [sp, #36]\n"
    "    add r5, r3, r3, lsl #2\n"
    "    sub r4, r4, r5\n"
    "    ldr r5, =0x0E38E38E\n"
    "    add r0, #512\n"
    "    add r6, r0, #32\n"
    "    sub sp, #220\n"
    "    strd r3, r4, [sp, #200]\n"
    "    str r5, [sp, #192]\n"
    "    str r6, [sp, #216]\n"
    "1:  strd r0, r2, [sp, #208]\n"
    "    str r1, [sp, #196]\n"
    "    ldr r12, [r1]\n"
    ".set ec_winograd_at, 0\n"
    ".rept 6\n"
    /* column 1 takes the bias, and comes first */
    ".set ec_winograd_column, ec_winograd_at ^ ((ec_winograd_at < 2) & 1)\n"
    "    ec_line_a r0, 32 * ec_winograd_column - 512, 192, (ec_winograd_column == 1)\n"
    "    strd r2, r3, [sp, #8 * ec_winograd_column]\n"
    "    strd r12, r10, [sp, #8 * ec_winograd_column + 48]\n"
    "    strd r11, lr, [sp, #8 * ec_winograd_column + 96]\n"
    "    strd r4, r5, [sp, #8 * ec_winograd_column + 144]\n"
    ".set ec_winograd_at, ec_winograd_at + 1\n"
    ".endr\n"
    "    ldr r1, [sp, #212]\n"
    ".set ec_winograd_at, 0\n"
    ".rept 4\n"
    "    ec_line_a sp, ec_winograd_at, 8, 0\n"
    "    ec_line_outputs 192\n"
    "    ldr r0, [sp, #204]\n"
    "    add r1, r0\n"
    ".set ec_winograd_at, ec_winograd_at + 48\n"
    ".endr\n"
    "    ldrd r0, r2, [sp, #208]\n"
    "    ldr r1, [sp, #196]\n"
    "    ldr r3, [sp, #216]\n"
    "    add r0, #8\n"
    "    add r1, #16\n"
    "    add r2, #1\n"
    "    cmp r0, r3\n"
    "    bne.w 1b\n"
    "    add sp, #220\n"
    "    pop {r4-r11, pc}\n"
    ".ltorg\n"
    EC_END(ec_winograd_4x4_outputs)
    ".text\n");

#else

enum {
    EC_POSITIONS = EC_WINOGRAD_4X4_POSITIONS,
    EC_SUMS = EC_WINOGRAD_GROUP * EC_WINOGRAD_PAIR
};

void ec_winograd_4x4_weights(const uint32_t *weights, uint32_t *u, int32_t places)
{
    const ptrdiff_t position = (ptrdiff_t)places * EC_WINOGRAD_GROUP;
    for (int32_t place = 0; place < places; ++place) {
        const uint32_t *w = weights + place / 2 * EC_WINOGRAD_GROUP * EC_WINOGRAD_TAPS;
        for (int32_t channel = 0; channel < EC_WINOGRAD_GROUP; ++channel) {
            for (int32_t i = 0; i < EC_POSITIONS; ++i) {
                u[i * position] = 0;
            }
            for (int32_t half = 0; half < 2; ++half) {
                static const int32_t order[3] = {0, 6, 3}; /* rows 0, 2, 1 */
                int32_t taps[3][3], columns[3][6], line[6];
                for (int32_t tap = 0; tap < EC_WINOGRAD_TAPS; ++tap) {
                    const uint32_t word = w[order[tap / 3] + tap % 3];
                    taps[tap / 3][tap % 3] = (int8_t)(word >> (8 * (place % 2) + 16 * half));
                }
                for (int32_t x = 0; x < 3; ++x) {
                    ec_u_line(&taps[0][x], 3, columns[x]);
                }
                for (int32_t y = 0; y < 6; ++y) {
                    ec_u_line(&columns[0][y], 6, line);
                    for (int32_t x = 0; x < 6; ++x) {
                        const uint32_t value = (uint16_t)line[x];
                        u[(6 * y + x) * position] |= value << 16 * half;
                    }
                }
            }
            ++u;
            w += EC_WINOGRAD_TAPS;
        }
    }
}

void ec_winograd_4x4_columns(const int8_t *const *rows, uint32_t *edges, int32_t width,
                             int32_t words, int32_t columns)
{
    for (int32_t x = 0; x < width; ++x) {
        uint32_t *to = edges + x;
        for (int32_t place = 0; place < 2 * words; ++place) {
            const ptrdiff_t at = ((ptrdiff_t)x * words + place / 2) * 4;
            uint32_t d[6], e[6];
            for (int32_t i = 0; i < 6; ++i) {
                d[i] = ec_shifted_pair(ec_load_u32(rows[i] + at), place % 2);
            }
            ec_b_line(d, e);
            for (int32_t i = 0; i < 6; ++i) {
                *to = e[i];
                to += columns;
            }
        }
    }
}

void ec_winograd_4x4_tiles(const uint32_t *edges, uint32_t *v, int32_t places, int32_t columns)
{
    const ptrdiff_t position = (ptrdiff_t)places * EC_WINOGRAD_PAIR;
    for (int32_t place = 0; place < places; ++place) {
        for (int32_t y = 0; y < 6; ++y) {
            for (int32_t tile = 0; tile < EC_WINOGRAD_PAIR; ++tile) {
                ec_v_line(edges + 4 * tile, v + 6 * y * position + tile, position);
            }
            edges += columns;
        }
        v += EC_WINOGRAD_PAIR;
    }
}

void ec_winograd_4x4_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                             int32_t row)
{
    for (int32_t i = 0; i < EC_SUMS; ++i) {
        int8_t *const to = out + i / EC_WINOGRAD_PAIR + i % EC_WINOGRAD_PAIR * 4 * pixel;
        uint32_t m[6], columns[6][4], y[4];
        for (int32_t x = 0; x < 6; ++x) {
            for (int32_t j = 0; j < 6; ++j) {
                m[j] = (uint32_t)sums[(6 * j + x) * EC_SUMS + i];
            }
            m[1] += x == 1 ? (uint32_t)scales[0] : 0;
            ec_a_line(m, 1, columns[x]);
        }
        for (int32_t j = 0; j < 4; ++j) {
            ec_a_line(&columns[0][j], 4, y);
            for (int32_t x = 0; x < 4; ++x) {
                const int32_t sum = (int32_t)y[x] / 36;
                to[j * row + x * pixel] = (int8_t)ec_saturate_s8(
                    ec_requantize_right(sum, scales[1], scales[2], scales[3]));
            }
        }
        scales += i % EC_WINOGRAD_PAIR ? EC_WINOGRAD_SCALE_WORDS : 0;
    }
}

#endif
