"""ec_fully_connected_pairs: matrices with the weights of two outputs in one halfword."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Site, Struct, Values
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.layer import padded
from edgecompress.backends.aot.pairs import (
    MOST_SCRATCH,
    biases,
    expanded_order,
    limits,
    paired,
    proven,
    scales,
)

BLOCK = 8
"""Outputs that are computed together."""


def fully_connected_pairs(
    site: Site, values: Values, bias: Values | None, factors: Sequence[Multiplier], reuse: Reuse
) -> Call | None:
    """The call of ec_fully_connected_pairs for int8 activations, None where a bound fails.

    `values` are int8 weights [outputs, inputs] with zero point 0, `bias` int32, `factors` one for
    all outputs or one each. The bounds are those of pairs.by_pairs.
    """
    data, out = site.arg(0), site.result()
    outputs, inputs = values.shape
    batches = data.elements // inputs
    folded = -zero_point_of(data) * values.sum(axis=1, dtype=np.int64)
    if bias is not None:
        folded = folded + bias.astype(np.int64)
    flat = padded(values, axis=1, multiple=4)
    order = expanded_order(flat.shape[1], 1)
    words = paired(flat, order, block=BLOCK)
    if words is None or 2 * len(order) > MOST_SCRATCH:
        return None
    each = tuple(factors) * (outputs // len(factors))
    if not proven(values, folded, each):
        return None
    shared = len(factors) == 1
    zero = zero_point_of(out)
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    scaled = scales(factors, zero)
    steps = len(order) // 2
    fields = {
        "batches": batches,
        "inputs": inputs,
        "outputs": outputs,
        "steps": steps,
        "scale_step": 0 if shared else 3,
        "limits": limits(low, high),
        "weights": Array("uint32_t", np.concatenate([biases(folded, block=BLOCK), words], axis=1)),
        "scales": Array("uint32_t", scaled if shared else padded(scaled, axis=0, multiple=BLOCK)),
    }
    return Call(
        function="ec_fully_connected_pairs_s8",
        family="ec_fully_connected_pairs",
        params=Struct("ec_fully_connected_pairs_t", fields),
        inputs=site.op.inputs[:1],
        outputs=site.op.outputs,
        scratch=4 * steps,
        reuses=(reuse,),
        instructions=_instructions(outputs, steps, batches),
    )


def _instructions(outputs: int, steps: int, batches: int) -> int:
    """What the call takes on a Cortex-M4: its loops counted, what is around them as measured."""
    block = 15 * steps + 3 * (1 + (steps - 1) // 8) + 86
    row = 103 + 25 * steps // 4 + (37 if outputs % BLOCK else 0)
    return batches * (row + block * -(-outputs // BLOCK))
