/* Bits: TFLM reference_integer_ops::FullyConnected and FullyConnectedPerChannel (int8). */
#include "ec_fully_connected_sparse.h"

#include "ec_math.h"
#include "ec_pairs.h"

enum { EC_HEAD = 3, EC_INPUTS = 32 };

static int8_t ec_result(const ec_fully_connected_sparse_t *p, const uint32_t *head, uint32_t sum)
{
    const int32_t right = (int32_t)(head[2] >> 24);
    const int32_t rounding = ec_shift_left(p->half, right - 1);
    const int32_t x = ec_requantize_right((int32_t)sum, (int32_t)head[1], rounding, right);
    return ec_pairs_limit(ec_clamp(x, 0, 255), p->limits);
}

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 weights, r1 the input last read, r2 to r5 entries, inputs and weights, r6 the sum, r7 the
 * end of the steps' code, r8 out, r9 the end of the output's entries, r10 in, r11 the multiplier, r12 the
 * third word, lr values. The stack holds half, limits and the end of out. */
#define EC_ENTER                             \
    "push {r4-r11, lr}\n\t"                  \
    "mov r10, r1\n\t"                        \
    "mov r8, r2\n\t"                         \
    "ldr r6, [r0, #8]\n\t"                   \
    "add r6, r6, r2\n\t"                     \
    "ldrd r2, r3, [r0, #12]\n\t"             \
    "ldrd r4, r5, [r0, #20]\n\t"             \
    "add lr, r0, #28\n\t"                    \
    "ldr r0, [r0, #44]\n\t"                  \
    "adr.w r7, 3f\n\t"                       \
    "add r7, r7, #1\n\t"                     \
    "push {r2-r6}\n"

/* The next output: its steps of 2^`step` bytes begin, of code of `size` bytes each, those first that make no
 * turn of four. */
#define EC_BEGIN(step, size)                 \
    "ldmia r0!, {r6, r11, r12}\n\t"          \
    "uxth r2, r12\n\t"                       \
    "and r3, r12, #3\n\t"                    \
    "mov r4, #" size "\n\t"                  \
    "mls r4, r3, r4, r7\n\t"                 \
    "add r9, r0, r2, lsl #" step "\n\t"      \
    "mov r1, r10\n\t"                        \
    "bx r4\n\t"                              \
    ".balign 4\n"

/* The turn is over at 3; the output, when no entries are left; and all of them. */
#define EC_END(size)                         \
    ".if 3b - 2b - 4 * " size "\n\t"         \
    ".error \"the size of a step\"\n\t"      \
    ".endif\n\t"                             \
    "cmp r0, r9\n\t"                         \
    "bne.w 2b\n\t"                           \
    "ldm sp, {r1-r5}\n\t"                    \
    "lsr r9, r12, #16\n\t"                   \
    "lsl r1, r1, r9\n\t"                     \
    "lsl r9, r6, #1\n\t"                     \
    "smmlar r9, r9, r11, r1\n\t"             \
    "add r9, r9, r6, asr #31\n\t"            \
    "lsr r12, r12, #24\n\t"                  \
    "asr r9, r9, r12\n\t"                    \
    "usat r6, #8, r9\n\t"                    \
    "uqadd8 r6, r6, r2\n\t"                  \
    "uqsub8 r6, r6, r3\n\t"                  \
    "uadd8 r6, r6, r4\n\t"                   \
    "strb r6, [r8], #1\n\t"                  \
    "cmp r8, r5\n\t"                         \
    "bne.w 1b\n\t"                           \
    "add sp, sp, #20\n\t"                    \
    "pop {r4-r11, pc}\n\t"

/* 15 instructions for four entries. */
#define EC_STEP                              \
    "ldrd r2, r3, [r0], #8\n\t"              \
    "uxtab r1, r1, r2\n\t"                   \
    "ldrsb.w r4, [r1]\n\t"                   \
    "uxtab r1, r1, r2, ror #16\n\t"          \
    "ldrsb.w r5, [r1]\n\t"                   \
    "sxtb16 r2, r2, ror #8\n\t"              \
    "smlabb r6, r4, r2, r6\n\t"              \
    "smlabt r6, r5, r2, r6\n\t"              \
    "uxtab r1, r1, r3\n\t"                   \
    "ldrsb.w r4, [r1]\n\t"                   \
    "uxtab r1, r1, r3, ror #16\n\t"          \
    "ldrsb.w r5, [r1]\n\t"                   \
    "sxtb16 r3, r3, ror #8\n\t"              \
    "smlabb r6, r4, r3, r6\n\t"              \
    "smlabt r6, r5, r3, r6\n\t"

/* 24 instructions for four entries. */
#define EC_CODED(rotation)                   \
    "uxtab r1, r1, r3, ror #" rotation "\n\t" \
    "ldrsb.w r4, [r1]\n\t"                   \
    "uxtb.w r5, r2, ror #" rotation "\n\t"   \
    "ldrsb.w r5, [lr, r5]\n\t"               \
    "smlabb r6, r4, r5, r6\n\t"
#define EC_CODED_STEP                        \
    "ldr.w r2, [r0], #4\n\t"                 \
    "lsr.w r3, r2, #4\n\t"                   \
    "and r3, r3, #0x0F0F0F0F\n\t"            \
    "and r2, r2, #0x0F0F0F0F\n\t"            \
    EC_CODED("0") EC_CODED("8") EC_CODED("16") EC_CODED("24")

/* All outputs of a row. */
__attribute__((naked, noinline)) static void ec_row(
    __attribute__((unused)) const ec_fully_connected_sparse_t *p,
    __attribute__((unused)) const int8_t *in, __attribute__((unused)) int8_t *out)
{
    __asm__ volatile(
        EC_ENTER
        "1:\n\t"
        EC_BEGIN("3", "60")
        "2:\n\t"
        ".rept 4\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        EC_END("60"));
}

__attribute__((naked, noinline)) static void ec_coded_row(
    __attribute__((unused)) const ec_fully_connected_sparse_t *p,
    __attribute__((unused)) const int8_t *in, __attribute__((unused)) int8_t *out)
{
    __asm__ volatile(
        EC_ENTER
        "1:\n\t"
        EC_BEGIN("2", "96")
        "2:\n\t"
        ".rept 4\n\t"
        EC_CODED_STEP
        ".endr\n"
        "3:\n\t"
        EC_END("96"));
}

#else

/* Two entries of a half word each; the input last read is `at`. */
EC_INLINE uint32_t ec_two(uint32_t word, const int8_t **at, uint32_t sum)
{
    for (int32_t i = 0; i < 2; ++i, word >>= 16) {
        *at += word & 255u;
        sum += (uint32_t)((int8_t)(word >> 8) * **at);
    }
    return sum;
}

/* Four entries of a byte each. */
EC_INLINE uint32_t ec_four(const int8_t *values, uint32_t word, const int8_t **at, uint32_t sum)
{
    for (int32_t i = 0; i < 4; ++i, word >>= 8) {
        *at += (word >> 4) & 15u;
        sum += (uint32_t)(values[word & 15u] * **at);
    }
    return sum;
}

/* All outputs of a row; the words of a step (1 or 2) choose the form. */
EC_INLINE void ec_outputs(const ec_fully_connected_sparse_t *p, const int8_t *in, int8_t *out,
                          const uint32_t step)
{
    const uint32_t *words = p->weights;
    for (int32_t output = 0; output < p->outputs; ++output) {
        const uint32_t *const head = words;
        uint32_t sum = head[0];
        const int8_t *at = in;
        words += EC_HEAD;
        for (uint32_t left = step * (head[2] & 0xFFFFu); left > 0; --left, ++words) {
            sum = step == 1 ? ec_four(p->values, *words, &at, sum) : ec_two(*words, &at, sum);
        }
        out[output] = ec_result(p, head, sum);
    }
}

static void ec_row(const ec_fully_connected_sparse_t *p, const int8_t *in, int8_t *out)
{
    ec_outputs(p, in, out, 2);
}

static void ec_coded_row(const ec_fully_connected_sparse_t *p, const int8_t *in, int8_t *out)
{
    ec_outputs(p, in, out, 1);
}

#endif

void ec_fully_connected_sparse_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                  int8_t *out)
{
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_row(p, in, out);
        in += p->inputs;
        out += p->outputs;
    }
}

void ec_fully_connected_sparse_coded_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                        int8_t *out)
{
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_coded_row(p, in, out);
        in += p->inputs;
        out += p->outputs;
    }
}

/* All outputs of a row. */
static void ec_masked_row(const ec_fully_connected_sparse_t *p, const int8_t *in, int8_t *out)
{
    const uint32_t *words = p->weights;
    for (int32_t output = 0; output < p->outputs; ++output) {
        const uint32_t *const head = words;
        const uint32_t *masks = head + EC_HEAD;
        const uint32_t *const end = masks + (head[2] & 0xFFFFu);
        const int8_t *weight = (const int8_t *)end;
        const int8_t *x = in;
        uint32_t sum = head[0];
        for (; masks != end; ++masks, x += EC_INPUTS) {
            for (uint32_t mask = *masks; mask != 0; mask &= mask - 1u) {
                sum += (uint32_t)(*weight++ * x[__builtin_ctz(mask)]);
            }
        }
        out[output] = ec_result(p, head, sum);
        words = end + (weight - (const int8_t *)end + 3) / 4;
    }
}

void ec_fully_connected_sparse_masked_s8(const ec_fully_connected_sparse_t *p, const int8_t *in,
                                         int8_t *out)
{
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        ec_masked_row(p, in, out);
        in += p->inputs;
        out += p->outputs;
    }
}
