/* A function of one 8-bit value as a table of its 256 results. */
#ifndef EC_LUT_H
#define EC_LUT_H

#include <stdint.h>

/* `table` is indexed by the value's bits as an unsigned number: 0..127, then -128..-1 for int8. */
typedef struct {
    uint32_t count;
    const uint8_t *table;
} ec_lut_t;

/* out = table[in] for `count` bytes of int8 or uint8 in any combination; out may be in, or lie
 * below it. */
void ec_lut_8(const ec_lut_t *p, const void *in, void *out);

#endif
