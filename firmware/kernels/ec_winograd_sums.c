#include "ec_winograd_sums.h"

#include "ec_winograd_lines.h"
#include "ec_winograd_map.h"

#if defined(__ARM_FEATURE_DSP)

/* r0 v, r1 u, r2 r3 a place's two tiles, r12 lr its four channels, two at a time, r4..r11 the sums.
 * On the stack: where sums go, their end; where a position's first block of places starts and where
 * a block leads; the end of this position in v, the step to the next; bytes of v between positions.
 * 7 instructions for each position, and 2 between positions that lie apart; for more places than a
 * block 4, and 3 for each block. */
__asm__(
    ".macro ec_sums_multiply op, a, b, c, d\n"
    ".ifc \\op, smuad\n"
    "    smuad \\a, r12, r2\n"
    "    smuad \\b, r12, r3\n"
    "    smuad \\c, lr, r2\n"
    "    smuad \\d, lr, r3\n"
    ".else\n"
    "    smlad \\a, r12, r2, \\a\n"
    "    smlad \\b, r12, r3, \\b\n"
    "    smlad \\c, lr, r2, \\c\n"
    "    smlad \\d, lr, r3, \\d\n"
    ".endif\n"
    ".endm\n"
    /* One place: 42 bytes of code. */
    ".macro ec_sums_place op\n"
    "    ldmia r0!, {r2, r3}\n"
    "    ldmia.w r1!, {r12, lr}\n"
    "    ec_sums_multiply \\op, r4, r5, r6, r7\n"
    "    ldmia.w r1!, {r12, lr}\n"
    "    ec_sums_multiply \\op, r8, r9, r10, r11\n"
    ".endm\n"
    EC_FUNCTION(ec_winograd_sums)
    "    push {r4-r11, lr}\n"
    "    lsl r9, r3, #3\n"
    "    add r8, r0, r9\n"
    "    ldrd r10, r11, [sp, #36]\n"
    "    lsl r11, r11, #2\n"
    "    add r9, r11\n"
    "    adr.w r6, 1f\n"
    "    adr.w r7, 5f\n"
    "    adr.w r4, 8f\n"
    "    cmp r3, #16\n"
    "    it le\n"
    "    movle r7, r4\n"
    "    adr.w r4, 4f\n"
    "    it le\n"
    "    cmple r11, #0\n"
    "    it eq\n"
    "    moveq r7, r4\n"
    "    add r6, #1\n"               /* Thumb */
    "    add r7, #1\n"
    "    rsb r3, r3, #0\n"
    "    and r3, r3, #15\n"           /* places that the first block, with one before it, */
    "    mov r5, #42\n"               /* leaves out */
    "    mla r6, r3, r5, r6\n"
    "    mov r4, r2\n"
    "    add r5, r2, r10, lsl #5\n"
    "    sub sp, #28\n"
    "    str r11, [sp, #24]\n"
    "    stmia.w sp, {r4-r9}\n"
    "    b 2f\n"
    "5:  ldrd r2, r3, [sp, #16]\n"    /* more places than a block */
    "    cmp r0, r2\n"
    "    bne 6f\n"
    "    add r2, r3\n"
    "    str r2, [sp, #16]\n"
    "8:  ldr r2, [sp, #24]\n"
    "    add r0, r2\n"
    "4:  ldrd r2, r3, [sp]\n"
    "    stmia r2!, {r4-r11}\n"
    "    str r2, [sp]\n"
    "    cmp r2, r3\n"
    "    beq 3f\n"
    "2:  ec_sums_place smuad\n"
    "    ldr pc, [sp, #8]\n"
    ".balign 4\n"
    "6:  ec_sums_place smlad\n"
    "1:\n"
    ".rept 15\n"
    "    ec_sums_place smlad\n"
    ".endr\n"
    "    ldr pc, [sp, #12]\n"
    "3:  add sp, #28\n"
    "    pop {r4-r11, pc}\n"
    EC_END(ec_winograd_sums)
    ".text\n");

#else

void ec_winograd_sums(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places,
                      int32_t positions, int32_t skip)
{
    enum { SUMS = EC_WINOGRAD_GROUP * EC_WINOGRAD_PAIR };
    for (; positions > 0; --positions) {
        uint32_t sum[SUMS] = {0};
        for (int32_t place = 0; place < places; ++place) {
            for (int32_t i = 0; i < SUMS; ++i) {
                sum[i] = ec_mac_pair(u[i / EC_WINOGRAD_PAIR], v[i % EC_WINOGRAD_PAIR], sum[i]);
            }
            u += EC_WINOGRAD_GROUP;
            v += EC_WINOGRAD_PAIR;
        }
        for (int32_t i = 0; i < SUMS; ++i) {
            *sums++ = (int32_t)sum[i];
        }
        v += skip;
    }
}

#endif
