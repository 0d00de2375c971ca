"""A depthwise convolution and the 1 x 1 convolution behind it in one call of ec_separable.

The map between them is made band by band, in the order in which the matrix product reads it: it is
never in the arena.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Site, Struct, Value
from edgecompress.backends.aot.convolution import conv_layer, depthwise_layer, multipliers_of
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.layer import Ints, Layer, folded_bias, is_tame
from edgecompress.backends.aot.pairs import (
    BLOCK,
    biases,
    block_instructions,
    limits,
    paired,
    proven,
    scales,
)
from edgecompress.backends.aot.planes import LANES, Planes, band_reuse, cost, struct, ways
from edgecompress.backends.aot.planes import limits as limited
from edgecompress.tflite import Op, Program
from edgecompress.vocabulary import Core

MOST_BAND = 20 << 10
"""Bytes of depthwise results of a band, beyond those of one strip."""
PAIR = 17
"""Instructions for a pair of pixels, besides its blocks."""
AROUND, AROUND_BAND, AROUND_UNIT = 350, 60, 25
"""Fitted: per call, per band, per unit."""


@dataclass(frozen=True, eq=False)
class Join:
    """Operators number `first` and `second`, of which one of `calls` can take the place."""

    first: int
    second: int
    calls: tuple[Call, ...]


def joins(program: Program, core: Core) -> Iterator[Join]:
    """The pairs of operators, lowered before, that one call can compute; none without SMLAD.

    A DEPTHWISE_CONV_2D of int8 that planes take, with a multiplier of 1 and results limited to int8
    alone, and a CONV_2D that reads nothing else and is the only one to read it: 1 x 1,
    stride 1, a multiple of 4 channels, for which the bounds of ec_conv_pairs hold.
    """
    numbers = {index: number for number, op in enumerate(program.ops) for index in op.outputs}
    for second, op in enumerate(program.ops if core == "dsp" else ()):
        first = numbers.get(op.inputs[0]) if op.kind == "CONV_2D" else None
        if first is None or program.ops[first].kind != "DEPTHWISE_CONV_2D":
            continue
        if _is_private(program, op.inputs[0]):
            calls = _calls(program, program.ops[first], op, core)
            if calls:
                yield Join(first, second, calls)


def _is_private(program: Program, index: int) -> bool:
    """Whether one operator reads tensor `index`, once, and nobody outside."""
    readers = sum(op.inputs.count(index) for op in program.ops)
    return readers == 1 and index not in program.outputs


def _calls(program: Program, first: Op, second: Op, core: Core) -> tuple[Call, ...]:
    """A call for each band that is worth its scratch, the fewest instructions first."""
    deep, point = (
        depthwise_layer(Site(program, first, core)),
        conv_layer(Site(program, second, core)),
    )
    if deep.data.dtype != "int8" or limited(deep) or not _is_point(point):
        return ()
    factors = multipliers_of(deep, 1), multipliers_of(point, 1)
    if not (is_tame(deep, factors[0]) and is_tame(point, factors[1])):
        return ()
    found = _point_fields(point, factors[1])
    if found is None:
        return ()
    made: list[Call] = []
    for way in ways(deep):
        if not way.turned and way.fan == 1:
            made += [
                _call(way, band, point, factors[0], found) for band in _bands(way, found.steps)
            ]
    best: list[Call] = []
    for call in sorted(made, key=lambda one: (one.instructions or 0, one.scratch or 0)):
        if all((call.scratch or 0) < (other.scratch or 0) for other in best):
            best.append(call)
    return tuple(best)


def _is_point(layer: Layer) -> bool:
    shape = layer.shape
    axes = shape.height, shape.width
    return (
        layer.groups == 1
        and not layer.nibbles
        and all(axis.kernel == 1 and axis.pad == 0 and axis.size == axis.out for axis in axes)
        and shape.out_channels % BLOCK == 0
    )


@dataclass(frozen=True, eq=False)
class _Point:
    steps: int
    rectified: bool
    limits: tuple[int, ...]
    weights: Ints


def _point_fields(layer: Layer, multipliers: Sequence[Multiplier]) -> _Point | None:
    """The constants of the 1 x 1 convolution, None where a bound fails."""
    order = channel_order(layer.shape.channels)
    weights = paired(layer.flat, order, block=BLOCK)
    bias = folded_bias(layer)
    if weights is None or not proven(layer.flat, bias, multipliers):
        return None
    low, high = activation_range(layer.activation, layer.out)
    zero = zero_point_of(layer.out)
    blocks = [biases(bias, block=BLOCK), weights]
    blocks.append(scales(multipliers, zero).reshape(len(weights), -1))
    return _Point(
        steps=len(order) // 2,
        rectified=zero == low == -128 and high == 127,
        limits=limits(low, high),
        weights=np.concatenate(blocks, axis=1),
    )


def channel_order(channels: int) -> Ints:
    """Which channel is in each int16 of a pixel between the convolutions; -1: none (int64)."""
    eights = -(-channels // (2 * LANES))
    at = np.arange(2 * LANES * eights).reshape(eights, 2, LANES).transpose(0, 2, 1).reshape(-1)
    return np.where(at < channels, at, -1)


def _bands(way: Planes, steps: int) -> list[int]:
    """Units to a band: one strip, twice as many and so on, up to all."""
    least = way.strip
    most = max(least, MOST_BAND // _unit_bytes(way, steps))
    sizes = [least << i for i in range(12) if least << i < min(most + 1, way.units)]
    return sizes + [way.units] * (way.units <= most)


def _unit_pairs(way: Planes) -> int:
    """Pairs of pixels of a unit."""
    return way.columns.out if way.unit_rows == 2 else -(-way.columns.out // 2)


def _unit_bytes(way: Planes, steps: int) -> int:
    return 8 * steps * _unit_pairs(way)


def _call(
    way: Planes, band: int, point: Layer, multipliers: Sequence[Multiplier], made: _Point
) -> Call:
    deep, channels = way.layer, point.shape.out_channels
    params: dict[str, Value] = {
        "planes": struct(way.fields(multipliers, band=band)),
        "out_channels": channels,
        "steps": made.steps,
        "rectified": int(made.rectified),
        "limits": made.limits,
        "reverse": 0,
        "weights": Array("uint32_t", made.weights),
    }
    bands = -(-way.units // band)
    odd = way.rows.out % way.unit_rows
    pairs = (way.units - odd) * _unit_pairs(way) + odd * -(-way.columns.out // 2)
    block = block_instructions(made.steps, rectified=made.rectified)
    count = pairs * (channels // BLOCK * block + PAIR) + bands * AROUND_BAND
    count = deep.shape.batches * (count + way.units * AROUND_UNIT) + AROUND
    reuse = band_reuse(way, band=band, row=way.columns.out * channels, staged=True)
    return Call(
        function=f"ec_separable_{way.name}_s8",
        family="ec_separable",
        params=Struct("ec_separable_t", params),
        inputs=deep.site.op.inputs[:1],
        outputs=point.site.op.outputs[:1],
        scratch=way.scratch + min(band, way.units) * _unit_bytes(way, made.steps),
        reuses=() if reuse is None else (reuse,),
        instructions=count + cost(way, multipliers, band=band, halves=True),
    )
