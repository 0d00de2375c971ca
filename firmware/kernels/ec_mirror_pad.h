/* Padding with the input's own values, mirrored at its borders. */
#ifndef EC_MIRROR_PAD_H
#define EC_MIRROR_PAD_H

#include <stdint.h>

#define EC_MIRROR_PAD_AXES 8

typedef struct {
    const int32_t *axes; /* per axis, outermost first: count out, count in, padding before */
    int32_t rank;        /* 1..EC_MIRROR_PAD_AXES */
    int32_t run;         /* bytes that are moved together */
    uint8_t offset;      /* 1: the border itself is not repeated (REFLECT), 0: it is (SYMMETRIC) */
} ec_mirror_pad_t;

void ec_mirror_pad(const ec_mirror_pad_t *p, const void *in, void *out);

#endif
