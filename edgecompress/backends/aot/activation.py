"""Activations: RELU, RELU6, LEAKY_RELU, LOGISTIC, TANH, HARD_SWISH, ELU, ABS.

int8 ones are tables of 256 bytes with TFLM's arithmetic in them; int16 ones compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgecompress.backends.aot import tables
from edgecompress.backends.aot.calls import Lowered, Lowering, Site
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    Multiplier,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.tables import Values
from edgecompress.backends.aot.unary import call, lookup, same_size
from edgecompress.tflite import Tensor

Lowerer = Callable[[Site, Tensor, Tensor], Lowered]

_IDENTITY = Multiplier(1 << 30, 1)


def _moved(tensor: Tensor) -> Values:
    return tables.inputs("int8") - zero_point_of(tensor)


def _alpha(site: Site) -> float:
    alpha = site.op.options.get("alpha", 0.0)
    site.require(
        isinstance(alpha, float | int) and math.isfinite(alpha), f"alpha {alpha}: not a number"
    )
    return float(alpha)  # type: ignore[arg-type]


def _six(site: Site, source: Tensor) -> int:
    """6 as `source` stores it (TFLite's FloatToQuantizedType)."""
    with np.errstate(all="ignore"):
        quotient = float(np.float32(6) / np.float32(scale_of(source)))
    site.require(quotient < 1 << 30, f"the scale of {source.name!r} is too small for RELU6")
    return min(math.floor(quotient + 0.5) + zero_point_of(source), INTEGERS[source.dtype][1])


# --- int8 -------------------------------------------------------------------------------------


def _relu_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    factor = quantize_multiplier(scale_of(source) / scale_of(target))
    zero = zero_point_of(target)
    return lookup(site, np.clip(tables.requantize(_moved(source), factor) + zero, zero, 127))


def _relu6_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    """The output's scale counts for nothing, as in TFLM."""
    q = tables.inputs("int8")
    six, zero = _six(site, source), zero_point_of(source)
    return lookup(site, np.where(q > six, six, np.where(q < zero, zero, q)))


def _leaky_relu_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    values = tables.leaky_relu(
        _moved(source), scale=scale_of(source), alpha=_alpha(site), out_scale=scale_of(target)
    )
    return lookup(site, np.clip(values + zero_point_of(target), -128, 127))


def _logistic_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    site.require(
        zero_point_of(target) == -128,
        f"the output's zero point is {zero_point_of(target)}; supported: -128 (scale 1/256)",
    )
    return lookup(site, tables.logistic(_moved(source), scale=scale_of(source)))


def _tanh_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    return lookup(site, tables.tanh(_moved(source), scale=scale_of(source)))


def _hard_swish_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    values = tables.hard_swish(
        _moved(source),
        scale=scale_of(source),
        out_scale=scale_of(target),
        out_zero=zero_point_of(target),
    )
    return lookup(site, values)


def _elu_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    values = tables.elu(
        _moved(source),
        scale=scale_of(source),
        out_scale=scale_of(target),
        out_zero=zero_point_of(target),
    )
    return lookup(site, values)


def _abs_s8(site: Site, source: Tensor, target: Tensor) -> Lowered:
    factor = quantize_multiplier(scale_of(source) / scale_of(target))
    size = tables.requantize(np.abs(_moved(source)), factor)
    return lookup(site, np.clip(size + zero_point_of(target), -128, 127))


# --- int16 ------------------------------------------------------------------------------------


def _requantized(site: Site, factor: Multiplier, *, low: int, high: int) -> Lowered:
    """An int16 tensor with zero point 0 scaled by `factor` and clamped to `low`..`high`."""
    return call(
        site,
        function="ec_requantize_s16_s16",
        family="ec_requantize",
        offset1=0,
        multiplier=factor.value,
        shift=factor.shift,
        offset=0,
        low=low,
        high=high,
    )


def _relu_s16(site: Site, source: Tensor, target: Tensor) -> Lowered:
    zero_point_of(source), zero_point_of(target)
    factor = quantize_multiplier(scale_of(source) / scale_of(target))
    return _requantized(site, factor, low=0, high=32767)


def _relu6_s16(site: Site, source: Tensor, target: Tensor) -> Lowered:
    """The output's scale counts for nothing, as in TFLM."""
    return _requantized(site, _IDENTITY, low=0, high=_six(site, source))


def _leaky_relu_s16(site: Site, source: Tensor, target: Tensor) -> Lowered:
    zero_point_of(source), zero_point_of(target)
    positive, negative = tables.leaky_relu_multipliers(
        scale_of(source), alpha=_alpha(site), out_scale=scale_of(target)
    )
    return call(
        site,
        function="ec_leaky_relu_s16",
        family="ec_activation_s16",
        multiplier1=positive.value,
        shift1=positive.shift,
        multiplier2=negative.value,
        shift2=negative.shift,
    )


def _sigmoid_s16(function: str, powers: tuple[int, ...]) -> Lowerer:
    """LOGISTIC or TANH; for input scales 2^p with p among `powers`, TFLM multiplies exactly."""

    def lower(site: Site, source: Tensor, target: Tensor) -> Lowered:
        zero_point_of(source), zero_point_of(target)
        site.require(
            _power_of_two(scale_of(target)) == -15,
            f"the output's scale is {scale_of(target)}; supported: 2^-15",
        )
        multiplier, shift = _sigmoid_multiplier(site, scale_of(source), powers)
        return call(
            site, function=function, family="ec_activation_s16", multiplier=multiplier, shift=shift
        )

    return lower


def _power_of_two(scale: float) -> int | None:
    """p where `scale` is 2^p within TFLite's tolerance (CheckedLog2), else None."""
    power = float(np.float32(math.log(scale)) * (np.float32(1) / np.float32(math.log(2.0))))
    return round(power) if abs(power - round(power)) < 1e-3 else None


def _sigmoid_multiplier(site: Site, scale: float, powers: tuple[int, ...]) -> tuple[int, int]:
    """(multiplier, shift) from `scale` to 1 / 12288 (TFLM's LogisticPrepare and TanhPrepare)."""
    power = _power_of_two(scale)
    if power in powers:
        return 3 << (power + 12), 0
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= 32767.0 / 2.0 and shift <= 30:
        multiplier, shift = multiplier * 2.0, shift + 1
    site.require(1 <= multiplier < 32768, f"the input's scale is {scale}; supported: 2^-44 to 2.66")
    return int(multiplier), shift


# --- float32 ----------------------------------------------------------------------------------


def _f32(name: str) -> Lowerer:
    def lower(site: Site, source: Tensor, target: Tensor) -> Lowered:
        alpha = _alpha(site) if site.op.kind == "LEAKY_RELU" else 0.0
        return call(site, function=f"ec_{name}_f32", family="ec_activation_f32", alpha=alpha)

    return lower


def _exponential_f32(name: str) -> Lowerer:
    def lower(site: Site, source: Tensor, target: Tensor) -> Lowered:
        return call(site, function=f"ec_{name}_f32", family="ec_exponential_f32")

    return lower


_LOWERERS: dict[str, dict[str, Lowerer]] = {
    "RELU": {"int8": _relu_s8, "int16": _relu_s16, "float32": _f32("relu")},
    "RELU6": {"int8": _relu6_s8, "int16": _relu6_s16, "float32": _f32("relu6")},
    "LEAKY_RELU": {
        "int8": _leaky_relu_s8,
        "int16": _leaky_relu_s16,
        "float32": _f32("leaky_relu"),
    },
    "LOGISTIC": {
        "int8": _logistic_s8,
        "int16": _sigmoid_s16("ec_logistic_s16", (-12,)),
        "float32": _exponential_f32("logistic"),
    },
    "TANH": {
        "int8": _tanh_s8,
        "int16": _sigmoid_s16("ec_tanh_s16", (-12, -11)),
        "float32": _exponential_f32("tanh"),
    },
    "HARD_SWISH": {"int8": _hard_swish_s8, "float32": _f32("hard_swish")},
    "ELU": {"int8": _elu_s8, "float32": _exponential_f32("elu")},
    "ABS": {"int8": _abs_s8, "float32": _f32("abs")},
}
"""Kind -> element type -> how it is lowered."""


def _lower(site: Site) -> Lowered:
    source, target = same_size(site)
    by_type = _LOWERERS[site.op.kind]
    site.require(
        source.dtype == target.dtype and source.dtype in by_type,
        f"{source.dtype} to {target.dtype}; supported: {', '.join(by_type)}, each to itself",
    )
    return by_type[source.dtype](site, source, target)


OPERATORS: dict[str, Lowering] = dict.fromkeys(_LOWERERS, _lower)
"""Operator kind -> the function that lowers it."""
