"""ec_conv_pairs: convolutions with the weights of two output channels in one halfword.

A word of such weights serves two channels: a product with it adds 256 * P + Q, one with its even
bytes Q alone. That is exact only within bounds, which are proven here for every channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Struct, Value
from edgecompress.backends.aot.decoding import decoded_first
from edgecompress.backends.aot.fixedpoint import (
    Multiplier,
    activation_range,
    zero_point_of,
)
from edgecompress.backends.aot.layer import (
    MOST_SHIFT,
    MOST_SUM,
    Ints,
    Layer,
    filler,
    folded_bias,
    padded,
)
from edgecompress.backends.aot.packing import unpacked_first
from edgecompress.backends.aot.sliding import Axis, Shape

MOST_ODD_SUM = 1 << 23
"""Bound on the sum of an odd channel, which is kept 256 times as large."""
MOST_RESULT = 1 << 15
"""Bound on a result before it is saturated: int16."""
MOST_SCRATCH = 1 << 24
"""Bytes of working memory."""
BLOCK = 4
"""Output channels that are computed together."""
PARTS = (2 << 10, 8 << 10)
"""Bytes of scratch in which packed weights are unpacked part by part."""


def by_pairs(layer: Layer, multipliers: Sequence[Multiplier]) -> Call | None:
    """The call of ec_conv_pairs for an int8 `layer`, None where it does not apply or a bound fails.

    It applies to int8 weights, one group, and factors in [2^-23, 1/2) or 0. Bounds, whatever the
    input: sums below 2^30, those of odd channels below 2^23, results in int16 before saturation; no
    weight of -128 in an odd channel beside a negative one of the channel before.
    """
    if layer.groups != 1 or layer.nibbles or layer.data.dtype != "int8":
        return None
    run, runs = runs_of(layer.shape)
    order = expanded_order(run, runs * layer.shape.height.kernel)
    bias = folded_bias(layer)
    weights = paired(layer.flat, order, block=BLOCK)
    row, left, inside = staged(layer.shape)
    slots = layer.shape.height.kernel * (1 + layer.shape.width.out % 2)
    scratch = 4 * len(order) + row * slots
    if weights is None or scratch > MOST_SCRATCH:
        return None
    if not proven(layer.flat, bias, multipliers):
        return None
    low, high = activation_range(layer.activation, layer.out)
    zero = zero_point_of(layer.out)
    scaled = padded(scales(multipliers, zero), axis=0, multiple=BLOCK)
    blocks = [biases(bias, block=BLOCK), weights, scaled.reshape(len(weights), -1)]
    fields: dict[str, Value] = {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "run": run,
        "runs_per_row": runs,
        "steps": len(order) // 2,
        "staged_row": row,
        "staged_left": left,
        "staged_inside": inside,
        "rectified": int(zero == low == -128 and high == 127),
        "limits": limits(low, high),
        "reverse": 0,
        "weights": Array("uint32_t", np.concatenate(blocks, axis=1)),
    }
    return Call(
        function="ec_conv_pairs_s8",
        family="ec_conv_pairs",
        params=Struct("ec_conv_pairs_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=scratch,
        reuses=layer.shape.reuse(itemsize=1, step=2, staged=True),
        instructions=_instructions(layer.shape, fields),
    )


def packed_pairs(call: Call, shape: Shape, out_zero: int) -> list[Call]:
    """A call of by_pairs with its weights encoded or packed in flash, where that saves any:
    decoded or unpacked all at once, or as many packed blocks at a time as PARTS bytes of scratch
    hold."""
    assert call.params is not None
    array = call.params.fields["weights"]
    assert isinstance(array, Array)
    blocks = len(array.values)
    unpacked = unpacked_first(call, blocks=blocks, head=BLOCK, out_zero=out_zero)
    decoded = decoded_first(call, blocks=blocks, head=BLOCK, out_zero=out_zero, paired=True)
    found: list[Call] = []
    if unpacked is not None:
        found += [unpacked, *_in_parts(call, unpacked, shape, "packed", "unpack")]
    if decoded is not None:
        found += [decoded, *_in_parts(call, decoded, shape, "decoded", "decode")]
    return found


def _in_parts(call: Call, whole: Call, shape: Shape, form: str, field: str) -> Iterator[Call]:
    """Calls that make all pixels for some channels, then for the next ones: `call` with its weights
    written to scratch part by part; `whole` writes them at once."""
    assert call.params is not None and whole.unpacked is not None
    assert call.instructions is not None and whole.instructions is not None
    fields = call.params.fields
    array = fields["weights"]
    assert isinstance(array, Array)
    blocks, words = array.values.shape
    size, own = 4 * words, call.scratch or 0
    for part in sorted({_even(blocks, max((most - own) // size, 1)) for most in PARTS} - {blocks}):
        before = (blocks - 1) // part
        last = shape.out_channels - BLOCK * part * before
        made = before * _instructions(replace(shape, out_channels=BLOCK * part), fields)
        made += _instructions(replace(shape, out_channels=last), fields)
        params: dict[str, Value] = {"conv": Struct(call.params.ctype, {**fields, "weights": None})}
        params |= {"part": part, field: whole.unpacked.params}
        yield replace(
            whole,
            function=f"ec_conv_pairs_{form}_s8",
            params=Struct(f"ec_conv_pairs_{form}_t", params),
            scratch=part * size + own,
            reuses=(),
            instructions=whole.instructions - call.instructions + made,
        )


def _even(blocks: int, most: int) -> int:
    """Blocks of each of as few parts as possible, at most `most`, the parts about equal."""
    return -(-blocks // -(-blocks // most))


def runs_of(shape: Shape) -> tuple[int, int]:
    """Elements that lie side by side in the input and in a row of weights; such runs per row."""
    taps = shape.width.kernel
    if shape.width.dilation > 1:
        return shape.channels, taps
    return taps * shape.channels, 1


def expanded_order(run: int, count: int) -> Ints:
    """Which weight of a channel meets each element of `count` runs of `run` that are expanded.

    -1: none (int64, 2 per step).
    """
    quads = np.arange(run // 4 * 4).reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(-1)
    rest = np.array([[], [0, -1], [0, 1], [0, 2, 1, -1]][run % 4], np.int64)
    one = np.concatenate([quads, np.where(rest < 0, -1, rest + len(quads))])
    starts = run * np.arange(count)[:, None]
    return np.where(one < 0, -1, one + starts).reshape(-1)


def paired(weights: Ints, order: Ints, *, block: int) -> Ints | None:
    """The words of `weights`, one row per `block` output channels: each step's, pair after pair.

    Channels are padded (see `filler`) to whole blocks; `order` is that of expanded_order. None
    where a halfword cannot hold the weights of two channels.
    """
    whole = padded(weights, axis=0, multiple=block, fill=filler(weights))
    behind = np.pad(whole.astype(np.int32), ((0, 0), (0, 1)))
    even, odd = (behind[first::2][:, order] for first in (0, 1))
    both = 256 * odd + even
    if both.min(initial=0) < -(1 << 15):
        return None
    halves = both.astype(np.int16).view(np.uint16).reshape(-1, block // 2, len(order) // 2, 2)
    words = np.ascontiguousarray(halves.transpose(0, 2, 1, 3)).view("<u4")
    return words.reshape(len(words), -1)


def proven(weights: Ints, bias: Ints, multipliers: Sequence[Multiplier]) -> bool:
    """Whether sums, factors and results keep their bounds, whatever the int8 input.

    `weights` has a row per output channel; `bias` is the folded one (int64, exact).
    """
    weights = weights.astype(np.int64)
    least = np.minimum(127 * weights, -128 * weights).sum(axis=1) + bias
    greatest = np.maximum(127 * weights, -128 * weights).sum(axis=1) + bias
    reach = np.maximum(-least, greatest)
    factors = np.array([value * 2.0 ** (shift - 31) for value, shift in multipliers])
    return bool(
        all(not value or -MOST_SHIFT <= shift <= -1 for value, shift in multipliers)
        and reach.max() < MOST_SUM
        and least[1::2].min(initial=0) >= -MOST_ODD_SUM
        and greatest[1::2].max(initial=0) < MOST_ODD_SUM
        and (reach * factors).max() + 2 * 256 < MOST_RESULT
    )


def biases(bias: Ints, *, block: int) -> Ints:
    """Per block (rows) 256 * odd + even, even, for its pairs of channels (modulo 2^32)."""
    even, odd = padded(bias, axis=0, multiple=block).reshape(-1, 2).T
    return _words(np.stack([256 * odd + even, even], axis=1)).reshape(-1, block)


def scales(multipliers: Sequence[Multiplier], zero: int) -> Ints:
    """Multiplier, rounding and right shift of every factor (rows) for the output's zero point."""
    rows = []
    for value, shift in multipliers:
        right = -shift if value else 1
        rows.append((value, (2 * (zero + 128) + 1) << (right - 1), right))
    return _words(np.array(rows, np.int64))


def _words(values: Ints) -> Ints:
    """int64 modulo 2^32."""
    return (values & 0xFFFFFFFF).astype("<u4")


def limits(low: int, high: int) -> tuple[int, ...]:
    """The constants, in every byte, that limit x + 128 and take 128 off (see ec_conv_pairs.h)."""
    above = 127 - high
    return tuple(0x01010101 * byte for byte in (above, above + low + 128, low & 255))


def _leaves(axis: Axis) -> bool:
    """Whether a window reaches beyond the map along `axis`."""
    last = (axis.out - 1) * axis.stride - axis.pad + (axis.kernel - 1) * axis.dilation
    return axis.pad > 0 or last >= axis.size


def staged(shape: Shape) -> tuple[int, int, int]:
    """A staged input row in elements, of which so many before the map and so many of it.

    All 0 where no window leaves the map.
    """
    if not (_leaves(shape.height) or _leaves(shape.width)):
        return 0, 0, 0
    axis = shape.width
    seen = (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
    left = min(axis.pad, seen)
    inside = min(axis.size, seen - left)
    row = -(-seen * shape.channels // 4) * 4
    return row, left * shape.channels, inside * shape.channels


def block_instructions(steps: int, *, rectified: bool) -> int:
    """What a block of channels of two pixels takes on a Cortex-M4, counted."""
    return 12 * steps + 3 * (1 + (steps - 1) // 16) + (54 if rectified else 68)


def _instructions(shape: Shape, fields: Mapping[str, Value]) -> int:
    """What the call takes on a Cortex-M4: its loops counted, what is around them as measured."""
    size = {name: value for name, value in fields.items() if isinstance(value, int)}
    steps, run = size["steps"], size["run"]
    block = block_instructions(steps, rectified=bool(size["rectified"]))
    expanded = 7 * (run // 4) + 2 * (run // 16) + (14, 26, 30, 38)[run % 4]
    blocks = -(-shape.out_channels // BLOCK)
    pair = 157 + shape.height.kernel * size["runs_per_row"] * expanded + block * blocks
    pair += 60 if shape.out_channels % BLOCK else 0
    return -(-shape.pixels // 2) * pair + staging(shape, size)


def staging(shape: Shape, fields: Mapping[str, int]) -> int:
    """What copying input rows with padding around them takes on a Cortex-M4."""
    rows = shape.batches * shape.height.out * shape.height.kernel if fields["staged_row"] else 0
    inside = fields["staged_inside"]
    return rows * (30 + 12 * (inside // 16) + 5 * (inside % 16 // 4) + 5 * (inside % 4))
