"""Lowering of the operators that only move data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.calls import (
    Call,
    Lowered,
    Lowering,
    Reuse,
    Site,
    Struct,
    Value,
    View,
)
from edgecompress.backends.aot.fixedpoint import zero_point_of
from edgecompress.backends.aot.shapes import (
    axis_of,
    both_ways,
    checked,
    grid,
    integers,
    option,
    same_type,
    strides_of,
    table,
    width_of,
)
from edgecompress.tflite import DTYPES, Tensor

_MOVED = ("int8", "int16", "int32", "float32", "bool", "uint8", "int64")
_PADDED = ("int8", "int16", "int32", "float32")
_MOST_AXES = 8

Axis = tuple[int, int, int]
"""Count, stride in, stride out (bytes)."""


def _view(site: Site) -> Lowered:
    data, result = checked(site, site.arg(0), *_MOVED), checked(site, site.result(), *_MOVED)
    same_type(site, data, result)
    site.require(
        data.elements == result.elements,
        f"shapes {list(data.shape)} -> {list(result.shape)} have different numbers of elements",
    )
    return unmoved(site)


def unmoved(site: Site) -> Lowered:
    """Input 0 under another shape; copied where it is a constant, which lies in flash, or a state,
    which changes while the output does not."""
    source, target = site.op.inputs[0], site.op.outputs[0]
    data = site.program.tensors[source]
    if data.data is None and not data.variable:
        return View(source, target)
    width = width_of(data)
    return (_copy(site, source, target, [(data.elements, width, width)]),)


def _moved(site: Site, data: Tensor, result: Tensor) -> None:
    checked(site, data, *_MOVED)
    checked(site, result, *_MOVED)
    same_type(site, data, result)


def _copy(
    site: Site,
    source: int,
    target: int,
    axes: Sequence[Axis],
    *,
    in_start: int = 0,
    out_start: int = 0,
) -> Call:
    """The call that moves the elements of tensor `source` along `axes` to tensor `target`."""
    data, result = site.program.tensors[source], site.program.tensors[target]
    merged, run = _merged(axes, width_of(data))
    site.require(len(merged) <= _MOST_AXES, f"{len(merged)} axes; at most {_MOST_AXES}")
    fields: dict[str, Value] = {
        "axes": table(merged),
        "rank": len(merged),
        "run": run,
        "in_start": in_start,
        "out_start": out_start,
        "reverse": 0,
    }
    counts = [count for count, _, _ in merged]
    reads, writes = (grid(counts, [axis[side] for axis in merged]) for side in (1, 2))
    if reads is not None and writes is not None:
        reads, writes = reads + in_start, writes + out_start
    return Call(
        "ec_copy",
        "ec_shape",
        Struct("ec_copy_t", fields),
        (source,),
        (target,),
        reuses=both_ways(reads, writes, run, data=data, result=result),
    )


def _merged(axes: Sequence[Axis], width: int) -> tuple[list[Axis], int]:
    """The fewest axes that make the same moves, and the bytes that are moved at once."""
    found: list[Axis] = []
    for count, stride_in, stride_out in axes:
        if count == 1:
            continue
        if found and found[-1][1:] == (count * stride_in, count * stride_out):
            found[-1] = (found[-1][0] * count, stride_in, stride_out)
        else:
            found.append((count, stride_in, stride_out))
    if found and found[-1][1:] == (width, width):
        width *= found.pop()[0]
    return found or [(1, 0, 0)], width


def _transpose(site: Site) -> Lowered:
    data, result = site.arg(0), site.result()
    _moved(site, data, result)
    order = integers(site, 1)
    site.require(
        sorted(order) == list(range(len(data.shape))),
        f"perm {order} is no order of {len(data.shape)} axes",
    )
    site.require(
        result.shape == tuple(data.shape[axis] for axis in order),
        f"perm {order} of {list(data.shape)} does not give {list(result.shape)}",
    )
    strides = strides_of(data.shape, width_of(data))
    steps = zip(
        result.shape,
        (strides[axis] for axis in order),
        strides_of(result.shape, width_of(data)),
        strict=True,
    )
    axes = list(steps)
    if _merged(axes, width_of(data))[0] == [(1, 0, 0)]:
        return unmoved(site)
    return (_copy(site, site.op.inputs[0], site.op.outputs[0], axes),)


def _slice(site: Site) -> Lowered:
    data = site.arg(0)
    begins, sizes = integers(site, 1), integers(site, 2)
    rank = len(data.shape)
    site.require(
        len(begins) == len(sizes) == rank,
        f"{len(begins)} begins and {len(sizes)} sizes for {rank} axes",
    )
    places = []
    for begin, size, whole in zip(begins, sizes, data.shape, strict=True):
        count = whole - begin if size == -1 else size
        site.require(
            0 <= begin and 1 <= count <= whole - begin,
            f"begin {begin} and size {size} do not fit an axis of {whole}",
        )
        places.append(range(begin, begin + count))
    return _picked(site, places)


def _picked(site: Site, places: Sequence[range]) -> Lowered:
    """Moves the elements at `places` of input 0, a range per axis, to output 0."""
    data, result = site.arg(0), site.result()
    _moved(site, data, result)
    site.require(
        math.prod(map(len, places)) == result.elements,
        f"the output has the shape {list(result.shape)}; the slice gives"
        f" {[len(place) for place in places]}",
    )
    if result.elements == data.elements and all(place.step > 0 for place in places):
        return unmoved(site)
    width = width_of(data)
    strides = strides_of(data.shape, width)
    outs = strides_of([len(place) for place in places], width)
    axes = [
        (len(place), place.step * stride, out)
        for place, stride, out in zip(places, strides, outs, strict=True)
    ]
    start = sum(place.start * stride for place, stride in zip(places, strides, strict=True))
    return (_copy(site, site.op.inputs[0], site.op.outputs[0], axes, in_start=start),)


def _strided_slice(site: Site) -> Lowered:
    data = site.arg(0)
    rank = len(data.shape)
    for name in ("ellipsis_mask", "new_axis_mask", "offset"):
        site.require(option(site, name) == 0, f"{name} is set; TFLM does not support it")
    begins, ends, steps = (integers(site, place) for place in (1, 2, 3))
    site.require(
        len(begins) == len(ends) == len(steps) == rank,
        f"{len(begins)} begins, {len(ends)} ends, {len(steps)} strides for {rank} axes",
    )
    places = []
    for axis in range(rank):
        places.append(_strided(site, axis, begins[axis], ends[axis], steps[axis]))
    return _picked(site, places)


def _strided(site: Site, axis: int, begin: int, end: int, step: int) -> range:
    """The places that a strided slice takes along one axis (TFLM strided_slice_logic.h)."""
    size = site.arg(0).shape[axis]
    masks = {
        name: option(site, f"{name}_mask") >> axis & 1 for name in ("begin", "end", "shrink_axis")
    }
    site.require(step != 0, f"the stride of axis {axis} is 0")
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = min(max(begin + size if begin < 0 else begin, low), high)
    stop = min(max(end + size if end < 0 else end, low), high)
    if masks["begin"]:
        start = 0 if step > 0 else size - 1
    if masks["end"]:
        stop = size if step > 0 else -1
    if masks["shrink_axis"]:
        site.require(step > 0, f"axis {axis} is dropped with a negative stride; 1 is supported")
        stop = start + 1
    found = range(start, stop, step)
    site.require(
        len(found) > 0 and found[0] < size and found[-1] < size,
        f"begin {begin}, end {end}, stride {step} take nothing of an axis of {size}",
    )
    return found


def _joined(site: Site, sources: Sequence[int], target: int, axis: int) -> tuple[Call, ...]:
    """Moves every source to its part of `target` along `axis`."""
    result = site.program.tensors[target]
    width = width_of(result)
    outer, stride = math.prod(result.shape[:axis]), strides_of(result.shape, width)[axis]
    calls, start = [], 0
    for source in sources:
        part = site.program.tensors[source].elements * width // outer
        axes = [
            (outer, part, result.shape[axis] * stride),
            (part // width, width, width),
        ]
        calls.append(_copy(site, source, target, axes, out_start=start))
        start += part
    return tuple(calls)


def _parted(site: Site, source: int, targets: Sequence[int], axis: int) -> tuple[Call, ...]:
    """Moves each part of `source` along `axis` to a target of its own."""
    data = site.program.tensors[source]
    width = width_of(data)
    outer, stride = math.prod(data.shape[:axis]), strides_of(data.shape, width)[axis]
    calls, start = [], 0
    for target in targets:
        part = site.program.tensors[target].elements * width // outer
        axes = [
            (outer, data.shape[axis] * stride, part),
            (part // width, width, width),
        ]
        calls.append(_copy(site, source, target, axes, in_start=start))
        start += part
    return tuple(calls)


def _parts(site: Site, indexes: Sequence[int]) -> list[Tensor]:
    site.require(all(index >= 0 for index in indexes), "an input is missing")
    return [site.program.tensors[index] for index in indexes]


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _concatenation(site: Site) -> tuple[Call, ...]:
    result = site.result()
    site.require(
        site.op.options.get("fused_activation_function") == "NONE",
        "a fused activation is not supported",
    )
    parts = _parts(site, site.op.inputs)
    axis = axis_of(site, option(site, "axis"), len(result.shape))
    for part in parts:
        _moved(site, part, result)
        site.require(
            len(part.shape) == len(result.shape)
            and _without(part.shape, axis) == _without(result.shape, axis),
            f"shapes {list(part.shape)} and {list(result.shape)} differ elsewhere than on axis"
            f" {axis}",
        )
    site.require(
        sum(part.shape[axis] for part in parts) == result.shape[axis],
        f"the inputs do not add up to {list(result.shape)} along axis {axis}",
    )
    return _joined(site, site.op.inputs, site.op.outputs[0], axis)


def _pack(site: Site) -> tuple[Call, ...]:
    result = site.result()
    parts = _parts(site, site.op.inputs)
    site.require(bool(result.shape), "the output has no axis")
    axis = axis_of(site, option(site, "axis"), len(result.shape))
    for part in parts:
        _moved(site, part, result)
        site.require(
            part.shape == _without(result.shape, axis),
            f"shapes {list(part.shape)} do not pack to {list(result.shape)} on axis {axis}",
        )
    site.require(
        len(parts) == result.shape[axis] == option(site, "values_count"),
        f"{len(parts)} inputs do not make {list(result.shape)} on axis {axis}",
    )
    return _joined(site, site.op.inputs, site.op.outputs[0], axis)


def _split(data_place: int, axis_place: int) -> Lowering:
    def lower(site: Site) -> tuple[Call, ...]:
        data, chosen = site.arg(data_place), integers(site, axis_place)
        site.require(len(chosen) == 1, f"{len(chosen)} axes to split; one is supported")
        axis = axis_of(site, chosen[0], len(data.shape))
        parts = _parts(site, site.op.outputs)
        for part in parts:
            _moved(site, data, part)
            site.require(
                len(part.shape) == len(data.shape)
                and _without(part.shape, axis) == _without(data.shape, axis),
                f"shapes {list(data.shape)} and {list(part.shape)} differ elsewhere than on axis"
                f" {axis}",
            )
        site.require(
            sum(part.shape[axis] for part in parts) == data.shape[axis],
            f"the outputs do not add up to {list(data.shape)} along axis {axis}",
        )
        site.require(
            data_place == 0 or len({part.shape for part in parts}) == 1,
            "SPLIT has outputs of different shapes; use SPLIT_V",
        )
        return _parted(site, site.op.inputs[data_place], site.op.outputs, axis)

    return lower


def _unpack(site: Site) -> tuple[Call, ...]:
    data = site.arg(0)
    parts = _parts(site, site.op.outputs)
    axis = axis_of(site, option(site, "axis"), len(data.shape))
    for part in parts:
        _moved(site, data, part)
        site.require(
            part.shape == _without(data.shape, axis),
            f"{list(data.shape)} does not unpack to {list(part.shape)} on axis {axis}",
        )
    site.require(
        len(parts) == data.shape[axis] == option(site, "num"),
        f"{len(parts)} outputs do not take {list(data.shape)} on axis {axis}",
    )
    return _parted(site, site.op.inputs[0], site.op.outputs, axis)


def _paddings(site: Site, data: Tensor, result: Tensor) -> list[tuple[int, int]]:
    """(before, after) per axis."""
    values = integers(site, 1)
    site.require(
        len(values) == 2 * len(data.shape) == 2 * len(result.shape),
        f"{len(values)} paddings for {len(data.shape)} axes",
    )
    pairs = list(zip(values[::2], values[1::2], strict=True))
    for size, out, (before, after) in zip(data.shape, result.shape, pairs, strict=True):
        site.require(
            before >= 0 and after >= 0 and before + size + after == out,
            f"an axis of {size} padded by {before} and {after} does not become {out}",
        )
    return pairs


def _pad(site: Site) -> Lowered:
    data = checked(site, site.arg(0), *_PADDED)
    result = checked(site, site.result(), data.dtype)
    same_type(site, data, result)
    pairs = _paddings(site, data, result)
    value = _pad_value(site, result)
    if result.elements == data.elements:
        return unmoved(site)
    axes, (run, before, after) = _pad_rows(data, result, pairs)
    rows = math.prod(count for count, _, _ in axes)
    fields: dict[str, Value] = {
        "axes": table(axes),
        "rank": len(axes),
        "rows": rows,
        "run": run,
        "before": before,
        "after": after,
        "value": int.from_bytes(value, "little"),
        "width": width_of(data),
        "reverse": 0,
    }
    return (
        Call(
            "ec_pad",
            "ec_shape",
            Struct("ec_pad_t", fields),
            site.op.inputs[:1],
            site.op.outputs[:1],
            reuses=(_pad_reuse(axes, before + run + after, run, data, result),),
        ),
    )


def _pad_rows(
    data: Tensor, result: Tensor, pairs: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int, int]], tuple[int, int, int]]:
    """(rows, first inside, end of the inside) per axis of rows; a row's bytes and its padding."""
    last = max(axis for axis, pair in enumerate(pairs) if pair != (0, 0))
    inner = strides_of(data.shape, width_of(data))[last]
    axes = [
        (out, before, out - after)
        for out, (before, after) in zip(result.shape[:last], pairs[:last], strict=True)
        if out > 1
    ]
    before, after = pairs[last]
    return axes or [(1, 0, 1)], (data.shape[last] * inner, before * inner, after * inner)


def _pad_reuse(
    axes: Sequence[tuple[int, int, int]], row: int, run: int, data: Tensor, result: Tensor
) -> Reuse:
    """Output rows take `row` bytes, those inside move `run` bytes of input before they are filled.

    Forward, all rows before the last one inside are written when its input must still be there.
    Backward, both may begin together: no row begins before its input does.
    """
    last = 0
    for count, _, end in axes:
        last = last * count + end - 1
    return Reuse(0, 0, last * row - (data.nbytes - run), result.nbytes - data.nbytes)


def _pad_value(site: Site, result: Tensor) -> bytes:
    """The element that a padding consists of: zero, or PADV2's own value."""
    if site.op.kind == "PADV2":
        given = site.arg(2)
        same_type(site, given, result)
        site.require(given.elements == 1, f"{given.elements} padding values; one is supported")
        return site.constant(2).tobytes()
    zero = zero_point_of(result) if result.dtype == "int8" else 0
    return np.asarray(zero, DTYPES[result.dtype].numpy).tobytes()


def _mirror_pad(site: Site) -> Lowered:
    data = checked(site, site.arg(0), "int8", "int16", "int32", "float32")
    result = checked(site, site.result(), data.dtype)
    same_type(site, data, result)
    offset = int(site.op.options.get("mode") == "REFLECT")
    pairs = _paddings(site, data, result)
    for size, pair in zip(data.shape, pairs, strict=True):
        site.require(
            max(pair) <= size - offset,
            f"an axis of {size} can be mirrored by at most {size - offset}, not {max(pair)}",
        )
    if result.elements == data.elements:
        return unmoved(site)
    last = max(axis for axis, pair in enumerate(pairs) if pair != (0, 0))
    axes = [
        (out, size, before)
        for out, size, (before, _) in zip(
            result.shape[: last + 1], data.shape[: last + 1], pairs[: last + 1], strict=True
        )
        if out > 1
    ]
    fields: dict[str, Value] = {
        "axes": table(axes),
        "rank": len(axes),
        "run": strides_of(data.shape, width_of(data))[last],
        "offset": offset,
    }
    return (
        Call(
            "ec_mirror_pad",
            "ec_mirror_pad",
            Struct("ec_mirror_pad_t", fields),
            site.op.inputs[:1],
            site.op.outputs[:1],
        ),
    )


OPERATORS: dict[str, Lowering] = {
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _view,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _view,
    "SLICE": _slice,
    "SPLIT": _split(data_place=1, axis_place=0),
    "SPLIT_V": _split(data_place=0, axis_place=2),
    "SQUEEZE": _view,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""Operator kind -> the function that lowers it."""
