/* Eight words are taken at once. Of each of their bytes k bits are stored, the highest first: one
 * bit of all where k is odd (8 words in one), then two (4 words in one) and four (2 words in one), as
 * k is made of 1, 2 and 4. */
#include "ec_unpack.h"

#include <stddef.h>

#include "ec_math.h"
#include "ec_unpack_scales.h"

#if defined(__thumb2__)

/* Bits of words 2 i and so on from word r12, under the mask r3: as the first of a sum, or behind the
 * bits that it holds. */
#define EC_FIRST(sum, shift) "and " sum ", r3, r12, lsr #" shift "\n\t"
#define EC_NEXT(sum, shift, width)              \
    "and lr, r3, r12, lsr #" shift "\n\t"       \
    "add " sum ", lr, " sum ", lsl #" width "\n\t"
#define EC_WORD "ldr r12, [r0], #4\n\t"
#define EC_TWOS(a, b, c, d)                                                            \
    EC_WORD "and " a ", r12, #0x03030303\n\t" EC_FIRST(b, "2") EC_FIRST(c, "4") EC_FIRST(d, "6")
#define EC_NEXT_TWOS(a, b, c, d)                                                       \
    EC_WORD "and lr, r12, #0x03030303\n\t" "add " a ", lr, " a ", lsl #2\n\t"          \
    EC_NEXT(b, "2", "2") EC_NEXT(c, "4", "2") EC_NEXT(d, "6", "2")
#define EC_FOURS(a, b) EC_WORD "and " a ", r12, #0x0F0F0F0F\n\t" EC_FIRST(b, "4")
#define EC_NEXT_FOURS(a, b)                                                            \
    EC_WORD "and lr, r12, #0x0F0F0F0F\n\t" "add " a ", lr, " a ", lsl #4\n\t"          \
    EC_NEXT(b, "4", "4")

/* Registers: r0 from, r1 bits, r2 to, r3 a mask, r4 to r11 the eight words, r12 a packed one, lr a
 * part of one; the offset and the end of `to` lie on the stack. */
__attribute__((naked, noinline)) void ec_unpack_words(
    __attribute__((unused)) const uint32_t *from, __attribute__((unused)) int32_t bits,
    __attribute__((unused)) int32_t count, __attribute__((unused)) uint32_t *to)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "add r12, r3, r2, lsl #2\n\t"
        "mov r2, r3\n\t"
        "mov lr, #0x01010101\n\t"
        "sub r3, r1, #1\n\t"
        "lsl r3, lr, r3\n\t"
        "sub r3, r3, lr\n\t"
        "push {r3, r12}\n"
        "1:\n\t"
        "lsls r3, r1, #31\n\t" /* carry: two, zero: not one */
        "beq 3f\n\t"
        "mov r3, #0x01010101\n\t"
        EC_WORD "and r4, r12, #0x01010101\n\t"
        EC_FIRST("r5", "1") EC_FIRST("r6", "2") EC_FIRST("r7", "3") EC_FIRST("r8", "4")
        EC_FIRST("r9", "5") EC_FIRST("r10", "6") EC_FIRST("r11", "7")
        "bcc 5f\n\t"
        "mov r3, #0x03030303\n\t"
        EC_NEXT_TWOS("r4", "r5", "r6", "r7") EC_NEXT_TWOS("r8", "r9", "r10", "r11")
        "b 4f\n"
        "3:\n\t"
        "bcc 7f\n\t"
        "mov r3, #0x03030303\n\t"
        EC_TWOS("r4", "r5", "r6", "r7") EC_TWOS("r8", "r9", "r10", "r11")
        "4:\n\t"
        "tst r1, #4\n\t"
        "beq 6f\n"
        "5:\n\t"
        "mov r3, #0x0F0F0F0F\n\t"
        EC_NEXT_FOURS("r4", "r5") EC_NEXT_FOURS("r6", "r7")
        EC_NEXT_FOURS("r8", "r9") EC_NEXT_FOURS("r10", "r11")
        "6:\n\t"
        "ldrd r3, r12, [sp]\n\t"
        "sub r4, r4, r3\n\t"
        "sub r5, r5, r3\n\t"
        "sub r6, r6, r3\n\t"
        "sub r7, r7, r3\n\t"
        "sub r8, r8, r3\n\t"
        "sub r9, r9, r3\n\t"
        "sub r10, r10, r3\n\t"
        "sub r11, r11, r3\n\t"
        "stmia r2!, {r4-r11}\n\t"
        "cmp r2, r12\n\t"
        "blo.w 1b\n\t"
        "add sp, sp, #8\n\t"
        "pop {r4-r11, pc}\n"
        "7:\n\t"
        "mov r3, #0x0F0F0F0F\n\t"
        EC_FOURS("r4", "r5") EC_FOURS("r6", "r7") EC_FOURS("r8", "r9") EC_FOURS("r10", "r11")
        "b 6b\n\t");
}

#else

void ec_unpack_words(const uint32_t *from, int32_t bits, int32_t count, uint32_t *to)
{
    const uint32_t offset = ((UINT32_C(1) << (bits - 1)) - 1u) * 0x01010101u;
    for (; count > 0; count -= EC_UNPACK_GROUP) {
        for (int32_t i = 0; i < EC_UNPACK_GROUP; ++i) {
            const uint32_t *part = from;
            uint32_t word = 0;
            if (bits & 1) {
                word = (part[0] >> i) & 0x01010101u;
                part += 1;
            }
            if (bits & 2) {
                word = (word << 2) + ((part[i / 4] >> (i % 4 * 2)) & 0x03030303u);
                part += 2;
            }
            if (bits & 4) {
                word = (word << 4) + ((part[i / 2] >> (i % 2 * 4)) & 0x0F0F0F0Fu);
            }
            to[i] = word - offset;
        }
        from += bits;
        to += EC_UNPACK_GROUP;
    }
}

#endif

const uint32_t *ec_unpack(const ec_unpack_t *p, void *scratch)
{
    const uint32_t *from = p->packed;
    uint32_t *to = scratch;
    for (int32_t block = 0; block < p->blocks; ++block) {
        for (int32_t i = 0; i < p->head; ++i) {
            *to++ = *from++;
        }
        const uint32_t *const scales = from;
        from += p->scaled ? EC_SCALES + 1 : 0;
        ec_unpack_words(from, p->bits, p->words, to);
        from += ec_packed_words(p->words, p->bits);
        to += p->words;
        if (p->scaled) {
            ec_scales(scales, p->half, to);
            to += 3 * EC_SCALES;
        }
    }
    return from;
}
