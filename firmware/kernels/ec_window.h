/* Walks over the windows of a pooling, clipped to the input. */
#ifndef EC_WINDOW_H
#define EC_WINDOW_H

#include <stdint.h>

typedef struct {
    int32_t batches;
    int32_t channels;
    int32_t in_height;
    int32_t in_width;
    int32_t out_height;
    int32_t out_width;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_height;
    int32_t stride_width;
    int32_t pad_top;
    int32_t pad_left;
} ec_window_t;

/* The part of a window that lies inside the input. */
typedef struct {
    int32_t in;  /* its first element in the input, channel 0 */
    int32_t out; /* its element in the output, channel 0 */
    int32_t rows;
    int32_t columns;
    int32_t row;      /* elements from row to row */
    int32_t channels; /* elements from column to column */
} ec_part_t;

/* Where the walk over the windows is: output row (all batches counted) and column. */
static inline ec_part_t ec_window_part(const ec_window_t *w, int32_t out_row, int32_t out_column)
{
    const int32_t batch = out_row / w->out_height;
    const int32_t top = (out_row - batch * w->out_height) * w->stride_height - w->pad_top;
    const int32_t left = out_column * w->stride_width - w->pad_left;
    const int32_t first_row = top > 0 ? top : 0;
    const int32_t first_column = left > 0 ? left : 0;
    const int32_t bottom = top + w->kernel_height;
    const int32_t right = left + w->kernel_width;
    ec_part_t part;
    part.rows = (bottom < w->in_height ? bottom : w->in_height) - first_row;
    part.columns = (right < w->in_width ? right : w->in_width) - first_column;
    part.channels = w->channels;
    part.row = w->in_width * w->channels;
    part.in = (batch * w->in_height + first_row) * part.row + first_column * w->channels;
    part.out = (out_row * w->out_width + out_column) * w->channels;
    return part;
}

/* acc / count, halves away from zero (TFLM AveragePool). */
static inline int32_t ec_pool_mean(int32_t acc, int32_t count)
{
    return (acc > 0 ? acc + count / 2 : acc - count / 2) / count;
}

/* How many channels are taken together when `left` are to do: 4, or 1. */
static inline int32_t ec_window_lanes(int32_t left) { return left >= 4 ? 4 : 1; }

#endif
