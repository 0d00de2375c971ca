/* What the kernels for cores with Helium (MVE) share. */
#ifndef EC_MVE_H
#define EC_MVE_H

#include <arm_mve.h>
#include <stdint.h>

/* Copies `count` bytes to a place that lies apart; returns where the next one goes. */
static inline int8_t *ec_mve_copy(int8_t *to, const int8_t *from, int32_t count)
{
    int8_t *next = to;
    __asm__ volatile( /* compilers make no tail-predicated loops */
        "wlstp.8 lr, %[count], 2f\n\t"
        "1:\n\t"
        "vldrb.8 q0, [%[from]], #16\n\t"
        "vstrb.8 q0, [%[next]], #16\n\t"
        "letp lr, 1b\n\t"
        "2:"
        : [next] "+r"(next), [from] "+r"(from)
        : [count] "r"(count)
        : "q0", "lr", "cc", "memory");
    return to + count;
}

static inline int8_t *ec_mve_fill(int8_t *to, int32_t value, int32_t count)
{
    int8_t *next = to;
    __asm__ volatile(
        "vdup.8 q0, %[value]\n\t"
        "wlstp.8 lr, %[count], 2f\n\t"
        "1:\n\t"
        "vstrb.8 q0, [%[next]], #16\n\t"
        "letp lr, 1b\n\t"
        "2:"
        : [next] "+r"(next)
        : [count] "r"(count), [value] "r"(value)
        : "q0", "lr", "cc", "memory");
    return to + count;
}

/* ec_requantize_right without its zero point, four at a time; `right` holds the shifts negated.
 * VQRDMULH rounds as ec_doubling_high_mul does, and nothing saturates. */
static inline int32x4_t ec_mve_requantize(int32x4_t x, int32x4_t multipliers, int32x4_t right)
{
    x = vqrdmulhq_s32(x, multipliers);
    x = vaddq_s32(x, vshrq_n_s32(x, 31));
    return vrshlq_s32(x, right);
}

#endif
