/* Element by element over two inputs: the loops that all such kernels share.
 *
 * A kernel `name` has both inputs in the output's shape. `name_broadcast` repeats elements of one
 * input or of both: the output is a sequence of runs of `count` elements, and along a run an input
 * moves on (step 1) or stays (step 0). Neither overwrites what it still has to read where the
 * output lies at or below an input of its own size.
 */
#ifndef EC_ELEMENTWISE_H
#define EC_ELEMENTWISE_H

#include <stdint.h>

#define EC_BROADCAST_RANK 5

/* How the runs follow each other: `rank` outer dimensions, the innermost first; stride: the
 * elements by which an input moves along each, 0 where it repeats. */
typedef struct {
    uint32_t step1;
    uint32_t step2;
    uint32_t rank;
    uint32_t shape[EC_BROADCAST_RANK];
    uint32_t stride1[EC_BROADCAST_RANK];
    uint32_t stride2[EC_BROADCAST_RANK];
} ec_broadcast_t;

/* Where a run starts in both inputs, in elements. */
typedef struct {
    uint32_t first;
    uint32_t second;
    uint32_t index[EC_BROADCAST_RANK];
} ec_broadcast_at_t;

/* Moves `at` to the next run; 0 after the last one. */
static inline int ec_broadcast_next(const ec_broadcast_t *p, ec_broadcast_at_t *at)
{
    for (uint32_t k = 0; k < p->rank; k++) {
        if (++at->index[k] < p->shape[k]) {
            at->first += p->stride1[k];
            at->second += p->stride2[k];
            return 1;
        }
        at->index[k] = 0;
        at->first -= p->stride1[k] * (p->shape[k] - 1);
        at->second -= p->stride2[k] * (p->shape[k] - 1);
    }
    return 0;
}

/* Declares `name` and `name_broadcast` over parameters of the type `params` with a field `count`.
 */
#define EC_ELEMENTWISE_DECLARE(name, params, in1_t, in2_t, out_t)                           \
    typedef struct {                                                                        \
        params each;                                                                        \
        ec_broadcast_t over;                                                                \
    } name##_broadcast_t;                                                                   \
    void name(const params *p, const in1_t *in1, const in2_t *in2, out_t *out);             \
    void name##_broadcast(const name##_broadcast_t *p, const in1_t *in1, const in2_t *in2,  \
                          out_t *out)

/* Defines them from `one(&parameters, x, y)`. The parameters are copied first: an output of chars
 * could otherwise alias them, and each element would read them again. */
#define EC_ELEMENTWISE_DEFINE(name, one, params, in1_t, in2_t, out_t)                       \
    void name(const params *p, const in1_t *in1, const in2_t *in2, out_t *out)              \
    {                                                                                       \
        const params each = *p;                                                             \
        for (const out_t *end = out + each.count; out != end;) {                            \
            *out++ = one(&each, *in1++, *in2++);                                            \
        }                                                                                   \
    }                                                                                       \
    EC_ELEMENTWISE_DEFINE_BROADCAST(name, one, params, in1_t, in2_t, out_t)

/* Defines `name_broadcast` alone. */
#define EC_ELEMENTWISE_DEFINE_BROADCAST(name, one, params, in1_t, in2_t, out_t)             \
    void name##_broadcast(const name##_broadcast_t *p, const in1_t *in1, const in2_t *in2,  \
                          out_t *out)                                                       \
    {                                                                                       \
        const params each = p->each;                                                        \
        const uint32_t step1 = p->over.step1;                                               \
        const uint32_t step2 = p->over.step2;                                               \
        ec_broadcast_at_t at = {0};                                                         \
        do {                                                                                \
            const in1_t *x = in1 + at.first;                                                \
            const in2_t *y = in2 + at.second;                                               \
            for (const out_t *end = out + each.count; out != end; x += step1, y += step2) { \
                *out++ = one(&each, *x, *y);                                                \
            }                                                                               \
        } while (ec_broadcast_next(&p->over, &at));                                         \
    }

#endif
