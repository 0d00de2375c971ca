/* Fixed-point arithmetic of TFLite Micro, bit for bit, for the integer kernels.
 *
 * Accumulators wrap modulo 2^32 as they do on the hardware: kernels add in uint32_t and convert at
 * the end, so that no signed overflow happens. A real factor is `multiplier` * 2^(shift - 31) with
 * multiplier in [2^30, 2^31) or 0 and shift in [-31, 30].
 */
#ifndef EC_MATH_H
#define EC_MATH_H

#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#endif

/* The kernels' form for cores with the DSP extension. A test may define it for any compiler. */
#if defined(__ARM_FEATURE_DSP) && !defined(EC_WITH_DSP)
#define EC_WITH_DSP
#endif

/* Helium with integers. */
#if defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE & 1
#define EC_WITH_MVE
#endif

/* ARMv6-M: eight registers, and products of 32 bits only. A test may define it as well. */
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB == 1 && !defined(EC_WITH_THUMB1)
#define EC_WITH_THUMB1
#endif
#if defined(EC_WITH_THUMB1)
#define EC_FEW_REGISTERS 1
#else
#define EC_FEW_REGISTERS 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels need a little-endian target"
#endif

/* A function that must become part of its caller, where constant arguments choose its form. */
#define EC_INLINE static inline __attribute__((always_inline))

/* Of functions that run a few times an inference: compiled for size. */
#define EC_COLD __attribute__((cold))

/* The loop that follows runs at most four times and becomes straight code. */
#define EC_UNROLL _Pragma("GCC unroll 4")

/* Computes `value` before anything that needs `next`: compilers that mix independent computations
 * run out of registers. */
#define EC_ORDER(value, next) __asm__("" : "+r"(next) : "r"(value))

/* Has `value` in a register here, so that what follows is not mixed with what made it. */
#define EC_PIN(value) __asm__("" : "+r"(value))

/* x clamped to [low, high]; `high` where low > high. */
static inline int32_t ec_clamp(int32_t x, int32_t low, int32_t high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* x clamped to [low, high]; NaN stays (TFLM ActivationFunctionWithMinMax). */
static inline float ec_clamp_f32(float x, float low, float high)
{
    x = x < low ? low : x;
    return high < x ? high : x;
}

/* round(a * b / 2^31), halves up (gemmlowp SaturatingRoundingDoublingHighMul; nothing saturates
 * unless a == b == INT32_MIN, and b, a multiplier, is never negative). */
static inline int32_t ec_doubling_high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

/* round(x / 2^exponent), halves away from zero, for 0 <= exponent <= 31 and every x (gemmlowp
 * RoundingDivideByPOT). */
static inline int32_t ec_rounding_shift_right(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1u);
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + ((x & mask) > threshold ? 1 : 0);
}

/* x * 2^shift modulo 2^32, for 0 <= shift <= 31. */
static inline int32_t ec_shift_left(int32_t x, int32_t shift)
{
    return (int32_t)((uint32_t)x << shift);
}

/* x times the real factor, rounded twice (TFLM MultiplyByQuantizedMultiplier(int32_t) with double
 * rounding). After the multiplication -2^31 < x < 2^31 - 1, so that both additions below are safe;
 * they compute ec_rounding_shift_right with two shifts less. */
static inline int32_t ec_requantize(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift >= 0) {
        return ec_doubling_high_mul(ec_shift_left(x, shift), multiplier);
    }
    x = ec_doubling_high_mul(x, multiplier);
    x += x >> 31;
    return ((x >> (-1 - shift)) + 1) >> 1;
}

/* round(a * b / 2^32), halves up, for |a| < 2^31 - 2^15. */
static inline int32_t ec_high_mul(int32_t a, int32_t b)
{
#if defined(EC_WITH_THUMB1)
    /* Lower halves are taken from -2^15 to 2^15 - 1, so that sums of products stay in 32 bits; the
     * lowest product matters to the rounding only by what it carries. */
    const int32_t a_low = (int16_t)a, a_high = (a - a_low) >> 16;
    const int32_t b_low = (int16_t)b, b_high = (b >> 16) + ((b >> 15) & 1);
    const int32_t carry = ((a_low * b_low) >> 16) + (INT32_C(1) << 15);
    return a_high * b_high + ((carry + a_high * b_low + a_low * b_high) >> 16);
#else
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 31)) >> 32);
#endif
}

/* The same as ec_requantize(x, multiplier, -right) + zero for |x| < 2^30 - 2^14, 1 <= right <= 22 and
 * |zero| <= 128, with `rounding` = ec_rounding_of(zero, right): adding half, one less for a
 * negative number, and flooring rounds halves away from zero. (x and its product differ in sign
 * only for x = -1 and multiplier = 2^30, where the result is zero either way.) */
static inline int32_t ec_requantize_right(int32_t x, int32_t multiplier, int32_t rounding,
                                          int32_t right)
{
#if defined(__ARM_FEATURE_DSP)
    int32_t scaled;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(scaled) : "r"(x * 2), "r"(multiplier), "r"(rounding));
#elif defined(EC_WITH_THUMB1)
    const int32_t scaled = ec_high_mul(2 * x, multiplier) + rounding;
#else
    const uint64_t start = (uint64_t)(uint32_t)rounding << 32 | UINT32_C(0x80000000);
    const int32_t scaled = (int32_t)((start + (uint64_t)((int64_t)(2 * x) * multiplier)) >> 32);
#endif
    return (scaled + (x >> 31)) >> right;
}

/* Half of 2^right, and `zero` times 2^right. */
static inline int32_t ec_rounding_of(int32_t zero, int32_t right)
{
    return ec_shift_left(2 * zero + 1, right - 1);
}

/* x saturated to int8 (SSAT). */
static inline int32_t ec_saturate_s8(int32_t x)
{
#if defined(__ARM_FEATURE_SAT)
    int32_t y;
    __asm__("ssat %0, #8, %1" : "=r"(y) : "r"(x));
    return y;
#else
    return ec_clamp(x, -128, 127);
#endif
}

/* x times the real factor, rounded once, with a multiplier cut to 16 bits (TFLM
 * MultiplyByQuantizedMultiplier(int64_t)); -31 <= shift <= 7 and |x| < 2^47. */
static inline int32_t ec_requantize_wide(int64_t x, int32_t multiplier, int32_t shift)
{
    const int32_t reduced =
        multiplier < 0x7FFF0000 ? (multiplier + (INT32_C(1) << 15)) >> 16 : 0x7FFF;
    const int32_t right = 15 - shift;
    const uint64_t product = (uint64_t)x * (uint64_t)(int64_t)reduced;
    return (int32_t)((int64_t)(product + (UINT64_C(1) << (right - 1))) >> right);
}

/* Four bytes at any address as a word, the first in the low bits. */
static inline uint32_t ec_load_u32(const int8_t *at)
{
#if defined(EC_WITH_THUMB1)
    const uint8_t *byte = (const uint8_t *)at; /* gcc would call memcpy */
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 |
           (uint32_t)byte[3] << 24;
#else
    uint32_t word;
    memcpy(&word, at, sizeof(word));
    return word;
#endif
}

/* Bytes 0 and 2 of a word as two signed halfwords (SXTB16). */
static inline uint32_t ec_bytes_even(uint32_t word)
{
#if defined(__ARM_FEATURE_DSP)
    return (uint32_t)__sxtb16((int8x4_t)word);
#else
    return (uint32_t)(uint16_t)(int8_t)word | (uint32_t)(uint16_t)(int8_t)(word >> 16) << 16;
#endif
}

/* Bytes 1 and 3 of a word as two signed halfwords (SXTB16 with a rotation, which compilers do not
 * fold by themselves). */
static inline uint32_t ec_bytes_odd(uint32_t word)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
#else
    return ec_bytes_even(word >> 8);
#endif
}

/* The low nibbles of a word as four int8, each times 16; and the high ones. */
static inline uint32_t ec_nibbles_low(uint32_t word)
{
    return (word << 4) & 0xF0F0F0F0u;
}

static inline uint32_t ec_nibbles_high(uint32_t word)
{
    return word & 0xF0F0F0F0u;
}

/* The products of the low halfwords, or of the high ones, added to `sum` (SMLABB, SMLATT). */
static inline uint32_t ec_mac_low(uint32_t a, uint32_t b, uint32_t sum)
{
    return sum + (uint32_t)((int32_t)(int16_t)a * (int16_t)b);
}

static inline uint32_t ec_mac_high(uint32_t a, uint32_t b, uint32_t sum)
{
    return sum + (uint32_t)(((int32_t)a >> 16) * ((int32_t)b >> 16));
}

/* Both products of two pairs of signed halfwords added to `sum` (SMLAD). */
static inline uint32_t ec_mac_pair(uint32_t a, uint32_t b, uint32_t sum)
{
#if defined(__ARM_FEATURE_DSP)
    return (uint32_t)__smlad((int16x2_t)a, (int16x2_t)b, (int32_t)sum);
#else
    return ec_mac_high(a, b, ec_mac_low(a, b, sum));
#endif
}

#endif
