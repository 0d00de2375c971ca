"""ec_conv_rows_s16: int16 convolutions and matrices pixel by pixel.

For cores with Helium, and for those without the DSP extension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Site, Struct, Value, Values
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.int16 import fits, high_factors
from edgecompress.backends.aot.layer import Ints, Layer, padded
from edgecompress.backends.aot.sliding import Axis, Shape

ROWS, DEEP = 4, 8
"""Output channels that are computed together; those of a depthwise convolution."""
DEPTH_COST = (2.6, 5.0)
"""Instructions for a product on a Cortex-M4, about; in a depthwise convolution."""


def conv_rows(layer: Layer, multipliers: Sequence[Multiplier]) -> Call | None:
    """The call for an int16 `layer` of one group, or with one filter per channel; else None.

    None as well where a bound fails: sums must fit int32 whatever the input, factors be in
    [2^-18, 1/2) or 0.
    """
    shape = layer.shape
    deep = layer.groups > 1
    if deep and not layer.groups == shape.channels == shape.out_channels:
        return None
    factors = high_factors(multipliers)
    if layer.nibbles or factors is None or not fits(layer.flat, layer.bias):
        return None
    zero_point_of(layer.data)
    low, high = activation_range(layer.activation, layer.out)
    constants = _constants(layer.flat, layer.bias, factors, low=low, high=high, deep=deep)
    return _call(layer.site, shape, constants, shape.reuse(itemsize=2, staged=not deep), deep=deep)


def matrix_rows(
    site: Site, values: Values, bias: Values | None, factor: Multiplier, reuse: Reuse
) -> Call | None:
    """The call for a FULLY_CONNECTED of `values` [outputs, inputs], int8 with zero point 0.

    None where a bound of conv_rows fails.
    """
    data, out = site.arg(0), site.result()
    outputs, inputs = values.shape
    factors = high_factors([factor])
    if factors is None or not fits(values, bias):
        return None
    one = Axis(size=1, out=1, kernel=1, stride=1, dilation=1, pad=0)
    shape = Shape(data.elements // inputs, inputs, outputs, one, one)
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    each = np.repeat(factors, outputs)
    constants = _constants(values, bias, each, low=low, high=high, deep=False)
    return _call(site, shape, constants, (reuse,), deep=False)


def _constants(
    values: Ints, bias: Ints | None, factors: Ints, *, low: int, high: int, deep: bool
) -> dict[str, Value]:
    block = DEEP if deep else ROWS
    values = padded(values, axis=0, multiple=block)
    each = [np.zeros(len(factors), np.int64) if bias is None else bias, factors]
    each = [padded(one, axis=0, multiple=block) for one in each]
    if deep:
        values = values.reshape(-1, DEEP, values.shape[1]).transpose(0, 2, 1)
        each = [one.reshape(-1, DEEP // 2, 2).transpose(0, 2, 1) for one in each]
    return {
        "low": low,
        "high": high,
        "reverse": 0,
        "weights": Array("int8_t", np.ascontiguousarray(values)),
        "bias": Array("int32_t", each[0].astype(np.int32).reshape(-1)),
        "factors": Array("int32_t", each[1].reshape(-1)),
    }


def _call(
    site: Site,
    shape: Shape,
    constants: dict[str, Value],
    reuses: tuple[Reuse, ...],
    *,
    deep: bool,
) -> Call:
    made = shape.pixels * shape.out_channels
    depth = shape.taps * (1 if deep else shape.channels)
    return Call(
        function="ec_depthwise_rows_s16" if deep else "ec_conv_rows_s16",
        family="ec_conv_rows_s16",
        params=Struct("ec_conv_rows_s16_t", {"shape": shape.struct(), **constants}),
        inputs=site.op.inputs[:1],
        outputs=site.op.outputs[:1],
        scratch=None if deep else 2 * depth,
        reuses=reuses,
        instructions=round(made * (DEPTH_COST[deep] * depth + 22) + shape.pixels * 4 * depth),
    )
