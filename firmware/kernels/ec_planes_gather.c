#include "ec_planes_gather.h"

#include <stddef.h>

#include "ec_math.h"
#include "ec_planes_sweep.h"

#if defined(__ARM_FEATURE_DSP)

/* The gathering needs all 14 registers: functions without prologue. */
#define EC_NAKED __attribute__((naked, noinline))
#define EC_UNUSED __attribute__((unused))

/* Four words, one per plane, of the inputs in r8 and r9 plus the halves of `zero`: plane 0's to
 * `first`, then plane 1's to r10, 2's to r11 and 3's to r9. */
#define EC_PAIR_UP(zero, first)                                                                    \
    "pkhbt r10, r8, r9, lsl #16\n\t"                                                               \
    "pkhtb r9, r9, r8, asr #16\n\t"                                                                \
    "sxtab16 " first ", " zero ", r10\n\t"                                                         \
    "sxtab16 r10, " zero ", r10, ror #8\n\t"                                                       \
    "sxtab16 r11, " zero ", r9\n\t"                                                                \
    "sxtab16 r9, " zero ", r9, ror #8\n\t"

/* r0 upper, r1 lower, r2 plane, r3 upper step, r4 plane, r5 three planes, r6 zero, r7 lower step,
 * lr end, r8-r12 work. */
EC_NAKED void ec_planes_gather_word(EC_UNUSED const int8_t *upper, EC_UNUSED const int8_t *lower,
                                    EC_UNUSED uint32_t *to, EC_UNUSED const ec_planes_gather_t *g,
                                    EC_UNUSED int32_t upper_step, EC_UNUSED int32_t lower_step)
{
    __asm__ volatile("push {r4-r12, lr}\n\t"
                     "ldm r3, {r3-r8}\n\t"
                     "add lr, r2, r8\n\t"
                     "ldr r3, [sp, #40]\n\t"
                     "ldr r7, [sp, #44]\n"
                     "1:\n\t"
                     "ldr r8, [r0]\n\t"
                     "ldr r9, [r1]\n\t"
                     "add r0, r0, r3\n\t"
                     "add r1, r1, r7\n\t" EC_PAIR_UP("r6", "r12")
                     "str r10, [r2, r4]\n\t"
                     "str r11, [r2, r4, lsl #1]\n\t"
                     "str r9, [r2, r5]\n\t"
                     "str r12, [r2], #16\n\t"
                     "cmp r2, lr\n\t"
                     "bne 1b\n\t"
                     "pop {r4-r12, pc}");
}

/* r0 input, r1 plane, r2 row, r3 plane, r4 three planes, r5 zero, r6 back, r7 end, r8-r12 work. */
#define EC_GATHER_PAIR(advance, next)                                                              \
    "ldr r8, [r0]\n\t"                                                                             \
    "ldr r9, [r0, r2]\n\t"                                                                         \
    "add r0, r0, " advance "\n\t"                                                                  \
    EC_PAIR_UP("r5", "r12")                                                                        \
    "str r10, [r1, r3]\n\t"                                                                        \
    "str r11, [r1, r3, lsl #1]\n\t"                                                                \
    "str r9, [r1, r4]\n\t"                                                                         \
    "str r12, [r1], #" next "\n\t"

EC_NAKED void ec_planes_gather_six(EC_UNUSED const int8_t *in, EC_UNUSED uint32_t *to,
                                   EC_UNUSED const ec_planes_gather_t *g)
{
    __asm__ volatile("push {r4-r12, lr}\n\t"
                     "ldm r2, {r2-r7}\n\t"
                     "add r7, r7, r1\n"
                     "1:\n\t"
                     /* clang-format off */
                     EC_GATHER_PAIR("r2, lsl #1", "4")
                     EC_GATHER_PAIR("r2, lsl #1", "4")
                     EC_GATHER_PAIR("r6", "8")
                     /* clang-format on */
                     "cmp r1, r7\n\t"
                     "bne 1b\n\t"
                     "pop {r4-r12, pc}");
}

#else

void ec_planes_gather_word(const int8_t *upper, const int8_t *lower, uint32_t *to,
                           const ec_planes_gather_t *g, int32_t upper_step, int32_t lower_step)
{
    const int32_t zero = (int16_t)g->zero;
    for (int32_t lane = 0; lane < 4; ++lane, ++upper, ++lower, to += g->plane / 4) {
        const int8_t *a = upper, *b = lower;
        for (int32_t i = 0; i < g->span / 4; i += EC_PLANES_WORDS) {
            to[i] = ((uint32_t)(zero + *a) & 0xFFFFu) | (uint32_t)(zero + *b) << 16;
            a += upper_step;
            b += lower_step;
        }
    }
}

void ec_planes_gather_six(const int8_t *in, uint32_t *to, const ec_planes_gather_t *g)
{
    const int32_t pixel = g->back + 4 * g->row;
    for (int32_t word = 0; word < 3; ++word, in += 2 * (ptrdiff_t)g->row) {
        ec_planes_gather_word(in, in + g->row, to + word, g, pixel, pixel);
    }
}

#endif
