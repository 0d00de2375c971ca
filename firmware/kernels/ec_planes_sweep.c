/* With the weights w0, w1, w2 of a column as the pairs E = (w0, w1) and O = (w1, w2), and its words
 * P and Q, the output rows of a unit are
 *     upper += P . E + Q.low * w2        lower += P.high * w0 + Q . O
 * (stride 2: only the upper one). Taller kernels add pairs in between.
 */
#include "ec_planes_sweep.h"

#include <stddef.h>

#include "ec_math.h"

#if defined(__ARM_FEATURE_DSP)

/* The sweeps need all 14 registers: functions without prologue, written by macros of the assembler.
 * r0 plane, r1 output, r2-r5 words of a column, r6 on sums (upper and lower row of each unit in
 * turn), up to lr the weights of a column.
 *
 * Frame, from sp on: 0 step, 4 pixel, 8 end of the plane, 12 shift, 16 multiplier, 20 rounding,
 * 24 bias, 28 weights of the first column, then `slots` - 1 places for those of the others, the
 * last in the last; then (ec_frame on) 0 span, 4 plane, 8 count, 12 back, 16 width, 20 channel,
 * 24 edge, 28 next constants, 32 the channel's plane, 36 its output, 40 where the columns behind
 * the first begin in the code, 44 and where their weights lie. A channel is done when r0 comes to
 * the end. */
#define EC_MACROS                                                                                  \
    ".altmacro\n"                                                                                  \
    ".macro ec_product op, sum, word, weight, from\n"                                              \
    "\\op r\\sum, r\\word, r\\weight, r\\from\n"                                                   \
    ".endm\n"                                                                                      \
    /* All products of a column; `fresh`: sums begin with the bias in r6. */                       \
    ".macro ec_products height, stride, units, fresh\n"                                            \
    ".set ec_half, (\\height - 1) / 2\n"                                                           \
    ".set ec_unit, \\units\n"                                                                      \
    ".rept \\units\n"                                                                              \
    ".set ec_unit, ec_unit - 1\n"                                                                  \
    ".set ec_sum, 6 + (3 - \\stride) * ec_unit\n"                                                  \
    ".if \\stride == 1\n"                                                                          \
    ".set ec_from, ec_sum + 1 - \\fresh * (ec_sum - 5)\n"                                          \
    "ec_product smlatb, %(ec_sum + 1), %(2 + ec_unit), %(15 - \\height), %(ec_from)\n"             \
    ".set ec_tap, 0\n"                                                                             \
    ".rept ec_half - 1\n"                                                                          \
    "ec_product smlad, %(ec_sum + 1), %(3 + ec_unit + ec_tap), %(16 - \\height + 2 * ec_tap), "    \
    "%(ec_sum + 1)\n"                                                                              \
    ".set ec_tap, ec_tap + 1\n"                                                                    \
    ".endr\n"                                                                                      \
    "ec_product smlad, %(ec_sum + 1), %(2 + ec_unit + ec_half), 14, %(ec_sum + 1)\n"               \
    ".endif\n"                                                                                     \
    ".set ec_from, ec_sum - \\fresh * (ec_sum - 6)\n"                                              \
    "ec_product smlad, %(ec_sum), %(2 + ec_unit), %(15 - \\height), %(ec_from)\n"                  \
    ".set ec_tap, 1\n"                                                                             \
    ".rept ec_half - 1\n"                                                                          \
    "ec_product smlad, %(ec_sum), %(2 + ec_unit + ec_tap), %(15 - \\height + 2 * ec_tap), "        \
    "%(ec_sum)\n"                                                                                  \
    ".set ec_tap, ec_tap + 1\n"                                                                    \
    ".endr\n"                                                                                      \
    "ec_product smlabt, %(ec_sum), %(2 + ec_unit + ec_half), 14, %(ec_sum)\n"                      \
    ".endr\n"                                                                                      \
    ".endm\n"                                                                                      \
    /* A column's words: `place` -1 for those before r0, 0 at r0, 1 at r0, which moves on. */      \
    ".macro ec_words count, place\n"                                                               \
    ".if \\count == 4\n"                                                                           \
    ".if \\place < 0\n"                                                                            \
    "ldmdb r0, {r2-r5}\n"                                                                          \
    ".elseif \\place == 0\n"                                                                       \
    "ldmia r0, {r2-r5}\n"                                                                          \
    ".else\n"                                                                                      \
    "ldmia r0!, {r2-r5}\n"                                                                         \
    ".endif\n"                                                                                     \
    ".else\n"                                                                                      \
    ".if \\place < 0\n"                                                                            \
    "ldrd r2, r3, [r0, #-16]\n"                                                                    \
    ".elseif \\place == 0\n"                                                                       \
    "ldrd r2, r3, [r0]\n"                                                                          \
    ".else\n"                                                                                      \
    "ldrd r2, r3, [r0], #16\n"                                                                     \
    ".endif\n"                                                                                     \
    ".if \\count == 3\n"                                                                           \
    "ldr r4, [r0, #-8]\n" /* only with r0 moved on */                                              \
    ".endif\n"                                                                                     \
    ".endif\n"                                                                                     \
    ".endm\n"                                                                                      \
    ".macro ec_weights height, slot\n"                                                             \
    ".if \\height >= 7\n"                                                                          \
    "ldrd r8, r9, [sp, #28 + 4 * (\\height - 1) * (\\slot)]\n"                                     \
    ".endif\n"                                                                                     \
    ".if \\height >= 5\n"                                                                          \
    "ldrd r10, r11, [sp, #28 + 4 * (\\height - 1) * (\\slot + 1) - 16]\n"                          \
    ".endif\n"                                                                                     \
    "ldrd r12, lr, [sp, #28 + 4 * (\\height - 1) * (\\slot + 1) - 8]\n"                            \
    ".endm\n"                                                                                      \
    /* `count` sums to int8: multiplier r12, rounding lr, shift r5 (0: the short form). */         \
    ".macro ec_results count\n"                                                                    \
    "cbz r5, 6f\n"                                                                                 \
    ".irp number, 6, 7, 8, 9, 10, 11\n"                                                            \
    ".if \\number < 6 + \\count\n"                                                                 \
    "smmlar r4, r\\number, r12, lr\n"                                                              \
    "add r\\number, r4, r\\number, asr #31\n"                                                      \
    "asr r\\number, r\\number, r5\n"                                                               \
    "ssat r\\number, #8, r\\number\n"                                                              \
    ".endif\n"                                                                                     \
    ".endr\n"                                                                                      \
    "ldr r4, [sp, #8]\n"                                                                           \
    "b 7f\n"                                                                                       \
    "6:\n"                                                                                         \
    ".irp number, 6, 7, 8, 9, 10, 11\n"                                                            \
    ".if \\number < 6 + \\count\n"                                                                 \
    "smmla r\\number, r\\number, r12, lr\n"                                                        \
    "ssat r\\number, #8, r\\number, asr #12\n"                                                     \
    ".endif\n"                                                                                     \
    ".endr\n"                                                                                      \
    "7:\n"                                                                                         \
    ".endm\n"                                                                                      \
    /* Stores the results: step r2; r1 moves on by `ec_moved`. */                                  \
    ".macro ec_store op, stride, units, halves\n"                                                  \
    ".if \\stride == 2\n"                                                                          \
    "\\op r6, [r1]\n"                                                                              \
    ".if \\units > 1\n"                                                                            \
    "\\op r7, [r1, r2]\n"                                                                          \
    ".endif\n"                                                                                     \
    ".if \\units > 2\n"                                                                            \
    "\\op r8, [r1, r2, lsl #1]\n"                                                                  \
    ".endif\n"                                                                                     \
    ".elseif \\units == 1\n"                                                                       \
    "\\op r7, [r1, r2]\n"                                                                          \
    "\\op r6, [r1]\n"                                                                              \
    ".elseif \\halves\n"                                                                           \
    "\\op r8, [r1, r2]\n"                                                                          \
    ".if \\units > 2\n"                                                                            \
    "\\op r10, [r1, r2, lsl #1]\n"                                                                 \
    ".endif\n"                                                                                     \
    "\\op r6, [r1], #4\n"                                                                          \
    "\\op r7, [r1]\n"                                                                              \
    "\\op r9, [r1, r2]\n"                                                                          \
    ".if \\units > 2\n"                                                                            \
    "\\op r11, [r1, r2, lsl #1]\n"                                                                 \
    ".endif\n"                                                                                     \
    ".else\n"                                                                                      \
    "\\op r6, [r1]\n"                                                                              \
    "\\op r7, [r1, r2]\n"                                                                          \
    "\\op r8, [r1, r2, lsl #1]\n"                                                                  \
    ".if \\units > 2\n"                                                                            \
    "\\op r10, [r1, r2, lsl #2]\n"                                                                 \
    ".endif\n"                                                                                     \
    "add r1, r1, r2\n"                                                                             \
    "\\op r9, [r1, r2, lsl #1]\n"                                                                  \
    ".if \\units > 2\n"                                                                            \
    "\\op r11, [r1, r2, lsl #2]\n"                                                                 \
    ".endif\n"                                                                                     \
    ".endif\n"                                                                                     \
    ".endm\n"                                                                                      \
    /* Kernels of any width: where the columns behind the first begin, and the place of their      \
     * weights. r10 width. */                                                                      \
    ".macro ec_enter height, slots\n"                                                              \
    "rsb r5, r10, #\\slots\n"                                                                      \
    "mov r6, #4 * (\\height - 1)\n"                                                                \
    "mul r6, r5, r6\n"                                                                             \
    "add r6, r6, #28 + 4 * (\\height - 1)\n"                                                       \
    "add r6, r6, sp\n"                                                                             \
    "adr.w r7, 3f + 1\n"                                                                           \
    "mov r8, #(4f - 3f) / (\\slots - 1)\n"                                                         \
    "mla r5, r5, r8, r7\n"                                                                         \
    "strd r5, r6, [sp, #ec_frame + 40]\n"                                                          \
    ".endm\n"                                                                                      \
    /* The constants of a channel to the frame. */                                                 \
    ".macro ec_constants height, slots\n"                                                          \
    "ldr r12, [sp, #ec_frame + 28]\n"                                                              \
    ".if \\slots == 3\n"                                                                           \
    "ldm r12!, {r2-r11}\n"                                                                         \
    "str r12, [sp, #ec_frame + 28]\n"                                                              \
    "add r12, sp, #12\n"                                                                           \
    "stm r12, {r2-r11}\n"                                                                          \
    ".else\n"                                                                                      \
    "add lr, sp, #12\n"                                                                            \
    "ldm r12!, {r2-r5}\n"                                                                          \
    "stm lr!, {r2-r5}\n"                                                                           \
    "ldm r12!, {r2-r\\height}\n"                                                                   \
    "stm lr, {r2-r\\height}\n"                                                                     \
    "ldr lr, [sp, #ec_frame + 44]\n"                                                               \
    "b 9f\n"                                                                                       \
    "8:\n"                                                                                         \
    "ldm r12!, {r2-r\\height}\n"                                                                   \
    "stm lr!, {r2-r\\height}\n"                                                                    \
    "9:\n"                                                                                         \
    "add r2, sp, #ec_frame\n"                                                                      \
    "cmp lr, r2\n"                                                                                 \
    "bne 8b\n"                                                                                     \
    "str r12, [sp, #ec_frame + 28]\n"                                                              \
    ".endif\n"                                                                                     \
    ".endm\n"                                                                                      \
    ".macro ec_columns height, stride, units, slots, carry\n"                                         \
    ".set ec_count, \\units + (\\height - 1) / 2\n"                                                \
    ".if \\slots == 3\n"                                                                           \
    ".if \\stride == 1 && \\units == 3\n" /* the first output without a column of padding */       \
    "cmp r0, r2\n"                                                                                 \
    "ldr r2, [sp, #ec_frame + 24]\n"                                                               \
    "ldr r6, [sp, #24]\n"                                                                          \
    "cbz r2, 2f\n"                                                                                 \
    "ldmia r0!, {r2-r5}\n"                                                                         \
    "ec_weights 3, 1\n"                                                                            \
    "ec_products 3, 1, 3, 1\n"                                                                     \
    "b 3f\n"                                                                                       \
    ".endif\n"                                                                                     \
    "2:\n"                                                                                         \
    "ec_words %(ec_count), -1\n"                                                                   \
    "ec_weights 3, 0\n"                                                                            \
    "ldr r6, [sp, #24]\n"                                                                          \
    "ec_products 3, \\stride, \\units, 1\n"                                                        \
    ".if \\carry\n"                                                                                \
    "str r5, [r0, #-16]\n"                                                                         \
    ".endif\n"                                                                                     \
    "ec_words %(ec_count), 1\n"                                                                    \
    "ec_weights 3, 1\n"                                                                            \
    "ec_products 3, \\stride, \\units, 0\n"                                                        \
    ".if \\stride == 1 && \\units == 3\n"                                                          \
    "beq 5f\n" /* the last output without one, see ec_sweep */                                     \
    ".endif\n"                                                                                     \
    "3:\n"                                                                                         \
    "ec_words %(ec_count), %(\\stride - 1)\n"                                                      \
    "ec_weights 3, 2\n"                                                                            \
    "ec_products 3, \\stride, \\units, 0\n"                                                        \
    "5:\n"                                                                                         \
    ".else\n"                                                                                      \
    "2:\n"                                                                                         \
    "ec_words %(ec_count), 1\n"                                                                    \
    "ldr r6, [sp, #24]\n"                                                                          \
    "ec_weights \\height, 0\n"                                                                     \
    "ec_products \\height, \\stride, \\units, 1\n"                                                 \
    "ldr pc, [sp, #ec_frame + 40]\n"                                                               \
    "3:\n"                                                                                         \
    ".set ec_slot, 1\n"                                                                            \
    ".rept \\slots - 1\n"                                                                          \
    "ec_words %(ec_count), 1\n"                                                                    \
    "ec_weights \\height, %(ec_slot)\n"                                                            \
    "ec_products \\height, \\stride, \\units, 0\n"                                                 \
    ".set ec_slot, ec_slot + 1\n"                                                                  \
    ".endr\n"                                                                                      \
    "4:\n"                                                                                         \
    "ldr r2, [sp, #ec_frame + 12]\n"                                                               \
    "add r0, r0, r2\n"                                                                             \
    ".endif\n"                                                                                     \
    ".endm\n"                                                                                      \
    /* The same with all weights of three columns in registers, for one unit: bias r5, weights from    \
     * r6 on, shift r4, sums r12 and lr. */\
    ".macro ec_lone stride, op\n"                                                                  \
    "ldr r12, [sp, #ec_frame + 28]\n"                                                              \
    "ldm r12!, {r2-r11}\n"                                                                         \
    "str r12, [sp, #ec_frame + 28]\n"                                                              \
    "strd r3, r4, [sp, #16]\n"                                                                     \
    "str r5, [sp, #24]\n"                                                                          \
    "mov r4, r2\n"                                                                                 \
    "2:\n"                                                                                         \
    "ldrd r2, r3, [r0, #-16]\n"                                                                    \
    ".if \\stride == 1\n"                                                                          \
    "smlatb lr, r2, r6, r5\n"                                                                      \
    "smlad lr, r3, r7, lr\n"                                                                       \
    ".endif\n"                                                                                     \
    "smlad r12, r2, r6, r5\n"                                                                      \
    "smlabt r12, r3, r7, r12\n"                                                                    \
    "ldrd r2, r3, [r0], #16\n"                                                                     \
    ".if \\stride == 1\n"                                                                          \
    "smlatb lr, r2, r8, lr\n"                                                                      \
    "smlad lr, r3, r9, lr\n"                                                                       \
    ".endif\n"                                                                                     \
    "smlad r12, r2, r8, r12\n"                                                                     \
    "smlabt r12, r3, r9, r12\n"                                                                    \
    ".if \\stride == 2\n"                                                                          \
    "ldrd r2, r3, [r0], #16\n"                                                                     \
    ".else\n"                                                                                      \
    "ldrd r2, r3, [r0]\n"                                                                          \
    ".endif\n"                                                                                     \
    ".if \\stride == 1\n"                                                                          \
    "smlatb lr, r2, r10, lr\n"                                                                     \
    "smlad lr, r3, r11, lr\n"                                                                      \
    ".endif\n"                                                                                     \
    "smlad r12, r2, r10, r12\n"                                                                    \
    "smlabt r12, r3, r11, r12\n"                                                                   \
    "ldrd r2, r3, [sp, #16]\n"                                                                     \
    "cbz r4, 6f\n"                                                                                 \
    ".irp number, 12, 14\n"                                                                        \
    ".if \\number == 12 || \\stride == 1\n"                                                        \
    "smmlar r5, r\\number, r2, r3\n"                                                               \
    "add r\\number, r5, r\\number, asr #31\n"                                                      \
    "asr r\\number, r\\number, r4\n"                                                               \
    "ssat r\\number, #8, r\\number\n"                                                              \
    ".endif\n"                                                                                     \
    ".endr\n"                                                                                      \
    "ldr r5, [sp, #24]\n"                                                                          \
    "b 7f\n"                                                                                       \
    "6:\n"                                                                                         \
    ".irp number, 12, 14\n"                                                                        \
    ".if \\number == 12 || \\stride == 1\n"                                                        \
    "smmla r\\number, r\\number, r2, r3\n"                                                         \
    "ssat r\\number, #8, r\\number, asr #12\n"                                                     \
    ".endif\n"                                                                                     \
    ".endr\n"                                                                                      \
    "7:\n"                                                                                         \
    "ldrd r2, r3, [sp]\n"                                                                          \
    ".if \\stride == 1\n"                                                                          \
    "\\op lr, [r1, r2]\n"                                                                          \
    ".endif\n"                                                                                     \
    "\\op r12, [r1]\n"                                                                             \
    "ldr r2, [sp, #8]\n"                                                                           \
    "add r1, r1, r3\n"                                                                             \
    "cmp r0, r2\n"                                                                                 \
    "bne 2b\n"                                                                                     \
    ".endm\n"                                                                                      \
    ".macro ec_sweep height, stride, units, slots, halves, carry\n"                                \
    ".set ec_frame, 28 + 4 * (\\height - 1) * \\slots\n"                                           \
    "push {r4-r11, lr}\n"                                                                          \
    "sub sp, sp, #ec_frame + 48\n"                                                                 \
    ".if \\slots == 3\n" /* one column ahead, so that r0 moves by as much as the columns do */     \
    "add r0, r0, #16\n"                                                                            \
    ".endif\n"                                                                                     \
    "strd r0, r1, [sp, #ec_frame + 32]\n"                                                          \
    "ldm r2, {r4-r12}\n"                                                                           \
    ".if \\units > 1 && \\stride == 1\n"                                                           \
    ".if \\halves\n"                                                                               \
    "sub r5, r5, #4\n"                                                                             \
    ".else\n"                                                                                      \
    "sub r5, r5, r4\n"                                                                             \
    ".endif\n"                                                                                     \
    ".endif\n"                                                                                     \
    ".if \\slots == 3 && \\stride == 1 && \\units == 3\n"                                          \
    "tst r12, #2\n" /* flags equal: the last output, next to padding */                            \
    "ite ne\n"                                                                                     \
    "subne r6, r6, #16\n"                                                                          \
    "subeq r6, r6, #8\n"                                                                           \
    "and r12, r12, #1\n"                                                                           \
    ".endif\n"                                                                                     \
    "strd r4, r5, [sp]\n"                                                                          \
    "add r4, sp, #ec_frame\n"                                                                      \
    "stm r4, {r6-r12}\n"                                                                           \
    "str r3, [sp, #ec_frame + 28]\n"                                                               \
    ".if \\slots > 3\n"                                                                            \
    "ec_enter \\height, \\slots\n"                                                                 \
    ".endif\n"                                                                                     \
    "1:\n"                                                                                         \
    ".if \\slots > 3 || \\units > 1\n"                                                             \
    "ec_constants \\height, \\slots\n"                                                             \
    ".endif\n"                                                                                     \
    "ldrd r0, r1, [sp, #ec_frame + 32]\n"                                                          \
    "ldrd r2, r3, [sp, #ec_frame]\n"                                                               \
    "ldr r4, [sp, #ec_frame + 20]\n"                                                               \
    "add r2, r2, r0\n"                                                                             \
    "str r2, [sp, #8]\n"                                                                           \
    "add r3, r3, r0\n"                                                                             \
    "add r4, r4, r1\n"                                                                             \
    "strd r3, r4, [sp, #ec_frame + 32]\n"                                                          \
    ".if \\slots == 3 && \\units == 1\n"                                                           \
    ".if \\halves\n"                                                                               \
    "ec_lone \\stride, strh\n"                                                                     \
    ".else\n"                                                                                      \
    "ec_lone \\stride, strb\n"                                                                     \
    ".endif\n"                                                                                     \
    ".else\n"                                                                                      \
    "ec_columns \\height, \\stride, \\units, \\slots, \\carry\n"                                     \
    "ldm sp, {r2-r5, r12, lr}\n" /* step, pixel, end, shift, multiplier, rounding */               \
    "ec_results %(\\units * (3 - \\stride))\n"                                                     \
    ".if \\halves\n"                                                                               \
    "ec_store strh, \\stride, \\units, 1\n"                                                        \
    ".else\n"                                                                                      \
    "ec_store strb, \\stride, \\units, 0\n"                                                        \
    ".endif\n"                                                                                     \
    "add r1, r1, r3\n"                                                                             \
    "cmp r0, r4\n"                                                                                 \
    ".if \\slots == 3 && \\stride == 1 && \\units == 3\n"                                          \
    "bls.w 2b\n"                                                                                   \
    ".else\n"                                                                                      \
    "bne.w 2b\n"                                                                                   \
    ".endif\n"                                                                                     \
    ".endif\n"                                                                                     \
    ".if \\carry\n"                                                                                \
    "ldr r2, [r0, #-4]\n" /* columns are left that begin no output */                              \
    "str r2, [r0, #-16]\n"                                                                         \
    "ldr r2, [r0, #12]\n"                                                                          \
    "str r2, [r0]\n"                                                                               \
    ".endif\n"                                                                                     \
    "ldr r2, [sp, #ec_frame + 8]\n"                                                                \
    "subs r2, r2, #1\n"                                                                            \
    "str r2, [sp, #ec_frame + 8]\n"                                                                \
    "bne.w 1b\n"                                                                                   \
    "add sp, sp, #ec_frame + 48\n"                                                                 \
    "pop {r4-r11, pc}\n"                                                                           \
    ".endm\n"

#define EC_NO_MACROS                                                                               \
    ".purgem ec_product\n.purgem ec_products\n.purgem ec_words\n.purgem ec_weights\n"              \
    ".purgem ec_results\n.purgem ec_store\n.purgem ec_enter\n.purgem ec_constants\n"               \
    ".purgem ec_columns\n.purgem ec_lone\n.purgem ec_sweep\n.noaltmacro\n"

_Static_assert(EC_PLANES_FRACTION == 12, "ec_results has it as an immediate");
_Static_assert(EC_PLANES_WORDS == 4 && EC_PLANES_WIDEST == 7, "ec_words, ec_sweep");

#define EC_UNUSED __attribute__((unused))
#define EC_SWEEP(name, height, stride, units, slots, halves, carry)                                \
    __attribute__((naked, noinline)) static void name(                                             \
        EC_UNUSED uint32_t *plane, EC_UNUSED void *out, EC_UNUSED const ec_planes_sweep_t *s,      \
        EC_UNUSED const void *channels)                                                            \
    {                                                                                              \
        __asm__ volatile(EC_MACROS "ec_sweep " #height ", " #stride ", " #units ", " #slots        \
                                   ", " #halves ", " #carry "\n" EC_NO_MACROS);                    \
    }

#else

static int32_t ec_result(const ec_planes_channel_t *c, uint32_t sum)
{
    const int32_t x = (int32_t)sum;
    if (c->shift == 0) { /* the high word of a product, with as many fraction bits */
        const int64_t product = (int64_t)x * c->multiplier;
        return ec_clamp(((int32_t)(product >> 32) + c->rounding) >> EC_PLANES_FRACTION, -128, 127);
    }
    /* The sum was doubled for SMMLAR. */
    return ec_clamp(ec_requantize_right(x >> 1, c->multiplier, c->rounding, c->shift), -128, 127);
}

static void ec_put(int8_t *out, int32_t value, int32_t halves)
{
    if (halves) {
        const int16_t half = (int16_t)value;
        memcpy(out, &half, sizeof(half));
    } else {
        *out = (int8_t)value;
    }
}

/* One output pixel of one unit, from the words at `column`. */
static void ec_sweep_pixel(const uint32_t *column, const uint32_t *weights,
                           const ec_planes_channel_t *c, const ec_planes_sweep_t *s, int8_t *out,
                           ptrdiff_t lower_step, int32_t pairs, int32_t rows, int32_t halves)
{
    uint32_t upper = (uint32_t)c->bias, lower = upper;
    for (int32_t x = 0; x < s->width; ++x, column += EC_PLANES_WORDS, weights += 2 * pairs) {
        lower = ec_mac_low(column[0] >> 16, weights[0], lower);
        for (int32_t i = 0; i < pairs; ++i) {
            upper = ec_mac_pair(column[i], weights[2 * i], upper);
            lower = ec_mac_pair(column[i + 1], weights[2 * i + 1], lower);
        }
        upper = ec_mac_low(column[pairs], weights[2 * pairs - 1] >> 16, upper);
    }
    if (rows == 2) {
        ec_put(out + lower_step, ec_result(c, lower), halves);
    }
    ec_put(out, ec_result(c, upper), halves);
}

/* The same as the code above. */
static void ec_sweep(uint32_t *plane, int8_t *out, const ec_planes_sweep_t *s,
                     const void *channels, int32_t height, int32_t stride, int32_t units,
                     int32_t halves, int32_t carry)
{
    const int32_t pairs = (height - 1) / 2, rows = 3 - stride;
    const ptrdiff_t lower = halves && units > 1 ? 4 : s->step;
    const ptrdiff_t unit_step = halves ? s->step : (ptrdiff_t)rows * s->step;
    const ec_planes_channel_t *c = channels;
    for (int32_t count = s->count; count > 0; --count, out += s->channel, plane += s->plane / 4) {
        const uint32_t *weights = (const uint32_t *)(c + 1);
        for (int32_t unit = 0; unit < units; ++unit) {
            const uint32_t *column = plane + unit;
            const uint32_t *const end = column + s->span / 4;
            int8_t *to = out + unit * unit_step;
            for (; column != end; column += s->back / 4 + EC_PLANES_WORDS * s->width) {
                ec_sweep_pixel(column, weights, c, s, to, lower, pairs, rows, halves);
                to += s->pixel;
            }
        }
        if (carry) {
            const int32_t words = s->span / 4 - s->back / 4;
            for (int32_t i = 0; i < words; i += EC_PLANES_WORDS) {
                plane[i] = plane[i + EC_PLANES_WORDS - 1];
            }
        }
        c = (const ec_planes_channel_t *)(weights + 2 * pairs * s->width);
    }
}

#define EC_SWEEP(name, height, stride, units, slots, halves, carry)                                \
    static void name(uint32_t *plane, void *out, const ec_planes_sweep_t *s, const void *channels) \
    {                                                                                              \
        ec_sweep(plane, out, s, channels, height, stride, units, halves, carry);                   \
    }

#endif

/* Splits the columns of single rows of halves. */
static void ec_split(ec_planes_sweeper_t *sweeper, uint32_t *plane, int8_t *out,
                     const ec_planes_sweep_t *s, const void *channels)
{
    const int32_t step = s->back + 4 * EC_PLANES_WORDS * s->width;
    ec_planes_sweep_t part = *s;
    part.span = step * s->half;
    part.edge = s->edge & EC_PLANES_LEFT;
    sweeper(plane, out, &part, channels);
    part.span = s->span - part.span;
    part.edge = s->edge & EC_PLANES_RIGHT;
    if (part.span > 0) {
        sweeper(plane + step / 4 * s->half, out + 4, &part, channels);
    }
}

#define EC_SPLIT_SWEEP(name, sweeper)                                                              \
    static void name(uint32_t *plane, void *out, const ec_planes_sweep_t *s, const void *channels) \
    {                                                                                              \
        ec_split(sweeper, plane, out, s, channels);                                                \
    }

static void ec_carry(uint32_t *planes, int32_t plane, int32_t words)
{
    const uint32_t *const end = planes + plane; /* four planes, in words */
    if (words == 1) {
        for (; planes != end; planes += EC_PLANES_WORDS) {
            planes[0] = planes[3];
        }
    } else if (words == 2) {
        for (; planes != end; planes += EC_PLANES_WORDS) {
            planes[0] = planes[2];
            planes[1] = planes[3];
        }
    } else {
        for (; planes != end; planes += EC_PLANES_WORDS) {
            planes[0] = planes[1];
            planes[1] = planes[2];
            planes[2] = planes[3];
        }
    }
}

/* A form that sweeps `units` units or one, to int8 and to halves; `carry`: whether the sweep over
 * several does it by itself. */
#define EC_FORM(name, height, units, slots, carries, carry)                                        \
    EC_SWEEP(ec_units_##name, height, 1, units, slots, 0, carries)                                 \
    EC_SWEEP(ec_unit_##name, height, 1, 1, slots, 0, 0)                                            \
    const ec_planes_form_t ec_planes_##name = {                                                    \
        height, 1, 0, ec_units_##name, ec_unit_##name, ec_unit_##name, carry};                     \
    EC_SWEEP(ec_units_##name##_halves, height, 1, units, slots, 1, carries)                        \
    EC_SWEEP(ec_unit_##name##_halves, height, 1, 1, slots, 1, 0)                                   \
    EC_SPLIT_SWEEP(ec_row_##name##_halves, ec_unit_##name##_halves)                                \
    const ec_planes_form_t ec_planes_##name##_halves = {                                           \
        height, 1, 1, ec_units_##name##_halves, ec_unit_##name##_halves, ec_row_##name##_halves,   \
        carry};

/* The same with stride 2, whose sweeps carry nothing. */
#define EC_FORM_STRIDE2(name, height, units, slots)                                                \
    EC_SWEEP(ec_units_##name, height, 2, units, slots, 0, 0)                                       \
    EC_SWEEP(ec_unit_##name, height, 2, 1, slots, 0, 0)                                            \
    const ec_planes_form_t ec_planes_##name = {                                                    \
        height, 2, 0, ec_units_##name, ec_unit_##name, ec_unit_##name, ec_carry};                  \
    EC_SWEEP(ec_units_##name##_part, height, 2, units, slots, 1, 0)                                \
    EC_SWEEP(ec_unit_##name##_part, height, 2, 1, slots, 1, 0)                                     \
    EC_SPLIT_SWEEP(ec_units_##name##_halves, ec_units_##name##_part)                               \
    EC_SPLIT_SWEEP(ec_unit_##name##_halves, ec_unit_##name##_part)                                 \
    const ec_planes_form_t ec_planes_##name##_halves = {                                           \
        height, 2, 1, ec_units_##name##_halves, ec_unit_##name##_halves,                           \
        ec_unit_##name##_halves, ec_carry};

EC_FORM(3x3, 3, 3, 3, 1, NULL)
EC_FORM_STRIDE2(3x3_stride2, 3, 3, 3)
EC_FORM(3, 3, 3, 7, 0, ec_carry)
EC_FORM_STRIDE2(3_stride2, 3, 3, 7)
EC_FORM(5, 5, 2, 7, 0, ec_carry)
EC_FORM_STRIDE2(5_stride2, 5, 2, 7)
EC_FORM(7, 7, 1, 7, 0, ec_carry)
EC_FORM_STRIDE2(7_stride2, 7, 1, 7)
