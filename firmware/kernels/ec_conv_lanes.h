/* ec_conv for cores without the DSP extension: one product of 32 bits serves two pixels.
 *
 * Scratch holds a word a + b * 2^16 per weight: the inputs of both pixels, as two lanes. A weight
 * times that word is both products, and so is the sum of two: each lies in -32512..32768 (weights
 * and inputs of -128 included), and EC_LANES_START moves the low lane's to 255..65535 and the high
 * lane's by -1, where they fit 16 bits. The high lane's sum `high` then grows by s >> 16, and `both`
 * by s itself: modulo 2^32 the low lane's sum is what is left of `both` without the high lane's.
 */
#ifndef EC_CONV_LANES_H
#define EC_CONV_LANES_H

#include <stddef.h>
#include <string.h>

#include "ec_conv_store.h"
#include "ec_math.h"

#define EC_LANES_LOW 32767u
#define EC_LANES_START (EC_LANES_LOW - 65536u)

/* The sums of one channel. */
typedef struct {
    uint32_t both;
    uint32_t high;
} ec_lanes_t;

/* Sums that will be `bias` and the products of `weights` weights, an even number. */
static inline ec_lanes_t ec_lanes_start(uint32_t bias, int32_t weights)
{
    const uint32_t steps = (uint32_t)weights / 2u;
    const uint32_t high = bias + steps;
    const ec_lanes_t sums = {.both = (high << 16) + bias - EC_LANES_LOW * steps, .high = high};
    return sums;
}

static inline uint32_t ec_lanes_low(ec_lanes_t sums)
{
    return sums.both - (sums.high << 16);
}

/* Two weights times their words, `acts`. */
EC_INLINE void ec_lanes_step(ec_lanes_t *sums, int32_t w0, int32_t w1, const uint32_t *acts)
{
    uint64_t words;
    memcpy(&words, __builtin_assume_aligned(acts, 8), sizeof(words)); /* LDRD */
    uint32_t s = (uint32_t)w0 * (uint32_t)words + EC_LANES_START;
    EC_PIN(s); /* compilers would add EC_LANES_START to the sum, by an instruction of its own */
    s += (uint32_t)w1 * (uint32_t)(words >> 32);
    sums->both += s;
    sums->high += (uint32_t)((int32_t)s >> 16);
}

/* A word of a channel's weights: four, or with `nibbles` eight (four low ones, then four high). */
EC_INLINE void ec_lanes_word(ec_lanes_t *sums, const int8_t *w, const uint32_t *acts,
                             const int nibbles)
{
    if (nibbles) {
        EC_UNROLL for (int32_t i = 0; i < 4; i += 2) {
            ec_lanes_step(sums, (int8_t)(w[i] * 16) >> 4, (int8_t)(w[i + 1] * 16) >> 4, acts + i);
            ec_lanes_step(sums, w[i] >> 4, w[i + 1] >> 4, acts + 4 + i);
        }
    } else {
        ec_lanes_step(sums, w[0], w[1], acts);
        ec_lanes_step(sums, w[2], w[3], acts + 2);
    }
}

/* Two weights, at bytes `first` and `second`, times the words at `acts` (ARMv6-M). */
#define EC_LANES_STEP1(first, second, acts0, acts1)         \
    "movs %[w], #" first "\n\t"                             \
    "ldrsb %[w], [%[weights], %[w]]\n\t"                    \
    "ldr %[x], [%[acts], #" acts0 "]\n\t"                   \
    "muls %[x], %[w], %[x]\n\t"                             \
    "movs %[w], #" second "\n\t"                            \
    "ldrsb %[w], [%[weights], %[w]]\n\t"                    \
    "ldr %[y], [%[acts], #" acts1 "]\n\t"                   \
    "muls %[y], %[w], %[y]\n\t"                             \
    "add %[x], %[start]\n\t"                                \
    "adds %[x], %[x], %[y]\n\t"                             \
    "adds %[both], %[both], %[x]\n\t"                       \
    "asrs %[x], %[x], #16\n\t"                              \
    "adds %[high], %[high], %[x]\n\t"

/* The products of one channel, whose words lie `stride` words apart, until `weights` passes `end`.
 */
EC_INLINE void ec_lanes_one(ec_lanes_t *sums, const uint32_t *acts, const uint32_t *weights,
                            const uint32_t *end, const int stride, const int nibbles)
{
#if defined(__thumb__) && !defined(__thumb2__)
    if (!nibbles && stride == 2) {
        /* 56 instructions for 16 products, 72 by gcc. */
        uint32_t x, y, w;
        __asm__ volatile(
            ".syntax unified\n\t"
            "1:\n\t"
            EC_LANES_STEP1("0", "1", "0", "4")
            EC_LANES_STEP1("2", "3", "8", "12")
            EC_LANES_STEP1("8", "9", "16", "20")
            EC_LANES_STEP1("10", "11", "24", "28")
            "adds %[acts], #32\n\t"
            "adds %[weights], #16\n\t"
            "cmp %[weights], %[end]\n\t"
            "blo 1b"
            : [both] "+l"(sums->both), [high] "+l"(sums->high), [acts] "+l"(acts),
              [weights] "+l"(weights), [x] "=&l"(x), [y] "=&l"(y), [w] "=&l"(w)
            : [end] "h"(end), [start] "h"(EC_LANES_START)
            : "cc", "memory");
        return;
    }
#endif
    for (; weights < end; weights += stride) {
        ec_lanes_word(sums, (const int8_t *)weights, acts, nibbles);
        acts += nibbles ? 8 : 4;
    }
}

#if defined(__thumb2__)
/* 2 * place and 2 * place + 1 of eight weights of channels u and v; `next` goes to the next eight. */
#define EC_LANES_STEP(u0, u1, v0, v1, place, next_acts, next_weights)    \
    "ldrd %[a], %[b], [%[acts]" place next_acts "\n\t"                   \
    "ldrsb %[s], [%[weights], #" v0 "]\n\t"                              \
    "ldrsb %[w], [%[weights], #" u1 "]\n\t"                              \
    "ldrsb %[t], [%[weights], #" v1 "]\n\t"                              \
    "mla %[s], %[s], %[a], %[start]\n\t"                                 \
    "mla %[s], %[t], %[b], %[s]\n\t"                                     \
    "ldrsb %[t], [%[weights]" u0 next_weights "\n\t"                     \
    "add %[v_both], %[v_both], %[s]\n\t"                                 \
    "add %[v_high], %[v_high], %[s], asr #16\n\t"                        \
    "mla %[s], %[t], %[a], %[start]\n\t"                                 \
    "mla %[s], %[w], %[b], %[s]\n\t"                                     \
    "add %[u_both], %[u_both], %[s]\n\t"                                 \
    "add %[u_high], %[u_high], %[s], asr #16\n\t"
#endif

/* The products of two channels, a word each in turn. */
EC_INLINE void ec_lanes_two(ec_lanes_t *u, ec_lanes_t *v, const uint32_t *acts,
                            const uint32_t *weights, const uint32_t *end, const int nibbles)
{
#if defined(__thumb2__)
    if (!nibbles) {
        /* Eight weights a turn, the last first: the pointers move on with the first. Compilers
         * take 66 instructions for these 32 products; here it is 54. */
        uint32_t a, b, s, t, w;
        __asm__ volatile(
            "1:\n\t"
            EC_LANES_STEP(", #10]", "11", "14", "15", ", #24]", "", "")
            EC_LANES_STEP(", #8]", "9", "12", "13", ", #16]", "", "")
            EC_LANES_STEP(", #2]", "3", "6", "7", ", #8]", "", "")
            EC_LANES_STEP("]", "1", "4", "5", "]", ", #32", ", #16")
            "cmp %[weights], %[end]\n\t"
            "bne 1b"
            : [u_both] "+r"(u->both), [u_high] "+r"(u->high), [v_both] "+r"(v->both),
              [v_high] "+r"(v->high), [acts] "+r"(acts), [weights] "+r"(weights), [a] "=&r"(a),
              [b] "=&r"(b), [s] "=&r"(s), [t] "=&r"(t), [w] "=&r"(w)
            : [end] "r"(end), [start] "r"(EC_LANES_START)
            : "cc", "memory");
        return;
    }
#endif
    for (; weights != end; weights += 2) {
        ec_lanes_word(u, (const int8_t *)weights, acts, nibbles);
        ec_lanes_word(v, (const int8_t *)(weights + 1), acts, nibbles);
        acts += nibbles ? 8 : 4;
    }
}

/* One channel (`alone`) or two of both pixels; returns the weights that follow. */
EC_INLINE const uint32_t *ec_channels(const ec_conv_t *p, const uint32_t *acts,
                                      const uint32_t *weights, int32_t channel, int8_t *first,
                                      int8_t *second, const int alone, const int nibbles)
{
    const int32_t count = (nibbles ? 8 : 4) * p->words;
    const uint32_t *const end = weights + (ptrdiff_t)p->words * (alone ? 1 : 2);
    ec_lanes_t u = ec_lanes_start((uint32_t)p->bias[channel], count);
    ec_lanes_t v = {0, 0};
    if (!alone) v = ec_lanes_start((uint32_t)p->bias[channel + 1], count);
    if (alone) {
        ec_lanes_one(&u, acts, weights, end, 1, nibbles);
    } else if (EC_FEW_REGISTERS) {
        ec_lanes_one(&u, acts, weights, end, 2, nibbles);
        ec_lanes_one(&v, acts, weights + 1, end, 2, nibbles);
    } else {
        ec_lanes_two(&u, &v, acts, weights, end, nibbles);
    }
    const ec_sums_t sums = {ec_lanes_low(u), ec_lanes_low(v), u.high, v.high};
    ec_store(p, channel, sums, first, second, alone);
    return end;
}

/* A word per element of two pixels, `count` of them. */
static uint32_t *ec_lanes_run(uint32_t *to, const int8_t *a, const int8_t *b, int32_t count)
{
    for (; count >= 4; count -= 4) {
        EC_UNROLL for (int32_t i = 0; i < 4; ++i) {
            to[i] = (uint32_t)a[i] + ((uint32_t)b[i] << 16);
        }
        a += 4;
        b += 4;
        to += 4;
    }
    for (; count > 0; --count) {
        *to++ = (uint32_t)*a++ + ((uint32_t)*b++ << 16);
    }
    return to;
}

/* The same where a pixel may be padding (NULL): `zero` then takes the place of its inputs. */
static uint32_t *ec_lanes_edge(uint32_t *to, const int8_t *a, const int8_t *b, int32_t count,
                               int32_t zero)
{
    if (a != NULL && b != NULL) return ec_lanes_run(to, a, b, count);
    for (int32_t i = 0; i < count; ++i) {
        const int32_t low = a != NULL ? a[i] : zero;
        const int32_t high = b != NULL ? b[i] : zero;
        *to++ = (uint32_t)low + ((uint32_t)high << 16);
    }
    return to;
}

/* A row of the map under the kernel: its first input of the group, NULL where it is padding, and
 * the column of tap 0. */
typedef struct {
    const int8_t *from;
    int32_t column;
} ec_row_t;

static inline ec_row_t ec_row(const ec_conv_t *p, const int8_t *in, ec_conv_place_t at, int32_t ky,
                              int32_t group)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t y = at.row + ky * s->dilation_height;
    const ptrdiff_t row = ((ptrdiff_t)at.batch * s->in_height + y) * s->in_width;
    ec_row_t found = {.from = NULL, .column = at.column};
    if (y >= 0 && y < s->in_height) {
        found.from = in + row * s->in_channels + group * (s->in_channels / p->groups);
    }
    return found;
}

static inline const int8_t *ec_at(const ec_conv_shape_t *s, ec_row_t row, int32_t column)
{
    const int32_t x = row.column + column;
    return row.from != NULL && x >= 0 && x < s->in_width ? row.from + x * s->in_channels : NULL;
}

/* Gathers the inputs of pixels `pixel` and `last` for one group, zeros behind them. */
static void ec_gather(const ec_conv_t *p, const int8_t *in, int32_t pixel, int32_t last,
                      int32_t group, int32_t weights, void *scratch, int nibbles)
{
    (void)nibbles;
    const ec_conv_shape_t *s = &p->shape;
    const ec_conv_place_t first = ec_conv_place(s, pixel);
    const ec_conv_place_t second = ec_conv_place(s, last);
    const int32_t depth = s->in_channels / p->groups;
    const int32_t reach = (s->kernel_width - 1) * s->dilation_width;
    const int joined = p->groups == 1 && s->dilation_width == 1;
    uint32_t *to = scratch;
    uint32_t *const end = to + weights;
    for (int32_t ky = 0; ky < s->kernel_height; ++ky) {
        const ec_row_t a = ec_row(p, in, first, ky, group);
        const ec_row_t b = ec_row(p, in, second, ky, group);
        const int8_t *from_a = ec_at(s, a, 0), *from_b = ec_at(s, b, 0);
        if (joined && from_a && from_b && ec_at(s, a, reach) && ec_at(s, b, reach)) {
            to = ec_lanes_run(to, from_a, from_b, s->kernel_width * depth);
            continue;
        }
        for (int32_t x = 0; x <= reach; x += s->dilation_width) {
            to = ec_lanes_edge(to, ec_at(s, a, x), ec_at(s, b, x), depth, p->in_zero);
        }
    }
    while (to != end) {
        *to++ = 0;
    }
}

#endif
