/* BATCH_MATMUL: products of two matrices that are computed, transposed or broadcast at will. */
#ifndef EC_BATCH_MATMUL_H
#define EC_BATCH_MATMUL_H

#include <stdint.h>

enum { EC_MATMUL_BATCHES = 3 };

/* left [rows, depth] times right [depth, columns], for every batch; steps are elements, 0 along a
 * batch that is broadcast. */
typedef struct {
    int32_t rows;
    int32_t depth;
    int32_t columns;
    int32_t left_row;
    int32_t left_depth;
    int32_t right_depth;
    int32_t right_column;
    int32_t batches[EC_MATMUL_BATCHES];
    int32_t left_batch[EC_MATMUL_BATCHES];
    int32_t right_batch[EC_MATMUL_BATCHES];
} ec_matmul_shape_t;

typedef struct {
    ec_matmul_shape_t shape;
    int32_t left_zero;
    int32_t right_zero;
    int32_t out_zero;
    int32_t low;
    int32_t high;
    int32_t multiplier;
    int32_t shift;
} ec_batch_matmul_t;

void ec_batch_matmul_s8(const ec_batch_matmul_t *p, const int8_t *left, const int8_t *right,
                        int8_t *out);

/* Zero points are 0. */
void ec_batch_matmul_s16(const ec_batch_matmul_t *p, const int16_t *left, const int16_t *right,
                         int16_t *out);

void ec_batch_matmul_f32(const ec_matmul_shape_t *p, const float *left, const float *right,
                         float *out);

#endif
