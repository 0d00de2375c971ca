/* Bits: TFLM reference_integer_ops::DepthwiseConvPerChannel (int16).
 *
 * In a plane of pairs of places (2 i, 2 i + 1), a word each, three weights w0, w1, w2 give two results
 * of neighbours from words A and B in four multiplications: A (w0, w1) + B w2 and A w0 + B (w1, w2).
 */
#include "ec_depthwise_s16.h"

#include <stddef.h>
#include <string.h>

#include "ec_s16.h"

enum { EC_PIXELS = 4, EC_GROUP = 3, EC_GROUP_WORDS = 5 };

/* What ec_sweep works on: four pixels after the other along one output line. The assembly relies on
 * the order. */
typedef struct {
    const uint32_t *plane; /* at the first of them */
    int16_t *out;
    int32_t left;          /* pixels */
    int32_t step;          /* bytes from one to the next */
    int32_t plane_step;    /* bytes from four to the next ones */
    const uint32_t *stream;
    const uint32_t *factors; /* the end of what is multiplied in `stream` */
    int32_t ending;
    int32_t stride;
    uint32_t low; /* in both halfwords */
    uint32_t high;
} ec_sweep_t;

#if defined(__ARM_FEATURE_DSP)

/* Registers: r0 plane, r1 stream, r2 (w0, w1), r3 (w1, w2), r12 lr words of the plane, r4 to r7 the
 * sums of the first channel, r8 to r11 those of the second. All are in use: the rest lies on the
 * stack, in the order of ec_sweep_t, with code addresses in the places of `ending` and `stride`.
 *
 * A group is 12 instructions for 12 products (14 with stride 2). The first one starts all sums with
 * the bias, which is in `a`. */
#define EC_FIRST_1(a, b, c, d, w0, w1, w2)  \
    "ldmia r1!, {r2, r3}\n\t"               \
    "ldr r12, [r0, #" w0 "]\n\t"            \
    "ldr lr, [r0, #" w1 "]\n\t"             \
    "smlatb " b ", r12, r2, " a "\n\t"      \
    "smlad " c ", lr, r2, " a "\n\t"        \
    "smlatb " d ", lr, r2, " a "\n\t"       \
    "smlad " a ", r12, r2, " a "\n\t"       \
    "ldr r12, [r0, #" w2 "]\n\t"            \
    "smlabt " a ", lr, r3, " a "\n\t"       \
    "smlad " b ", lr, r3, " b "\n\t"        \
    "smlabt " c ", r12, r3, " c "\n\t"      \
    "smlad " d ", r12, r3, " d "\n\t"
#define EC_GROUP_1(a, b, c, d, w0, w1, w2)  \
    "ldmia r1!, {r2, r3}\n\t"               \
    "ldr r12, [r0, #" w0 "]\n\t"            \
    "ldr lr, [r0, #" w1 "]\n\t"             \
    "smlad " a ", r12, r2, " a "\n\t"       \
    "smlatb " b ", r12, r2, " b "\n\t"      \
    "ldr r12, [r0, #" w2 "]\n\t"            \
    "smlabt " a ", lr, r3, " a "\n\t"       \
    "smlad " b ", lr, r3, " b "\n\t"        \
    "smlad " c ", lr, r2, " c "\n\t"        \
    "smlatb " d ", lr, r2, " d "\n\t"       \
    "smlabt " c ", r12, r3, " c "\n\t"      \
    "smlad " d ", r12, r3, " d "\n\t"
#define EC_GROUP_2(a, b, c, d, from_b, from_c, from_d, w0, w1, w2, w3, w4) \
    "ldmia r1!, {r2, r3}\n\t"               \
    "ldr r12, [r0, #" w2 "]\n\t"            \
    "ldr lr, [r0, #" w3 "]\n\t"             \
    "smlad " c ", r12, r2, " from_c "\n\t"  \
    "smlad " d ", lr, r2, " from_d "\n\t"   \
    "smlabt " c ", lr, r3, " c "\n\t"       \
    "ldr lr, [r0, #" w4 "]\n\t"             \
    "smlabt " d ", lr, r3, " d "\n\t"       \
    "ldr lr, [r0, #" w1 "]\n\t"             \
    "smlad " b ", lr, r2, " from_b "\n\t"   \
    "smlabt " b ", r12, r3, " b "\n\t"      \
    "ldr r12, [r0, #" w0 "]\n\t"            \
    "smlabt " a ", lr, r3, " a "\n\t"       \
    "smlad " a ", r12, r2, " a "\n\t"

#define EC_MORE                             \
    "ldr r12, [sp, #24]\n\t"                \
    "cmp r1, r12\n\t"
#define EC_NEXT_GROUP                       \
    "ldr r12, [r1], #4\n\t"                 \
    "add r0, r0, r12\n\t"

#define EC_STORE                            \
    "ldm sp, {r0, r2, r3, r12, lr}\n\t"     \
    "add r0, r0, lr\n\t"                    \
    "subs r3, r3, #4\n\t"                   \
    "blt.w 9f\n\t"                          \
    "str r4, [r2]\n\t"                      \
    "str r5, [r2, r12]\n\t"                 \
    "str r6, [r2, r12, lsl #1]\n\t"         \
    "add r2, r2, r12, lsl #1\n\t"           \
    "str r7, [r2, r12]\n\t"                 \
    "add r2, r2, r12, lsl #1\n\t"           \
    "stm sp, {r0, r2, r3}\n\t"              \
    "bne.w 1b\n\t"                          \
    "b.w 10f\n\t"

__attribute__((naked, noinline)) static void ec_sweep(__attribute__((unused)) const ec_sweep_t *s)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r1-r11}\n\t"
        "adr.w r0, 11f\n\t"
        "ldr r8, [r0, r8, lsl #2]\n\t"
        "add r8, r8, r0\n\t"
        "add r12, r0, r9, lsl #2\n\t"
        "ldr r9, [r12, #8]\n\t" /* the third word is for stride 1 */
        "add r9, r9, r0\n\t"
        "push {r1-r11}\n\t"
        "mov r0, r1\n"
        "1:\n\t"
        "ldr r1, [sp, #20]\n\t"
        "ldr r4, [r1], #4\n\t"
        "ldr r8, [r1], #4\n\t"
        "ldr pc, [sp, #32]\n\t"
        ".balign 4\n"
        "2:\n\t"
        EC_FIRST_1("r4", "r5", "r6", "r7", "0", "8", "16")
        EC_FIRST_1("r8", "r9", "r10", "r11", "4", "12", "20")
        EC_MORE
        "beq.w 8f\n"
        "3:\n\t"
        EC_NEXT_GROUP
        EC_GROUP_1("r4", "r5", "r6", "r7", "0", "8", "16")
        EC_GROUP_1("r8", "r9", "r10", "r11", "4", "12", "20")
        EC_MORE
        "bne 3b\n\t"
        "ldr pc, [sp, #28]\n\t"
        ".balign 4\n"
        "7:\n\t"
        EC_GROUP_2("r4", "r5", "r6", "r7", "r4", "r4", "r4", "0", "8", "16", "24", "32")
        EC_GROUP_2("r8", "r9", "r10", "r11", "r8", "r8", "r8", "4", "12", "20", "28", "36")
        EC_MORE
        "beq.w 8f\n"
        "3:\n\t"
        EC_NEXT_GROUP
        EC_GROUP_2("r4", "r5", "r6", "r7", "r5", "r6", "r7", "0", "8", "16", "24", "32")
        EC_GROUP_2("r8", "r9", "r10", "r11", "r9", "r10", "r11", "4", "12", "20", "28", "36")
        EC_MORE
        "bne 3b\n"
        "8:\n\t"
        "ldr pc, [sp, #28]\n\t"
        ".balign 4\n"
        "4:\n\t"
        EC_SCALE_QUAD_S16("ssat", "16")
        EC_STORE
        ".balign 4\n"
        "5:\n\t"
        EC_SCALE_QUAD_S16("usat", "15")
        EC_STORE
        ".balign 4\n"
        "6:\n\t"
        EC_SCALE_QUAD_S16("ssat", "16")
        "ldrd r2, r3, [sp, #36]\n\t"
        EC_LIMIT_S16("r4", "r2", "r3", "r12") EC_LIMIT_S16("r5", "r2", "r3", "r12")
        EC_LIMIT_S16("r6", "r2", "r3", "r12") EC_LIMIT_S16("r7", "r2", "r3", "r12")
        EC_STORE
        "9:\n\t" /* r3 is the pixels that are there less 4 */
        "str r4, [r2]\n\t"
        "cmn r3, #2\n\t"
        "it ge\n\t"
        "strge r5, [r2, r12]\n\t"
        "it gt\n\t"
        "strgt r6, [r2, r12, lsl #1]\n\t"
        "10:\n\t"
        "add sp, sp, #44\n\t"
        "pop {r4-r11, pc}\n\t"
        ".balign 4\n"
        "11:\n\t"
        ".word 4b - 11b + 1, 5b - 11b + 1, 6b - 11b + 1, 2b - 11b + 1, 7b - 11b + 1\n\t");
}

#else

static int32_t ec_low(uint32_t word)
{
    return (int16_t)word;
}

static int32_t ec_high(uint32_t word)
{
    return (int32_t)word >> 16;
}

/* Four sums of one channel, whose words are every second one from `plane` on. */
static void ec_sum_four(const ec_sweep_t *s, const uint32_t *plane, int32_t channel, uint32_t *sums)
{
    for (int32_t i = 0; i < EC_PIXELS; ++i) sums[i] = s->stream[channel];
    for (const uint32_t *w = s->stream + 2; w < s->factors; w += EC_GROUP_WORDS) {
        const uint32_t front = w[2 * channel], back = w[2 * channel + 1];
        for (int32_t i = 0; i < EC_PIXELS; ++i) {
            const uint32_t *at = plane + (s->stride == 1 ? i / 2 : i) * 2;
            if (s->stride == 1 && i % 2 != 0) {
                sums[i] = ec_mac_pair(at[2], back, sums[i]);
                sums[i] += (uint32_t)(ec_high(at[0]) * ec_low(front));
            } else {
                sums[i] = ec_mac_pair(at[0], front, sums[i]);
                sums[i] += (uint32_t)(ec_low(at[2]) * ec_high(back));
            }
        }
        plane += w[4] / sizeof(*plane);
    }
}

static int16_t ec_result(const ec_sweep_t *s, uint32_t sum, uint32_t factor)
{
    const int32_t x = ec_high_round((int32_t)sum, (int32_t)factor);
    return (int16_t)ec_clamp(x, (int16_t)s->low, (int16_t)s->high);
}

static void ec_sweep(const ec_sweep_t *s)
{
    int8_t *out = (int8_t *)s->out;
    const uint32_t *plane = s->plane;
    for (int32_t left = s->left; left > 0; left -= EC_PIXELS) {
        uint32_t u[EC_PIXELS], v[EC_PIXELS];
        ec_sum_four(s, plane, 0, u);
        ec_sum_four(s, plane + 1, 1, v);
        for (int32_t i = 0; i < EC_PIXELS && i < left; ++i) {
            const int16_t both[] = {
                ec_result(s, u[i], s->factors[0]),
                ec_result(s, v[i], s->factors[1]),
            };
            memcpy(out, both, sizeof(both));
            out += s->step;
        }
        plane += s->plane_step / (int32_t)sizeof(*plane);
    }
}

#endif

/* The weights of output channels `channel` and the next one, their biases before, their factors
 * behind: per group (w0, w1) and (w1, w2) of either channel, and between groups the bytes from one's
 * place to the next one's. Returns where the factors are. */
static uint32_t *ec_write_stream(const ec_depthwise_s16_t *p, int32_t channel, uint32_t *to)
{
    const int32_t count = p->kernel * p->groups;
    const int32_t pair = 2 * (int32_t)sizeof(*to);
    const int32_t next_line = (p->dilation * p->pairs - (p->groups - 1)) * pair;
    const int8_t *first = p->weights + (ptrdiff_t)channel * count * EC_GROUP;
    const int8_t *second = first + (ptrdiff_t)count * EC_GROUP;
    int32_t left = p->groups; /* of this kernel line */
    *to++ = (uint32_t)p->bias[channel];
    *to++ = (uint32_t)p->bias[channel + 1];
    for (int32_t i = 0; i < count; ++i) {
        --left;
        to[0] = (uint16_t)first[0] | (uint32_t)first[1] << 16;
        to[1] = (uint16_t)first[1] | (uint32_t)first[2] << 16;
        to[2] = (uint16_t)second[0] | (uint32_t)second[1] << 16;
        to[3] = (uint16_t)second[1] | (uint32_t)second[2] << 16;
        to[4] = (uint32_t)(left == 0 ? next_line : pair);
        if (left == 0) left = p->groups;
        first += EC_GROUP;
        second += EC_GROUP;
        to += EC_GROUP_WORDS;
    }
    --to; /* nothing comes behind the last group */
    to[0] = (uint32_t)p->factors[channel];
    to[1] = (uint32_t)p->factors[channel + 1];
    return to;
}

/* The elements of two channels, `apart` elements from each other, in one word. */
EC_INLINE uint32_t ec_two(const int16_t *at, int32_t apart, const int side_by_side)
{
    uint32_t word;
    if (side_by_side) {
        memcpy(&word, at, sizeof(word));
    } else {
        word = (uint16_t)at[0] | (uint32_t)at[apart] << 16;
    }
    return word;
}

static inline uint32_t *ec_put(uint32_t *to, uint32_t x, uint32_t y)
{
    to[0] = (x & 0xFFFFu) | y << 16;
    to[1] = x >> 16 | (y & 0xFFFF0000u);
    return to + 2;
}

/* `pairs` pairs of places from `at` on, which is moved on; both channels lie side by side. */
static inline uint32_t *ec_put_pairs(uint32_t *to, const int16_t **at, int32_t step, int32_t pairs)
{
    const int16_t *from = *at;
#if defined(__ARM_FEATURE_DSP)
    const int32_t bytes = step * (int32_t)sizeof(*from);
    uint32_t x, y, z;
#define EC_MOVE                                   \
    "ldr %[x], [%[from]]\n\t"                     \
    "ldr %[y], [%[from], %[bytes]]\n\t"           \
    "add %[from], %[from], %[bytes], lsl #1\n\t"  \
    "pkhbt %[z], %[x], %[y], lsl #16\n\t"         \
    "pkhtb %[y], %[y], %[x], asr #16\n\t"         \
    "strd %[z], %[y], [%[to]], #8\n\t"
    __asm__ volatile(
        "subs %[pairs], #4\n\t"
        "blt 2f\n"
        "1:\n\t"
        EC_MOVE EC_MOVE EC_MOVE EC_MOVE
        "subs %[pairs], #4\n\t"
        "bge 1b\n"
        "2:\n\t"
        "lsls %[pairs], %[pairs], #31\n\t" /* bits 1 and 0 of what is left */
        "bcc 3f\n\t"
        EC_MOVE EC_MOVE
        "3:\n\t"
        "bpl 4f\n\t"
        EC_MOVE
        "4:"
        : [to] "+r"(to), [from] "+r"(from), [pairs] "+r"(pairs), [x] "=&r"(x), [y] "=&r"(y),
          [z] "=&r"(z)
        : [bytes] "r"(bytes)
        : "cc", "memory");
#undef EC_MOVE
#else
    for (; pairs > 0; --pairs) {
        to = ec_put(to, ec_two(from, 1, 1), ec_two(from + step, 1, 1));
        from += 2 * step;
    }
#endif
    *at = from;
    return to;
}

/* One line of the map, padded, as p->pairs pairs of places. */
EC_INLINE void ec_gather_line(const ec_depthwise_s16_t *p, const int16_t *line, int32_t apart,
                              uint32_t *to, const int side_by_side)
{
    const ec_depthwise_s16_axis_t *a = &p->along;
    const uint32_t *const end = to + 2 * p->pairs;
    int32_t left = 2 * p->pairs - a->pad; /* places of the map */
    left = ec_clamp(left, 0, a->size);
    for (int32_t i = a->pad / 2; i > 0 && to != end; --i) to = ec_put(to, 0, 0);
    if (a->pad % 2 != 0 && left > 0) {
        to = ec_put(to, 0, ec_two(line, apart, side_by_side));
        line += a->in_step;
        --left;
    }
    if (side_by_side) {
        to = ec_put_pairs(to, &line, a->in_step, left / 2);
    } else {
        for (int32_t i = left / 2; i > 0; --i) {
            to = ec_put(to, ec_two(line, apart, 0), ec_two(line + a->in_step, apart, 0));
            line += 2 * a->in_step;
        }
    }
    if (left % 2 != 0 && left > 0) to = ec_put(to, ec_two(line, apart, side_by_side), 0);
    while (to != end) to = ec_put(to, 0, 0);
}

/* The plane of two channels: `in` is the first one's in the first pixel. */
static void ec_gather(const ec_depthwise_s16_t *p, const int16_t *in, int32_t apart, uint32_t *to)
{
    int32_t at = -p->across.pad;
    for (int32_t i = p->lines; i > 0; --i) {
        uint32_t *const end = to + 2 * p->pairs;
        if (at < 0 || at >= p->across.size) {
            while (to != end) to = ec_put(to, 0, 0);
        } else if (apart == 1) {
            ec_gather_line(p, in + (ptrdiff_t)at * p->across.in_step, apart, to, 1);
        } else {
            ec_gather_line(p, in + (ptrdiff_t)at * p->across.in_step, apart, to, 0);
        }
        to = end;
        ++at;
    }
}

/* One output line of the first of two channels alone. */
static void ec_sweep_one(ec_sweep_t s)
{
    int8_t *out = (int8_t *)s.out;
    const int32_t step = s.step;
    for (int32_t left = s.left; left > 0; left -= EC_PIXELS) {
        int16_t results[EC_PIXELS][2];
        s.out = results[0];
        s.step = sizeof(results[0]);
        s.left = left < EC_PIXELS ? left : EC_PIXELS;
        ec_sweep(&s);
        for (int32_t i = 0; i < s.left; ++i) {
            memcpy(out, results[i], sizeof(results[i][0]));
            out += step;
        }
        s.plane += s.plane_step / (int32_t)sizeof(*s.plane);
    }
}

void ec_depthwise_s16(const ec_depthwise_s16_t *p, const int16_t *in, int16_t *out, void *scratch)
{
    uint32_t *const stream = scratch;
    uint32_t *const plane = stream + 3 + EC_GROUP_WORDS * p->kernel * p->groups;
    const int32_t in_size = p->along.size * p->across.size * p->in_channels;
    const int32_t out_size = p->along.out * p->across.out * p->out_channels;
    ec_sweep_t s = {
        .step = p->along.out_step * (int32_t)sizeof(*out),
        .left = p->along.out,
        .plane_step = EC_PIXELS * p->along.stride * (int32_t)sizeof(*plane),
        .stream = stream,
        .ending = p->ending,
        .stride = p->along.stride,
        .low = ec_twice_s16(p->low),
        .high = ec_twice_s16(p->high),
    };
    for (int32_t batch = 0; batch < p->batches; ++batch) {
        for (int32_t channel = 0; channel < p->out_channels; channel += 2) {
            const int alone = channel + 1 == p->out_channels;
            const int32_t first = channel / p->fan;
            const int32_t apart = alone ? 0 : (channel + 1) / p->fan - first;
            s.factors = ec_write_stream(p, channel, stream);
            ec_gather(p, in + first, apart, plane);
            s.plane = plane;
            s.out = out + channel;
            for (int32_t line = 0; line < p->across.out; ++line) {
                if (alone) {
                    ec_sweep_one(s);
                } else {
                    ec_sweep(&s);
                }
                s.plane += (ptrdiff_t)2 * p->pairs * p->across.stride;
                s.out += p->across.out_step;
            }
        }
        in += in_size;
        out += out_size;
    }
}
