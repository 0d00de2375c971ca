/* Bits: TFLM reference_ops::BatchMatMul, int8 with 32-bit and int16 with 64-bit accumulators. */
#include "ec_exact.h"

#include "ec_batch_matmul.h"

#include <stddef.h>

#include "ec_math.h"

enum { EC_COLUMNS = 4 };

/* Where the operands of output element `index` begin, in elements. */
typedef struct {
    ptrdiff_t left;
    ptrdiff_t right;
} ec_operands_t;

static ec_operands_t ec_operands(const ec_matmul_shape_t *s, int32_t index)
{
    ec_operands_t at;
    at.right = (ptrdiff_t)(index % s->columns) * s->right_column;
    index /= s->columns;
    at.left = (ptrdiff_t)(index % s->rows) * s->left_row;
    index /= s->rows;
    for (int32_t axis = EC_MATMUL_BATCHES - 1; axis >= 0; --axis) {
        const int32_t place = index % s->batches[axis];
        at.left += (ptrdiff_t)place * s->left_batch[axis];
        at.right += (ptrdiff_t)place * s->right_batch[axis];
        index /= s->batches[axis];
    }
    return at;
}

static int32_t ec_elements(const ec_matmul_shape_t *s)
{
    return s->batches[0] * s->batches[1] * s->batches[2] * s->rows * s->columns;
}

/* Products of a row of the left operand with `columns` (1 or 4) columns of the right one. */
EC_INLINE void ec_columns(const ec_batch_matmul_t *p, const int8_t *left, const int8_t *right,
                          int8_t *out, int32_t columns)
{
    const ec_matmul_shape_t *s = &p->shape;
    const int32_t left_zero = p->left_zero;
    const int32_t right_zero = p->right_zero;
    uint32_t sums[EC_COLUMNS] = {0, 0, 0, 0};
    ptrdiff_t a = 0;
    ptrdiff_t b = 0;
    for (int32_t i = s->depth; i > 0; --i) {
        const int32_t x = left[a] - left_zero;
        EC_UNROLL for (int32_t column = 0; column < columns; ++column) {
            const int32_t y = right[b + column * s->right_column] - right_zero;
            sums[column] += (uint32_t)(x * y);
        }
        a += s->left_depth;
        b += s->right_depth;
    }
    EC_UNROLL for (int32_t column = 0; column < columns; ++column) {
        const int32_t x = ec_requantize((int32_t)sums[column], p->multiplier, p->shift);
        out[column] = (int8_t)ec_clamp(x + p->out_zero, p->low, p->high);
    }
}

void ec_batch_matmul_s8(const ec_batch_matmul_t *p, const int8_t *left, const int8_t *right,
                        int8_t *out)
{
    const int32_t count = ec_elements(&p->shape);
    for (int32_t index = 0; index < count;) {
        const ec_operands_t at = ec_operands(&p->shape, index);
        if (index % p->shape.columns + EC_COLUMNS <= p->shape.columns) {
            ec_columns(p, left + at.left, right + at.right, out + index, EC_COLUMNS);
            index += EC_COLUMNS;
        } else {
            ec_columns(p, left + at.left, right + at.right, out + index, 1);
            ++index;
        }
    }
}

void ec_batch_matmul_s16(const ec_batch_matmul_t *p, const int16_t *left, const int16_t *right,
                         int16_t *out)
{
    const ec_matmul_shape_t *s = &p->shape;
    const int32_t count = ec_elements(s);
    for (int32_t index = 0; index < count; ++index) {
        ec_operands_t at = ec_operands(s, index);
        int64_t sum = 0;
        for (int32_t i = s->depth; i > 0; --i) {
            sum += (int32_t)left[at.left] * right[at.right];
            at.left += s->left_depth;
            at.right += s->right_depth;
        }
        const int32_t x = ec_requantize_wide(sum, p->multiplier, p->shift);
        out[index] = (int16_t)ec_clamp(x, p->low, p->high);
    }
}

void ec_batch_matmul_f32(const ec_matmul_shape_t *p, const float *left, const float *right,
                         float *out)
{
    const int32_t count = ec_elements(p);
    for (int32_t index = 0; index < count; ++index) {
        ec_operands_t at = ec_operands(p, index);
        float sum = 0.0f;
        for (int32_t i = p->depth; i > 0; --i) {
            sum += left[at.left] * right[at.right];
            at.left += p->left_depth;
            at.right += p->right_depth;
        }
        out[index] = sum;
    }
}
