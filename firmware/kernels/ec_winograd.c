/* Bits: TFLM reference_integer_ops::ConvPerChannel (int8). */
#include "ec_winograd.h"

#include "ec_winograd_steps.h"

void ec_winograd_s8(const ec_winograd_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    static const ec_winograd_steps_t steps = {
        .tile = 2,
        .weights = ec_winograd_weights,
        .columns = ec_winograd_columns,
        .tiles = ec_winograd_tiles,
        .product = ec_winograd_product,
        .outputs = ec_winograd_outputs,
    };
    ec_winograd_map(p, &steps, (uint32_t)(uint16_t)(2 * p->in_zero) * 0x10001u, in, out, scratch);
}
