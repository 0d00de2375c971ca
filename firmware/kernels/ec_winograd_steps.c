/* Each step twice: in assembly for cores with the DSP extension (it takes all registers, and
 * compilers spill), and in C.
 *
 * Instructions of the assembly: 11 for 16 products, 72 for four outputs, 64 for a place of two
 * tiles, 27 for a word of inputs, 107 for a word of weights with its 9 taps.
 */
#include "ec_winograd_steps.h"

#include <stddef.h>

#include "ec_assembly.h"
#include "ec_math.h"

#if defined(__ARM_FEATURE_DSP)

__asm__(".syntax unified\n");

/* r0 weights; r1 r2 r3 r12 where row 2 of u goes, for its four positions; lr the distance of
 * another row; r4..r11 values. On the stack: the distances of rows 3, 0, 1; the end of r1. */
__asm__(
    /* Three values of one row of G w become four of u. */
    ".macro ec_winograd_u a, b, c, s, t\n"
    "    sadd16 \\s, \\a, \\c\n"
    "    sadd16 \\t, \\s, \\b\n"
    "    ssub16 \\s, \\s, \\b\n"
    ".endm\n"
    ".macro ec_winograd_u_row a, b, c, s, t, distance\n"
    "    ec_winograd_u \\a, \\b, \\c, \\s, \\t\n"
    "    ldr lr, [sp, #\\distance]\n"
    "    str \\a, [r1, lr]\n"
    "    str \\t, [r2, lr]\n"
    "    str \\s, [r3, lr]\n"
    "    str \\c, [r12, lr]\n"
    ".endm\n"
    /* One of the two pairs of input channels in the words, for four output channels. */
    ".macro ec_winograd_u_half turn\n"
    "1:  ldmia.w r0!, {r4-r9}\n"
    "    sxtb16 r4, r4, ror #\\turn\n"
    "    sxtb16 r5, r5, ror #\\turn\n"
    "    sxtb16 r6, r6, ror #\\turn\n"
    "    sxtb16 r7, r7, ror #\\turn\n"
    "    sxtb16 r8, r8, ror #\\turn\n"
    "    sxtb16 r9, r9, ror #\\turn\n"
    "    ec_winograd_u_row r7, r8, r9, r10, r11, 0\n"
    "    sadd16 r7, r4, r7\n"
    "    sadd16 r8, r5, r8\n"
    "    sadd16 r9, r6, r9\n"
    "    ec_winograd_u_row r4, r5, r6, r10, r11, 4\n"
    "    ldmia.w r0!, {r4, r5, r6}\n"
    "    sxtb16 r4, r4, ror #\\turn\n"
    "    sxtb16 r5, r5, ror #\\turn\n"
    "    sxtb16 r6, r6, ror #\\turn\n"
    "    sadd16 r10, r7, r4\n"
    "    ssub16 r7, r7, r4\n"
    "    sadd16 r11, r8, r5\n"
    "    ssub16 r8, r8, r5\n"
    "    sadd16 r4, r9, r6\n"
    "    ssub16 r9, r9, r6\n"
    "    ec_winograd_u_row r10, r11, r4, r5, r6, 8\n"
    "    ec_winograd_u r7, r8, r9, r5, r6\n"
    "    str r7, [r1], #4\n"
    "    str r6, [r2], #4\n"
    "    str r5, [r3], #4\n"
    "    str r9, [r12], #4\n"
    "    tst r1, #15\n"               /* four output channels are 16 bytes */
    "    bne 1b\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_weights)
    "    push {r4-r11, lr}\n"
    "    lsl r4, r2, #6\n"            /* from row to row */
    "    rsb r6, r4, #0\n"
    "    lsl r5, r6, #1\n"
    "    sub r1, r1, r5\n"
    "    lsl r8, r2, #4\n"            /* from position to position */
    "    add r2, r1, r8\n"
    "    add r3, r2, r8\n"
    "    add r12, r3, r8\n"
    "    mov r7, r2\n"
    "    push {r4-r7}\n"
    "2:\n"
    "    ec_winograd_u_half 0\n"
    "    sub r0, #144\n"
    "    ec_winograd_u_half 8\n"
    "    ldr r4, [sp, #12]\n"
    "    cmp r1, r4\n"
    "    bne 2b\n"
    "    add sp, #16\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_weights));

/* r0..r3 the rows; r4..r7 a word of each; r8..r11 a column; r12 where it goes; lr the step to the
 * next place. On the stack: the column of place 0, pixels left, bytes of a pixel, the end of this
 * pixel in r0. */
__asm__(
    ".macro ec_winograd_column turn\n"
    "    sxtb16 r10, r6, ror #\\turn\n"
    "    sxtb16 r8, r4, ror #\\turn\n"
    "    sxtb16 r9, r5, ror #\\turn\n"
    "    sxtb16 r11, r7, ror #\\turn\n"
    "    ssub16 r8, r8, r10\n"
    "    ssub16 r11, r9, r11\n"
    "    ssub16 r10, r10, r9\n"
    "    sxtab16 r9, r9, r6, ror #\\turn\n"
    "    stmia.w r12, {r8-r11}\n"
    "    add r12, lr\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_columns)
    "    push {r4-r11, lr}\n"
    "    ldr lr, [sp, #36]\n"
    "    lsl lr, lr, #4\n"          /* from place to place */
    "    mov r4, r1\n"
    "    mov r5, r2\n"
    "    lsl r6, r3, #2\n"
    "    ldmia r0, {r0-r3}\n"
    "    add r7, r0, r6\n"
    "    push {r4-r7}\n"
    "    mov r12, r4\n"
    "1:  ldr r4, [r0], #4\n"
    "    ldr r5, [r1], #4\n"
    "    ldr r6, [r2], #4\n"
    "    ldr r7, [r3], #4\n"
    "    ec_winograd_column 0\n"
    "    ec_winograd_column 8\n"
    "    ldr r4, [sp, #12]\n"
    "    cmp r0, r4\n"
    "    bne 1b\n"
    "    ldr r5, [sp, #8]\n"
    "    add r4, r4, r5\n"
    "    str r4, [sp, #12]\n"
    "    ldrd r4, r5, [sp]\n"
    "    add r4, #16\n"
    "    mov r12, r4\n"
    "    subs r5, #1\n"
    "    strd r4, r5, [sp]\n"
    "    bne 1b\n"
    "    add sp, #16\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_columns));

/* r0 edges, r1 v, r2 places left, r3 the step to the next place; the rest values: two rows of a
 * tile at a time. */
__asm__(
    /* One position of both tiles, for two rows: a op b and c op d, then e op f and g op h. */
    ".macro ec_winograd_v2 op, a, b, c, d, e, f, g, h, at\n"
    "    \\op r12, \\a, \\b\n"
    "    \\op lr, \\c, \\d\n"
    "    strd r12, lr, [r1, #\\at]\n"
    "    \\op r12, \\e, \\f\n"
    "    \\op lr, \\g, \\h\n"
    "    strd r12, lr, [r1, #\\at + 32]\n"
    ".endm\n"
    ".macro ec_winograd_v from, to\n"
    "    ldrd r4, r5, [r0, #\\from]\n"
    "    ldrd r6, r7, [r0, #\\from + 32]\n"
    "    ldrd r8, r9, [r0, #\\from + 64]\n"
    "    ec_winograd_v2 ssub16, r4, r6, r6, r8, r5, r7, r7, r9, \\to\n"
    "    ldrd r4, r5, [r0, #\\from + 16]\n"
    "    ldrd r10, r11, [r0, #\\from + 48]\n"
    "    ec_winograd_v2 sadd16, r4, r6, r10, r8, r5, r7, r11, r9, \\to + 8\n"
    "    ec_winograd_v2 ssub16, r6, r4, r8, r10, r7, r5, r9, r11, \\to + 16\n"
    "    ldrd r6, r7, [r0, #\\from + 80]\n"
    "    ec_winograd_v2 ssub16, r4, r10, r10, r6, r5, r11, r11, r7, \\to + 24\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_tiles)
    "    push {r4-r11, lr}\n"
    "    lsl r3, r3, #4\n"
    "1:  ec_winograd_v 0, 0\n"
    "    ec_winograd_v 8, 64\n"
    "    add r0, r3\n"
    "    add r1, #128\n"
    "    subs r2, #1\n"
    "    bne 1b\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_tiles));

/* r0 v, r1 u, r2 r3 a place's two tiles, r12 lr its four channels, two at a time, r4..r11 the sums.
 * The rest is on the stack. The unrolled block of places is entered where as many as are needed lie
 * ahead: ec_winograd_product for up to EC_WINOGRAD_BLOCK_PLACES, 6 instructions more for each
 * position; ec_winograd_product_long, which it hands over to, for more, 10 and 3 for each block. */
__asm__(
    ".macro ec_winograd_multiply op, a, b, c, d\n"
    ".ifc \\op, smuad\n"
    "    smuad \\a, r12, r2\n"
    "    smuad \\b, r12, r3\n"
    "    smuad \\c, lr, r2\n"
    "    smuad \\d, lr, r3\n"
    ".else\n"
    "    smlad \\a, r12, r2, \\a\n"
    "    smlad \\b, r12, r3, \\b\n"
    "    smlad \\c, lr, r2, \\c\n"
    "    smlad \\d, lr, r3, \\d\n"
    ".endif\n"
    ".endm\n"
    /* One place whose tiles are loaded: with that load 44 bytes of code. */
    ".macro ec_winograd_place op\n"
    "    ldmia.w r1!, {r12, lr}\n"
    "    ec_winograd_multiply \\op, r4, r5, r6, r7\n"
    "    ldmia.w r1!, {r12, lr}\n"
    "    ec_winograd_multiply \\op, r8, r9, r10, r11\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_product)
    "    cmp r3, #8\n"
    "    bgt.w ec_winograd_product_long\n"
    "    push {r4-r11, lr}\n"
    "    add r4, r2, #512\n"         /* the end of the sums */
    "    adr.w r5, 1f\n"
    "    rsb r3, r3, #8\n"
    "    mov r6, #44\n"
    "    mla r5, r3, r6, r5\n"
    "    add r5, #1\n"               /* Thumb */
    "    push {r2, r4, r5}\n"
    "    b 2f\n"
    ".balign 4\n"
    "1:\n"
    ".set ec_winograd_at, 7 * 128 - 8\n"
    ".rept 7\n"
    "    ldrd r2, r3, [r0, #ec_winograd_at]\n"
    "    ec_winograd_place smlad\n"
    ".set ec_winograd_at, ec_winograd_at - 128\n"
    ".endr\n"
    "    ldrd r2, r3, [sp]\n"
    "    stmia r2!, {r4-r11}\n"
    "    cmp r2, r3\n"
    "    str r2, [sp]\n"
    "    beq 3f\n"
    "2:  ldrd r2, r3, [r0], #8\n"
    "    ec_winograd_place smuad\n"
    "    ldr pc, [sp, #8]\n"
    "3:  add sp, #12\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_product)
    EC_FUNCTION(ec_winograd_product_long)
    "    push {r4-r11, lr}\n"
    "    lsl r7, r3, #7\n"
    "    add r6, r0, r7\n"           /* behind this position's last place */
    "    sub r7, #8\n"               /* back from there to the next position's first */
    "    add r4, r2, #512\n"
    "    adr.w r5, 1f\n"
    "    rsb r3, r3, #0\n"
    "    and r3, r3, #7\n"           /* places that the first block, with one before it, */
    "    add r3, #1\n"               /* leaves out */
    "    mov r8, #44\n"
    "    mla r8, r3, r8, r5\n"
    "    add r8, #1\n"
    "    push {r2, r4, r6, r7, r8}\n"
    "    b 2f\n"
    ".balign 4\n"
    "1:\n"
    ".rept 8\n"
    "    ldrd r2, r3, [r0], #128\n"
    "    ec_winograd_place smlad\n"
    ".endr\n"
    "    ldr r2, [sp, #8]\n"
    "    cmp r0, r2\n"
    "    bne 1b\n"
    "    ldr r3, [sp, #12]\n"
    "    add r2, #8\n"
    "    str r2, [sp, #8]\n"
    "    sub r0, r3\n"
    "    ldrd r2, r3, [sp]\n"
    "    stmia r2!, {r4-r11}\n"
    "    cmp r2, r3\n"
    "    str r2, [sp]\n"
    "    beq 3f\n"
    "2:  ldrd r2, r3, [r0], #128\n"
    "    ec_winograd_place smuad\n"
    "    ldr pc, [sp, #16]\n"
    "3:  add sp, #20\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_product_long));

/* r0 sums, r1 scales, r2 out, r3 pixel; r4..r7 the column sums of the upper outputs, r8..r11 of the
 * lower ones, then twice the outputs' sums; r12 lr others. On the stack: the end of the sums; the
 * row, as it came.
 *
 * Halving comes early: column sums 1 and 2 together are four times an output less twice column sum
 * 0, so even; their difference likewise with column sum 3. */
__asm__(
    /* Positions 4 and 8 of a column (a, b) become its sum for the upper outputs and the lower. */
    ".macro ec_winograd_m x, a, b\n"
    "    ldr \\a, [r0, #32 * (4 + \\x)]\n"
    "    ldr \\b, [r0, #32 * (8 + \\x)]\n"
    ".if \\x == 1\n"
    "    ldr lr, [r1]\n"
    "    add \\a, \\a, lr\n"
    ".endif\n"
    "    add r12, \\a, \\b\n"
    "    sub \\b, \\a, \\b\n"
    "    ldr lr, [r0, #32 * (12 + \\x)]\n"
    "    sub \\b, \\b, lr, lsl #1\n"
    ".if \\x\n"
    "    ldr lr, [r0, #32 * \\x]\n"
    ".else\n"
    "    ldr lr, [r0], #4\n"
    ".endif\n"
    "    add \\a, r12, lr, lsl #1\n"
    ".endm\n"
    ".macro ec_winograd_y a, b, c, d\n"
    "    add r12, \\b, \\c\n"
    "    sub \\c, \\b, \\c\n"
    "    add \\a, \\a, r12, asr #1\n"
    "    rsb \\d, \\d, \\c, asr #1\n"
    ".endm\n"
    ".macro ec_winograd_output sum, to:vararg\n"
    "    smmlar r12, \\sum, r5, r6\n"
    "    add r12, r12, \\sum, asr #31\n"
    "    asr r12, r12, r9\n"
    "    ssat r12, #8, r12\n"
    "    strb r12, \\to\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_outputs)
    "    push {r4-r11, lr}\n"
    "    add r4, r0, #32\n"
    "    push {r4}\n"
    "1:\n"
    "    ec_winograd_m 3, r7, r11\n"
    "    ec_winograd_m 2, r6, r10\n"
    "    ec_winograd_m 1, r5, r9\n"
    "    ec_winograd_m 0, r4, r8\n"
    "    ec_winograd_y r4, r5, r6, r7\n"
    "    ec_winograd_y r8, r9, r10, r11\n"
    "    ldrd r5, r6, [r1, #4]\n"
    "    ldr r9, [r1, #12]\n"
    "    ldr r10, [sp, #40]\n"
    "    add lr, r10, r3\n"
    "    ec_winograd_output r4, [r2]\n"
    "    ec_winograd_output r7, [r2, r3]\n"
    "    ec_winograd_output r8, [r2, r10]\n"
    "    ec_winograd_output r11, [r2, lr]\n"
    "    add r2, r2, r3, lsl #1\n"
    "    tst r0, #4\n"
    "    bne 1b\n"                   /* the channel's second tile */
    "    ldr r4, [sp]\n"
    "    sub r2, r2, r3, lsl #2\n"
    "    add r2, #1\n"
    "    add r1, #16\n"
    "    cmp r0, r4\n"
    "    bne 1b\n"
    "    add sp, #4\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_outputs)
    ".text\n");

#else

/* Sums and differences of halfwords; neither overflows here. */
static inline uint32_t ec_pair_add(uint32_t a, uint32_t b)
{
    return ((a + b) & 0xFFFFu) | (((a >> 16) + (b >> 16)) << 16);
}

static inline uint32_t ec_pair_sub(uint32_t a, uint32_t b)
{
    return ((a - b) & 0xFFFFu) | (((a >> 16) - (b >> 16)) << 16);
}

/* Pair `odd` of the two that four bytes hold. */
static inline uint32_t ec_pair_of(uint32_t word, int odd)
{
    return odd ? ec_bytes_odd(word) : ec_bytes_even(word);
}

void ec_winograd_weights(const uint32_t *weights, uint32_t *u, int32_t places)
{
    const ptrdiff_t position = (ptrdiff_t)places * EC_WINOGRAD_GROUP;
    for (int32_t place = 0; place < places; ++place) {
        const uint32_t *w = weights + place / 2 * EC_WINOGRAD_GROUP * EC_WINOGRAD_TAPS;
        for (int32_t channel = 0; channel < EC_WINOGRAD_GROUP; ++channel) {
            uint32_t rows[4][3];
            for (int32_t x = 0; x < 3; ++x) {
                const uint32_t top = ec_pair_of(w[x], place % 2);
                const uint32_t bottom = ec_pair_of(w[3 + x], place % 2);
                const uint32_t middle = ec_pair_of(w[6 + x], place % 2);
                rows[0][x] = top;
                rows[1][x] = ec_pair_add(ec_pair_add(top, bottom), middle);
                rows[2][x] = ec_pair_sub(ec_pair_add(top, bottom), middle);
                rows[3][x] = bottom;
            }
            uint32_t *to = u++;
            for (int32_t y = 0; y < 4; ++y) {
                const uint32_t outer = ec_pair_add(rows[y][0], rows[y][2]);
                to[0] = rows[y][0];
                to[position] = ec_pair_add(outer, rows[y][1]);
                to[2 * position] = ec_pair_sub(outer, rows[y][1]);
                to[3 * position] = rows[y][2];
                to += 4 * position;
            }
            w += EC_WINOGRAD_TAPS;
        }
    }
}

void ec_winograd_columns(const int8_t *const *rows, uint32_t *edges, int32_t width, int32_t words,
                         int32_t columns)
{
    for (int32_t x = 0; x < width; ++x) {
        uint32_t *to = edges + x * EC_WINOGRAD_EDGE_WORDS;
        for (int32_t place = 0; place < 2 * words; ++place) {
            const ptrdiff_t at = ((ptrdiff_t)x * words + place / 2) * 4;
            uint32_t d[4];
            for (int32_t i = 0; i < 4; ++i) {
                d[i] = ec_pair_of(ec_load_u32(rows[i] + at), place % 2);
            }
            to[0] = ec_pair_sub(d[0], d[2]);
            to[1] = ec_pair_add(d[1], d[2]);
            to[2] = ec_pair_sub(d[2], d[1]);
            to[3] = ec_pair_sub(d[1], d[3]);
            to += columns * EC_WINOGRAD_EDGE_WORDS;
        }
    }
}

void ec_winograd_tiles(const uint32_t *edges, uint32_t *v, int32_t places, int32_t columns)
{
    for (; places > 0; --places) {
        for (int32_t i = 0; i < 4; ++i) {
            for (int32_t tile = 0; tile < EC_WINOGRAD_PAIR; ++tile) {
                const uint32_t *const e = edges + 2 * tile * EC_WINOGRAD_EDGE_WORDS + i;
                const uint32_t e0 = e[0], e1 = e[EC_WINOGRAD_EDGE_WORDS];
                const uint32_t e2 = e[2 * EC_WINOGRAD_EDGE_WORDS];
                const uint32_t e3 = e[3 * EC_WINOGRAD_EDGE_WORDS];
                v[tile] = ec_pair_sub(e0, e2);
                v[EC_WINOGRAD_PAIR + tile] = ec_pair_add(e1, e2);
                v[2 * EC_WINOGRAD_PAIR + tile] = ec_pair_sub(e2, e1);
                v[3 * EC_WINOGRAD_PAIR + tile] = ec_pair_sub(e1, e3);
            }
            v += 4 * EC_WINOGRAD_PAIR;
        }
        edges += columns * EC_WINOGRAD_EDGE_WORDS;
    }
}

void ec_winograd_product(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places)
{
    enum { SUMS = EC_WINOGRAD_GROUP * EC_WINOGRAD_PAIR };
    const int turned = places <= EC_WINOGRAD_BLOCK_PLACES;
    for (int32_t position = 0; position < EC_WINOGRAD_POSITIONS; ++position) {
        uint32_t sum[SUMS] = {0};
        for (int32_t j = 0; j < places; ++j) {
            const int32_t place = turned && j > 0 ? places - j : j;
            const uint32_t *const tiles = v + (ptrdiff_t)place * EC_WINOGRAD_PLACE_WORDS;
            for (int32_t i = 0; i < SUMS; ++i) {
                sum[i] = ec_mac_pair(u[i / EC_WINOGRAD_PAIR], tiles[i % EC_WINOGRAD_PAIR], sum[i]);
            }
            u += EC_WINOGRAD_GROUP;
        }
        for (int32_t i = 0; i < SUMS; ++i) {
            *sums++ = (int32_t)sum[i];
        }
        v += EC_WINOGRAD_PAIR;
    }
}

/* The output for four times its sum. */
static inline int8_t ec_output(uint32_t sum, const int32_t *scales)
{
    return (int8_t)ec_saturate_s8(
        ec_requantize_right((int32_t)sum >> 2, scales[1], scales[2], scales[3]));
}

void ec_winograd_outputs(const int32_t *sums, const int32_t *scales, int8_t *out, int32_t pixel,
                         int32_t row)
{
    enum { SUMS = EC_WINOGRAD_GROUP * EC_WINOGRAD_PAIR };
    for (int32_t i = 0; i < SUMS; ++i) {
        int8_t *const to = out + i / EC_WINOGRAD_PAIR + i % EC_WINOGRAD_PAIR * 2 * pixel;
        uint32_t upper[4], lower[4];
        for (int32_t x = 0; x < 4; ++x) {
            const int32_t *const m = sums + x * SUMS + i;
            const uint32_t m0 = (uint32_t)m[0], m3 = (uint32_t)m[12 * SUMS];
            const uint32_t m1 = (uint32_t)m[4 * SUMS] + (x == 1 ? (uint32_t)scales[0] : 0);
            const uint32_t m2 = (uint32_t)m[8 * SUMS];
            upper[x] = 2 * m0 + m1 + m2;
            lower[x] = m1 - m2 - 2 * m3;
        }
        to[0] = ec_output(2 * upper[0] + upper[1] + upper[2], scales);
        to[pixel] = ec_output(upper[1] - upper[2] - 2 * upper[3], scales);
        to[row] = ec_output(2 * lower[0] + lower[1] + lower[2], scales);
        to[row + pixel] = ec_output(lower[1] - lower[2] - 2 * lower[3], scales);
        scales += i % EC_WINOGRAD_PAIR ? EC_WINOGRAD_SCALE_WORDS : 0;
    }
}

#endif
