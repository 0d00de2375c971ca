#include "ec_move.h"

#include <string.h>

/* From the first byte to the last, so that none is overwritten before it is read; in words where
 * they stand at words. newlib's small memmove goes byte by byte. */
void ec_move(const ec_move_t *p, void *window)
{
    uint8_t *to = window;
    const uint8_t *from = to + p->from;
    const uint8_t *end = from + p->bytes;
    if (p->from % 4 == 0) {
        for (; end - from >= 16; from += 16, to += 16) {
            uint32_t a, b, c, d;
            memcpy(&a, __builtin_assume_aligned(from, 4), sizeof(a));
            memcpy(&b, __builtin_assume_aligned(from + 4, 4), sizeof(b));
            memcpy(&c, __builtin_assume_aligned(from + 8, 4), sizeof(c));
            memcpy(&d, __builtin_assume_aligned(from + 12, 4), sizeof(d));
            memcpy(__builtin_assume_aligned(to, 4), &a, sizeof(a));
            memcpy(__builtin_assume_aligned(to + 4, 4), &b, sizeof(b));
            memcpy(__builtin_assume_aligned(to + 8, 4), &c, sizeof(c));
            memcpy(__builtin_assume_aligned(to + 12, 4), &d, sizeof(d));
        }
    }
    while (from < end) *to++ = *from++;
}
