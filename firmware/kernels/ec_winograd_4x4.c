/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8). */
#include "ec_winograd_4x4.h"

#include "ec_winograd_4x4_steps.h"
#include "ec_winograd_sums.h"

static void ec_product(const uint32_t *v, const uint32_t *u, int32_t *sums, int32_t places)
{
    ec_winograd_sums(v, u, sums, places, EC_WINOGRAD_4X4_POSITIONS, 0);
}

void ec_winograd_4x4_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    static const ec_winograd_steps_t steps = {
        .tile = 4,
        .edges_by_row = 1,
        .rows_together = 1,
        .weights = ec_winograd_4x4_weights,
        .columns = ec_winograd_4x4_columns,
        .tiles = ec_winograd_4x4_tiles,
        .product = ec_product,
        .outputs = ec_winograd_4x4_outputs,
    };
    ec_winograd_map(p, &steps, 0u - 6u * (uint32_t)(p->in_zero + 128) * 0x10001u, in, out, scratch);
}
