/* Moving data: strided copies and padding. Elements are moved as bytes, whatever they mean. */
#ifndef EC_SHAPE_H
#define EC_SHAPE_H

#include <stdint.h>

#define EC_SHAPE_AXES 8

/* A copy of runs of `run` bytes: from in_start on with the first strides, to out_start on with the
 * second. Serves SLICE, STRIDED_SLICE, TRANSPOSE, PACK and UNPACK, CONCATENATION (one call per
 * input) and SPLIT (one call per output). */
typedef struct {
    const int32_t *axes; /* per axis, outermost first: count, stride in, stride out, in bytes */
    int32_t rank;        /* 1..EC_SHAPE_AXES */
    int32_t run;
    int32_t in_start;
    int32_t out_start;
    uint8_t reverse; /* from the last run to the first */
} ec_copy_t;

/* Padding: rows of `before` filling bytes, `run` bytes of input and `after` filling bytes; the
 * rows that lie outside the input are all filling. */
typedef struct {
    const int32_t *axes; /* per axis of rows, outermost first: count, first and end of the inside */
    int32_t rank;        /* 1..EC_SHAPE_AXES */
    int32_t rows;        /* of the output */
    int32_t run;
    int32_t before;
    int32_t after;
    uint32_t value; /* the element to fill with, in the low bytes */
    uint8_t width;  /* bytes of an element: 1, 2 or 4 */
    uint8_t reverse; /* from the last row to the first */
} ec_pad_t;

/* The output overlaps the input as far as the memory plan allows. */
void ec_copy(const ec_copy_t *p, const void *in, void *out);

void ec_pad(const ec_pad_t *p, const void *in, void *out);

#endif
