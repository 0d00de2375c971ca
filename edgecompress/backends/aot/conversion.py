"""Conversions between element types and scales: QUANTIZE, DEQUANTIZE, CAST."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgecompress.backends.aot import tables
from edgecompress.backends.aot.calls import Lowered, Lowering, Site
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.shaping import unmoved
from edgecompress.backends.aot.unary import call, lookup, same_size
from edgecompress.tflite import Tensor

_SUFFIXES = {
    "float32": "f32",
    "int32": "s32",
    "int16": "s16",
    "int8": "s8",
    "uint8": "u8",
    "bool": "bool",
}
_QUANTIZE = {
    "float32": ("int8", "int16"),
    "int8": ("int8", "uint8", "int16", "int32"),
    "uint8": ("int8",),
    "int16": ("int8", "int16", "int32"),
    "int32": ("int8", "int16"),
}
"""What TFLM's QUANTIZE makes of what."""

_DEQUANTIZE = {"int8": ("float32",), "uint8": ("float32",), "int16": ("float32",)}
_CASTS = ("float32", "int32", "int16", "int8", "bool")
_CAST = dict.fromkeys(_CASTS, _CASTS)


def _checked(site: Site, known: Mapping[str, tuple[str, ...]]) -> tuple[Tensor, Tensor]:
    source, target = same_size(site)
    pairs = (f"{one} to {' or '.join(many)}" for one, many in known.items())
    site.require(
        target.dtype in known.get(source.dtype, ()),
        f"{source.dtype} to {target.dtype}; supported: {', '.join(pairs)}",
    )
    return source, target


def _limits(tensor: Tensor) -> tuple[int, int]:
    return (0, 255) if tensor.dtype == "uint8" else INTEGERS[tensor.dtype]


def _zero(site: Site, tensor: Tensor) -> int:
    """The zero point, which uint8 has too."""
    if tensor.dtype != "uint8":
        return zero_point_of(tensor)
    scale_of(tensor)
    zero = tensor.zero_points[0]
    site.require(
        0 <= zero <= 255, f"the zero point of {tensor.name!r} is {zero}; supported: 0..255"
    )
    return zero


def _quantize(site: Site) -> Lowered:
    source, target = _checked(site, _QUANTIZE)
    low, high = _limits(target)
    zero = _zero(site, target)
    if source.dtype == "float32":
        return call(
            site,
            function=f"ec_quantize_f32_{_SUFFIXES[target.dtype]}",
            family="ec_quantize",
            scale=scale_of(target),
            low=float(low - zero),
            high=float(high - zero),
            zero_point=zero,
        )
    factor = quantize_multiplier(scale_of(source) / scale_of(target))
    if low >= -128 and high <= 255 and source.dtype in ("int8", "uint8"):
        values = tables.requantize(tables.inputs(source.dtype) - _zero(site, source), factor)
        return lookup(site, np.clip(values + zero, low, high))
    least = INTEGERS["int32"][0]
    site.require(
        _zero(site, source) > least,
        f"the zero point of {source.name!r} is {least}; one above is supported",
    )
    return call(
        site,
        function=f"ec_requantize_{_SUFFIXES[source.dtype]}_{_SUFFIXES[target.dtype]}",
        family="ec_requantize",
        offset1=-_zero(site, source),
        multiplier=factor.value,
        shift=factor.shift,
        offset=zero,
        low=low,
        high=high,
    )


def _dequantize(site: Site) -> Lowered:
    source, target = _checked(site, _DEQUANTIZE)
    return call(
        site,
        function=f"ec_dequantize_{_SUFFIXES[source.dtype]}_f32",
        family="ec_quantize",
        scale=scale_of(source),
        zero_point=_zero(site, source),
    )


def _cast(site: Site) -> Lowered:
    source, target = _checked(site, _CAST)
    if source.dtype == target.dtype:
        return unmoved(site)
    function = f"ec_cast_{_SUFFIXES[source.dtype]}_{_SUFFIXES[target.dtype]}"
    return call(site, function=function, family="ec_cast")


OPERATORS: dict[str, Lowering] = {
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "CAST": _cast,
}
"""Operator kind -> the function that lowers it."""
