"""Lowering of depthwise convolutions to ec_depthwise_pairs: planes of vertical int16 pairs."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.backends.aot.calls import Call, Reuse, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier
from edgecompress.backends.aot.layer import Layer
from edgecompress.backends.aot.planes import Planes, band_reuse, cost, limits, struct, ways

LIMIT = 2
"""Instructions per value that is limited behind the sweeps."""
AROUND = 500
"""Instructions of a call around its bands."""


def depthwise_pairs(layer: Layer, multipliers: Sequence[Multiplier]) -> tuple[Call, ...]:
    """Calls for an int8 `layer` whose factors and sums are tame: none where no kernel takes it.

    They take kernels up to 7 x 7 with strides of 1 or 2 along one axis and any multiplier, without
    dilation. One call lays rows of the planes along the image's rows, where that is possible;
    another one along its columns, where that is all that is possible or takes fewer instructions.
    """
    found: list[Call] = []
    for turned in (False, True):
        calls = [_call(way, multipliers) for way in ways(layer) if way.turned == turned]
        best = min(calls, key=_speed, default=None)
        if best is not None and (not found or _speed(best) < _speed(found[0])):
            found.append(best)
    return tuple(found)


def _speed(call: Call) -> int:
    return call.instructions or 0


def _call(planes: Planes, multipliers: Sequence[Multiplier]) -> Call:
    layer = planes.layer
    shape = layer.shape
    image, row, column = planes.steps(shape.out_channels, shape.width.out, shape.height.out)
    band, reuses = _band(planes)
    limited = limits(layer)
    low, high = limited or (-128, 127)
    fields: dict[str, Value] = {
        "planes": struct(planes.fields(multipliers, band=band)),
        "out_image": image,
        "out_row": row,
        "out_column": column,
        "limited": int(limited is not None),
        "low": low,
        "high": high,
        "reverse": 0,
    }
    count = AROUND + cost(planes, multipliers, band=band, halves=False)
    if limited:
        count += LIMIT * shape.pixels * shape.out_channels
    return Call(
        function=f"ec_depthwise_pairs_{planes.name}_s8",
        family="ec_depthwise_pairs",
        params=Struct("ec_depthwise_pairs_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=planes.scratch,
        reuses=reuses,
        instructions=count,
    )


def _band(planes: Planes) -> tuple[int, tuple[Reuse, ...]]:
    """Units to a band, and how far the output may then lie over the input.

    The whole image where it may lie exactly there or nothing is known; otherwise as many strips as
    keep the distance that one has.
    """
    if planes.alike:
        return planes.units, (Reuse(0, 0, exact=True),)
    row = planes.columns.out * planes.layer.shape.out_channels
    least = band_reuse(planes, band=planes.strip, row=row)
    if least is None:
        return planes.units, ()
    for count in (8, 4, 2):
        reuse = band_reuse(planes, band=count * planes.strip, row=row)
        if reuse is not None and _distance(reuse) <= _distance(least):
            return count * planes.strip, (reuse,)
    return planes.strip, (least,)


def _distance(reuse: Reuse) -> int:
    assert reuse.forward is not None and reuse.backward is not None
    return max(0, min(reuse.forward, reuse.backward))
