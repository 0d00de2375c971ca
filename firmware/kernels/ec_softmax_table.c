/* Bits: TFLM reference_ops::Softmax (int8). */
#include "ec_softmax_table.h"

#include "ec_fixedpoint.h"
#include "ec_math.h"

/* Sums of exponentials are Q12.19. */
enum { EC_SUM_BITS = 12 };

/* Where a row's outputs come from: its greatest input, the reciprocal of its sum, its exponent. */
typedef struct {
    int32_t greatest;
    int32_t scale;
    int32_t shift;
} ec_table_row_t;

static ec_table_row_t ec_table_row(const ec_softmax_table_t *p, const int8_t *in)
{
    ec_table_row_t row = {INT8_MIN, 0, 0};
    for (int32_t i = 0; i < p->depth; ++i) {
        row.greatest = in[i] > row.greatest ? in[i] : row.greatest;
    }
    uint32_t sum = 0;
    for (int32_t i = 0; i < p->depth; ++i) {
        const uint32_t steps = (uint32_t)(row.greatest - in[i]);
        if (steps < p->count) {
            sum += ((uint32_t)p->exp[steps] + (UINT32_C(1) << (EC_SUM_BITS - 1))) >> EC_SUM_BITS;
        }
    }
    const int32_t zeros = __builtin_clz(sum);
    row.scale = ec_one_over_one_plus((int32_t)((sum << zeros) - (UINT32_C(1) << 31)));
    row.shift = EC_SUM_BITS - zeros + 31;
    return row;
}

/* One output of so many bits, from 0 on. */
EC_INLINE int32_t ec_table_output(const ec_softmax_table_t *p, const ec_table_row_t *row,
                                  int32_t value, const int32_t bits)
{
    const uint32_t steps = (uint32_t)(row->greatest - value);
    if (steps >= p->count) {
        return 0;
    }
    const int32_t right = row->shift - bits < 31 ? row->shift - bits : 31;
    const uint32_t product = (uint32_t)ec_doubling_high_mul(row->scale, p->exp[steps]);
    const uint32_t output = (product + (UINT32_C(1) << (right - 1))) >> right;
    return output < (UINT32_C(1) << bits) ? (int32_t)output : (INT32_C(1) << bits) - 1;
}

void ec_softmax_table_s8(const ec_softmax_table_t *p, const int8_t *in, int8_t *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        const ec_table_row_t row = ec_table_row(p, in);
        for (int32_t i = 0; i < p->depth; ++i) {
            *out++ = (int8_t)(ec_table_output(p, &row, *in++, 8) + INT8_MIN);
        }
    }
}

void ec_softmax_table_s8_s16(const ec_softmax_table_t *p, const int8_t *in, int16_t *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        const ec_table_row_t row = ec_table_row(p, in);
        for (int32_t i = 0; i < p->depth; ++i) {
            *out++ = (int16_t)(ec_table_output(p, &row, *in++, 16) + INT16_MIN);
        }
    }
}
