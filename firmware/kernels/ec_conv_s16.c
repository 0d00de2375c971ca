/* Bits: TFLM reference_integer_ops::ConvPerChannel (int16).
 *
 * The windows of four output pixels are copied to scratch, a pair of each in turn; the weights of two
 * channels then meet them in one pass with eight sums.
 */
#include "ec_conv_s16.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"
#include "ec_pairs.h"
#include "ec_s16.h"

enum { EC_PIXELS = 4, EC_BLOCK = 2, EC_SUMS = 8 };

/* What becomes of the sums: the values of `ending`, and one more. */
enum { EC_LIMITED = 2, EC_RAW = 3 };

/* What ec_blocks works on. The assembly relies on the order. */
typedef struct {
    int16_t *out;           /* first pixel, next block */
    int32_t next[3];        /* bytes from there to the same channel of the other pixels */
    const int16_t *out_end; /* where `out` is after the last block */
    const uint32_t *acts;
    const uint32_t *acts_end;
    int32_t steps;
    int32_t ending;
    uint32_t low;  /* in both halfwords */
    uint32_t high;
    const uint32_t *weights;
} ec_blocks_t;

/* Where in scratch the pairs of a pixel stand among those of the four: pixel 0 is the last. */
static inline int32_t ec_place(int32_t pixel)
{
    return (pixel + EC_PIXELS - 1) % EC_PIXELS;
}

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 acts, r1 weights, r2 r3 a pair of two pixels, lr r12 the weights of either channel,
 * r4 to r7 the sums of the even channel (pixels 0 to 3), r8 to r11 those of the odd one. All are in
 * use: the rest lies on the stack, in the order of ec_blocks_t, with the address of the second step
 * to take in the place of `steps`, and that of the ending in the place of `ending`.
 *
 * One step is 13 instructions for 16 products, and EC_STEP_BYTES long. */
#define EC_STEP_BYTES "48"
#define EC_STEP                         \
    "ldr.w r12, [r1], #4\n\t"           \
    "ldmia.n r0!, {r2, r3}\n\t"         \
    "sxtb16 lr, r12\n\t"                \
    "sxtb16 r12, r12, ror #8\n\t"       \
    "smlad r5, lr, r2, r5\n\t"          \
    "smlad r9, r12, r2, r9\n\t"         \
    "smlad r6, lr, r3, r6\n\t"          \
    "smlad r10, r12, r3, r10\n\t"       \
    "ldmia.n r0!, {r2, r3}\n\t"         \
    "smlad r7, lr, r2, r7\n\t"          \
    "smlad r11, r12, r2, r11\n\t"       \
    "smlad r4, lr, r3, r4\n\t"          \
    "smlad r8, r12, r3, r8\n\t"

/* The same with the sums of pixel 0, which hold the bias, as those of the others too. */
#define EC_FIRST_STEP                   \
    "ldr r12, [r1], #4\n\t"             \
    "ldmia r0!, {r2, r3}\n\t"           \
    "sxtb16 lr, r12\n\t"                \
    "sxtb16 r12, r12, ror #8\n\t"       \
    "smlad r5, lr, r2, r4\n\t"          \
    "smlad r9, r12, r2, r8\n\t"         \
    "smlad r6, lr, r3, r4\n\t"          \
    "smlad r10, r12, r3, r8\n\t"        \
    "ldmia r0!, {r2, r3}\n\t"           \
    "smlad r7, lr, r2, r4\n\t"          \
    "smlad r11, r12, r2, r8\n\t"        \
    "smlad r4, lr, r3, r4\n\t"          \
    "smlad r8, r12, r3, r8\n\t"

#define EC_NEXT_BLOCK                           \
    "ldm sp, {r0, r2, r3, r12, lr}\n\t"         \
    "str r7, [r0, r12]\n\t"                     \
    "str r6, [r0, r3]\n\t"                      \
    "str r5, [r0, r2]\n\t"                      \
    "str r4, [r0], #4\n\t"                      \
    "str r0, [sp]\n\t"                          \
    "cmp r0, lr\n\t"                            \
    "bne.w 1b\n\t"                              \
    "add sp, sp, #44\n\t"                       \
    "pop {r4-r11, pc}\n\t"

__attribute__((naked, noinline)) static void ec_blocks(__attribute__((unused)) const ec_blocks_t *b)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r1-r11}\n\t"
        "ldr r0, [r0, #44]\n\t"
        "sub r8, r8, #1\n\t" /* of the steps behind the first, what makes no turn of 16 */
        "and r8, r8, #15\n\t"
        "mov r12, #" EC_STEP_BYTES "\n\t"
        "adr.w lr, 3f\n\t"
        "mls r8, r8, r12, lr\n\t"
        "add r8, r8, #1\n\t"
        "adr.w r12, 8f\n\t"
        "ldr r9, [r12, r9, lsl #2]\n\t"
        "add r9, r9, r12\n\t"
        "push {r1-r11}\n\t"
        "mov r1, r0\n"
        "1:\n\t"
        "ldr r4, [r1], #4\n\t"
        "ldr r8, [r1], #4\n\t"
        "ldr r0, [sp, #20]\n\t"
        EC_FIRST_STEP
        "ldr pc, [sp, #28]\n\t"
        ".balign 4\n"
        "2:\n\t"
        ".rept 16\n\t"
        EC_STEP
        ".endr\n"
        "3:\n\t"
        ".if 3b - 2b - 16 * " EC_STEP_BYTES "\n\t"
        ".error \"EC_STEP_BYTES\"\n\t"
        ".endif\n\t"
        "ldr r2, [sp, #24]\n\t"
        "cmp r0, r2\n\t"
        "bne.w 2b\n\t"
        "ldr pc, [sp, #32]\n\t"
        ".balign 4\n"
        "4:\n\t"
        EC_SCALE_QUAD_S16("ssat", "16")
        EC_NEXT_BLOCK
        ".balign 4\n"
        "5:\n\t"
        EC_SCALE_QUAD_S16("usat", "15")
        EC_NEXT_BLOCK
        ".balign 4\n"
        "6:\n\t"
        EC_SCALE_QUAD_S16("ssat", "16")
        "ldrd r2, r3, [sp, #36]\n\t"
        EC_LIMIT_S16("r4", "r2", "r3", "r12") EC_LIMIT_S16("r5", "r2", "r3", "r12")
        EC_LIMIT_S16("r6", "r2", "r3", "r12") EC_LIMIT_S16("r7", "r2", "r3", "r12")
        EC_NEXT_BLOCK
        ".balign 4\n"
        "7:\n\t"
        "ldr r0, [sp]\n\t"
        "stm r0, {r4-r11}\n\t"
        "add sp, sp, #44\n\t"
        "pop {r4-r11, pc}\n\t"
        ".balign 4\n"
        "8:\n\t"
        ".word 4b - 8b + 1, 5b - 8b + 1, 6b - 8b + 1, 7b - 8b + 1\n\t");
}

#else

/* Both channels of two pixels whose pairs lie side by side from `acts` on: sums[0] and [1] of the
 * even channel, [4] and [5] of the odd one. */
EC_INLINE void ec_two_pixels(const ec_blocks_t *b, const uint32_t *acts, const uint32_t *weights,
                             uint32_t *sums)
{
    const uint32_t *const end = acts + EC_PIXELS * b->steps;
    const int8_t *w = (const int8_t *)(weights + EC_BLOCK);
    uint32_t u0 = weights[0], u1 = u0;
    uint32_t v0 = weights[1], v1 = v0;
    do {
        EC_UNROLL for (int32_t i = 0; i < 2; ++i) {
            const int32_t even = w[2 * i], odd = w[2 * i + 1];
            const int32_t x = ec_half(acts, i);
            const int32_t y = ec_half(acts, i + 2);
            u0 = ec_mac(even, x, u0);
            v0 = ec_mac(odd, x, v0);
            u1 = ec_mac(even, y, u1);
            v1 = ec_mac(odd, y, v1);
        }
        w += 4;
        acts += EC_PIXELS;
    } while (acts != end);
    sums[0] = u0;
    sums[1] = u1;
    sums[4] = v0;
    sums[5] = v1;
}

static int16_t ec_result(const ec_blocks_t *b, uint32_t sum, uint32_t factor)
{
    const int32_t x = ec_high_round((int32_t)sum, (int32_t)factor);
    return (int16_t)ec_clamp(x, (int16_t)b->low, (int16_t)b->high);
}

static void ec_blocks(const ec_blocks_t *b)
{
    const uint32_t *weights = b->weights;
    for (int16_t *out = b->out; out != b->out_end; out += EC_BLOCK) {
        uint32_t sums[EC_SUMS]; /* by place, not by pixel */
        ec_two_pixels(b, b->acts, weights, sums);
        ec_two_pixels(b, b->acts + 2, weights, sums + 2);
        const uint32_t *factors = weights + EC_BLOCK + b->steps;
        int8_t *to = (int8_t *)out;
        for (int32_t pixel = EC_PIXELS - 1; pixel >= 0; --pixel) {
            const int32_t place = ec_place(pixel);
            if (b->ending == EC_RAW) {
                memcpy(to + 4 * pixel, &sums[place], 4);
                memcpy(to + 4 * (pixel + EC_PIXELS), &sums[place + EC_PIXELS], 4);
            } else {
                const int16_t both[] = {
                    ec_result(b, sums[place], factors[0]),
                    ec_result(b, sums[place + EC_PIXELS], factors[1]),
                };
                memcpy(to + (pixel == 0 ? 0 : b->next[pixel - 1]), both, sizeof(both));
            }
        }
        if (b->ending == EC_RAW) return;
        weights = factors + EC_BLOCK;
    }
}

#endif

/* Copies `words` pairs to every fourth word from `to` on; returns where the next one goes. */
static inline uint32_t *ec_copy(uint32_t *to, const int16_t *from, int32_t words)
{
#if defined(__ARM_FEATURE_DSP)
#define EC_MOVE "ldr r4, [%[from]], #4\n\t" "str r4, [%[to]], #16\n\t"
    __asm__ volatile(
        "subs %[words], #8\n\t"
        "blt 2f\n"
        "1:\n\t"
        EC_MOVE EC_MOVE EC_MOVE EC_MOVE EC_MOVE EC_MOVE EC_MOVE EC_MOVE
        "subs %[words], #8\n\t"
        "bge 1b\n"
        "2:\n\t"
        "adds %[words], #8\n\t"
        "beq 4f\n"
        "3:\n\t"
        EC_MOVE
        "subs %[words], #1\n\t"
        "bne 3b\n"
        "4:"
        : [to] "+r"(to), [from] "+r"(from), [words] "+r"(words)
        :
        : "r4", "cc", "memory");
#undef EC_MOVE
#else
    for (; words > 0; --words) {
        memcpy(to, from, sizeof(*to));
        to += EC_PIXELS;
        from += 2;
    }
#endif
    return to;
}

static inline uint32_t *ec_fill(uint32_t *to, int32_t words)
{
    for (; words > 0; --words) {
        *to = 0;
        to += EC_PIXELS;
    }
    return to;
}

/* One run of a window: `left` elements of padding, `inside` (1 or more) of the map, more padding. */
static uint32_t *ec_gather_run(uint32_t *to, const int16_t *from, int32_t left, int32_t inside,
                               int32_t run)
{
    uint32_t *const end = to + (ptrdiff_t)EC_PIXELS * ((run + 1) / 2);
    if (inside == run && run % 2 == 0) return ec_copy(to, from, run / 2);
    to = ec_fill(to, left / 2);
    if (left % 2 != 0) {
        *to = (uint32_t)*from++ << 16;
        to += EC_PIXELS;
        --inside;
    }
    to = ec_copy(to, from, inside / 2);
    if (inside % 2 != 0) {
        *to = (uint16_t)from[inside - 1];
        to += EC_PIXELS;
    }
    return ec_fill(to, (int32_t)(end - to) / EC_PIXELS);
}

/* `words` pairs of each pixel from its place on; the places move on. `from` is in the order of
 * scratch. */
static inline uint32_t *ec_copy_four(uint32_t *to, const int16_t **from, int32_t words)
{
    const int16_t *a = from[0], *b = from[1], *c = from[2], *d = from[3];
#if defined(__ARM_FEATURE_DSP)
#define EC_MOVE                        \
    "ldr r4, [%[a]], #4\n\t"           \
    "ldr r5, [%[b]], #4\n\t"           \
    "ldr r6, [%[c]], #4\n\t"           \
    "ldr r8, [%[d]], #4\n\t"           \
    "stmia %[to]!, {r4, r5, r6, r8}\n\t"
    __asm__ volatile(
        "subs %[words], #4\n\t"
        "blt 2f\n"
        "1:\n\t"
        EC_MOVE EC_MOVE EC_MOVE EC_MOVE
        "subs %[words], #4\n\t"
        "bge 1b\n"
        "2:\n\t"
        "lsls %[words], %[words], #31\n\t" /* bits 1 and 0 of what is left */
        "bcc 3f\n\t"
        EC_MOVE EC_MOVE
        "3:\n\t"
        "bpl 4f\n\t"
        EC_MOVE
        "4:"
        : [to] "+r"(to), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [words] "+r"(words)
        :
        : "r4", "r5", "r6", "r8", "cc", "memory");
#undef EC_MOVE
#else
    for (; words > 0; --words) {
        memcpy(to, a, sizeof(*to));
        memcpy(to + 1, b, sizeof(*to));
        memcpy(to + 2, c, sizeof(*to));
        memcpy(to + 3, d, sizeof(*to));
        to += EC_PIXELS;
        a += 2;
        b += 2;
        c += 2;
        d += 2;
    }
#endif
    from[0] = a;
    from[1] = b;
    from[2] = c;
    from[3] = d;
    return to;
}

/* The windows of four pixels without padding; `from` is the first element of each. */
static void ec_gather_inner(const ec_conv_s16_t *p, const int16_t **from, uint32_t *to)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t words = p->run / 2;
    const int32_t row_step = s->dilation_height * s->in_width * s->in_channels;
    const int32_t step = s->dilation_width * s->in_channels;
    const int32_t next_row = row_step - (p->runs_per_row - 1) * step;
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        for (int32_t left = p->runs_per_row; left > 0; --left) {
            const int32_t move = (left == 1 ? next_row : step) - 2 * words;
            to = ec_copy_four(to, from, words);
            for (int32_t i = 0; i < EC_PIXELS; ++i) {
                if (p->run % 2 != 0) *to++ = (uint16_t)*from[i];
                from[i] += move;
            }
        }
    }
}

/* The window of one pixel, padded. */
static void ec_gather_one(const ec_conv_s16_t *p, const int16_t *in, ec_conv_place_t at,
                          uint32_t *to)
{
    const ec_conv_shape_t *s = &p->shape;
    const ec_conv_taps_t rows = ec_conv_rows(s, at), columns = ec_conv_columns(s, at);
    const int32_t inside = columns.end - columns.first;
    const int32_t pairs = (p->run + 1) / 2;
    const int joined = p->runs_per_row == 1;
    if (rows.first >= rows.end || inside <= 0) {
        ec_fill(to, p->steps);
        return;
    }
    const int32_t row = at.batch * s->in_height + at.row + rows.first * s->dilation_height;
    const int32_t column = at.column + columns.first * s->dilation_width;
    in += ((ptrdiff_t)row * s->in_width + column) * s->in_channels;
    to = ec_fill(to, rows.first * p->runs_per_row * pairs);
    for (int32_t ky = rows.first; ky < rows.end; ++ky) {
        if (joined) {
            to = ec_gather_run(to, in, columns.first * s->in_channels, inside * s->in_channels,
                               p->run);
        } else {
            const int16_t *from = in;
            to = ec_fill(to, columns.first * pairs);
            for (int32_t i = 0; i < inside; ++i) {
                to = ec_gather_run(to, from, 0, p->run, p->run);
                from += s->dilation_width * s->in_channels;
            }
            to = ec_fill(to, (s->kernel_width - columns.end) * pairs);
        }
        in += (ptrdiff_t)s->dilation_height * s->in_width * s->in_channels;
    }
    ec_fill(to, (s->kernel_height - rows.end) * p->runs_per_row * pairs);
}

/* The windows of pixels `pixel` to `pixel` + 3; those behind `last` are its own again. */
static void ec_gather(const ec_conv_s16_t *p, const int16_t *in, int32_t pixel, int32_t last,
                      uint32_t *to)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t high = (s->kernel_height - 1) * s->dilation_height;
    const int32_t wide = (s->kernel_width - 1) * s->dilation_width;
    const int16_t *from[EC_PIXELS];
    ec_conv_place_t at[EC_PIXELS];
    int inside = 1;
    for (int32_t i = 0; i < EC_PIXELS; ++i) {
        const ec_conv_place_t one = ec_conv_place(s, pixel + i < last ? pixel + i : last);
        inside &= one.row >= 0 && one.column >= 0 && one.row + high < s->in_height &&
                  one.column + wide < s->in_width;
        at[i] = one;
    }
    for (int32_t i = 0; i < EC_PIXELS; ++i) {
        const int32_t row = at[i].batch * s->in_height + at[i].row;
        if (inside) {
            from[ec_place(i)] = in + ((ptrdiff_t)row * s->in_width + at[i].column) * s->in_channels;
        } else {
            ec_gather_one(p, in, at[i], to + ec_place(i));
        }
    }
    if (inside) ec_gather_inner(p, from, to);
}

static int16_t ec_finish(const ec_conv_s16_t *p, int32_t channel, uint64_t sum)
{
    const int32_t multiplier = p->multipliers[channel], shift = p->shifts[channel];
    if (p->bias != NULL) sum += (uint64_t)p->bias[channel];
    const int32_t x = p->wide ? ec_requantize_wide((int64_t)sum, multiplier, shift)
                              : ec_requantize((int32_t)(uint32_t)sum, multiplier, shift);
    return (int16_t)ec_clamp(x, p->low, p->high);
}

/* All channels of the four pixels, the sums segment by segment. */
static void ec_long_sums(const ec_conv_s16_t *p, ec_blocks_t b, int32_t pixels)
{
    const ec_conv_shape_t *s = &p->shape;
    const uint32_t *const acts = b.acts;
    int16_t *out = b.out;
    b.ending = EC_RAW;
    for (int32_t channel = 0; channel < s->out_channels; channel += EC_BLOCK) {
        uint64_t totals[EC_SUMS] = {0};
        b.acts = acts;
        for (int32_t left = p->steps; left > 0; left -= EC_CONV_S16_SEGMENT) {
            int32_t sums[EC_SUMS];
            b.steps = left < EC_CONV_S16_SEGMENT ? left : EC_CONV_S16_SEGMENT;
            b.acts_end = b.acts + (ptrdiff_t)EC_PIXELS * b.steps;
            b.out = (int16_t *)(void *)sums;
            b.out_end = b.out + EC_BLOCK;
            ec_blocks(&b);
            EC_UNROLL for (int32_t i = 0; i < EC_SUMS; ++i) totals[i] += (uint64_t)(int64_t)sums[i];
            b.acts = b.acts_end;
            b.weights += EC_BLOCK + b.steps;
        }
        for (int32_t i = 0; i < EC_BLOCK && channel + i < s->out_channels; ++i) {
            for (int32_t pixel = 0; pixel < pixels; ++pixel) {
                out[pixel * s->out_channels + channel + i] =
                    ec_finish(p, channel + i, totals[EC_PIXELS * i + pixel]);
            }
        }
    }
}

/* The channel that fills no block, of the four pixels. */
static void ec_last_channel(const ec_conv_s16_t *p, ec_blocks_t b)
{
    const int32_t whole = p->shape.out_channels / EC_BLOCK;
    int8_t *const to = (int8_t *)(b.out + (ptrdiff_t)whole * EC_BLOCK);
    const int32_t next[] = {0, b.next[0], b.next[1], b.next[2]};
    int16_t last[EC_PIXELS][EC_BLOCK];
    b.out = last[0];
    b.out_end = last[1];
    for (int32_t i = 1; i < EC_PIXELS; ++i) b.next[i - 1] = i * (int32_t)sizeof(last[0]);
    b.weights += (ptrdiff_t)(2 * EC_BLOCK + p->steps) * whole;
    ec_blocks(&b);
    for (int32_t i = 0; i < EC_PIXELS; ++i) memcpy(to + next[i], last[i], sizeof(last[i][0]));
}

void ec_conv_s16(const ec_conv_s16_t *p, const int16_t *in, int16_t *out, void *scratch)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t pixels = ec_conv_pixels(s);
    const int32_t quads = (pixels + EC_PIXELS - 1) / EC_PIXELS;
    const int32_t rest = s->out_channels % EC_BLOCK;
    uint32_t *const acts = scratch;
    ec_blocks_t b = {
        .acts = acts,
        .acts_end = acts + (ptrdiff_t)EC_PIXELS * p->steps,
        .steps = p->steps,
        .ending = p->ending,
        .low = ec_twice_s16(p->low),
        .high = ec_twice_s16(p->high),
        .weights = p->weights,
    };
    for (int32_t count = 0; count < quads; ++count) {
        const int32_t pixel = EC_PIXELS * (p->reverse ? quads - 1 - count : count);
        const int32_t most = pixels - 1 - pixel;
        ec_gather(p, in, pixel, pixels - 1, acts);
        for (int32_t i = 1; i < EC_PIXELS; ++i) {
            b.next[i - 1] = (i < most ? i : most) * s->out_channels * (int32_t)sizeof(*out);
        }
        b.out = out + (ptrdiff_t)pixel * s->out_channels;
        b.out_end = b.out + (s->out_channels - rest);
        if (p->multipliers != NULL) {
            ec_long_sums(p, b, most < EC_PIXELS ? most + 1 : EC_PIXELS);
        } else {
            if (b.out != b.out_end) ec_blocks(&b);
            if (rest > 0) ec_last_channel(p, b);
        }
    }
}
