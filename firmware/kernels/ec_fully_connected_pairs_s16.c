/* Bits: TFLM reference_integer_ops::FullyConnected (int16).
 *
 * The weights of six outputs meet a row of inputs in one pass, with three sums of 64 bits and three
 * of 32.
 */
#include "ec_fully_connected_pairs_s16.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"
#include "ec_s16.h"

enum { EC_BLOCK = 6, EC_STEP_WORDS = 3, EC_BLOCK_WORDS = 9 };

/* What ec_blocks works on. The assembly relies on the order. */
typedef struct {
    int16_t *out; /* next block */
    const int16_t *out_end;
    const int16_t *acts;
    const int16_t *acts_end;
    int32_t steps;
    int32_t limited;
    uint32_t low; /* in both halfwords */
    uint32_t high;
    int32_t factor;
    const uint32_t *weights;
} ec_blocks_t;

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 acts, r1 weights, r2 a pair of inputs, r12 lr the weights of two outputs each;
 * r4 r5, r6 r7, r8 r9 the sums of 256 P + Q for outputs 0 and 1, 2 and 3, 4 and 5, and r10 r11 r3
 * those of Q. All are in use: the rest lies on the stack, in the order of ec_blocks_t, with the
 * address of the first step to take in the place of `steps`.
 *
 * One step is 12 instructions for 12 products, and EC_STEP_BYTES long. */
#define EC_STEP_BYTES "48"
#define EC_STEP                            \
    "ldr.w r2, [r0], #4\n\t"               \
    "ldmia.w r1!, {r12, lr}\n\t"           \
    "smlald r4, r5, r12, r2\n\t"           \
    "sxtb16 r12, r12\n\t"                  \
    "smlald r6, r7, lr, r2\n\t"            \
    "smlad r10, r12, r2, r10\n\t"          \
    "ldr.w r12, [r1], #4\n\t"              \
    "sxtb16 lr, lr\n\t"                    \
    "smlad r11, lr, r2, r11\n\t"           \
    "smlald r8, r9, r12, r2\n\t"           \
    "sxtb16 r12, r12\n\t"                  \
    "smlad r3, r12, r2, r3\n\t"

/* 256 P + Q in two registers and Q become both results in one word. */
#define EC_SCALE(low, high, q)                    \
    "subs " low ", " low ", " q "\n\t"            \
    "sbc " high ", " high ", " q ", asr #31\n\t"  \
    "lsr " low ", " low ", #8\n\t"                \
    "orr " low ", " low ", " high ", lsl #24\n\t" \
    "smmulr " low ", " low ", r1\n\t"             \
    "smmulr " q ", " q ", r1\n\t"                 \
    "ssat " low ", #16, " low "\n\t"              \
    "ssat " q ", #16, " q "\n\t"                  \
    "pkhbt " q ", " q ", " low ", lsl #16\n\t"

__attribute__((naked, noinline)) static void ec_blocks(__attribute__((unused)) const ec_blocks_t *b)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r1-r10}\n\t"
        "sub r5, r5, #1\n\t" /* of the steps behind the first, what makes no turn of 8 */
        "and r5, r5, #7\n\t"
        "mov r12, #" EC_STEP_BYTES "\n\t"
        "adr.w lr, 3f\n\t"
        "sub lr, lr, #" EC_STEP_BYTES " - 1\n\t"
        "mls r5, r5, r12, lr\n\t"
        "push {r1-r10}\n"
        "1:\n\t"
        "ldr r1, [sp, #36]\n\t"
        "ldr r0, [sp, #8]\n\t"
        "ldmia r1!, {r3-r11}\n\t"
        "ldr pc, [sp, #16]\n\t"
        ".balign 4\n"
        "2:\n\t"
        ".rept 8\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        ".if 3b - 2b - 8 * " EC_STEP_BYTES "\n\t"
        ".error \"EC_STEP_BYTES\"\n\t"
        ".endif\n\t"
        "ldr r2, [sp, #12]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 2b\n\t"
        "str r1, [sp, #36]\n\t"
        "ldr r1, [sp, #32]\n\t"
        EC_SCALE("r4", "r5", "r10") EC_SCALE("r6", "r7", "r11") EC_SCALE("r8", "r9", "r3")
        "ldr r0, [sp, #20]\n\t"
        "cbz r0, 4f\n\t"
        "ldrd r2, r12, [sp, #24]\n\t"
        EC_LIMIT_S16("r10", "r2", "r12", "lr") EC_LIMIT_S16("r11", "r2", "r12", "lr")
        EC_LIMIT_S16("r3", "r2", "r12", "lr")
        "4:\n\t"
        "ldrd r0, r2, [sp]\n\t"
        "str r10, [r0], #4\n\t"
        "str r11, [r0], #4\n\t"
        "str r3, [r0], #4\n\t"
        "str r0, [sp]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, sp, #40\n\t"
        "pop {r4-r11, pc}\n\t");
}

#else

static int16_t ec_result(const ec_blocks_t *b, uint32_t sum)
{
    const int32_t x = ec_high_round((int32_t)sum, b->factor);
    return (int16_t)ec_clamp(x, (int16_t)b->low, (int16_t)b->high);
}

/* Outputs 2 * at and 2 * at + 1 of a block. Sums of 64 bits are for SMLALD; here either output has
 * one of 32. */
static void ec_two_outputs(const ec_blocks_t *b, const uint32_t *weights, int16_t *out, int32_t at)
{
    const uint32_t *words = weights + EC_BLOCK_WORDS + at;
    uint32_t even = weights[(7 + at) % EC_BLOCK_WORDS];
    const uint64_t both = (uint64_t)weights[2 * at + 2] << 32 | weights[2 * at + 1];
    uint32_t odd = (uint32_t)((both - (uint64_t)(int64_t)(int32_t)even) >> 8);
    for (const int16_t *x = b->acts; x != b->acts_end; x += 2) {
        for (int32_t i = 0; i < 2; ++i) {
            int16_t half;
            memcpy(&half, (const int8_t *)words + 2 * i, sizeof(half));
            even += (uint32_t)((int8_t)half * x[i]);
            odd += (uint32_t)(((half - (int8_t)half) >> 8) * x[i]);
        }
        words += EC_STEP_WORDS;
    }
    out[2 * at] = ec_result(b, even);
    out[2 * at + 1] = ec_result(b, odd);
}

static void ec_blocks(const ec_blocks_t *b)
{
    const uint32_t *weights = b->weights;
    for (int16_t *out = b->out; out != b->out_end; out += EC_BLOCK) {
        for (int32_t at = 0; at < EC_BLOCK / 2; ++at) ec_two_outputs(b, weights, out, at);
        weights += EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * b->steps;
    }
}

#endif

void ec_fully_connected_pairs_s16(const ec_fully_connected_pairs_s16_t *p, const int16_t *in,
                                  int16_t *out, void *scratch)
{
    const int32_t rest = p->outputs % EC_BLOCK;
    const int32_t whole = p->outputs - rest;
    ec_blocks_t b = {
        .steps = p->steps,
        .limited = p->limited,
        .low = ec_twice_s16(p->low),
        .high = ec_twice_s16(p->high),
        .factor = p->factor,
    };
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        b.acts = in;
        if (p->inputs % 2 != 0) {
            int16_t *copy = scratch;
            memcpy(copy, in, (size_t)p->inputs * sizeof(*in));
            copy[p->inputs] = 0;
            b.acts = copy;
        }
        b.acts_end = b.acts + (ptrdiff_t)2 * p->steps;
        b.out = out;
        b.out_end = out + whole;
        b.weights = p->weights;
        if (whole > 0) ec_blocks(&b);
        if (rest > 0) {
            int16_t last[EC_BLOCK];
            b.out = last;
            b.out_end = last + EC_BLOCK;
            b.weights += (EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * p->steps) * (whole / EC_BLOCK);
            ec_blocks(&b);
            memcpy(out + whole, last, (size_t)rest * sizeof(*out));
        }
        in += p->inputs;
        out += p->outputs;
    }
}
