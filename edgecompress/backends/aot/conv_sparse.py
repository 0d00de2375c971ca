"""ec_conv_sparse: convolutions with few pairs of weights other than 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.fully_connected_sparse import bounded, heads_of
from edgecompress.backends.aot.layer import Ints, Layer, folded_bias, padded
from edgecompress.backends.aot.pairs import (
    MOST_RESULT,
    MOST_SCRATCH,
    limits,
    runs_of,
    staged,
    staging,
)
from edgecompress.backends.aot.sliding import Shape
from edgecompress.backends.aot.sparse import gaps

PIXELS = 4
"""Output pixels that are computed together."""
MOST_GAP = 15
MOST_ENTRIES = (1 << 16) - 1


def conv_sparse(layer: Layer, multipliers: Sequence[Multiplier]) -> Call | None:
    """The call of ec_conv_sparse for an int8 `layer`, None where it does not apply, saves no flash
    or a bound fails.

    It applies to int8 weights, one group, and factors in [2^-23, 1/2) or 0. Bounds, whatever the
    input: sums below 2^30 - 2^14, results in int16 before saturation.
    """
    if layer.groups != 1 or layer.nibbles or layer.data.dtype != "int8":
        return None
    run, runs = runs_of(layer.shape)
    pairs = _pairs(layer.flat, run)
    if not _saves(pairs):
        return None
    bias = folded_bias(layer)
    if not _bounded(layer.flat, bias, multipliers):
        return None
    rows = [_entries(one) for one in pairs]
    counts = np.array([len(row) // 3 for row in rows])
    row, left, inside = staged(layer.shape)
    slots = _slots(layer.shape.width.out)
    steps = pairs.shape[1]
    scratch = 4 * PIXELS * steps + slots * layer.shape.height.kernel * row
    if layer.shape.pixels % PIXELS:
        scratch += PIXELS * layer.shape.out_channels
    if counts.max() > MOST_ENTRIES or scratch > MOST_SCRATCH:
        return None
    low, high = activation_range(layer.activation, layer.out)
    conv: dict[str, Value] = {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "run": run,
        "runs_per_row": runs,
        "steps": steps,
        "staged_row": row,
        "staged_left": left,
        "staged_inside": inside,
        "limits": limits(low, high),
    }
    fields: dict[str, Value] = {
        "conv": Struct("ec_conv_pairs_t", conv),
        "half": 2 * (zero_point_of(layer.out) + 128) + 1,
        "slots": slots,
        "reverse": 0,
        "heads": Array("uint32_t", heads_of(bias, multipliers, counts)),
        "weights": Array("uint8_t", np.concatenate([*rows, np.zeros(1, np.uint8)])),
    }
    return Call(
        function="ec_conv_sparse_s8",
        family="ec_conv_sparse",
        params=Struct("ec_conv_sparse_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=scratch,
        reuses=layer.shape.reuse(itemsize=1, step=PIXELS, staged=True),
        instructions=_instructions(layer.shape, conv, counts),
    )


def _saves(pairs: Ints) -> bool:
    """Whether entries and heads take less flash than the weights, but for what bridges gaps."""
    return bool(3 * pairs.any(axis=2).sum() + 12 * len(pairs) < pairs.size)


def _pairs(weights: Ints, run: int) -> Ints:
    """The weights [channel, step, 2] as their inputs are expanded: runs of an even length."""
    return padded(weights.reshape(len(weights), -1, run), axis=2, multiple=2).reshape(
        len(weights), -1, 2
    )


def _entries(pairs: Ints) -> Ints:
    """A channel's entries of three bytes (uint8), from its weights [step, 2]."""
    kept = pairs.any(axis=1)
    numbered = np.append(0, np.where(kept, np.arange(1, len(pairs) + 1), 0))
    distances, numbers = gaps(numbered, most=MOST_GAP + 1)
    found = np.zeros((len(distances), 3), np.uint8)
    found[:, [0, 2]] = np.where(numbers[:, None] > 0, pairs[numbers - 1], 0).astype(np.uint8)
    found[:, 1] = 16 * (distances - 1)
    return found.reshape(-1)


def _slots(width: int) -> int:
    """Output rows that PIXELS pixels, from a multiple of that on, may lie in: 1, 2 or 4."""
    return 1 if width % PIXELS == 0 else 2 if width > 1 else PIXELS


def _bounded(weights: Ints, bias: Ints, multipliers: Sequence[Multiplier]) -> bool:
    reach = 128 * np.abs(weights.astype(np.int64)).sum(axis=1) + np.abs(bias)
    factors = np.array([value * 2.0 ** (shift - 31) for value, shift in multipliers])
    return bool(
        bounded(weights, bias, multipliers) and (reach * factors).max() + 2 * 256 < MOST_RESULT
    )


def _instructions(shape: Shape, fields: Mapping[str, Value], counts: Ints) -> int:
    """What the call takes on a Cortex-M4: its loops counted, what is around them as measured."""
    size = {name: value for name, value in fields.items() if isinstance(value, int)}
    run, rows = size["run"], shape.height.kernel * size["runs_per_row"]
    channels = int((56 + 8 * counts + 2 * (counts // 8)).sum())
    rest = 32 + 40 * -(-(run % 4) // 2) if run % 4 else 0
    group = 262 + rows * (22 + 30 * (run // 4) + rest) + channels
    return -(-shape.pixels // PIXELS) * group + staging(shape, size)
