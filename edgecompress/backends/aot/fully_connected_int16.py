"""ec_fully_connected_pairs_s16: int16 matrices, two outputs in one halfword of weights."""

from __future__ import annotations

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Site, Struct, Value, Values
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range
from edgecompress.backends.aot.int16 import ending, fits, high_factors, unsigned
from edgecompress.backends.aot.layer import Ints, padded
from edgecompress.backends.aot.pairs import MOST_SCRATCH, paired

BLOCK = 6
"""Outputs that are computed together."""


def fully_connected_int16(
    site: Site, values: Values, bias: Values | None, factor: Multiplier
) -> Call | None:
    """The call of ec_fully_connected_pairs_s16, None where it does not apply or a bound fails.

    `values` are int8 weights [outputs, inputs] with zero point 0, `bias` int64. Bounds: sums fit
    int32 whatever the input; the factor is in [2^-18, 1/2) or 0; no weight of -128 of an odd output
    beside a negative one of the output before.
    """
    data, out = site.arg(0), site.result()
    outputs, inputs = values.shape
    batches = data.elements // inputs
    steps = -(-inputs // 2)
    order = np.where(np.arange(2 * steps) < inputs, np.arange(2 * steps), -1)
    words = paired(values, order, block=BLOCK)
    factors = high_factors([factor])
    if words is None or factors is None or not fits(values, bias) or 4 * steps > MOST_SCRATCH:
        return None
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    limited = int(ending(low, high) != 0)
    start = _starts(np.zeros(outputs, np.int64) if bias is None else bias)
    fields: dict[str, Value] = {
        "batches": batches,
        "inputs": inputs,
        "outputs": outputs,
        "steps": steps,
        "factor": int(factors[0]),
        "limited": limited,
        "low": low,
        "high": high,
        "weights": Array("uint32_t", np.concatenate([start, words], axis=1)),
    }
    block = 12 * steps + 3 * (1 + (steps - 1) // 8) + 43 + 14 * limited
    row = 45 + (3 * inputs if inputs % 2 else 0) + (40 if outputs % BLOCK else 0)
    return Call(
        function="ec_fully_connected_pairs_s16",
        family="ec_fully_connected_pairs_s16",
        params=Struct("ec_fully_connected_pairs_s16_t", fields),
        inputs=site.op.inputs[:1],
        outputs=site.op.outputs,
        scratch=4 * steps * (inputs % 2),
        instructions=batches * (row + block * -(-outputs // BLOCK)) + 40,
    )


def _starts(bias: Ints) -> Ints:
    """What the sums of each block (rows) start with: b4, three times 256 * odd + even, b0, b2."""
    even, odd = padded(bias, axis=0, multiple=BLOCK).reshape(-1, 2).T
    both = 256 * odd + even
    halves = np.stack([unsigned(both), unsigned(both >> 32)], axis=1).reshape(-1, BLOCK)
    first = unsigned(even).reshape(-1, BLOCK // 2)
    return np.concatenate([first[:, 2:], halves, first[:, :2]], axis=1)
