"""Exact integer Winograd for 3x3 convolutions of stride 1 (ec_winograd*): weights, scratch, choice.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(2x2, 3x3) and
F(4x4, 3x3) with the fractions of G taken out, so that integers stay integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from edgecompress.backends.aot.sliding import MOST_PIXELS, Places

GROUP = 4
"""Output channels made at once."""
PAIR = 2
"""Neighbouring tiles made at once."""
BLOCK_PLACES = 8
"""Pairs of input channels up to which F(2x2)'s product takes them in an order of its own."""
MOST_SCRATCH = 1 << 26

WEIGHTS = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]])
"""G of F(4x4)."""
RISE, FALL = np.array([5, 2, 5, 3, 3, 5]), np.array([5, 8, 5, 3, 3, 5])
"""Per row of F(4x4)'s B the sum of its positive values, and of its negative ones."""


@dataclass(frozen=True)
class _Sizes:
    """What the work and the scratch are made of: `channels` of the input, `groups` of GROUP output
    channels, `strips` of tiles, `pairs` of tiles in each. `outside`: tiles reach above or below the
    map; `beside`: the columns that they reach beside it; `partial`: outputs that are not stored
    where they are made."""

    batches: int
    width: int
    channels: int
    groups: int
    strips: int
    pairs: int
    outside: bool
    beside: int
    partial: int

    @classmethod
    def of(cls, layer: Layer, rows: int, columns: int) -> _Sizes:
        """The sizes of a layer that `_applies` to, with tiles of `rows` x `columns` outputs."""
        shape, wide = layer.shape, PAIR * columns
        strips = -(-shape.height.out // rows)
        pairs = -(-shape.width.out // wide)
        whole = activation_range(layer.activation, layer.out) == INTEGERS["int8"]
        direct = (shape.height.out // rows * rows) * (shape.width.out // wide * wide)
        direct *= shape.out_channels // GROUP * GROUP * whole
        end = rows * strips + 2 - shape.height.pad
        return cls(
            batches=shape.batches,
            width=shape.width.size,
            channels=shape.channels,
            groups=-(-shape.out_channels // GROUP),
            strips=strips,
            pairs=pairs,
            outside=shape.height.pad > 0 or end > shape.height.size,
            beside=wide * pairs + 2 - shape.width.size,
            partial=shape.height.out * shape.width.out * shape.out_channels - direct,
        )

    def bands(self, strips: int) -> int:
        """Bands of `strips`, of which 0 is all the map with the weights of the whole layer."""
        return -(-self.strips // strips) if strips else 1


@dataclass(frozen=True, eq=False)
class Form:
    """Tiles of `rows` x `columns` outputs: a kernel, and what its header asks for.

    `strips` are those that it can take at a time, of so many; `order` is that of the kernel's rows
    in the weights, `turned` whether the product takes up to BLOCK_PLACES places in an order of its
    own. `scratch` is in bytes, `instructions` are of a Cortex-M4, about: the steps as counted, the
    calls between them, padding and outputs at the map's end as measured.
    """

    rows: int
    columns: int
    family: str
    order: tuple[int, int, int]
    turned: bool
    strips: Callable[[int], Iterable[int]]
    bias: Callable[[Layer], Ints]
    in_bounds: Callable[[Layer], bool]
    scratch: Callable[[_Sizes, int], int]
    instructions: Callable[[_Sizes, int], int]


def winograd(
    layer: Layer, multipliers: Sequence[Multiplier], *, scratch: Sequence[int]
) -> list[Call]:
    """Calls of ec_winograd and its other forms: for each of `scratch`, in bytes, the one with the
    fewest instructions.

    Nothing where they do not apply or none fits: they take int8, 3x3 taps without dilation, stride
    1, one group, a multiple of 4 input channels and sums that stay in 32 bits whatever the input.
    """
    if not _applies(layer) or not is_tame(layer, multipliers):
        return []
    found = [
        (form.instructions(sizes, strips), form.scratch(sizes, strips), strips, form)
        for form in FORMS
        if form.in_bounds(layer)
        for sizes in [_Sizes.of(layer, form.rows, form.columns)]
        for strips in form.strips(sizes.strips)
    ]
    best = {}
    for limit in scratch:
        fitting = [one for one in found if one[1] <= min(limit, MOST_SCRATCH)]
        if fitting:
            instructions, size, strips, form = min(fitting, key=lambda one: one[:3])
            best[form.family, strips] = Call(
                function=f"{form.family}_s8",
                family=form.family,
                params=Struct("ec_winograd_t", _fields(form, layer, multipliers, strips)),
                inputs=layer.site.op.inputs[:1],
                outputs=layer.site.op.outputs[:1],
                scratch=size,
                reuses=_reuses(layer, form.rows * (strips or 1)),
                instructions=instructions,
            )
    return list(best.values())


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


def _bias_2x2(layer: Layer) -> Ints:
    return 4 * folded_bias(layer)


def _bounds_2x2(layer: Layer) -> bool:
    """Whether four times a sum, and that less twice a sum of one column, stay in 32 bits."""
    reach = np.abs(layer.flat.astype(np.int64)).sum(axis=1)
    return bool((4 * 384 * reach + np.abs(_bias_2x2(layer))).max() < 1 << 31)


def _bias_4x4(layer: Layer) -> Ints:
    """For inputs plus 128."""
    return np.asarray(36 * (folded_bias(layer) - 128 * layer.flat.sum(axis=1, dtype=np.int64)))


def _bounds_4x4(layer: Layer) -> bool:
    """Whether all that is halved stays in 32 bits, for inputs (plus 128) in [0, 255]."""
    reach = 128 * np.abs(layer.flat.astype(np.int64)).sum(axis=1) + np.abs(folded_bias(layer))
    if 36 * reach.max() >= 1 << 31:
        return False
    most = 255 * np.maximum(
        np.outer(RISE, RISE) + np.outer(FALL, FALL), np.outer(RISE, FALL) + np.outer(FALL, RISE)
    )
    for weights in layer.weights.astype(np.int64):
        lines = np.einsum("yxc,jx->yjc", weights, WEIGHTS)
        products = most * np.abs(np.einsum("iy,yjc->ijc", WEIGHTS, lines)).sum(axis=2)
        columns = 6 * 255 * np.maximum(RISE, FALL) * np.abs(lines).sum(axis=(0, 2))
        for m in (*products.T, columns):
            if max(m[3] + m[4], 3 * m[0] + (m[3] + m[4]) // 2) >= 1 << 31:
                return False
    return True


def _bias_1x4(layer: Layer) -> Ints:
    """For inputs plus 128."""
    return np.asarray(-6 * (folded_bias(layer) - 128 * layer.flat.sum(axis=1, dtype=np.int64)))


def _bounds_1x4(layer: Layer) -> bool:
    """Whether all that is halved stays in 32 bits, for inputs (plus 128) in [0, 255]."""
    reach = 128 * np.abs(layer.flat.astype(np.int64)).sum(axis=1) + np.abs(folded_bias(layer))
    lines = np.abs(np.einsum("oyxc,jx->oyjc", layer.weights.astype(np.int64), WEIGHTS))
    m = 255 * np.maximum(RISE, FALL) * lines.sum(axis=(1, 3))
    halved = np.maximum(m[:, 3] + m[:, 4], 3 * m[:, 0] + (m[:, 3] + m[:, 4]) // 2)
    return bool(max(6 * reach.max(), halved.max()) < 1 << 31)


def _map_scratch(tile: int, staged_rows: int) -> Callable[[_Sizes, int], int]:
    """Scratch of ec_winograd_map, `staged_rows` of inputs where tiles reach above or below."""
    k = tile + 2

    def scratch(sizes: _Sizes, strips: int) -> int:
        n = sizes.channels
        edges = k * n * (PAIR * tile * sizes.pairs + 2) // 2
        outside = sizes.width * n // 4 * staged_rows if sizes.outside else 0
        v, u, sums = k * k * n, 2 * k * k * n, 8 * k * k
        if not strips:
            return 4 * (sizes.groups * u + edges + max(v + sums, outside))
        return 4 * (strips * sizes.pairs * v + max(edges + outside, u + sums))

    return scratch


def _2x2_instructions(sizes: _Sizes, strips: int) -> int:
    places, passes = sizes.channels // 2, sizes.strips * sizes.pairs
    blocks = 0 if places <= BLOCK_PLACES else 3 * -(-places // 8) + 4
    return sizes.batches * (
        sizes.bands(strips) * (sizes.groups * (214 * places + 35) + sizes.beside * places * 14)
        + sizes.strips * (sizes.width * (27 * places // 2 + 9) + 150)
        + passes * (64 * places + 40)
        + passes * sizes.groups * (16 * (11 * places + 6 + blocks) + 15 + 631)
        + sizes.partial * 20
    )


def _4x4_instructions(sizes: _Sizes, strips: int) -> int:
    places, passes = sizes.channels // 2, sizes.strips * sizes.pairs
    staged = 6 * sizes.width * places * 3 // 2 if sizes.outside else 0
    return sizes.batches * (
        sizes.bands(strips) * (sizes.groups * (580 * places + 35) + sizes.beside * places * 20)
        + sizes.strips * (sizes.width * (67 * places // 2 + 10) + 150)
        + min(sizes.strips, 2) * staged
        + passes * (390 * places + 40)
        + passes * sizes.groups * (36 * _position(places) + 20 + 2331)
        + sizes.partial * 20
    )


def _1x4_scratch(sizes: _Sizes, strips: int) -> int:
    n = sizes.channels
    staged = (PAIR * 4 * sizes.pairs + 2) * n // 4
    return 4 * ((strips + 2) * sizes.pairs * 6 * n + max(staged, 36 * n + 48))


def _1x4_instructions(sizes: _Sizes, strips: int) -> int:
    places, passes = sizes.channels // 2, sizes.strips * sizes.pairs
    bands = sizes.bands(strips)
    return sizes.batches * (
        bands * sizes.groups * (252 * places + 35)
        + (bands - 1) * sizes.pairs * 6 * (8 * places + 12)
        + (sizes.strips + 2) * (sizes.pairs * (82 * places + 66 + 14 * places) + 60)
        + passes * sizes.groups * (6 * (_position(3 * places) + 2 * (strips > 1)) + 40 + 450)
        + sizes.partial * 20
    )


def _position(places: int) -> int:
    """Instructions of ec_winograd_sums for a position."""
    return 11 * places + 7 + (0 if places <= 16 else 3 * -(-places // 16) + 4)


def _strips(count: int) -> list[int]:
    """The smallest bands for each number of bands."""
    return sorted({-(-count // bands) for bands in range(1, count + 1)})


FORMS = (
    Form(
        rows=2,
        columns=2,
        family="ec_winograd",
        order=(0, 2, 1),
        turned=True,
        strips=lambda count: [0, *_strips(count)],
        bias=_bias_2x2,
        in_bounds=_bounds_2x2,
        scratch=_map_scratch(2, 1),
        instructions=_2x2_instructions,
    ),
    Form(
        rows=4,
        columns=4,
        family="ec_winograd_4x4",
        order=(0, 2, 1),
        turned=False,
        strips=lambda count: [0, *_strips(count)],
        bias=_bias_4x4,
        in_bounds=_bounds_4x4,
        scratch=_map_scratch(4, 6),
        instructions=_4x4_instructions,
    ),
    Form(
        rows=1,
        columns=4,
        family="ec_winograd_1x4",
        order=(0, 1, 2),
        turned=False,
        strips=_strips,
        bias=_bias_1x4,
        in_bounds=_bounds_1x4,
        scratch=_1x4_scratch,
        instructions=_1x4_instructions,
    ),
)


def _fields(
    form: Form, layer: Layer, multipliers: Sequence[Multiplier], strips: int
) -> dict[str, Value]:
    low, high = activation_range(layer.activation, layer.out)
    return {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "limited": int((low, high) != INTEGERS["int8"]),
        "low": low,
        "high": high,
        "reverse": 0,
        "strips": strips,
        "weights": Array("uint32_t", _packed(layer.weights, form)),
        "scales": Array("int32_t", _scales(layer, multipliers, form.bias(layer))),
    }


def _packed(weights: Ints, form: Form) -> Ints:
    """[group, word, output channel, tap] words of four input channels, in the product's order."""
    count, channels = len(weights), weights.shape[3]
    places = np.arange(channels // 2)
    if form.turned and len(places) <= BLOCK_PLACES:
        places = -places % len(places)
    first = 4 * (places // 2) + places % 2
    even, odd = first[::2], first[1::2]
    order = np.stack([even, odd, even + 2, odd + 2], axis=1)
    taps = weights[:, form.order].reshape(count, 9, channels)
    ordered = padded(taps, axis=0, multiple=GROUP)[:, :, order]
    grouped = ordered.reshape(-1, GROUP, 9, channels // 4, 4).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(grouped).view("<u4")


def _scales(layer: Layer, multipliers: Sequence[Multiplier], bias: Ints) -> Ints:
    """Per output channel the form's bias, multiplier, rounding and shift (ec_math.h)."""
    shifts = np.array([-m.shift if m.value else 1 for m in multipliers], np.int64)
    rounding = (2 * zero_point_of(layer.out) + 1) << (shifts - 1)
    values = np.array([m.value for m in multipliers], np.int64)
    rows = np.stack([bias, values, rounding, shifts], axis=1)
    return padded(rows, axis=0, multiple=GROUP).astype(np.uint32).view(np.int32)


def _reuses(layer: Layer, rows: int) -> tuple[Reuse, ...]:
    """The output may lie over what bands of `rows` of it have read before they are written."""
    shape = layer.shape
    if shape.pixels > MOST_PIXELS:
        return ()
    starts: Places = np.arange(0, shape.height.out, rows, dtype=np.int64)
    images = np.arange(shape.batches, dtype=np.int64)[:, None] * shape.height.out
    return shape.reuse(
        itemsize=1, starts=(images + starts).reshape(-1) * shape.width.out, staged=True
    )
