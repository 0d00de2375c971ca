"""ec_depthwise_s16: int16 depthwise convolutions, two channels by four pixels at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.int16 import ending, fits, high_factors
from edgecompress.backends.aot.layer import Ints, Layer, padded
from edgecompress.backends.aot.sliding import Axis, Shape

PIXELS = 4
MOST_SCRATCH = 1 << 16
"""Bytes; a map with larger channels is none for a microcontroller."""
GROUP_WORDS, END_WORDS = 5, 3

# Instructions on a Cortex-M4: of a group of weights with stride 1 and 2, of four pixels besides
# (by `ending`), of a line; of two places of two channels, of a line of those, of a group's weights.
GROUP, QUAD, LINE = (29, 33), (37, 37, 55), 30
PLACES, GATHERED, WRITTEN = 6.5, 38, 20
AROUND = 70


@dataclass(frozen=True)
class _Lines:
    """How the maps are cut into lines: along one axis, and what that needs."""

    along: Axis
    across: Axis
    by_columns: bool

    @property
    def blocks(self) -> int:
        """Fours of pixels in a line."""
        return -(-self.along.out // PIXELS)

    @property
    def groups(self) -> int:
        """Groups of weights in a kernel line: three taps, then two each."""
        return 1 + max(0, -(-(self.along.kernel - 3) // 2))

    @property
    def pairs(self) -> int:
        """Pairs of places that a line holds in scratch."""
        stride = self.along.stride
        return (self.blocks - 1) * 2 * stride + self.groups + (2 if stride == 1 else 4)

    @property
    def lines(self) -> int:
        """Input lines, with padding, that the output sees."""
        axis = self.across
        return (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1

    @property
    def scratch(self) -> int:
        """Bytes."""
        words = GROUP_WORDS * self.groups * self.across.kernel + END_WORDS
        return 8 * self.pairs * self.lines + 4 * words

    @property
    def fits(self) -> bool:
        """Whether the kernel can slide like that."""
        axis = self.along
        return axis.stride <= 2 and axis.dilation == 1 and self.scratch <= MOST_SCRATCH

    def instructions(self, ends: int) -> float:
        """For two channels of an image, on a Cortex-M4, about."""
        groups = self.groups * self.across.kernel
        block = GROUP[self.along.stride - 1] * groups + QUAD[ends]
        swept = self.across.out * (LINE + self.blocks * block)
        return swept + self.lines * (GATHERED + PLACES * self.pairs) + WRITTEN * groups + AROUND


def depthwise_int16(layer: Layer, multipliers: Sequence[Multiplier]) -> Call | None:
    """The call of ec_depthwise_s16, None where it does not apply or a bound fails.

    It applies to one filter per output channel, int8 weights, and along one of the axes a stride of
    1 or 2 and no dilation. Sums must fit int32 whatever the input, factors be in [2^-18, 1/2) or 0.
    """
    shape = layer.shape
    if layer.weights.shape[3] != 1 or layer.groups != shape.channels or layer.nibbles:
        return None
    factors = high_factors(multipliers)
    if factors is None or not fits(layer.flat, layer.bias):
        return None
    low, high = activation_range(layer.activation, layer.out)
    ends = ending(low, high)
    ways = (_Lines(shape.width, shape.height, False), _Lines(shape.height, shape.width, True))
    usable = [way for way in ways if way.fits]
    if not usable:
        return None
    lines = min(usable, key=lambda way: way.instructions(ends))
    zero_point_of(layer.data)
    channels = shape.out_channels
    bias = np.zeros(channels, np.int64) if layer.bias is None else layer.bias
    fields: dict[str, Value] = {
        "batches": shape.batches,
        "in_channels": shape.channels,
        "out_channels": channels,
        "fan": channels // shape.channels,
        **_axes(shape, lines),
        "kernel": lines.across.kernel,
        "dilation": lines.across.dilation,
        "groups": lines.groups,
        "lines": lines.lines,
        "pairs": lines.pairs,
        "ending": ends,
        "low": low,
        "high": high,
        "weights": Array("int8_t", padded(_triples(layer, lines), axis=0, multiple=2)),
        "bias": Array("int32_t", padded(bias, axis=0, multiple=2).astype(np.int32)),
        "factors": Array("int32_t", padded(factors, axis=0, multiple=2)),
    }
    alike = all(axis.size == axis.out and axis.stride == 1 for axis in (shape.height, shape.width))
    return Call(
        function="ec_depthwise_s16",
        family="ec_depthwise_s16",
        params=Struct("ec_depthwise_s16_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=lines.scratch,
        reuses=(Reuse(0, 0, exact=True),) if alike and channels == shape.channels else (),
        instructions=round(shape.batches * -(-channels // 2) * lines.instructions(ends)),
    )


def _axes(shape: Shape, lines: _Lines) -> dict[str, Value]:
    """The structs of both axes."""
    steps = {
        "width": (shape.channels, shape.out_channels),
        "height": (shape.channels * shape.width.size, shape.out_channels * shape.width.out),
    }
    names = ("height", "width") if lines.by_columns else ("width", "height")
    found: dict[str, Value] = {}
    for field, name in zip(("along", "across"), names, strict=True):
        axis: Axis = getattr(shape, name)
        values = {
            "size": axis.size,
            "out": axis.out,
            "stride": axis.stride,
            "pad": axis.pad,
            "in_step": steps[name][0],
            "out_step": steps[name][1],
        }
        found[field] = Struct("ec_depthwise_s16_axis_t", values)
    return found


def _triples(layer: Layer, lines: _Lines) -> Ints:
    """[output channel, kernel line, group, 3]: (t0, t1, t2), (0, t3, t4), (0, t5, t6), ..."""
    taps = layer.weights[..., 0]
    taps = taps.transpose(0, 2, 1) if lines.by_columns else taps
    missing = 2 * lines.groups + 1 - taps.shape[2]
    taps = np.pad(taps, ((0, 0), (0, 0), (0, missing)))
    zero = np.zeros_like(taps[..., 0])
    groups = [
        np.stack([zero if i else taps[..., 0], taps[..., 2 * i + 1], taps[..., 2 * i + 2]], axis=2)
        for i in range(lines.groups)
    ]
    return np.stack(groups, axis=2)
