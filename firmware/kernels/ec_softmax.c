/* Bits: TFLM reference_ops::Softmax (int8) and SoftmaxInt16. */
#include "ec_softmax.h"

#include "ec_fixedpoint.h"

/* Sums of exponentials are Q12.19. */
enum { EC_SUM_BITS = 12 };

/* exp of a difference to the greatest of its row, as Q0.31. */
static int32_t ec_exp_of(const ec_softmax_t *p, int32_t difference)
{
    return ec_exp_q26(ec_doubling_high_mul(ec_shift_left(difference, p->shift), p->multiplier));
}

/* Where a row's outputs come from: its greatest input, the reciprocal of its sum, its exponent. */
typedef struct {
    int32_t greatest;
    int32_t scale;
    int32_t shift;
} ec_softmax_row_t;

static ec_softmax_row_t ec_sum_row(const ec_softmax_t *p, const int8_t *in, int32_t out_bits)
{
    ec_softmax_row_t row = {INT8_MIN, 0, 0};
    for (int32_t i = 0; i < p->depth; ++i) {
        row.greatest = in[i] > row.greatest ? in[i] : row.greatest;
    }
    int32_t sum = 0;
    for (int32_t i = 0; i < p->depth; ++i) {
        const int32_t difference = in[i] - row.greatest;
        if (difference >= p->least_difference) {
            sum += ec_rounding_shift_right(ec_exp_of(p, difference), EC_SUM_BITS);
        }
    }
    const int32_t zeros = __builtin_clz((uint32_t)sum);
    row.scale = ec_one_over_one_plus((int32_t)(((uint32_t)sum << zeros) - (UINT32_C(1) << 31)));
    row.shift = EC_SUM_BITS - zeros + 31 - out_bits;
    row.shift = row.shift > 31 ? 31 : row.shift;
    return row;
}

/* One output, from 0 on. */
static int32_t ec_probability(const ec_softmax_t *p, const ec_softmax_row_t *row, int32_t value)
{
    const int32_t difference = value - row->greatest;
    if (difference < p->least_difference) {
        return 0;
    }
    const int32_t product = ec_doubling_high_mul(row->scale, ec_exp_of(p, difference));
    return ec_rounding_shift_right(product, row->shift);
}

void ec_softmax_s8(const ec_softmax_t *p, const int8_t *in, int8_t *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        const ec_softmax_row_t row = ec_sum_row(p, in, 8);
        for (int32_t i = 0; i < p->depth; ++i) {
            const int32_t x = ec_probability(p, &row, *in++);
            *out++ = (int8_t)ec_clamp(x + INT8_MIN, INT8_MIN, INT8_MAX);
        }
    }
}

void ec_softmax_s8_s16(const ec_softmax_t *p, const int8_t *in, int16_t *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        const ec_softmax_row_t row = ec_sum_row(p, in, 16);
        for (int32_t i = 0; i < p->depth; ++i) {
            const int32_t x = ec_probability(p, &row, *in++);
            *out++ = (int16_t)ec_clamp(x + INT16_MIN, INT16_MIN, INT16_MAX);
        }
    }
}

void ec_softmax_s16(const ec_softmax_s16_t *p, const int16_t *in, int16_t *out)
{
    for (int32_t r = 0; r < p->rows; ++r) {
        int32_t greatest = INT16_MIN;
        for (int32_t i = 0; i < p->depth; ++i) {
            greatest = in[i] > greatest ? in[i] : greatest;
        }
        int32_t sum = 0;
        for (int32_t i = 0; i < p->depth; ++i) {
            const int32_t x = ec_requantize(in[i] - greatest, p->multiplier, p->shift);
            out[i] = (int16_t)ec_lookup_s16(p->exp, ec_clamp(x + INT16_MAX, INT16_MIN, INT16_MAX));
            sum += out[i];
        }
        const int32_t zeros = __builtin_clz((uint32_t)sum);
        const uint32_t scaled = (((uint32_t)sum << (zeros - 1)) + (1u << 13)) >> 14;
        const int32_t centred = ec_clamp((int32_t)scaled - 0x18000, INT16_MIN, INT16_MAX);
        const int32_t scale = ec_lookup_s16(p->reciprocal, centred);
        const int32_t shift = 31 - zeros;
        for (int32_t i = 0; i < p->depth; ++i) {
            const int32_t x = (out[i] * scale + (INT32_C(1) << (shift - 1))) >> shift;
            out[i] = (int16_t)ec_clamp(x, 0, INT16_MAX);
        }
        in += p->depth;
        out += p->depth;
    }
}
