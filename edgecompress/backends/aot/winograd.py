"""Exact integer Winograd for 3x3 convolutions of stride 1 (ec_winograd): weights, scratch, choice.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(2x2, 3x3) with the
halves of G taken out, so that integers stay integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Struct, Value
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    Multiplier,
    activation_range,
    zero_point_of,
)
from edgecompress.backends.aot.layer import Ints, Layer, folded_bias, is_tame, padded
from edgecompress.backends.aot.sliding import MOST_PIXELS

GROUP = 4
"""Output channels made at once."""
PAIR_COLUMNS = 4
"""Output columns of the two tiles made at once."""
BLOCK_PLACES = 8
"""Pairs of input channels up to which the product takes them in an order of its own."""
POSITIONS = 16
MOST_SCRATCH = 1 << 26


@dataclass(frozen=True)
class _Sizes:
    """What the work and the scratch are made of: `channels` of the input, `groups` of GROUP output
    channels, `strips` of two output rows, `pairs` of tiles in each. `outside`: tiles reach above or
    below the map; `beside`: the columns that they reach beside it; `partial`: outputs that are not
    stored where they are made."""

    batches: int
    height: int
    width: int
    channels: int
    groups: int
    strips: int
    pairs: int
    outside: bool
    beside: int
    partial: int

    @classmethod
    def of(cls, layer: Layer) -> _Sizes:
        """The sizes of a layer that `_applies` to."""
        shape = layer.shape
        strips = -(-shape.height.out // 2)
        pairs = -(-shape.width.out // PAIR_COLUMNS)
        whole = activation_range(layer.activation, layer.out) == INTEGERS["int8"]
        direct = (shape.height.out // 2 * 2) * (shape.width.out // PAIR_COLUMNS * PAIR_COLUMNS)
        direct *= shape.out_channels // GROUP * GROUP * whole
        return cls(
            batches=shape.batches,
            height=shape.height.size,
            width=shape.width.size,
            channels=shape.channels,
            groups=-(-shape.out_channels // GROUP),
            strips=strips,
            pairs=pairs,
            outside=shape.height.pad > 0 or 2 * strips + 2 - shape.height.pad > shape.height.size,
            beside=PAIR_COLUMNS * pairs + 2 - shape.width.size,
            partial=shape.height.out * shape.width.out * shape.out_channels - direct,
        )

    def scratch(self, strips: int) -> int:
        """Bytes of scratch with bands of `strips` (0: the weights of the whole layer)."""
        n = self.channels
        edges = 2 * n * (PAIR_COLUMNS * self.pairs + 2)
        outside = self.width * n // 4 if self.outside else 0
        if not strips:
            return 4 * (self.groups * 32 * n + edges + max(16 * n + 128, outside))
        return 4 * (strips * self.pairs * 16 * n + max(edges + outside, 32 * n + 128))

    def instructions(self, strips: int) -> int:
        """Of a Cortex-M4, about, with bands of `strips`: the steps as ec_winograd_steps.c takes
        them, the calls between them, padding and outputs at the map's end as measured."""
        places, passes = self.channels // 2, self.strips * self.pairs
        bands = -(-self.strips // strips) if strips else 1
        blocks = 0 if places <= BLOCK_PLACES else 3 * -(-places // 8) + 4
        product = POSITIONS * (11 * places + 6 + blocks) + 15
        return self.batches * (
            bands * (self.groups * (107 * self.channels + 35) + self.beside * places * 14)
            + self.strips * (self.width * (27 * places // 2 + 9) + 150)
            + passes * (64 * places + 40)
            + passes * self.groups * (product + 581 + 50)
            + self.partial * 20
        )


def winograd(layer: Layer, multipliers: Sequence[Multiplier], *, scratch_limit: int) -> Call | None:
    """The call of ec_winograd with the fewest instructions in `scratch_limit` bytes of scratch.

    None where it does not apply: it takes int8, 3x3 taps without dilation, stride 1, one group, a
    multiple of 4 input channels and sums that stay in 32 bits whatever the input; or where no form
    of it fits.
    """
    if not _applies(layer) or not is_tame(layer, multipliers) or not _in_bounds(layer):
        return None
    sizes = _Sizes.of(layer)
    limit = min(scratch_limit, MOST_SCRATCH)
    forms = [
        (sizes.instructions(strips), sizes.scratch(strips), strips)
        for strips in _forms(sizes.strips)
        if sizes.scratch(strips) <= limit
    ]
    if not forms:
        return None
    instructions, scratch, strips = min(forms)
    return Call(
        function="ec_winograd_s8",
        family="ec_winograd",
        params=Struct("ec_winograd_t", _fields(layer, multipliers, strips)),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=scratch,
        reuses=_reuses(layer, strips or 1),
        instructions=instructions,
    )


def _applies(layer: Layer) -> bool:
    rows, columns = layer.shape.height, layer.shape.width
    return (
        layer.data.dtype == "int8"
        and not layer.nibbles
        and layer.groups == 1
        and layer.shape.channels % 4 == 0
        and all(axis.kernel == 3 and axis.stride == axis.dilation == 1 for axis in (rows, columns))
        and rows.pad >= 0
        and columns.pad >= 0
        and columns.pad + columns.size <= columns.out + 2
    )


def _in_bounds(layer: Layer) -> bool:
    """Whether four times a sum, and that less twice a sum of one column, stay in 32 bits."""
    reach = np.abs(layer.flat.astype(np.int64)).sum(axis=1)
    return bool((4 * (384 * reach + np.abs(folded_bias(layer)))).max() < 1 << 31)


def _forms(strips: int) -> Iterator[int]:
    """0, and the smallest bands for each number of bands."""
    yield 0
    yield from sorted({-(-strips // count) for count in range(1, strips + 1)})


def _fields(layer: Layer, multipliers: Sequence[Multiplier], strips: int) -> dict[str, Value]:
    low, high = activation_range(layer.activation, layer.out)
    return {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "limited": int((low, high) != INTEGERS["int8"]),
        "low": low,
        "high": high,
        "reverse": 0,
        "strips": strips,
        "weights": Array("uint32_t", _packed(layer.weights)),
        "scales": Array("int32_t", _scales(layer, multipliers)),
    }


def _packed(weights: Ints) -> Ints:
    """[group, word, output channel, tap] words of four input channels, in the product's order."""
    count, channels = len(weights), weights.shape[3]
    places = np.arange(channels // 2)
    if len(places) <= BLOCK_PLACES:
        places = -places % len(places)
    first = 4 * (places // 2) + places % 2
    even, odd = first[::2], first[1::2]
    order = np.stack([even, odd, even + 2, odd + 2], axis=1)
    taps = weights[:, [0, 2, 1]].reshape(count, 9, channels)
    ordered = padded(taps, axis=0, multiple=GROUP)[:, :, order]
    grouped = ordered.reshape(-1, GROUP, 9, channels // 4, 4).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(grouped).view("<u4")


def _scales(layer: Layer, multipliers: Sequence[Multiplier]) -> Ints:
    """Per output channel four times the folded bias, multiplier, rounding and shift (ec_math.h)."""
    shifts = np.array([-m.shift if m.value else 1 for m in multipliers], np.int64)
    rounding = (2 * zero_point_of(layer.out) + 1) << (shifts - 1)
    values = np.array([m.value for m in multipliers], np.int64)
    rows = np.stack([4 * folded_bias(layer), values, rounding, shifts], axis=1)
    return padded(rows, axis=0, multiple=GROUP).astype(np.int32)


def _reuses(layer: Layer, strips: int) -> tuple[Reuse, ...]:
    """The output may lie over what bands of `strips` have read before they are written."""
    shape = layer.shape
    if shape.pixels > MOST_PIXELS:
        return ()
    rows = np.arange(0, shape.height.out, 2 * strips, dtype=np.int64)
    images = np.arange(shape.batches, dtype=np.int64)[:, None] * shape.height.out
    return shape.reuse(
        itemsize=1, starts=(images + rows).reshape(-1) * shape.width.out, staged=True
    )
