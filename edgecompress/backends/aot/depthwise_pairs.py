"""Lowering of depthwise convolutions to ec_depthwise_pairs: planes of vertical int16 pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier, zero_point_of
from edgecompress.backends.aot.layer import Ints, Layer, tame
from edgecompress.backends.aot.sliding import MOST_PIXELS, Shape

LANES = 4
FRACTION = 12
CHANNEL_BYTES, COLUMN_BYTES = 40, 16
"""EC_PAIRS_* of firmware/kernels/ec_depthwise_pairs.h."""
UNITS = 3
"""Units of a strip: pairs of output rows, or rows with stride 2."""
INT16 = 1 << 15
MOST_SUM = 1 << 31
MOST_SCRATCH = 1 << 16
"""Bytes; a map with wider rows is none for a microcontroller."""

# Instructions on a Cortex-M4, counted: stride -> (per call of a sweep, per channel of it, per
# output column, what the long form adds there), for three units and for one.
SWEEPS = {1: ((12, 23, 68, 14), (10, 18, 29, 6)), 2: ((11, 23, 39, 8), (10, 20, 19, 4))}
EDGE = 15
"""What a first column of padding saves, per channel of a sweep of three units with stride 1."""
GATHERS = ((4, 47), (7, 18))
"""(per call, per pixel) of three words of four channels from six rows, and of one."""
LIMIT = 2
"""Per value that is limited behind the sweeps."""
AROUND = (350, 90, 65, 35, 42)
"""Fitted: per call, per run of units, per channel of it, per strip, per single word or unit."""


def depthwise_pairs(layer: Layer, multipliers: Sequence[Multiplier]) -> Call | None:
    """The call for a `layer` whose factors and sums are tame; None where the kernel has no form.

    It takes kernels up to 3 x 3, equal strides of 1 or 2, no dilation, paddings before up to 2, and
    4 channels or more, each with one filter.
    """
    shape, stride = layer.shape, _stride(layer.shape)
    alone = layer.weights.shape[3] == 1 and shape.channels == shape.out_channels >= LANES
    if stride is None or not alone:
        return None
    columns = (shape.width.out - 1) * stride + 3
    scratch = LANES * (CHANNEL_BYTES + COLUMN_BYTES * columns)
    if columns <= shape.width.pad or scratch > MOST_SCRATCH:
        return None
    whole = _is_alike(shape)
    made = tame(layer, multipliers)
    assert isinstance(made["low"], int) and isinstance(made["out_zero"], int)
    shifts = _shifts(layer, multipliers, low=made["low"])
    fields: dict[str, Value] = {
        **made,
        "by_rows": int(not whole),
        "weights": Array("int8_t", np.append(_columns(layer), np.int8(0))),
        "bias": Array("int32_t", _bias(layer).astype(np.int32)),
        "shifts": Array("int8_t", shifts),
    }
    count = _instructions(shape, stride, whole=whole, long=int((shifts < 0).sum()))
    if made["limited"]:
        count += LIMIT * shape.pixels * shape.out_channels
    return Call(
        function="ec_depthwise_pairs_s8" if stride == 1 else "ec_depthwise_pairs_stride2_s8",
        family="ec_depthwise_pairs",
        params=Struct("ec_depthwise_pairs_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=scratch,
        reuses=(Reuse(0, 0, exact=True),) if whole else _reuse(shape, stride),
        instructions=count,
    )


def _stride(shape: Shape) -> int | None:
    """The stride of both axes, None where the kernel cannot slide like that.

    An axis with one place has any stride.
    """
    axes = shape.height, shape.width
    found = {axis.stride for axis in axes if axis.out > 1} or {1}
    fits = all(axis.kernel <= 3 and axis.dilation == 1 and axis.pad <= 2 for axis in axes)
    return found.pop() if fits and found in ({1}, {2}) else None


def _is_alike(shape: Shape) -> bool:
    """Whether input and output are maps of one size, pixel upon pixel."""
    return all(axis.size == axis.out and axis.stride == 1 for axis in (shape.height, shape.width))


def _columns(layer: Layer) -> Ints:
    """[output channel, 3 columns, 3 rows], missing taps as zeros."""
    weights = layer.weights[..., 0]
    spare = [(0, 0), (0, 3 - weights.shape[1]), (0, 3 - weights.shape[2])]
    return np.ascontiguousarray(np.pad(weights, spare).transpose(0, 2, 1))


def _bias(layer: Layer) -> Ints:
    if layer.bias is None:
        return np.zeros(layer.shape.out_channels, np.int64)
    return layer.bias.astype(np.int64)


def _shifts(layer: Layer, multipliers: Sequence[Multiplier], *, low: int) -> Ints:
    """Per output channel its right shift, negated where the short form is not proven exact.

    The short form needs results that are limited to the zero point or above, as its rounding is
    that of sums from 0 on; and room for 2^k, which brings all channels to FRACTION bits.
    """
    shifts = np.array([-m.shift if m.value else 1 for m in multipliers], np.int64)
    if low < zero_point_of(layer.out):
        return (-shifts).astype(np.int8)
    scale = FRACTION + 1 - shifts
    weights = layer.flat.astype(np.int64)
    factor = np.int64(1) << np.clip(scale, 0, 16)
    zero = zero_point_of(layer.data)
    reach = max(127 - zero, 128 + zero)  # of an input less its zero point
    total = (reach * np.abs(weights).sum(axis=1) + np.abs(_bias(layer))) * factor
    short = (
        (scale >= 2)
        & (scale <= 16)
        & (weights.max(axis=1) * factor < INT16)
        & (weights.min(axis=1) * factor >= -INT16)
        & (total < MOST_SUM)
    )
    return np.where(short, shifts, -shifts).astype(np.int8)


def _reuse(shape: Shape, stride: int) -> tuple[Reuse, ...]:
    """The distances by strips: one has been read and written before the next is begun."""
    if shape.pixels > MOST_PIXELS:
        return ()
    height, width = shape.height, shape.width
    rows = UNITS * (3 - stride)
    row, out_row = width.size * shape.channels, width.out * shape.out_channels
    first = np.arange(0, height.out, rows)
    last = np.minimum(first + rows, height.out)
    low = np.clip(first * stride - height.pad, 0, height.size)
    high = np.clip(first * stride - height.pad + 2 * (UNITS + 1), 0, height.size)
    images = np.arange(shape.batches)[:, None]
    begin = ((images * height.size + low) * row).reshape(-1)
    end = ((images * height.size + high) * row).reshape(-1)
    written = ((images * height.out + last) * out_row).reshape(-1)
    fresh = ((images * height.out + first) * out_row).reshape(-1)
    size, out_size = (shape.batches * n for n in (height.size * row, height.out * out_row))
    forward = (written - begin).max()
    backward = (out_size - fresh - size + end).max()
    return (Reuse(0, 0, int(forward), int(backward)),)


def _instructions(shape: Shape, stride: int, *, whole: bool, long: int) -> int:
    """What a call takes on a Cortex-M4, `long` channels in the long form, none limited."""
    height, width, channels = shape.height, shape.width, shape.channels
    rows, blocks = 3 - stride, -(-channels // LANES)
    units = -(-height.out // rows)
    strips = height.out // (UNITS * rows)
    single = units - UNITS * strips
    runs = 1 if whole else -(-units // UNITS)
    three, one = (
        [calls * blocks, calls * channels, calls * channels * width.out, calls * long * width.out]
        for calls in (strips, single)
    )
    # A strip's six new rows exist, or it is gathered word by word; so is the first word of a run.
    top = np.arange(strips) * 2 * UNITS + 2 - height.pad
    inside = int(((top >= 0) & (top + 2 * UNITS <= height.size)).sum())
    words = runs + (strips - inside) * UNITS + single
    pixels = min(width.size, (width.out - 1) * stride + 3 - width.pad)
    count = np.dot(three, SWEEPS[stride][0]) + np.dot(one, SWEEPS[stride][1])
    count -= EDGE * strips * channels * (stride == 1 and width.pad > 0)
    for calls, (call, pixel) in zip((inside, words), GATHERS, strict=True):
        count += calls * blocks * (call + pixel * pixels)
    around = (0, runs * blocks, runs * channels, strips * blocks, (words + single) * blocks)
    return int(shape.batches * (count + np.dot(around, AROUND))) + AROUND[0]
