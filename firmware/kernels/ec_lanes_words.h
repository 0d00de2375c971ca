/* ec_lanes.h for cores with the DSP extension: 16 channels, or 4. */
#ifndef EC_LANES_WORDS_H
#define EC_LANES_WORDS_H

#include "ec_lanes.h"

enum { EC_LANES = 16 };

/* How many channels are taken together when `left` are to do. */
EC_INLINE int32_t ec_lanes(int32_t left) { return left >= EC_LANES ? EC_LANES : left >= 4 ? 4 : 1; }

/* Bytes 0 and 2 (1 and 3) of a word added to two halfwords. */
EC_INLINE uint32_t ec_add_even(uint32_t sum, uint32_t word)
{
#if defined(__ARM_FEATURE_DSP)
    return (uint32_t)__sxtab16((int16x2_t)sum, (int8x4_t)word);
#else
    return ((sum + ec_bytes_even(word)) & 0xFFFFu) |
           ((sum & 0xFFFF0000u) + (ec_bytes_even(word) & 0xFFFF0000u));
#endif
}

EC_INLINE uint32_t ec_add_odd(uint32_t sum, uint32_t word)
{
#if defined(__ARM_FEATURE_DSP)
    __asm__("sxtab16 %0, %0, %1, ror #8" : "+r"(sum) : "r"(word));
    return sum;
#else
    return ec_add_even(sum, word >> 8);
#endif
}

/* Four channels' sums, in the order 0 2, 1 3. */
typedef struct {
    uint32_t even;
    uint32_t odd;
} ec_quad_t;

EC_INLINE void ec_quad_add(ec_quad_t *quad, const int8_t *x)
{
    const uint32_t word = ec_load_u32(x);
    quad->even = ec_add_even(quad->even, word);
    quad->odd = ec_add_odd(quad->odd, word);
}

EC_INLINE void ec_quad_store(const ec_quad_t *quad, int16_t halves[4])
{
    halves[0] = (int16_t)quad->even;
    halves[1] = (int16_t)quad->odd;
    halves[2] = (int16_t)(quad->even >> 16);
    halves[3] = (int16_t)(quad->odd >> 16);
}

EC_INLINE void ec_quads(const ec_field_t *f, const int8_t *in, int16_t *halves, const int all)
{
    ec_quad_t a = {0, 0}, b = a, c = a, d = a;
    const int32_t step = f->column;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            ec_quad_add(&a, x);
            if (all) {
                ec_quad_add(&b, x + 4);
                ec_quad_add(&c, x + 8);
                ec_quad_add(&d, x + 12);
            }
            x += step;
        }
    }
    ec_quad_store(&a, halves);
    if (all) {
        ec_quad_store(&b, halves + 4);
        ec_quad_store(&c, halves + 8);
        ec_quad_store(&d, halves + 12);
    }
}

/* Sums of EC_LANES or four channels, for 256 values of each at most. */
static inline void ec_lanes_halves(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                   int16_t halves[EC_LANES])
{
    ec_quads(f, in, halves, lanes == EC_LANES);
}

/* The greater one of each of four signed bytes. */
EC_INLINE uint32_t ec_quad_most(uint32_t a, uint32_t b)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t most;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(most) : "r"(a), "r"(b) : "cc");
    return most;
#else
    uint32_t most = 0;
    EC_UNROLL for (int32_t i = 0; i < 32; i += 8) {
        const int8_t x = (int8_t)(a >> i), y = (int8_t)(b >> i);
        most |= (uint32_t)(uint8_t)(x > y ? x : y) << i;
    }
    return most;
#endif
}

EC_INLINE void ec_quads_most(const ec_field_t *f, const int8_t *in, int8_t *most, const int all)
{
    uint32_t a = 0x80808080u, b = a, c = a, d = a;
    const int32_t step = f->column;
    for (int32_t y = 0; y < f->rows; y++) {
        const int8_t *x = in + y * f->row;
        for (int32_t left = f->columns; left > 0; left--) {
            a = ec_quad_most(a, ec_load_u32(x));
            if (all) {
                b = ec_quad_most(b, ec_load_u32(x + 4));
                c = ec_quad_most(c, ec_load_u32(x + 8));
                d = ec_quad_most(d, ec_load_u32(x + 12));
            }
            x += step;
        }
    }
    memcpy(most, &a, sizeof(a));
    if (all) {
        memcpy(most + 4, &b, sizeof(b));
        memcpy(most + 8, &c, sizeof(c));
        memcpy(most + 12, &d, sizeof(d));
    }
}

/* The greatest value of each of `lanes` channels, a number that ec_lanes gives. */
static inline void ec_lanes_most(const ec_field_t *f, const int8_t *in, int32_t lanes,
                                 int8_t most[EC_LANES])
{
    if (lanes > 1) {
        ec_quads_most(f, in, most, lanes == EC_LANES);
    } else {
        most[0] = (int8_t)ec_lane_most(f, in);
    }
}

#endif
