/* What the kernels for int16 activations share: sums of four pixels and two channels become results,
 * round(sum * factor / 2^32), halves up. */
#ifndef EC_S16_H
#define EC_S16_H

#include <stdint.h>

#include "ec_math.h"

#if defined(__ARM_FEATURE_DSP)

/* Both channels of one pixel become a word; r2 and r3 are their factors. */
#define EC_SCALE_S16(a, b, saturate, bits)      \
    "smmulr " a ", " a ", r2\n\t"               \
    "smmulr " b ", " b ", r3\n\t"               \
    saturate " " a ", #" bits ", " a "\n\t"     \
    saturate " " b ", #" bits ", " b "\n\t"     \
    "pkhbt " a ", " a ", " b ", lsl #16\n\t"

/* r4 to r7 and r8 to r11 become words in r4 to r7; r1 points to the factors. */
#define EC_SCALE_QUAD_S16(saturate, bits)       \
    "ldmia r1!, {r2, r3}\n\t"                   \
    EC_SCALE_S16("r4", "r8", saturate, bits)    \
    EC_SCALE_S16("r5", "r9", saturate, bits)    \
    EC_SCALE_S16("r6", "r10", saturate, bits)   \
    EC_SCALE_S16("r7", "r11", saturate, bits)

/* Limits two halfwords: those in `low` from below, those in `high` from above. */
#define EC_LIMIT_S16(a, low, high, spare)       \
    "ssub16 " spare ", " a ", " low "\n\t"      \
    "sel " a ", " a ", " low "\n\t"             \
    "ssub16 " spare ", " high ", " a "\n\t"     \
    "sel " a ", " a ", " high "\n\t"

#else

static inline int32_t ec_high_round(int32_t sum, int32_t factor)
{
    return (int32_t)(((int64_t)sum * factor + (INT64_C(1) << 31)) >> 32);
}

#endif

/* A value in both halfwords. */
static inline uint32_t ec_twice_s16(int32_t x)
{
    return (uint16_t)x * 0x10001u;
}

#endif
