/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8).
 *
 * The windows of four output pixels are expanded to int16 in scratch, a pair of each in turn; a pair of
 * weights then meets the four pairs behind one address.
 */
#include "ec_conv_sparse.h"

#include <stddef.h>
#include <string.h>

#include "ec_conv_windows.h"
#include "ec_math.h"
#include "ec_pairs.h"

enum { EC_PIXELS = 4, EC_ENTRY = 3, EC_HEAD = 3 };

/* What ec_channels works on. The assembly relies on the order. */
typedef struct {
    int32_t half;
    uint32_t limits[3];
    int8_t *out;      /* first pixel, next channel */
    ptrdiff_t pixel;  /* from pixel to pixel */
    const int8_t *out_end;
    const uint32_t *acts;
    const uint8_t *weights;
    const uint32_t *heads;
} ec_channels_t;

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 weights, r1 acts, r2 an entry, r3 to r6 a pair of each pixel, r7 to r10 their sums, r11
 * heads, r12 the end of the channel's entries, lr the end of the entries' code. The stack holds the first
 * eight members of ec_channels_t.
 *
 * One entry is 8 instructions for eight products, and 32 bytes long. */
#define EC_STEP                            \
    "ldr.w r2, [r0], #3\n\t"               \
    "uxtab r1, r1, r2, ror #8\n\t"         \
    "ldmia.w r1!, {r3, r4, r5, r6}\n\t"    \
    "sxtb16 r2, r2\n\t"                    \
    "smlad r7, r3, r2, r7\n\t"             \
    "smlad r8, r4, r2, r8\n\t"             \
    "smlad r9, r5, r2, r9\n\t"             \
    "smlad r10, r6, r2, r10\n\t"

/* A sum becomes a result, 128 too large. */
#define EC_SCALE(a)                        \
    "lsl r2, " a ", #1\n\t"                \
    "smmlar r2, r2, r5, r1\n\t"            \
    "add r2, r2, " a ", asr #31\n\t"       \
    "asr " a ", r2, r6\n\t"

/* All channels of four pixels. */
__attribute__((naked, noinline)) static void ec_channels(
    __attribute__((unused)) const ec_channels_t *c)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0!, {r1-r8}\n\t"
        "push {r1-r8}\n\t"
        "ldrd r0, r11, [r0]\n\t"
        "adr.w lr, 3f\n\t"
        "add lr, lr, #1\n"
        "1:\n\t"
        "ldr r7, [r11]\n\t"
        "ldrh r2, [r11, #8]\n\t"
        "mov r8, r7\n\t"
        "mov r9, r7\n\t"
        "mov r10, r7\n\t"
        "ldr r1, [sp, #28]\n\t"
        "add r12, r2, r2, lsl #1\n\t"
        "add r12, r12, r0\n\t"
        "and r2, r2, #7\n\t" /* entries that make no turn of eight */
        "sub r2, lr, r2, lsl #5\n\t"
        "bx r2\n\t"
        ".balign 4\n"
        "2:\n\t"
        ".rept 8\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        ".if 3b - 2b - 8 * 32\n\t"
        ".error \"the size of an entry\"\n\t"
        ".endif\n\t"
        "cmp r0, r12\n\t"
        "bne.w 2b\n\t"
        "ldmia r11!, {r4, r5, r6}\n\t"
        "ldr r1, [sp]\n\t"
        "lsr r2, r6, #16\n\t"
        "lsl r1, r1, r2\n\t"
        "lsr r6, r6, #24\n\t"
        EC_SCALE("r7") EC_SCALE("r8") EC_SCALE("r9") EC_SCALE("r10")
        EC_PACK("r7", "r8", "r9", "r10")
        "add r1, sp, #4\n\t"
        "ldm r1, {r2, r3, r4, r5, r6, r12}\n\t"
        "uqadd8 r7, r7, r2\n\t"
        "uqsub8 r7, r7, r3\n\t"
        "uadd8 r7, r7, r4\n\t"
        "strb r7, [r5]\n\t"
        "lsr r2, r7, #8\n\t"
        "strb r2, [r5, r6]\n\t"
        "lsr r2, r7, #16\n\t"
        "strb r2, [r5, r6, lsl #1]\n\t"
        "lsr r2, r7, #24\n\t"
        "add r6, r6, r6, lsl #1\n\t"
        "strb r2, [r5, r6]\n\t"
        "add r5, r5, #1\n\t"
        "str r5, [sp, #16]\n\t"
        "cmp r5, r12\n\t"
        "bne.w 1b\n\t"
        "add sp, sp, #32\n\t"
        "pop {r4-r11, pc}\n\t");
}

#else

/* Adds the products of the entries from `entry` to `end` to the sums of four pixels. */
static void ec_entries(const uint8_t *entry, const uint8_t *end, const uint32_t *acts,
                       uint32_t sums[EC_PIXELS])
{
    for (; entry != end; entry += EC_ENTRY) {
        const int32_t first = (int8_t)entry[0], second = (int8_t)entry[2];
        acts += entry[1] / 4;
        for (int32_t i = 0; i < EC_PIXELS; ++i, ++acts) {
            sums[i] = ec_mac(first, ec_half(acts, 0), sums[i]);
            sums[i] = ec_mac(second, ec_half(acts, 1), sums[i]);
        }
    }
}

/* All channels of four pixels. */
static void ec_channels(const ec_channels_t *c)
{
    const uint8_t *entry = c->weights;
    const uint32_t *head = c->heads;
    for (int8_t *out = c->out; out != c->out_end; ++out, head += EC_HEAD) {
        const int32_t right = (int32_t)(head[2] >> 24);
        const int32_t rounding = ec_shift_left(c->half, right - 1);
        const uint8_t *const end = entry + EC_ENTRY * (head[2] & 0xFFFFu);
        uint32_t sums[EC_PIXELS] = {head[0], head[0], head[0], head[0]};
        ec_entries(entry, end, c->acts, sums);
        for (int32_t i = 0; i < EC_PIXELS; ++i) {
            const int32_t x =
                ec_requantize_right((int32_t)sums[i], (int32_t)head[1], rounding, right);
            out[i * c->pixel] = ec_pairs_limit(ec_clamp((int16_t)x, 0, 255), c->limits);
        }
        entry = end;
    }
}

#endif

/* A word of four elements of either pixel as two pairs each; the pairs of one follow those of the next
 * four pixels. */
EC_INLINE uint32_t *ec_expand_words(uint32_t *to, const int8_t **first, const int8_t **second,
                                    int32_t words)
{
    const int8_t *a = *first;
    const int8_t *b = *second;
#if defined(__ARM_FEATURE_DSP)
    if (words > 0) {
        __asm__ volatile(
            "1:\n\t"
            "ldr r4, [%[a]], #4\n\t"
            "ldr r5, [%[b]], #4\n\t"
            "sxtb16 r6, r4\n\t"
            "sxtb16 r8, r4, ror #8\n\t"
            "pkhbt r4, r6, r8, lsl #16\n\t"
            "pkhtb r8, r8, r6, asr #16\n\t"
            "sxtb16 r6, r5\n\t"
            "sxtb16 r9, r5, ror #8\n\t"
            "pkhbt r5, r6, r9, lsl #16\n\t"
            "pkhtb r9, r9, r6, asr #16\n\t"
            "strd r4, r5, [%[to]], #16\n\t"
            "strd r8, r9, [%[to]], #16\n\t"
            "subs %[words], #1\n\t"
            "bne 1b\n\t"
            : [to] "+r"(to), [a] "+r"(a), [b] "+r"(b), [words] "+r"(words)
            :
            : "r4", "r5", "r6", "r8", "r9", "cc", "memory");
    }
#else
    for (; words > 0; --words) {
        const uint32_t u = ec_load_u32(a), v = ec_load_u32(b);
        to[0] = (ec_bytes_even(u) & 0xFFFFu) | ec_bytes_odd(u) << 16;
        to[1] = (ec_bytes_even(v) & 0xFFFFu) | ec_bytes_odd(v) << 16;
        to[EC_PIXELS] = ec_bytes_even(u) >> 16 | (ec_bytes_odd(u) & 0xFFFF0000u);
        to[EC_PIXELS + 1] = ec_bytes_even(v) >> 16 | (ec_bytes_odd(v) & 0xFFFF0000u);
        to += 2 * EC_PIXELS;
        a += 4;
        b += 4;
    }
#endif
    *first = a;
    *second = b;
    return to;
}

/* The first `count` (1 or more: 2) elements as a pair. */
static inline uint32_t ec_rest(const int8_t *from, int32_t count)
{
    const uint32_t first = (uint32_t)from[0] & 0xFFFFu;
    return count == 1 ? first : first | (uint32_t)from[1] << 16;
}

/* Expands the windows of two pixels, with rows of taps `row_step` elements apart. */
static void ec_expand(const ec_conv_pairs_t *p, const int8_t *first, const int8_t *second,
                      int32_t row_step, uint32_t *to)
{
    const int32_t step = p->shape.dilation_width * p->shape.in_channels;
    for (int32_t ky = 0; ky < p->shape.kernel_height; ++ky) {
        for (int32_t run = 0; run < p->runs_per_row; ++run) {
            const int8_t *a = first + (ptrdiff_t)run * step;
            const int8_t *b = second + (ptrdiff_t)run * step;
            to = ec_expand_words(to, &a, &b, p->run / 4);
            for (int32_t left = p->run % 4; left > 0; left -= 2) {
                to[0] = ec_rest(a, left);
                to[1] = ec_rest(b, left);
                to += EC_PIXELS;
                a += 2;
                b += 2;
            }
        }
        first += row_step;
        second += row_step;
    }
}

void ec_conv_sparse_s8(const ec_conv_sparse_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const ec_conv_pairs_t *const conv = &p->conv;
    const ec_conv_shape_t *const s = &conv->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t groups = (pixels + EC_PIXELS - 1) / EC_PIXELS;
    const int32_t row_step =
        conv->staged_row ? conv->staged_row : s->dilation_height * s->in_width * s->in_channels;
    const int32_t staged_bytes = p->slots * s->kernel_height * conv->staged_row;
    uint32_t *const acts = scratch;
    ec_staged_t staged = {
        .rows = (int8_t *)(acts + (ptrdiff_t)EC_PIXELS * conv->steps),
        .slots = p->slots,
        .lines = {-1, -1, -1, -1},
    };
    int8_t *const last = staged.rows + staged_bytes;
    ec_channels_t c = {
        .half = p->half,
        .limits = {conv->limits[0], conv->limits[1], conv->limits[2]},
        .pixel = s->out_channels,
        .acts = acts,
        .weights = p->weights,
        .heads = p->heads,
    };
    ec_fill(staged.rows, conv->in_zero, staged_bytes);
    for (int32_t count = 0; count < groups; ++count) {
        const int32_t first = EC_PIXELS * (p->reverse ? groups - 1 - count : count);
        const int32_t left = pixels - first;
        const int8_t *at[EC_PIXELS];
        for (int32_t i = 0; i < EC_PIXELS; ++i) {
            at[i] = ec_window(conv, in, &staged, first + (i < left ? i : left - 1));
        }
        ec_expand(conv, at[0], at[1], row_step, acts);
        ec_expand(conv, at[2], at[3], row_step, acts + 2);
        int8_t *const to = out + (ptrdiff_t)first * s->out_channels;
        c.out = left < EC_PIXELS ? last : to;
        c.out_end = c.out + s->out_channels;
        ec_channels(&c);
        if (left < EC_PIXELS) ec_copy(to, last, left * s->out_channels);
    }
}
