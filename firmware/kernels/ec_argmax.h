/* Where the greatest or least value along an axis is; the first of equal ones. */
#ifndef EC_ARGMAX_H
#define EC_ARGMAX_H

#include <stdint.h>

typedef struct {
    int32_t outer; /* elements before, along and behind the axis */
    int32_t count;
    int32_t inner;
    uint8_t least; /* 1: the least */
} ec_argmax_t;

/* An output is written when its inputs have been read, in order. */
void ec_argmax_s8(const ec_argmax_t *p, const int8_t *in, int32_t *out);
void ec_argmax_f32(const ec_argmax_t *p, const float *in, int32_t *out);

#endif
