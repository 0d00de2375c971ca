"""Lowering of MEAN, SUM, REDUCE_MAX, REDUCE_MIN, ARG_MAX and ARG_MIN."""

from __future__ import annotations

import math

import numpy as np

from edgecompress.backends.aot.calls import Call, Lowering, Reuse, Site, Struct, Value
from edgecompress.backends.aot.fixedpoint import (
    Multiplier,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.pooling import Block, in_blocks
from edgecompress.backends.aot.shapes import (
    axis_of,
    checked,
    forward_lead,
    grid,
    integers,
    same_type,
    strides_of,
    table,
    width_of,
)
from edgecompress.tflite import Tensor

_SUFFIX = {"int8": "s8", "int16": "s16", "float32": "f32"}
_MOST_AXES = 8


def _mean(site: Site) -> tuple[Call, ...]:
    return _sums(site, mean=True)


def _sum(site: Site) -> tuple[Call, ...]:
    return _sums(site, mean=False)


def _sums(site: Site, *, mean: bool) -> tuple[Call, ...]:
    data = checked(site, site.arg(0), *_SUFFIX)
    result = checked(site, site.result(), data.dtype)
    kept, gone = _axes(site, data, result)
    count = math.prod(size for size, _ in gone)
    axes = _struct(kept, gone)
    if data.dtype == "float32":
        return _call(site, "sum", axes, kept, {"divisor": float(np.float32(count if mean else 1))})
    multiplier = quantize_multiplier(scale_of(data) / scale_of(result))
    if mean:
        multiplier = _divided(multiplier, count)
    most = (1 << 31) >> (8 * width_of(data))
    site.require(count < most, f"{count} elements per output; below {most} is supported")
    fields: dict[str, Value] = {
        "input_zero": zero_point_of(data) * count,
        "output_zero": zero_point_of(result),
        "multiplier": multiplier.value,
        "shift": multiplier.shift,
    }
    return _call(site, "sum", axes, kept, fields)


def _divided(multiplier: Multiplier, count: int) -> Multiplier:
    """`multiplier` over `count` (TFLM QuantizedMeanOrSum)."""
    shift = min(count.bit_length() - 1, 32, 31 + multiplier.shift)
    return Multiplier((multiplier.value << shift) // count, multiplier.shift - shift)


def _extreme(name: str) -> Lowering:
    def lower(site: Site) -> tuple[Call, ...]:
        data = checked(site, site.arg(0), "int8", "float32")
        result = checked(site, site.result(), data.dtype)
        same_type(site, data, result)
        kept, gone = _axes(site, data, result)
        axes = _struct(kept, gone)
        fields: dict[str, Value] | None = {"divisor": 1.0} if data.dtype == "float32" else None
        return _call(site, name, axes, kept, fields)

    return lower


def _axes(
    site: Site, data: Tensor, result: Tensor
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(size, stride in elements) of the axes that stay and of those that go; neighbours merged."""
    rank = len(data.shape)
    site.require(rank <= _MOST_AXES, f"{rank} axes; at most {_MOST_AXES} are supported")
    chosen = {axis_of(site, axis, rank) for axis in integers(site, 1)} if rank else set()
    site.require(
        result.elements == math.prod(n for axis, n in enumerate(data.shape) if axis not in chosen),
        f"the output has the shape {list(result.shape)}; reducing axes {sorted(chosen)} of"
        f" {list(data.shape)} gives another number of elements",
    )
    sides: tuple[list[tuple[int, int]], ...] = ([], [])
    strides = strides_of(data.shape)
    last = None
    for axis, (size, stride) in enumerate(zip(data.shape, strides, strict=True)):
        if size == 1:
            continue
        side = sides[axis in chosen]
        if last is side:
            side[-1] = (side[-1][0] * size, stride)
        else:
            side.append((size, stride))
        last = side
    return sides[0] or [(1, 1)], sides[1] or [(1, 1)]


def _struct(kept: list[tuple[int, int]], gone: list[tuple[int, int]]) -> Struct:
    fields: dict[str, Value] = {
        "kept": table(kept),
        "gone": table(gone),
        "kept_rank": len(kept),
        "gone_rank": len(gone),
    }
    return Struct("ec_axes_t", fields)


def _call(
    site: Site,
    name: str,
    axes: Struct,
    kept: list[tuple[int, int]],
    fields: dict[str, Value] | None,
) -> tuple[Call, ...]:
    data = site.arg(0)
    floating = data.dtype == "float32"
    params = axes
    if fields is not None:
        params = Struct(f"ec_reduce{'_f32' if floating else ''}_t", {"axes": axes, **fields})
    return (
        Call(
            f"ec_reduce_{name}_{_SUFFIX[data.dtype]}",
            "ec_reduce_f32" if floating else "ec_reduce",
            params,
            site.op.inputs[:1],
            site.op.outputs[:1],
            reuses=_reuses([n for n, _ in kept], [s for _, s in kept], data, width_of(data)),
            instructions=_instructions(name, data, kept),
        ),
    )


_SUMS = {
    "s8": (Block(16, 1000, 15), Block(4, 400, 6), Block(1, 215, 5)),
    "s16": (Block(1, 150, 5),),
    "f32": (Block(1, 150, 9),),
}
_EXTREMES = (Block(1, 40, 10.5),)
_AROUND = 100


def _instructions(name: str, data: Tensor, kept: list[tuple[int, int]]) -> int:
    """What a reduction takes on a Cortex-M4: channels that lie side by side go together."""
    outputs = math.prod(n for n, _ in kept)
    blocks = _SUMS[_SUFFIX[data.dtype]] if name == "sum" else _EXTREMES
    count, stride = kept[-1]
    side, blocks = (count, blocks) if stride == 1 else (1, blocks[-1:])
    each = in_blocks(side, blocks, data.elements / max(outputs, 1))
    return round(_AROUND + outputs // max(side, 1) * each)


def _reuses(counts: list[int], strides: list[int], data: Tensor, size: int) -> tuple[Reuse, ...]:
    """The outputs come in order, `size` bytes each, once all that belongs to each was read."""
    firsts = grid(counts, strides)
    if firsts is None:
        return ()
    writes = np.arange(len(firsts)) * size
    return (Reuse(0, 0, forward_lead(firsts * width_of(data), writes, size)),)


def _arg(least: bool) -> Lowering:
    def lower(site: Site) -> tuple[Call, ...]:
        data = checked(site, site.arg(0), "int8", "float32")
        result = checked(site, site.result(), "int32")
        chosen = integers(site, 1)
        site.require(len(chosen) == 1, f"{len(chosen)} axes to search along; one is supported")
        axis = axis_of(site, chosen[0], len(data.shape))
        outer, inner = math.prod(data.shape[:axis]), math.prod(data.shape[axis + 1 :])
        site.require(
            result.elements == outer * inner,
            f"the output has the shape {list(result.shape)}; {list(data.shape)} without axis"
            f" {axis} has another number of elements",
        )
        count = data.shape[axis]
        fields: dict[str, Value] = {
            "outer": outer,
            "count": count,
            "inner": inner,
            "least": int(least),
        }
        return (
            Call(
                f"ec_argmax_{_SUFFIX[data.dtype]}",
                "ec_argmax",
                Struct("ec_argmax_t", fields),
                site.op.inputs[:1],
                site.op.outputs[:1],
                reuses=_reuses([outer, inner], [count * inner, 1], data, width_of(result)),
                instructions=_AROUND + 9 * data.elements + 20 * result.elements,
            ),
        )

    return lower


OPERATORS: dict[str, Lowering] = {
    "ARG_MAX": _arg(least=False),
    "ARG_MIN": _arg(least=True),
    "MEAN": _mean,
    "REDUCE_MAX": _extreme("max"),
    "REDUCE_MIN": _extreme("min"),
    "SUM": _sum,
}
"""Operator kind -> the function that lowers it."""
