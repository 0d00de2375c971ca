/* Bits: TFLM reference_integer_ops::DepthwiseConvPerChannel (int8).
 *
 * Four channels of the NHWC map are gathered at a time into four planes of int16 pairs, input minus
 * zero point: word j of a column holds rows 2j - pad_top (low half) and 2j + 1 - pad_top. A pair of
 * output rows (stride 1; one row with stride 2) needs words j and j + 1, P and Q, of three columns;
 * with the weights w0, w1, w2 of a column as the pairs (w0, w1) and (w1, w2)
 *     upper row += P . (w0, w1) + Q.low * w2        lower row += P.high * w0 + Q . (w1, w2)
 * so that 12 instructions make 18 products. Results go straight to the NHWC output, byte by byte.
 *
 * A plane holds one strip: four words to a column (three units, of two output rows or one), then
 * the next column; its columns are those that the outputs need, padding included, as zeros. The
 * last word of a strip is the first of the next.
 */
#include "ec_depthwise_pairs.h"

#include <stddef.h>
#include <string.h>

#include "ec_math.h"

enum { EC_WORDS = EC_PAIRS_COLUMN / 4, EC_UNITS = EC_WORDS - 1, EC_TAPS = 9 };

/* Constants of one output channel; `shift` 0: the short form. The sweeps below load them as ten
 * words in this order. */
typedef struct {
    int32_t shift;
    int32_t multiplier;
    int32_t rounding;
    int32_t bias;
    uint32_t weights[6]; /* (w0, w1), (w1, w2) of each column, times 2^k */
} ec_channel_t;

_Static_assert(sizeof(ec_channel_t) == EC_PAIRS_CHANNEL, "the sweeps rely on the layout");

/* What a sweep needs beside planes and constants, in bytes. The sweeps rely on the order. */
typedef struct {
    int32_t row;   /* from an output row to the next; 0: the lower row of a pair does not exist */
    int32_t pixel; /* from an output pixel to the next */
    int32_t span;  /* columns of a plane from the first output to behind the last */
    int32_t plane; /* from a plane to the next */
    int32_t count; /* channels */
    int32_t edge;  /* whether the first column of the planes is padding */
} ec_sweep_t;

/* The gathering of six rows. The code below relies on the order. */
typedef struct {
    int32_t row;      /* bytes from an input row to the next */
    int32_t plane;    /* bytes from a plane to the next */
    int32_t planes3;  /* three times that */
    uint32_t zero;    /* the zero point negated, in both halves */
    int32_t back;     /* bytes from the fifth row of a pixel to the first row of the next */
    int32_t span;     /* bytes of a plane that are gathered */
} ec_gather_t;

static void ec_prepare(const ec_depthwise_pairs_t *p, int32_t channel, int32_t count,
                       ec_channel_t *to)
{
    for (; count > 0; --count, ++channel, ++to) {
        const int8_t *w = p->weights + (ptrdiff_t)channel * EC_TAPS;
        const int32_t shift = p->shifts[channel];
        const int32_t scale = shift > 0 ? EC_PAIRS_FRACTION + 1 - shift : 1;
        to->multiplier = p->multipliers[channel];
        to->bias = ec_shift_left(p->bias[channel], scale);
        if (shift > 0) {
            to->shift = 0;
            to->rounding =
                ec_rounding_of(p->out_zero, EC_PAIRS_FRACTION) + ec_shift_left(1, scale - 2);
        } else {
            to->shift = -shift;
            to->rounding = ec_rounding_of(p->out_zero, -shift);
        }
        /* What leaves a low half would come into the high one. */
        const uint32_t mask = 0xFFFF0000u | 0xFFFFu >> scale;
        EC_UNROLL
        for (int32_t i = 0; i < 6; i += 2, w += 3) {
            const uint32_t word = ec_load_u32(w);
            const uint32_t even = ec_bytes_even(word), odd = ec_bytes_odd(word);
            to->weights[i] = (((even & 0xFFFFu) | odd << 16) & mask) << scale;
            to->weights[i + 1] = (((odd & 0xFFFFu) | (even & 0xFFFF0000u)) & mask) << scale;
        }
    }
}

#if defined(__ARM_FEATURE_DSP)

/* The sweeps and the gathering of six rows need all 14 registers: functions without prologue. */
#define EC_NAKED static __attribute__((naked, noinline))
#define EC_UNUSED __attribute__((unused))

/* Four words, one per plane, of the inputs in r8 and r9 plus the halves of `zero`: plane 0's to
 * `first`, then plane 1's to r10, 2's to r11 and 3's to r9. */
#define EC_PAIR_UP(zero, first)                                                                    \
    "sxtab16 r10, " zero ", r8\n\t"                                                                \
    "sxtab16 r8, " zero ", r8, ror #8\n\t"                                                         \
    "sxtab16 r11, " zero ", r9\n\t"                                                                \
    "sxtab16 r9, " zero ", r9, ror #8\n\t"                                                         \
    "pkhbt " first ", r10, r11, lsl #16\n\t"                                                       \
    "pkhtb r11, r11, r10, asr #16\n\t"                                                             \
    "pkhbt r10, r8, r9, lsl #16\n\t"                                                               \
    "pkhtb r9, r9, r8, asr #16\n\t"

/* One word of each plane from an upper and a lower row, which may be of one pixel (step 0).
 * r0 upper, r1 lower, r2 plane, r3 upper step, r4 plane, r5 three planes, r6 zero, r7 lower step,
 * lr end, r8-r12 work. */
EC_NAKED void ec_gather_word(EC_UNUSED const int8_t *upper, EC_UNUSED const int8_t *lower,
                             EC_UNUSED uint32_t *to, EC_UNUSED const ec_gather_t *g,
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

/* Words 1 to 3 of the four planes, from six rows at `in`; `to` is word 1.
 * r0 input, r1 plane, r2 row, r3 plane, r4 three planes, r5 zero, r6 back, r7 end, r8-r12 work. */
#define EC_GATHER_PAIR(advance, next)                                                              \
    "ldr r8, [r0]\n\t"                                                                             \
    "ldr r9, [r0, r2]\n\t"                                                                         \
    "add r0, r0, " advance "\n\t"                                                                  \
    EC_PAIR_UP("r5", "r12")                                                                        \
    "str r10, [r1, r3]\n\t"                                                                        \
    "str r11, [r1, r3, lsl #1]\n\t"                                                                \
    "str r9, [r1, r4]\n\t"                                                                         \
    "str r12, [r1], #" next "\n\t"

EC_NAKED void ec_gather_six(EC_UNUSED const int8_t *in, EC_UNUSED uint32_t *to,
                            EC_UNUSED const ec_gather_t *g)
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

/* A sweep makes the outputs of one unit (a row or a pair of rows) or three over the whole width,
 * for `count` channels; one of three units leaves the last word of each column as the first, for
 * the next strip. Its frame, from sp on:
 *   0 row, 4 pixel, 8 end of the plane, 12 constants of the channel (shift, multiplier, rounding,
 *   bias, weights), 52 span, 56 plane, 60 count, 64 edge, 68 next constants, 72 the channel's
 *   plane, 76 its output.
 * A channel starts with r0 = its plane, r1 = its output; it is done when r0 comes to the end. */
#define EC_SWEEP_BEGIN(pixel)                                                                      \
    "push {r4-r11, lr}\n\t"                                                                        \
    "sub sp, sp, #84\n\t"                                                                          \
    "strd r0, r1, [sp, #72]\n\t"                                                                   \
    "str r3, [sp, #68]\n\t"                                                                        \
    "ldm r2, {r4-r9}\n\t" pixel "strd r4, r5, [sp]\n\t"                                            \
    "add r4, sp, #52\n\t"                                                                          \
    "stm r4, {r6-r9}\n"                                                                            \
    "1:\n\t"                                                                                       \
    "ldr r12, [sp, #68]\n\t"                                                                       \
    "ldm r12!, {r2-r11}\n\t"                                                                       \
    "str r12, [sp, #68]\n\t"                                                                       \
    "add r12, sp, #12\n\t"                                                                         \
    "stm r12, {r2-r11}\n\t"                                                                        \
    "ldrd r0, r1, [sp, #72]\n\t"                                                                   \
    "ldrd r2, r3, [sp, #52]\n\t"                                                                   \
    "add r2, r2, r0\n\t"                                                                           \
    "str r2, [sp, #8]\n\t"                                                                         \
    "add r3, r3, r0\n\t"                                                                           \
    "add r2, r1, #1\n\t"                                                                           \
    "strd r3, r2, [sp, #72]\n\t"

#define EC_SWEEP_END                                                                               \
    "ldr r2, [sp, #60]\n\t"                                                                        \
    "subs r2, r2, #1\n\t"                                                                          \
    "str r2, [sp, #60]\n\t"                                                                        \
    "bne 1b\n\t"                                                                                   \
    "add sp, sp, #84\n\t"                                                                          \
    "pop {r4-r11, pc}"

/* A sum to int8, in the short form and in the long one. */
#define EC_SHORT(sum, multiplier, rounding)                                                        \
    "smmla " sum ", " sum ", " multiplier ", " rounding "\n\t"                                     \
    "ssat " sum ", #8, " sum ", asr #12\n\t"
#define EC_LONG(sum, multiplier, rounding, shift, work)                                            \
    "smmlar " work ", " sum ", " multiplier ", " rounding "\n\t"                                   \
    "add " sum ", " work ", " sum ", asr #31\n\t"                                                  \
    "asr " sum ", " sum ", " shift "\n\t"                                                          \
    "ssat " sum ", #8, " sum "\n\t"

_Static_assert(EC_PAIRS_FRACTION == 12, "EC_SHORT has it as an immediate");

/* The products of one column for the six rows r6-r11 of the words r2-r5; weights in r12, lr. */
#define EC_SINGLES_SIX                                                                             \
    "smlabt r6, r3, lr, r6\n\t"                                                                    \
    "smlatb r7, r2, r12, r7\n\t"                                                                   \
    "smlabt r8, r4, lr, r8\n\t"                                                                    \
    "smlatb r9, r3, r12, r9\n\t"                                                                   \
    "smlabt r10, r5, lr, r10\n\t"                                                                  \
    "smlatb r11, r4, r12, r11\n\t"
#define EC_FIRST_SIX                                                                               \
    "smlad r7, r3, lr, r6\n\t"                                                                     \
    "smlad r8, r3, r12, r6\n\t"                                                                    \
    "smlad r9, r4, lr, r6\n\t"                                                                     \
    "smlad r10, r4, r12, r6\n\t"                                                                   \
    "smlad r11, r5, lr, r6\n\t"                                                                    \
    "smlad r6, r2, r12, r6\n\t" EC_SINGLES_SIX
#define EC_ADD_SIX                                                                                 \
    "smlad r6, r2, r12, r6\n\t"                                                                    \
    "smlad r7, r3, lr, r7\n\t"                                                                     \
    "smlad r8, r3, r12, r8\n\t"                                                                    \
    "smlad r9, r4, lr, r9\n\t"                                                                     \
    "smlad r10, r4, r12, r10\n\t"                                                                  \
    "smlad r11, r5, lr, r11\n\t" EC_SINGLES_SIX

/* Three pairs of rows, stride 1. r0 is one column ahead: the columns of an output are read by
 * decrementing before, incrementing after and reading at r0, so that r0 moves by one column. The
 * first output goes without a first column of padding. */
EC_NAKED void ec_sweep_three_pairs(EC_UNUSED uint32_t *plane, EC_UNUSED int8_t *out,
                                   EC_UNUSED const ec_sweep_t *s,
                                   EC_UNUSED const ec_channel_t *channels)
{
    __asm__ volatile("add r0, r0, #16\n\t"
                     EC_SWEEP_BEGIN("sub r5, r5, r4\n\t") /* pixel: what is left after a row */
                     "ldr r2, [sp, #64]\n\t"
                     "ldr r6, [sp, #24]\n\t"
                     "cbz r2, 2f\n\t"
                     "ldm r0!, {r2-r5}\n\t"
                     "ldrd r12, lr, [sp, #36]\n\t" EC_FIRST_SIX
                     "b 3f\n"
                     "2:\n\t"
                     "ldmdb r0, {r2-r5}\n\t"
                     "ldrd r12, lr, [sp, #28]\n\t"
                     "ldr r6, [sp, #24]\n\t"
                     "str r5, [r0, #-16]\n\t" EC_FIRST_SIX
                     "ldm r0!, {r2-r5}\n\t"
                     "ldrd r12, lr, [sp, #36]\n\t" EC_ADD_SIX
                     "3:\n\t"
                     "ldm r0, {r2-r5}\n\t"
                     "ldrd r12, lr, [sp, #44]\n\t" EC_ADD_SIX
                     "ldm sp, {r2-r5, r12, lr}\n\t" /* row, pixel, end, shift, multiplier, rounding */
                     "cbz r5, 4f\n\t"
                     /* clang-format off */
                     EC_LONG("r6", "r12", "lr", "r5", "r4")
                     EC_LONG("r7", "r12", "lr", "r5", "r4")
                     EC_LONG("r8", "r12", "lr", "r5", "r4")
                     EC_LONG("r9", "r12", "lr", "r5", "r4")
                     EC_LONG("r10", "r12", "lr", "r5", "r4")
                     EC_LONG("r11", "r12", "lr", "r5", "r4")
                     /* clang-format on */
                     "ldr r4, [sp, #8]\n\t"
                     "b 5f\n"
                     "4:\n\t"
                     /* clang-format off */
                     EC_SHORT("r6", "r12", "lr")
                     EC_SHORT("r7", "r12", "lr")
                     EC_SHORT("r8", "r12", "lr")
                     EC_SHORT("r9", "r12", "lr")
                     EC_SHORT("r10", "r12", "lr")
                     EC_SHORT("r11", "r12", "lr")
                     /* clang-format on */
                     "5:\n\t"
                     "strb r6, [r1]\n\t"
                     "strb r7, [r1, r2]\n\t"
                     "strb r8, [r1, r2, lsl #1]\n\t"
                     "strb r10, [r1, r2, lsl #2]\n\t"
                     "add r1, r1, r2\n\t"
                     "strb r9, [r1, r2, lsl #1]\n\t"
                     "strb r11, [r1, r2, lsl #2]\n\t"
                     "add r1, r1, r3\n\t"
                     "cmp r0, r4\n\t"
                     "bne 2b\n\t"
                     "ldr r2, [r0, #-4]\n\t" /* two columns are left that begin no output */
                     "ldr r3, [r0, #12]\n\t"
                     "str r2, [r0, #-16]\n\t"
                     "str r3, [r0]\n\t" EC_SWEEP_END);
}

/* One pair of rows, stride 1, or only its upper row (row 0: the lower one is written first). */
EC_NAKED void ec_sweep_pair(EC_UNUSED uint32_t *plane, EC_UNUSED int8_t *out,
                            EC_UNUSED const ec_sweep_t *s, EC_UNUSED const ec_channel_t *channels)
{
    __asm__ volatile(EC_SWEEP_BEGIN("") /* weights to r4-r7 */
                     "ldrd r4, r5, [sp, #28]\n\t"
                     "ldrd r6, r7, [sp, #36]\n"
                     "2:\n\t"
                     "ldrd r2, r3, [r0], #16\n\t"
                     "ldr r11, [sp, #24]\n\t"
                     "smlad r10, r2, r4, r11\n\t"
                     "smlad r11, r3, r5, r11\n\t"
                     "smlabt r10, r3, r5, r10\n\t"
                     "smlatb r11, r2, r4, r11\n\t"
                     "ldrd r2, r3, [r0]\n\t"
                     "ldrd r12, lr, [sp, #44]\n\t"
                     "smlad r10, r2, r6, r10\n\t"
                     "smlad r11, r3, r7, r11\n\t"
                     "smlabt r10, r3, r7, r10\n\t"
                     "smlatb r11, r2, r6, r11\n\t"
                     "ldrd r2, r3, [r0, #16]\n\t"
                     "smlad r10, r2, r12, r10\n\t"
                     "smlad r11, r3, lr, r11\n\t"
                     "smlabt r10, r3, lr, r10\n\t"
                     "smlatb r11, r2, r12, r11\n\t"
                     "ldm sp, {r2, r3, r8, r9, r12, lr}\n\t" /* as above */
                     "cmp r9, #0\n\t"
                     "beq 3f\n\t"
                     /* clang-format off */
                     EC_LONG("r10", "r12", "lr", "r9", "r8")
                     EC_LONG("r11", "r12", "lr", "r9", "r8")
                     /* clang-format on */
                     "ldr r8, [sp, #8]\n\t"
                     "b 4f\n"
                     "3:\n\t"
                     /* clang-format off */
                     EC_SHORT("r10", "r12", "lr")
                     EC_SHORT("r11", "r12", "lr")
                     /* clang-format on */
                     "4:\n\t"
                     "strb r11, [r1, r2]\n\t"
                     "strb r10, [r1]\n\t"
                     "add r1, r1, r3\n\t"
                     "cmp r0, r8\n\t"
                     "bne 2b\n\t" EC_SWEEP_END);
}

/* Three rows, stride 2; weights in r9-r11 (w0, w1) and r12, lr (w2 of two columns, of the third). */
EC_NAKED void ec_sweep_three_rows(EC_UNUSED uint32_t *plane, EC_UNUSED int8_t *out,
                                  EC_UNUSED const ec_sweep_t *s,
                                  EC_UNUSED const ec_channel_t *channels)
{
    __asm__ volatile("add r0, r0, #16\n\t" /* one column ahead, as above */
                     EC_SWEEP_BEGIN("")
                     "ldrd r9, r2, [sp, #28]\n\t"
                     "ldrd r10, r3, [sp, #36]\n\t"
                     "ldr r11, [sp, #44]\n\t"
                     "pkhtb r2, r3, r2, asr #16\n\t"
                     "str r2, [sp, #44]\n"
                     "2:\n\t"
                     "ldmdb r0, {r2-r5}\n\t"
                     "ldrd r12, lr, [sp, #44]\n\t"
                     "ldr r6, [sp, #24]\n\t"
                     "str r5, [r0, #-16]\n\t"
                     "smlad r7, r3, r9, r6\n\t"
                     "smlad r8, r4, r9, r6\n\t"
                     "smlad r6, r2, r9, r6\n\t"
                     "smlabb r6, r3, r12, r6\n\t"
                     "smlabb r7, r4, r12, r7\n\t"
                     "smlabb r8, r5, r12, r8\n\t"
                     "ldm r0!, {r2-r5}\n\t"
                     "str r5, [r0, #-16]\n\t"
                     "smlad r6, r2, r10, r6\n\t"
                     "smlad r7, r3, r10, r7\n\t"
                     "smlad r8, r4, r10, r8\n\t"
                     "smlabt r6, r3, r12, r6\n\t"
                     "smlabt r7, r4, r12, r7\n\t"
                     "smlabt r8, r5, r12, r8\n\t"
                     "ldm r0!, {r2-r5}\n\t"
                     "smlad r6, r2, r11, r6\n\t"
                     "smlad r7, r3, r11, r7\n\t"
                     "smlad r8, r4, r11, r8\n\t"
                     "smlabt r6, r3, lr, r6\n\t"
                     "smlabt r7, r4, lr, r7\n\t"
                     "smlabt r8, r5, lr, r8\n\t"
                     "ldm sp, {r2-r5, r12, lr}\n\t" /* row, pixel, end, shift, multiplier, rounding */
                     "cbz r5, 3f\n\t"
                     /* clang-format off */
                     EC_LONG("r6", "r12", "lr", "r5", "r4")
                     EC_LONG("r7", "r12", "lr", "r5", "r4")
                     EC_LONG("r8", "r12", "lr", "r5", "r4")
                     /* clang-format on */
                     "ldr r4, [sp, #8]\n\t"
                     "b 4f\n"
                     "3:\n\t"
                     /* clang-format off */
                     EC_SHORT("r6", "r12", "lr")
                     EC_SHORT("r7", "r12", "lr")
                     EC_SHORT("r8", "r12", "lr")
                     /* clang-format on */
                     "4:\n\t"
                     "strb r6, [r1]\n\t"
                     "strb r7, [r1, r2]\n\t"
                     "strb r8, [r1, r2, lsl #1]\n\t"
                     "add r1, r1, r3\n\t"
                     "cmp r0, r4\n\t"
                     "bne 2b\n\t"
                     "ldr r2, [r0, #-4]\n\t" /* one column is left that begins no output */
                     "str r2, [r0, #-16]\n\t" EC_SWEEP_END);
}

/* One row, stride 2; weights in r6-r8 (w0, w1) and r9-r11 (w1, w2), pixel in r4, end in r5. */
EC_NAKED void ec_sweep_row(EC_UNUSED uint32_t *plane, EC_UNUSED int8_t *out,
                           EC_UNUSED const ec_sweep_t *s, EC_UNUSED const ec_channel_t *channels)
{
    __asm__ volatile(EC_SWEEP_BEGIN("")
                     "ldrd r6, r9, [sp, #28]\n\t"
                     "ldrd r7, r10, [sp, #36]\n\t"
                     "ldrd r8, r11, [sp, #44]\n\t"
                     "ldrd r4, r5, [sp, #4]\n"
                     "2:\n\t"
                     "ldrd r2, r3, [r0], #16\n\t"
                     "ldr lr, [sp, #24]\n\t"
                     "smlad lr, r2, r6, lr\n\t"
                     "smlabt lr, r3, r9, lr\n\t"
                     "ldrd r2, r3, [r0], #16\n\t"
                     "smlad lr, r2, r7, lr\n\t"
                     "smlabt lr, r3, r10, lr\n\t"
                     "ldrd r2, r3, [r0]\n\t"
                     "smlad lr, r2, r8, lr\n\t"
                     "smlabt lr, r3, r11, lr\n\t"
                     "ldrd r2, r12, [sp, #16]\n\t" /* multiplier, rounding */
                     "ldr r3, [sp, #12]\n\t"       /* shift */
                     "cbz r3, 3f\n\t"
                     EC_LONG("lr", "r2", "r12", "r3", "r4")
                     "ldr r4, [sp, #4]\n\t"
                     "b 4f\n"
                     "3:\n\t"
                     EC_SHORT("lr", "r2", "r12")
                     "4:\n\t"
                     "strb lr, [r1]\n\t"
                     "add r1, r1, r4\n\t"
                     "cmp r0, r5\n\t"
                     "bne 2b\n\t" EC_SWEEP_END);
}

#else

/* Bytes 0 and 2 of a word plus the halves of `zero`. */
static uint32_t ec_lanes(uint32_t zero, uint32_t word)
{
    const int32_t low = (int16_t)zero + (int8_t)word;
    const int32_t high = (int16_t)(zero >> 16) + (int8_t)(word >> 16);
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/* One word of each plane from an upper and a lower row, which may be of one pixel (step 0). */
static void ec_gather_word(const int8_t *upper, const int8_t *lower, uint32_t *to,
                           const ec_gather_t *g, int32_t upper_step, int32_t lower_step)
{
    const ptrdiff_t plane = g->plane / 4;
    const uint32_t zero = g->zero;
    for (uint32_t *const end = to + g->span / 4; to != end; to += EC_WORDS) {
        const uint32_t a = ec_load_u32(upper), b = ec_load_u32(lower);
        const uint32_t a_even = ec_lanes(zero, a), b_even = ec_lanes(zero, b);
        const uint32_t a_odd = ec_lanes(zero, a >> 8), b_odd = ec_lanes(zero, b >> 8);
        to[0] = (a_even & 0xFFFFu) | b_even << 16;
        to[plane] = (a_odd & 0xFFFFu) | b_odd << 16;
        to[2 * plane] = a_even >> 16 | (b_even & 0xFFFF0000u);
        to[3 * plane] = a_odd >> 16 | (b_odd & 0xFFFF0000u);
        upper += upper_step;
        lower += lower_step;
    }
}

static int8_t ec_result(const ec_channel_t *c, uint32_t sum)
{
    const int32_t x = (int32_t)sum;
    if (c->shift == 0) { /* the high word of a product, with as many fraction bits */
        const int64_t product = (int64_t)x * c->multiplier;
        return (int8_t)ec_clamp(((int32_t)(product >> 32) + c->rounding) >> EC_PAIRS_FRACTION,
                                -128, 127);
    }
    /* The sum was doubled for SMMLAR. */
    return (int8_t)ec_clamp(ec_requantize_right(x >> 1, c->multiplier, c->rounding, c->shift),
                            -128, 127);
}

/* The same as the code above: `units` units of `rows` rows, from pixel to pixel `step` columns. */
EC_INLINE void ec_sweep(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                        const ec_channel_t *c, const int32_t units, const int32_t rows,
                        const int32_t step)
{
    for (int32_t count = s->count; count > 0; --count, ++c, ++out, plane += s->plane / 4) {
        for (int32_t unit = 0; unit < units; ++unit) {
            const uint32_t *column = plane + unit;
            const uint32_t *const end = column + s->span / 4;
            int8_t *to = out + (ptrdiff_t)unit * rows * s->row;
            for (; column != end; column += EC_WORDS * step, to += s->pixel) {
                uint32_t upper = (uint32_t)c->bias, lower = upper;
                for (int32_t x = 0; x < 3; ++x) {
                    const uint32_t p = column[EC_WORDS * x], q = column[EC_WORDS * x + 1];
                    const uint32_t w01 = c->weights[2 * x], w12 = c->weights[2 * x + 1];
                    upper = ec_mac_low(q, w12 >> 16, ec_mac_pair(p, w01, upper));
                    if (rows == 2) {
                        lower = ec_mac_low(p >> 16, w01, ec_mac_pair(q, w12, lower));
                    }
                }
                if (rows == 2) {
                    to[s->row] = ec_result(c, lower);
                }
                to[0] = ec_result(c, upper);
            }
        }
        for (int32_t i = 0; units == EC_UNITS && i < s->span / 4 + (3 - step) * EC_WORDS;
             i += EC_WORDS) {
            plane[i] = plane[i + EC_UNITS];
        }
    }
}

static void ec_sweep_three_pairs(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                                 const ec_channel_t *channels)
{
    ec_sweep(plane, out, s, channels, EC_UNITS, 2, 1);
}

static void ec_sweep_pair(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                          const ec_channel_t *channels)
{
    ec_sweep(plane, out, s, channels, 1, 2, 1);
}

static void ec_sweep_three_rows(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                                const ec_channel_t *channels)
{
    ec_sweep(plane, out, s, channels, EC_UNITS, 1, 2);
}

static void ec_sweep_row(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                         const ec_channel_t *channels)
{
    ec_sweep(plane, out, s, channels, 1, 1, 2);
}

static void ec_gather_six(const int8_t *in, uint32_t *to, const ec_gather_t *g)
{
    const int32_t pixel = g->back + 4 * g->row;
    for (int32_t word = 0; word < EC_UNITS; ++word, in += 2 * (ptrdiff_t)g->row) {
        ec_gather_word(in, in + g->row, to + word, g, pixel, pixel);
    }
}

#endif

typedef void ec_sweeper_t(uint32_t *plane, int8_t *out, const ec_sweep_t *s,
                          const ec_channel_t *channels);

/* What does not change during a call. */
typedef struct {
    const ec_depthwise_pairs_t *p;
    ec_channel_t *channels;
    uint32_t *planes;
    int32_t rows;              /* of a unit: 2, or 1 with stride 2 */
    int32_t units;             /* of an image */
    ec_sweeper_t *sweep_units; /* EC_UNITS units */
    ec_sweeper_t *sweep_unit;
    ec_gather_t gather;
    ec_sweep_t sweep;
} ec_pairs_t;

/* Word number `word` of the columns, from the rows `y` and `y` + 1 of the map, which may not
 * exist. */
static void ec_gather_rows(const ec_pairs_t *j, const int8_t *in, int32_t y, int32_t word)
{
    const ec_conv_shape_t *s = &j->p->shape;
    const uint32_t outside = 0x01010101u * (uint8_t)j->p->in_zero;
    const int8_t *upper = (const int8_t *)&outside, *lower = upper;
    int32_t upper_step = 0, lower_step = 0;
    if (y >= 0 && y < s->in_height) {
        upper = in + (ptrdiff_t)y * j->gather.row;
        upper_step = s->in_channels;
    }
    if (y + 1 >= 0 && y + 1 < s->in_height) {
        lower = in + (ptrdiff_t)(y + 1) * j->gather.row;
        lower_step = s->in_channels;
    }
    ec_gather_word(upper, lower, j->planes + s->pad_left * EC_WORDS + word, &j->gather, upper_step,
                   lower_step);
}

/* Units `unit` to `end` - 1 of one image, for the four channels from number `block` * 4 on, or for
 * those that are left: the last four are gathered, the ones that have been made are passed over. */
static void ec_make_units(const ec_pairs_t *j, const int8_t *in, int8_t *out, int32_t block,
                          int32_t unit, int32_t end)
{
    const ec_depthwise_pairs_t *p = j->p;
    const ec_conv_shape_t *s = &p->shape;
    const int32_t first = block * EC_PAIRS_LANES, left = s->in_channels - first;
    const int32_t known = left < EC_PAIRS_LANES ? EC_PAIRS_LANES - left : 0;
    const int32_t step = j->rows * j->sweep.row;
    uint32_t *const to = j->planes + s->pad_left * EC_WORDS + 1;
    uint32_t *planes = j->planes + known * (j->gather.plane / 4);
    ec_sweep_t sweep = j->sweep;
    int32_t y = 2 * unit - s->pad_top;
    sweep.count = EC_PAIRS_LANES - known;
    in += first - known;
    out += first + (ptrdiff_t)unit * step;
    ec_prepare(p, first, sweep.count, j->channels);
    ec_gather_rows(j, in, y, 0);
    for (; end - unit >= EC_UNITS && (unit + EC_UNITS) * j->rows <= s->out_height;
         unit += EC_UNITS) {
        y += 2;
        if (y >= 0 && y + 2 * EC_UNITS <= s->in_height) {
            ec_gather_six(in + (ptrdiff_t)y * j->gather.row, to, &j->gather);
        } else {
            for (int32_t word = 0; word < EC_UNITS; ++word) {
                ec_gather_rows(j, in, y + 2 * word, word + 1);
            }
        }
        y += 2 * EC_UNITS - 2;
        j->sweep_units(planes, out, &sweep, j->channels);
        out += EC_UNITS * step;
    }
    for (int32_t word = 0; word < end - unit; ++word) {
        y += 2;
        ec_gather_rows(j, in, y, word + 1);
    }
    for (; unit < end; ++unit, ++planes, out += step) {
        if (unit * j->rows + 1 == s->out_height) {
            sweep.row = 0;
        }
        j->sweep_unit(planes, out, &sweep, j->channels);
    }
}

static void ec_limit(const ec_depthwise_pairs_t *p, int8_t *out)
{
    const int32_t count = ec_conv_pixels(&p->shape) * p->shape.out_channels;
    int32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    const uint32_t low = 0x01010101u * (uint8_t)p->low, high = 0x01010101u * (uint8_t)p->high;
    for (; i + 4 <= count; i += 4) {
        uint32_t y = ec_load_u32(out + i), work;
        __asm__("ssub8 %1, %0, %2\n\t"
                "sel %0, %0, %2\n\t"
                "ssub8 %1, %0, %3\n\t"
                "sel %0, %3, %0"
                : "+r"(y), "=&r"(work)
                : "r"(low), "r"(high)
                : "cc");
        memcpy(out + i, &y, sizeof(y));
    }
#endif
    for (; i < count; ++i) {
        out[i] = (int8_t)ec_clamp(out[i], p->low, p->high);
    }
}

static void ec_depthwise_pairs(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                               void *scratch, int32_t stride, ec_sweeper_t *sweep_units,
                               ec_sweeper_t *sweep_unit)
{
    const ec_conv_shape_t *s = &p->shape;
    const int32_t columns = (s->out_width - 1) * stride + 3, met = columns - s->pad_left;
    const int32_t inside = met < s->in_width ? met : s->in_width;
    const int32_t plane = columns * EC_PAIRS_COLUMN;
    const int32_t row = s->in_width * s->in_channels, out_row = s->out_width * s->out_channels;
    const uint32_t zero = (uint32_t)-p->in_zero & 0xFFFFu;
    const ec_pairs_t j = {
        .p = p,
        .channels = scratch,
        .planes = (uint32_t *)((ec_channel_t *)scratch + EC_PAIRS_LANES),
        .rows = 3 - stride,
        .units = (s->out_height + 2 - stride) / (3 - stride),
        .sweep_units = sweep_units,
        .sweep_unit = sweep_unit,
        .gather = {.row = row,
                   .plane = plane,
                   .planes3 = 3 * plane,
                   .zero = zero | zero << 16,
                   .back = s->in_channels - 4 * row,
                   .span = EC_PAIRS_COLUMN * inside},
        .sweep = {.row = out_row,
                  .pixel = s->out_channels,
                  .span = EC_PAIRS_COLUMN * stride * s->out_width,
                  .plane = plane,
                  .edge = s->pad_left > 0},
    };
    const int32_t strips = p->by_rows ? (j.units + EC_UNITS - 1) / EC_UNITS : 1;
    const int32_t count = p->by_rows ? EC_UNITS : j.units;
    memset(j.planes, 0, (size_t)plane * EC_PAIRS_LANES);
    for (int32_t i = 0; i < s->batches * strips; ++i) {
        const int32_t at = p->reverse ? s->batches * strips - 1 - i : i;
        const int32_t batch = at / strips, unit = (at - batch * strips) * count;
        const int32_t end = unit + count < j.units ? unit + count : j.units;
        const int8_t *image = in + (ptrdiff_t)batch * s->in_height * row;
        int8_t *made = out + (ptrdiff_t)batch * s->out_height * out_row;
        for (int32_t block = 0; block * EC_PAIRS_LANES < s->in_channels; ++block) {
            ec_make_units(&j, image, made, block, unit, end);
        }
    }
    if (p->limited) {
        ec_limit(p, out);
    }
}

void ec_depthwise_pairs_s8(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                           void *scratch)
{
    ec_depthwise_pairs(p, in, out, scratch, 1, ec_sweep_three_pairs, ec_sweep_pair);
}

void ec_depthwise_pairs_stride2_s8(const ec_depthwise_pairs_t *p, const int8_t *in, int8_t *out,
                                   void *scratch)
{
    ec_depthwise_pairs(p, in, out, scratch, 2, ec_sweep_three_rows, ec_sweep_row);
}
