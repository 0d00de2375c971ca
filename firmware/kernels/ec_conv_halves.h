/* ec_conv for cores with the DSP extension: two products at once (SMLAD).
 *
 * The inputs of two pixels are expanded to int16 in scratch, four elements at a time: elements 0 and
 * 2 of either pixel, then 1 and 3, as SXTB16 gives them for a word of int8 weights. One pass over a
 * pair of channels then makes four accumulators.
 */
#ifndef EC_CONV_HALVES_H
#define EC_CONV_HALVES_H

#include <stddef.h>
#include <string.h>

#include "ec_conv_source.h"
#include "ec_conv_store.h"
#include "ec_math.h"

enum { EC_ODD_WORD = 2, EC_STEP_WORDS = 4 };

/* Expands `count` words of int8; returns where the next one goes. */
static uint32_t *ec_expand(uint32_t *to, const int8_t *from, int32_t count)
{
    for (; count > 0; --count) {
        const uint32_t word = ec_load_u32(from);
        to[0] = ec_bytes_even(word);
        to[EC_ODD_WORD] = ec_bytes_odd(word);
        to += EC_STEP_WORDS;
        from += 4;
    }
    return to;
}

static uint32_t *ec_expand_fill(uint32_t *to, uint32_t pair, int32_t count)
{
    for (; count > 0; --count) {
        to[0] = pair;
        to[EC_ODD_WORD] = pair;
        to += EC_STEP_WORDS;
    }
    return to;
}

/* Expands the inputs of one output pixel and group, when in_channels / groups is a multiple of 4. */
static void ec_expand_aligned(const ec_conv_t *p, const ec_source_t *source, uint32_t *to)
{
    const uint32_t pad = (uint32_t)(uint16_t)p->in_zero * 0x10001u;
    const int32_t row_words = p->shape.kernel_width * (p->shape.in_channels / p->groups) / 4;
    const int8_t *row = source->from;
    to = ec_expand_fill(to, pad, source->rows.first * row_words);
    for (int32_t ky = source->rows.first; ky < source->rows.end; ++ky) {
        const int8_t *from = row;
        if (source->left > 0) to = ec_expand_fill(to, pad, source->left / 4);
        for (int32_t i = 0; i < source->runs; ++i) {
            to = ec_expand(to, from, source->run / 4);
            from += source->run_step;
        }
        if (source->right > 0) to = ec_expand_fill(to, pad, source->right / 4);
        row += source->row_step;
    }
    ec_expand_fill(to, pad, (p->shape.kernel_height - source->rows.end) * row_words);
}

/* Copies `count` bytes, words first; newlib's small memcpy goes byte by byte. */
static int8_t *ec_copy(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count >= 4; count -= 4) {
        const uint32_t word = ec_load_u32(from);
        memcpy(to, &word, sizeof(word));
        to += 4;
        from += 4;
    }
    for (; count > 0; --count) {
        *to++ = *from++;
    }
    return to;
}

static int8_t *ec_fill(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; --count) {
        *to++ = (int8_t)value;
    }
    return to;
}

/* The same for any number of channels: first as bytes to `bytes`. */
static void ec_expand_any(const ec_conv_t *p, const ec_source_t *source, int8_t *bytes, int32_t steps,
                          uint32_t *to)
{
    const int32_t row_size = p->shape.kernel_width * (p->shape.in_channels / p->groups);
    const int8_t *row = source->from;
    int8_t *next = ec_fill(bytes, p->in_zero, source->rows.first * row_size);
    for (int32_t ky = source->rows.first; ky < source->rows.end; ++ky) {
        const int8_t *from = row;
        if (source->left > 0) next = ec_fill(next, p->in_zero, source->left);
        for (int32_t i = 0; i < source->runs; ++i) {
            next = ec_copy(next, from, source->run);
            from += source->run_step;
        }
        if (source->right > 0) next = ec_fill(next, p->in_zero, source->right);
        row += source->row_step;
    }
    next = ec_fill(next, p->in_zero, (p->shape.kernel_height - source->rows.end) * row_size);
    ec_fill(next, 0, (int32_t)(bytes + 4 * steps - next));
    ec_expand(to, bytes, steps);
}

/* Adds four products to each sum; `u`, `v` hold four weights each. */
static inline void ec_step(ec_sums_t *sums, const uint32_t *acts, uint32_t u, uint32_t v)
{
    const uint32_t u_even = ec_bytes_even(u), u_odd = ec_bytes_odd(u);
    const uint32_t v_even = ec_bytes_even(v), v_odd = ec_bytes_odd(v);
    sums->au = ec_mac_pair(acts[0], u_even, sums->au);
    sums->bu = ec_mac_pair(acts[1], u_even, sums->bu);
    sums->av = ec_mac_pair(acts[0], v_even, sums->av);
    sums->bv = ec_mac_pair(acts[1], v_even, sums->bv);
    sums->au = ec_mac_pair(acts[2], u_odd, sums->au);
    sums->bu = ec_mac_pair(acts[3], u_odd, sums->bu);
    sums->av = ec_mac_pair(acts[2], v_odd, sums->av);
    sums->bv = ec_mac_pair(acts[3], v_odd, sums->bv);
}

/* Eight products for each sum per turn, until `weights` reaches `end`. */
static inline void ec_steps(ec_sums_t *sums, const uint32_t *acts, const uint32_t *weights,
                            const uint32_t *end)
{
#if defined(__ARM_FEATURE_DSP)
    /* Compilers spill accumulators here: 32 instructions for 32 products by hand, 40 by gcc. */
    uint32_t u, v, a, b, w;
    __asm__ volatile(
        "1:\n\t"
        ".rept 2\n\t"
        "ldrd %[u], %[v], [%[weights]], #8\n\t"
        "ldrd %[a], %[b], [%[acts]], #8\n\t"
        "sxtb16 %[w], %[u]\n\t"
        "smlad %[au], %[a], %[w], %[au]\n\t"
        "smlad %[bu], %[b], %[w], %[bu]\n\t"
        "sxtb16 %[w], %[v]\n\t"
        "smlad %[av], %[a], %[w], %[av]\n\t"
        "smlad %[bv], %[b], %[w], %[bv]\n\t"
        "ldrd %[a], %[b], [%[acts]], #8\n\t"
        "sxtb16 %[w], %[u], ror #8\n\t"
        "smlad %[au], %[a], %[w], %[au]\n\t"
        "smlad %[bu], %[b], %[w], %[bu]\n\t"
        "sxtb16 %[w], %[v], ror #8\n\t"
        "smlad %[av], %[a], %[w], %[av]\n\t"
        "smlad %[bv], %[b], %[w], %[bv]\n\t"
        ".endr\n\t"
        "cmp %[weights], %[end]\n\t"
        "bne 1b"
        : [au] "+r"(sums->au), [av] "+r"(sums->av), [bu] "+r"(sums->bu), [bv] "+r"(sums->bv),
          [acts] "+r"(acts), [weights] "+r"(weights), [u] "=&r"(u), [v] "=&r"(v), [a] "=&r"(a),
          [b] "=&r"(b), [w] "=&r"(w)
        : [end] "r"(end)
        : "cc", "memory");
#else
    do {
        ec_step(sums, acts, weights[0], weights[1]);
        ec_step(sums, acts + EC_STEP_WORDS, weights[2], weights[3]);
        acts += 2 * EC_STEP_WORDS;
        weights += 4;
    } while (weights != end);
#endif
}

/* One channel (`alone`) or two of both pixels; returns the weights that follow. */
EC_INLINE const uint32_t *ec_channels(const ec_conv_t *p, const uint32_t *acts,
                                      const uint32_t *weights, int32_t channel, int8_t *first,
                                      int8_t *second, const int alone, const int nibbles)
{
    const uint32_t bias_u = (uint32_t)p->bias[channel];
    const uint32_t bias_v = alone ? 0u : (uint32_t)p->bias[channel + 1];
    const uint32_t *const end = weights + (ptrdiff_t)p->words * (alone ? 1 : 2);
    ec_sums_t sums = {bias_u, bias_v, bias_u, bias_v};
    if (nibbles) {
        sums = (ec_sums_t){0, 0, 0, 0};
        for (; weights != end; weights += alone ? 1 : 2) {
            const uint32_t u = weights[0];
            const uint32_t v = alone ? 0u : weights[1];
            ec_step(&sums, acts, ec_nibbles_low(u), ec_nibbles_low(v));
            acts += EC_STEP_WORDS;
            ec_step(&sums, acts, ec_nibbles_high(u), ec_nibbles_high(v));
            acts += EC_STEP_WORDS;
        }
        sums.au = bias_u + (uint32_t)((int32_t)sums.au >> 4);
        sums.bu = bias_u + (uint32_t)((int32_t)sums.bu >> 4);
        sums.av = bias_v + (uint32_t)((int32_t)sums.av >> 4);
        sums.bv = bias_v + (uint32_t)((int32_t)sums.bv >> 4);
    } else if (alone) {
        for (; weights != end; ++weights) {
            ec_step(&sums, acts, *weights, 0);
            acts += EC_STEP_WORDS;
        }
    } else {
        ec_steps(&sums, acts, weights, end);
    }
    ec_store(p, channel, sums, first, second, alone);
    return end;
}

/* Expands the inputs of pixels `pixel` and `last` for one group. */
EC_INLINE void ec_gather(const ec_conv_t *p, const int8_t *in, int32_t pixel, int32_t last,
                         int32_t group, int32_t weights, void *scratch, const int nibbles)
{
    (void)nibbles;
    const int32_t steps = weights / 4;
    const int aligned = p->shape.in_channels / p->groups % 4 == 0;
    uint32_t *acts = scratch;
    int8_t *bytes = (int8_t *)(acts + (ptrdiff_t)EC_STEP_WORDS * steps);
    for (int32_t i = 0; i < 2; ++i) {
        const ec_conv_place_t at = ec_conv_place(&p->shape, i ? last : pixel);
        const ec_source_t source = ec_source(p, in, at, group);
        if (aligned) {
            ec_expand_aligned(p, &source, acts + i);
        } else {
            ec_expand_any(p, &source, bytes, steps, acts + i);
        }
    }
}

#endif
