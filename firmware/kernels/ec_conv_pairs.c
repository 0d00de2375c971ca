/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8).
 *
 * The windows of two output pixels are expanded to int16 in scratch, one pair of either in turn; the
 * weights of four channels then meet them in one pass with eight sums.
 */
#include "ec_conv_pairs.h"

#include <stddef.h>

#include "ec_conv_blocks.h"
#include "ec_conv_windows.h"
#include "ec_math.h"
#include "ec_pairs.h"

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 acts, r1 weights, r2 r3 a pair of either pixel, r12 lr the weights of two channels
 * each, r4 r5 sums of 256 P + Q (channels 1 and 0; first pixel, second pixel), r6 r7 of Q,
 * r8 r9 r10 r11 the same for channels 3 and 2. All are in use: the rest lies on the stack, in the
 * order of ec_conv_blocks_t, with the address of the second step to take in the place of `steps`, and that
 * of the ending in the place of `rectified`.
 *
 * One step is 12 instructions for 16 products, and EC_STEP_BYTES long. */
#define EC_STEP_BYTES "46"
#define EC_STEP                        \
    "ldmia.n r0!, {r2, r3}\n\t"        \
    "ldmia.w r1!, {r12, lr}\n\t"       \
    "smlad r4, r12, r2, r4\n\t"        \
    "smlad r5, r12, r3, r5\n\t"        \
    "sxtb16 r12, r12\n\t"              \
    "smlad r8, lr, r2, r8\n\t"         \
    "smlad r9, lr, r3, r9\n\t"         \
    "sxtb16 lr, lr\n\t"                \
    "smlad r6, r12, r2, r6\n\t"        \
    "smlad r7, r12, r3, r7\n\t"        \
    "smlad r10, lr, r2, r10\n\t"       \
    "smlad r11, lr, r3, r11\n\t"

/* The same with the sums of the first pixel, which hold the bias, as those of the second too. */
#define EC_FIRST_STEP                  \
    "ldmia r0!, {r2, r3}\n\t"          \
    "ldmia r1!, {r12, lr}\n\t"         \
    "smlad r5, r12, r3, r4\n\t"        \
    "smlad r4, r12, r2, r4\n\t"        \
    "sxtb16 r12, r12\n\t"              \
    "smlad r9, lr, r3, r8\n\t"         \
    "smlad r8, lr, r2, r8\n\t"         \
    "sxtb16 lr, lr\n\t"                \
    "smlad r7, r12, r3, r6\n\t"        \
    "smlad r6, r12, r2, r6\n\t"        \
    "smlad r11, lr, r3, r10\n\t"       \
    "smlad r10, lr, r2, r10\n\t"

/* Both pixels of one channel, without the correction for negative numbers; and with it. */
#define EC_SCALE_RECTIFIED(a, b)               \
    "ldmia r1!, {r2, r3, r12}\n\t"             \
    "smmlar " a ", " a ", r2, r3\n\t"          \
    "smmlar " b ", " b ", r2, r3\n\t"          \
    "asr " a ", " a ", r12\n\t"                \
    "asr " b ", " b ", r12\n\t"
#define EC_SCALE(a, b)                         \
    "ldmia r1!, {r2, r3, r12}\n\t"             \
    "smmlar r0, " a ", r2, r3\n\t"             \
    "smmlar lr, " b ", r2, r3\n\t"             \
    "add " a ", r0, " a ", asr #31\n\t"        \
    "add " b ", lr, " b ", asr #31\n\t"        \
    "asr " a ", " a ", r12\n\t"                \
    "asr " b ", " b ", r12\n\t"

#define EC_NEXT_BLOCK                          \
    "ldm sp, {r0, r2, r3}\n\t"                 \
    "str r7, [r0, r2]\n\t"                     \
    "str r6, [r0], #4\n\t"                     \
    "str r0, [sp]\n\t"                         \
    "cmp r0, r3\n\t"                           \
    "bne.w 1b\n\t"                             \
    "add sp, sp, #40\n\t"                      \
    "pop {r4-r11, pc}\n\t"

__attribute__((naked, noinline)) void ec_conv_blocks(
    __attribute__((unused)) const ec_conv_blocks_t *b)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r1-r11}\n\t"
        "sub r6, r6, #1\n\t" /* of the steps behind the first, what makes no turn of 16 */
        "and r6, r6, #15\n\t"
        "mov r12, #" EC_STEP_BYTES "\n\t"
        "adr.w lr, 3f\n\t"
        "mls r6, r6, r12, lr\n\t"
        "add r6, r6, #1\n\t"
        "cmp r7, #0\n\t"
        "adr.w r7, 4f\n\t"
        "adr.w r12, 5f\n\t"
        "it ne\n\t"
        "movne r7, r12\n\t"
        "add r7, r7, #1\n\t"
        "push {r1-r10}\n\t"
        "mov r1, r11\n"
        "1:\n\t"
        "ldmia r1!, {r4, r6, r8, r10}\n\t"
        "ldr r0, [sp, #12]\n\t"
        EC_FIRST_STEP
        "ldr pc, [sp, #20]\n"
        "2:\n\t"
        ".rept 16\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        ".if 3b - 2b - 16 * " EC_STEP_BYTES "\n\t"
        ".error \"EC_STEP_BYTES\"\n\t"
        ".endif\n\t"
        "ldr r2, [sp, #16]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 2b\n\t"
        EC_SPLIT("r4", "r6") EC_SPLIT("r5", "r7") EC_SPLIT("r8", "r10") EC_SPLIT("r9", "r11")
        "ldr pc, [sp, #24]\n\t"
        ".balign 4\n"
        "4:\n\t"
        EC_SCALE("r6", "r7") EC_SCALE("r4", "r5") EC_SCALE("r10", "r11") EC_SCALE("r8", "r9")
        EC_PACK("r6", "r4", "r10", "r8") EC_PACK("r7", "r5", "r11", "r9")
        "ldrd r2, r3, [sp, #28]\n\t"
        "ldr r12, [sp, #36]\n\t"
        EC_LIMIT("r6") EC_LIMIT("r7")
        EC_NEXT_BLOCK
        ".balign 4\n"
        "5:\n\t"
        EC_SCALE_RECTIFIED("r6", "r7") EC_SCALE_RECTIFIED("r4", "r5")
        EC_SCALE_RECTIFIED("r10", "r11") EC_SCALE_RECTIFIED("r8", "r9")
        EC_PACK("r6", "r4", "r10", "r8") EC_PACK("r7", "r5", "r11", "r9")
        "eor r6, r6, #0x80808080\n\t"
        "eor r7, r7, #0x80808080\n\t"
        EC_NEXT_BLOCK);
}

#else

static int8_t ec_result(const ec_conv_blocks_t *b, int32_t sum, const uint32_t *scale)
{
    int32_t x = ec_doubling_high_mul(sum, (int32_t)scale[0]) + (int32_t)scale[1];
    if (!b->rectified) {
        x += sum >> 31;
    }
    x = ec_clamp((int16_t)(x >> scale[2]), 0, 255);
    if (b->rectified) {
        return (int8_t)(x - 128);
    }
    return ec_pairs_limit(x, b->limits);
}

/* Channels 0 and 1 of a block (`at` = 0), or 2 and 3 (1), of both pixels. */
static void ec_two_channels(const ec_conv_blocks_t *b, const uint32_t *weights, int8_t *first,
                            int32_t at)
{
    const uint32_t *acts = b->acts;
    const uint32_t *const end = b->acts_end;
    const uint32_t *words = weights + EC_BLOCK + at;
    uint32_t s0 = weights[2 * at], s1 = s0;
    uint32_t q0 = weights[2 * at + 1], q1 = q0;
    do {
        EC_UNROLL for (int32_t i = 0; i < 2; ++i) {
            int32_t both = ec_half(words, i);
            EC_ORDER(i, both); /* one load that extends the sign, for both forms */
            const int32_t even = (int8_t)both;
            const int32_t x = ec_half(acts, i);
            const int32_t y = ec_half(acts + 1, i);
            s0 = ec_mac(both, x, s0);
            q0 = ec_mac(even, x, q0);
            s1 = ec_mac(both, y, s1);
            q1 = ec_mac(even, y, q1);
        }
        words += EC_STEP_WORDS;
        acts += EC_STEP_WORDS;
    } while (acts != end);
    const uint32_t *scale = words - at + 6 * at;
    int8_t *second = first + b->second + 2 * at;
    first += 2 * at;
    second[0] = ec_result(b, (int32_t)q1, scale);
    second[1] = ec_result(b, (int32_t)(s1 - q1) >> 8, scale + 3);
    first[0] = ec_result(b, (int32_t)q0, scale);
    first[1] = ec_result(b, (int32_t)(s0 - q0) >> 8, scale + 3);
}

void ec_conv_blocks(const ec_conv_blocks_t *b)
{
    const uint32_t *weights = b->weights;
    for (int8_t *out = b->out; out != b->out_end; out += EC_BLOCK) {
        ec_two_channels(b, weights, out, 0);
        ec_two_channels(b, weights, out, 1);
        weights += EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * b->steps;
    }
}

#endif

/* `words` times four elements of either pixel; both pointers move on. */
EC_INLINE uint32_t *ec_expand_words(uint32_t *to, const int8_t **first, const int8_t **second,
                                    int32_t words)
{
    const int8_t *a = *first;
    const int8_t *b = *second;
#if defined(__ARM_FEATURE_DSP)
#define EC_EXPAND                      \
    "ldr r4, [%[a]], #4\n\t"           \
    "ldr r5, [%[b]], #4\n\t"           \
    "sxtb16 r6, r4, ror #8\n\t"        \
    "sxtb16 r8, r5, ror #8\n\t"        \
    "sxtb16 r4, r4\n\t"                \
    "sxtb16 r5, r5\n\t"                \
    "stmia %[to]!, {r4, r5, r6, r8}\n\t"
    __asm__ volatile(
        "subs %[words], #4\n\t"
        "blt 2f\n"
        "1:\n\t"
        EC_EXPAND EC_EXPAND EC_EXPAND EC_EXPAND
        "subs %[words], #4\n\t"
        "bge 1b\n"
        "2:\n\t"
        "lsls %[words], %[words], #31\n\t" /* bits 1 and 0 of what is left */
        "bcc 3f\n\t"
        EC_EXPAND EC_EXPAND
        "3:\n\t"
        "bpl 4f\n\t"
        EC_EXPAND
        "4:"
        : [to] "+r"(to), [a] "+r"(a), [b] "+r"(b), [words] "+r"(words)
        :
        : "r4", "r5", "r6", "r8", "cc", "memory");
#undef EC_EXPAND
#else
    for (; words > 0; --words) {
        const uint32_t u = ec_load_u32(a);
        const uint32_t v = ec_load_u32(b);
        to[0] = ec_bytes_even(u);
        to[1] = ec_bytes_even(v);
        to[2] = ec_bytes_odd(u);
        to[3] = ec_bytes_odd(v);
        to += 4;
        a += 4;
        b += 4;
    }
#endif
    *first = a;
    *second = b;
    return to;
}

/* The first and the third of `count` (1 to 3) elements as a pair; of two, both. */
static inline uint32_t ec_rest(const int8_t *from, int32_t count)
{
    const uint32_t first = (uint32_t)from[0] & 0xFFFFu;
    return count == 1 ? first : first | (uint32_t)from[count - 1] << 16;
}

/* `count` runs of either pixel, `step` elements apart. */
static uint32_t *ec_expand(const ec_conv_pairs_t *p, uint32_t *to, const int8_t *first,
                           const int8_t *second, int32_t count, int32_t step)
{
    const int32_t words = p->run / 4;
    const int32_t rest = p->run % 4;
    step -= 4 * words;
    for (; count > 0; --count) {
        to = ec_expand_words(to, &first, &second, words);
        if (rest > 0) {
            *to++ = ec_rest(first, rest);
            *to++ = ec_rest(second, rest);
            if (rest == 3) {
                *to++ = (uint32_t)first[1] & 0xFFFFu;
                *to++ = (uint32_t)second[1] & 0xFFFFu;
            }
        }
        first += step;
        second += step;
    }
    return to;
}

/* Expands two windows with rows of taps `row_step` elements apart. */
static void ec_expand_windows(const ec_conv_pairs_t *p, const int8_t *first, const int8_t *second,
                              int32_t row_step, uint32_t *to)
{
    const ec_conv_shape_t *s = &p->shape;
    if (p->runs_per_row == 1) {
        ec_expand(p, to, first, second, s->kernel_height, row_step);
        return;
    }
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        to = ec_expand(p, to, first, second, p->runs_per_row, s->dilation_width * s->in_channels);
        first += row_step;
        second += row_step;
    }
}

/* The `rest` channels behind `whole` blocks, of both pixels. */
static void ec_last_channels(const ec_conv_pairs_t *p, ec_conv_blocks_t b, int32_t whole,
                             int32_t rest)
{
    int8_t *first = b.out + (ptrdiff_t)whole * EC_BLOCK;
    int8_t *second = first + b.second;
    int8_t last[2 * EC_BLOCK];
    b.out = last;
    b.second = EC_BLOCK;
    b.out_end = last + EC_BLOCK;
    b.weights += (EC_BLOCK_WORDS + (ptrdiff_t)EC_STEP_WORDS * p->steps) * whole;
    ec_conv_blocks(&b);
    for (int32_t i = 0; i < rest; ++i) {
        second[i] = last[EC_BLOCK + i];
        first[i] = last[i];
    }
}

/* The `channels` output channels that `weights` are for; the first is `out`. */
static void ec_channels(const ec_conv_pairs_t *p, const uint32_t *weights, int32_t channels,
                        const int8_t *in, int8_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t pairs = (pixels + 1) / 2;
    const int32_t rest = channels % EC_BLOCK;
    const int32_t row_step =
        p->staged_row ? p->staged_row : s->dilation_height * s->in_width * s->in_channels;
    uint32_t *const acts = scratch;
    ec_staged_t staged = {
        .rows = (int8_t *)(acts + (ptrdiff_t)EC_STEP_WORDS * p->steps),
        .slots = 1 + (s->out_width & 1),
        .lines = {-1, -1},
    };
    ec_conv_blocks_t b = {
        .acts = acts,
        .acts_end = acts + (ptrdiff_t)EC_STEP_WORDS * p->steps,
        .steps = p->steps,
        .rectified = p->rectified,
        .limits = {p->limits[0], p->limits[1], p->limits[2]},
        .weights = weights,
    };
    ec_fill(staged.rows, p->in_zero, p->staged_row * s->kernel_height * staged.slots);
    for (int32_t count = 0; count < pairs; ++count) {
        const int32_t pixel = 2 * (p->reverse ? pairs - 1 - count : count);
        const int32_t last = pixel + 1 < pixels ? pixel + 1 : pixel;
        const int8_t *first = ec_window(p, in, &staged, pixel);
        const int8_t *second = ec_window(p, in, &staged, last);
        ec_expand_windows(p, first, second, row_step, acts);
        b.out = out + (ptrdiff_t)pixel * s->out_channels;
        b.second = (ptrdiff_t)(last - pixel) * s->out_channels;
        b.out_end = b.out + (channels - rest);
        if (b.out != b.out_end) ec_conv_blocks(&b);
        if (rest > 0) ec_last_channels(p, b, channels / EC_BLOCK, rest);
    }
}

void ec_conv_pairs_s8(const ec_conv_pairs_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    ec_channels(p, p->weights, p->shape.out_channels, in, out, scratch);
}

void ec_conv_pairs_packed_s8(const ec_conv_pairs_packed_t *p, const int8_t *in, int8_t *out,
                             void *scratch)
{
    const int32_t block = EC_BLOCK_WORDS + EC_STEP_WORDS * p->conv.steps;
    uint32_t *const weights = scratch;
    uint32_t *const rest = weights + (ptrdiff_t)block * p->part;
    ec_unpack_t unpack = p->unpack;
    for (int32_t left = p->conv.shape.out_channels; left > 0; left -= EC_BLOCK * p->part) {
        const int32_t channels = left < EC_BLOCK * p->part ? left : EC_BLOCK * p->part;
        unpack.blocks = (channels + EC_BLOCK - 1) / EC_BLOCK;
        unpack.packed = ec_unpack(&unpack, weights);
        ec_channels(&p->conv, weights, channels, in, out, rest);
        out += channels;
    }
}

void ec_conv_pairs_decoded_s8(const ec_conv_pairs_decoded_t *p, const int8_t *in, int8_t *out,
                              void *scratch)
{
    const int32_t block = EC_BLOCK_WORDS + EC_STEP_WORDS * p->conv.steps;
    uint32_t *const weights = scratch;
    uint32_t *const rest = weights + (ptrdiff_t)block * p->part;
    ec_decode_t decode = p->decode;
    for (int32_t left = p->conv.shape.out_channels; left > 0; left -= EC_BLOCK * p->part) {
        const int32_t channels = left < EC_BLOCK * p->part ? left : EC_BLOCK * p->part;
        decode.blocks = (channels + EC_BLOCK - 1) / EC_BLOCK;
        decode.packed = ec_decode(&decode, weights);
        ec_channels(&p->conv, weights, channels, in, out, rest);
        out += channels;
    }
}
