"""Depthwise convolution in planes of vertical int16 pairs: geometry, constants and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.backends.aot.calls import Array, Reuse, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.layer import Ints, Layer
from edgecompress.backends.aot.sliding import MOST_PIXELS

LANES, WORDS, WIDEST, FRACTION = 4, 4, 7, 12
"""EC_PLANES_* of firmware/kernels/ec_planes.h and ec_planes_sweep.h."""
COLUMN_BYTES = 4 * WORDS
INT16 = 1 << 15
MOST_SUM = 1 << 31
MOST_SCRATCH = 1 << 16
"""Bytes; a map with wider rows is none for a microcontroller."""


@dataclass(frozen=True)
class Side:
    """One axis as the planes see it: `kernel` is what the weights are padded to with zeros."""

    size: int
    out: int
    kernel: int
    stride: int
    pad: int


@dataclass(frozen=True)
class Planes:
    """How a depthwise layer is laid in planes.

    `three`: kernels of three columns have code of their own. `turned`: rows of the planes are
    columns of the image. `band`: units (pairs of output rows, or rows with stride 2) that are made
    for all channels before the next.
    """

    layer: Layer
    rows: Side
    columns: Side
    three: bool
    turned: bool

    @property
    def name(self) -> str:
        """The form of kernel, as functions are called."""
        return f"{self.rows.kernel}{'x3' * self.three}{'_stride2' * (self.rows.stride == 2)}"

    @property
    def unit_rows(self) -> int:
        """Output rows of a unit."""
        return 3 - self.rows.stride

    @property
    def units(self) -> int:
        """Units of an image."""
        return -(-self.rows.out // self.unit_rows)

    @property
    def strip(self) -> int:
        """Units that are swept at once."""
        return WORDS - (self.rows.kernel - 1) // 2

    @property
    def fan(self) -> int:
        """Output channels of an input channel."""
        return self.layer.shape.out_channels // self.layer.shape.channels

    @property
    def plane_columns(self) -> int:
        """Columns of a plane."""
        return (self.columns.out - 1) * self.columns.stride + self.columns.kernel

    @property
    def scratch(self) -> int:
        """Bytes of constants and planes of LANES channels."""
        channel = 16 + 4 * self.columns.kernel * (self.rows.kernel - 1)
        return LANES * (self.fan * channel + COLUMN_BYTES * self.plane_columns)

    @property
    def alike(self) -> bool:
        """Whether input and output are maps of one shape, pixel upon pixel."""
        sides = self.rows, self.columns
        return self.fan == 1 and all(s.size == s.out and s.stride == 1 for s in sides)

    def steps(self, channels: int, width: int, height: int) -> tuple[int, int, int]:
        """Elements from an image to the next, and of rows and columns as the planes see them."""
        row, column = width * channels, channels
        return (height * row, *((column, row) if self.turned else (row, column)))

    def fields(self, multipliers: Sequence[Multiplier], *, band: int) -> dict[str, Value]:
        """The fields of ec_planes_t."""
        shape, layer = self.layer.shape, self.layer
        image, row, column = self.steps(shape.channels, shape.width.size, shape.height.size)
        return {
            "batches": shape.batches,
            "in_channels": shape.channels,
            "fan": self.fan,
            "in_rows": self.rows.size,
            "in_columns": self.columns.size,
            "in_image": image,
            "in_row": row,
            "in_column": column,
            "out_rows": self.rows.out,
            "out_columns": self.columns.out,
            "width": self.columns.kernel,
            "column_stride": self.columns.stride,
            "pad_rows": self.rows.pad,
            "pad_columns": self.columns.pad,
            "in_zero": zero_point_of(layer.data),
            "out_zero": zero_point_of(layer.out),
            "band": band,
            "weights": Array("int8_t", np.append(self._columns(), np.int8(0))),
            "bias": Array("int32_t", _bias(layer).astype(np.int32)),
            "multipliers": Array("int32_t", np.array([m.value for m in multipliers], np.int32)),
            "shifts": Array("int8_t", shifts(layer, multipliers)),
        }

    def _columns(self) -> Ints:
        """[output channel, column, row] of the planes, missing taps as zeros."""
        weights = self.layer.weights[..., 0]
        weights = weights if self.turned else weights.transpose(0, 2, 1)
        wanted = self.columns.kernel, self.rows.kernel
        spare = [(0, n - have) for n, have in zip(wanted, weights.shape[1:], strict=True)]
        return np.ascontiguousarray(np.pad(weights, [(0, 0), *spare]))


def ways(layer: Layer) -> Iterator[Planes]:
    """How an int8 depthwise `layer` can be laid in planes; none where no kernel takes it.

    They take four channels or more, kernels up to 7 x 7, strides of 1 or 2 along one axis, no
    dilation.
    """
    shape = layer.shape
    if layer.nibbles or layer.weights.shape[3] != 1 or shape.channels < LANES:
        return
    for turned in (False, True):
        tall, wide = (shape.width, shape.height) if turned else (shape.height, shape.width)
        height = max(tall.kernel + 1 - tall.kernel % 2, 3)
        if max(tall.dilation, wide.dilation) > 1 or max(height, wide.kernel) > WIDEST:
            continue
        stride = tall.stride if tall.out > 1 else min(wide.stride, 2)
        if stride > 2:
            continue
        beside = wide.stride if wide.out > 1 else stride
        rows = Side(tall.size, tall.out, height, stride, tall.pad)
        for three in (False, True):
            fits = height == 3 and wide.kernel <= 3 and beside == stride
            if three and not (fits and shape.channels == shape.out_channels):
                continue
            kernel = 3 if three else wide.kernel
            columns = Side(wide.size, wide.out, kernel, beside, wide.pad)
            found = Planes(layer, rows, columns, three, turned)
            if found.scratch <= MOST_SCRATCH and found.plane_columns > wide.pad:
                yield found


def limits(layer: Layer) -> tuple[int, int] | None:
    """What results are limited to, None where int8 is."""
    found = activation_range(layer.activation, layer.out)
    return None if found == (-128, 127) else found


def _bias(layer: Layer) -> Ints:
    if layer.bias is None:
        return np.zeros(layer.shape.out_channels, np.int64)
    return layer.bias.astype(np.int64)


def shifts(layer: Layer, multipliers: Sequence[Multiplier]) -> Ints:
    """Per output channel its right shift, negated where the short form is not proven exact.

    The short form needs results that are limited to the zero point or above, as its rounding is
    that of sums from 0 on; and room for 2^k, which brings all channels to FRACTION bits.
    """
    found = np.array([-m.shift if m.value else 1 for m in multipliers], np.int64)
    if activation_range(layer.activation, layer.out)[0] < zero_point_of(layer.out):
        return (-found).astype(np.int8)
    scale = FRACTION + 1 - found
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
    return np.where(short, found, -found).astype(np.int8)


def band_reuse(planes: Planes, *, band: int, row: int, staged: bool = False) -> Reuse | None:
    """The distances by bands of `band` units, one of which is read and written before the next.

    `row` is the elements of a row of the call's own output. `staged`: all of a band has been read
    before any of it is written. None where the distances are not worked out.
    """
    shape, rows = planes.layer.shape, planes.rows
    if shape.pixels > MOST_PIXELS or planes.turned:
        return None
    in_row = shape.width.size * shape.channels
    tall = band * planes.unit_rows
    first = np.arange(0, rows.out, tall)
    last = np.minimum(first + tall, rows.out)
    reach = 2 * (band + (rows.kernel - 1) // 2)
    low = np.clip(first * rows.stride - rows.pad, 0, rows.size)
    high = np.clip(first * rows.stride - rows.pad + reach, 0, rows.size)
    images = np.arange(shape.batches)[:, None]
    begin = ((images * rows.size + low) * in_row).reshape(-1)
    end = ((images * rows.size + high) * in_row).reshape(-1)
    written = ((images * rows.out + last) * row).reshape(-1)
    fresh = ((images * rows.out + first) * row).reshape(-1)
    size, out_size = shape.batches * rows.size * in_row, shape.batches * rows.out * row
    if staged:  # what is read later is that of the bands behind
        written, begin, fresh, end = written[:-1], begin[1:], fresh[1:], end[:-1]
    forward = (written - begin).max(initial=-out_size)
    backward = (out_size - fresh - size + end).max(initial=-out_size)
    return Reuse(0, 0, int(forward), int(backward))


# Instructions on a Cortex-M4, as the code has them; what is around them as measured.


def cost(planes: Planes, multipliers: Sequence[Multiplier], *, band: int, halves: bool) -> int:
    """What making all bands takes, results not limited."""
    shape, rows, columns = planes.layer.shape, planes.rows, planes.columns
    blocks, channels = -(-shape.channels // LANES), shape.out_channels
    long = int((shifts(planes.layer, multipliers) < 0).sum())
    pairs, strip, total = (rows.kernel - 1) // 2, planes.strip, 0.0
    pixels = min(columns.size, planes.plane_columns - columns.pad)
    for first in range(0, planes.units, band):
        units = min(band, planes.units - first)
        odd = first + units == planes.units and rows.out % planes.unit_rows
        strips = (units - bool(odd)) // strip
        single = units - strips * strip
        words = pairs + units
        total += blocks * AROUND_RUN + channels * (
            AROUND_CHANNEL + PREPARE * pairs * columns.kernel
        )
        total += blocks * (words - 3 * strips * (strip == 3)) * (GATHER_WORD + 16 * pixels)
        total += blocks * strips * (strip == 3) * (GATHER_SIX + 41 * pixels)
        if not (planes.three and rows.stride == 1):
            total += blocks * strips * (12 + 8 * pairs) * planes.plane_columns
        for count, each in ((strips, strip), (single, 1)):
            calls = count * (1 if planes.fan == 1 else LANES)
            split = 2 if halves and rows.stride == 2 else 1
            group = _group(planes, each, halves=halves)
            total += blocks * calls * split * SWEEP_CALL
            total += count * split * channels * _channel(planes, each)
            if planes.three and rows.stride == 1 and each > 1:
                right = planes.plane_columns - columns.pad > columns.size
                total += count * channels * (columns.out - 15 * (columns.pad > 0) - 15 * right)
            total += count * columns.out * (channels * group + long * 2 * each * planes.unit_rows)
    return round(shape.batches * total)


AROUND_RUN, AROUND_CHANNEL, PREPARE = 330, 39, 16
GATHER_WORD, GATHER_SIX, SWEEP_CALL = 65, 40, 65


def _group(planes: Planes, units: int, *, halves: bool) -> int:
    """The outputs of one column, of one channel in the short form."""
    height, stride = planes.rows.kernel, planes.rows.stride
    pairs, sums = (height - 1) // 2, units * planes.unit_rows
    products = units * (height + 1) // stride
    column = (2 if units + pairs == 3 else 1) + pairs + products
    if planes.three and units == 1:
        return 3 + 3 * products + 7 + 3 * sums
    after = 5 + 3 * sums + (not halves and stride == 1 and units > 1)
    if planes.three:
        return 3 * column + 1 + after + (units > 1 and stride == 1)
    return planes.columns.kernel * column + 4 + after


def _channel(planes: Planes, units: int) -> int:
    """What a sweep does once for a channel."""
    if planes.three:
        return 18 + 7 * (units > 1)
    return 21 + 5 * planes.columns.kernel


def struct(fields: dict[str, Value]) -> Struct:
    """The fields as a C struct."""
    return Struct("ec_planes_t", fields)
