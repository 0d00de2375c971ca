/* Walks over the outputs of a reduction and over the inputs of each. */
#ifndef EC_AXES_H
#define EC_AXES_H

#include <stdint.h>

#define EC_AXES_RANK 8

/* The axes that stay and those that go, outermost first: per axis its count and its stride in
 * elements. */
typedef struct {
    const int32_t *kept;
    const int32_t *gone;
    int32_t kept_rank; /* 1..EC_AXES_RANK */
    int32_t gone_rank; /* 1..EC_AXES_RANK */
} ec_axes_t;

/* A place in all but the last of some axes. */
typedef struct {
    int32_t index[EC_AXES_RANK];
    int32_t offset;
} ec_place_t;

/* To the next place; 0 after the last one. */
static inline int ec_axes_next(const int32_t *axes, int32_t rank, ec_place_t *place)
{
    for (int32_t i = rank - 2; i >= 0; i--) {
        if (++place->index[i] < axes[2 * i]) {
            place->offset += axes[2 * i + 1];
            return 1;
        }
        place->index[i] = 0;
        place->offset -= (axes[2 * i] - 1) * axes[2 * i + 1];
    }
    return 0;
}

#endif
