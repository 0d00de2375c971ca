/* SOFTMAX of int8 over the last axis, with a table of exponentials. */
#ifndef EC_SOFTMAX_TABLE_H
#define EC_SOFTMAX_TABLE_H

#include <stdint.h>

/* exp[k] is exp of -k steps of the input as Q0.31; what lies beyond `count` of them adds nothing to
 * a sum and gives the least output. */
typedef struct {
    int32_t rows;
    int32_t depth;
    uint32_t count;
    const int32_t *exp;
} ec_softmax_table_t;

void ec_softmax_table_s8(const ec_softmax_table_t *p, const int8_t *in, int8_t *out);

void ec_softmax_table_s8_s16(const ec_softmax_table_t *p, const int8_t *in, int16_t *out);

#endif
