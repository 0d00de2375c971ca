"""TFLite Micro's arithmetic at preparation time: multipliers, activation ranges, padding."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Tensor

INTEGERS: dict[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "int32": (-(1 << 31), (1 << 31) - 1),
}
"""Least and greatest value of the integer types that kernels compute with."""

Ints = npt.NDArray[np.int64]

FLOAT_LIMIT = float(np.finfo(np.float32).max)
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}
"""Fused activation -> the real range that it keeps."""


class Multiplier(NamedTuple):
    """The real factor value * 2^(shift - 31); value in [2^30, 2^31), or 0."""

    value: int
    shift: int


def quantize_multiplier(real: float) -> Multiplier:
    """`real` (finite, not negative) as a fixed-point multiplier.

    The fraction is rounded half away from zero to 31 bits; a factor below 2^-32 becomes 0 (TFLite's
    QuantizeMultiplier). Raises UnsupportedError where it is negative, not finite, or 2^30 or more.
    """
    if not (math.isfinite(real) and real >= 0):
        raise UnsupportedError(f"the scales give a factor of {real}; they must be positive numbers")
    if real == 0:
        return Multiplier(0, 0)
    fraction, shift = math.frexp(real)
    value = math.floor(fraction * (1 << 31) + 0.5)
    if value == 1 << 31:
        value, shift = value // 2, shift + 1
    if shift < -31:
        return Multiplier(0, 0)
    if shift > 30:
        raise UnsupportedError(f"the scales give a factor of {real}; at most 2^30 is supported")
    return Multiplier(value, shift)


def rounded_shift(x: Ints, exponent: int) -> Ints:
    """`x` / 2^exponent, halves away from zero (gemmlowp RoundingDivideByPOT)."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def high_mul(a: Ints, b: Ints | int) -> Ints:
    """`a` * `b` / 2^31, halves up (gemmlowp SaturatingRoundingDoublingHighMul)."""
    return (a * b + (1 << 30)) >> 31


_EXP_EIGHTH = 1895147668
_EXP_THIRD = 715827883
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_q26(x: Ints) -> Ints:
    """exp of `x` (Q5.26, -32 to 0) as Q0.31, int64 (gemmlowp exp_on_negative_values)."""
    quarter = 1 << 24
    part = (x & (quarter - 1)) - quarter
    y = (part << 5) + (1 << 28)
    y2 = high_mul(y, y)
    third = high_mul(rounded_shift(high_mul(y2, y2), 2) + high_mul(y2, y), _EXP_THIRD)
    found = _EXP_EIGHTH + high_mul(y + rounded_shift(third + y2, 1), _EXP_EIGHTH)
    rest = (part - x) >> 24
    for bit, power in enumerate(_EXP_POWERS):
        found = np.where(rest >> bit & 1, high_mul(found, power), found)
    return np.where(x == 0, INTEGERS["int32"][1], found)


def scale_of(tensor: Tensor) -> float:
    """The one scale of `tensor`. Raises UnsupportedError unless it is positive and finite."""
    if len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
        raise UnsupportedError(
            f"{tensor.name!r} ({tensor.dtype}) needs one scale and one zero point for the tensor"
        )
    scale = tensor.scales[0]
    if not (math.isfinite(scale) and scale > 0):
        raise UnsupportedError(f"the scale of {tensor.name!r} is {scale}; it must be positive")
    return scale


def zero_point_of(tensor: Tensor) -> int:
    """The one zero point of `tensor`, within its type (always 0 for int16).

    Raises UnsupportedError where there is not exactly one, or where it is out of range.
    """
    scale_of(tensor)
    zero = tensor.zero_points[0]
    low, high = INTEGERS.get(tensor.dtype, (0, 0))
    if not low <= zero <= high or (tensor.dtype == "int16" and zero):
        allowed = "0" if tensor.dtype == "int16" else f"{low}..{high}"
        raise UnsupportedError(f"the zero point of {tensor.name!r} is {zero}; supported: {allowed}")
    return zero


def activation_range(activation: object, tensor: Tensor) -> tuple[int, int]:
    """The stored values that a fused `activation` keeps in the integer `tensor`, both inclusive.

    The bounds are divided by the scale in float32 and rounded half away from zero (TFLite's
    CalculateActivationRangeQuantized). Raises UnsupportedError for another activation.
    """
    least, greatest = INTEGERS[tensor.dtype]
    low, high = activation_limits(activation)
    zero = zero_point_of(tensor)
    if math.isfinite(low):
        least = max(least, zero + _rounded(low, tensor))
    if math.isfinite(high):
        greatest = min(greatest, zero + _rounded(high, tensor))
    return least, greatest


def activation_range_f32(activation: object) -> tuple[float, float]:
    """The float32 values that a fused `activation` keeps (TFLite's CalculateActivationRange).

    Raises UnsupportedError for another activation.
    """
    low, high = activation_limits(activation)
    return max(low, -FLOAT_LIMIT), min(high, FLOAT_LIMIT)


def activation_limits(activation: object) -> tuple[float, float]:
    """The real range of a fused `activation`. Raises UnsupportedError for an unknown one."""
    limits = ACTIVATIONS.get(str(activation))
    if limits is None:
        raise UnsupportedError(
            f"fused activation {activation}; supported: {', '.join(ACTIVATIONS)}"
        )
    return limits


def _rounded(real: float, tensor: Tensor) -> int:
    with np.errstate(over="ignore"):
        quotient = float(np.float32(real) / np.float32(tensor.scales[0]))
    if abs(quotient) >= 1 << 31:
        raise UnsupportedError(f"the scale of {tensor.name!r} is too small for its activation")
    return int(math.copysign(math.floor(abs(quotient) + 0.5), quotient))


def window_padding(
    padding: object, *, size: int, kernel: int, stride: int, dilation: int = 1
) -> tuple[int, int]:
    """(output size, padding before) along one axis for `padding` SAME or VALID, in elements.

    TFLite's ComputeOutSize and ComputePaddingWithOffset; an output size may come out as 0 or less.
    Raises UnsupportedError for another padding.
    """
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        out = (size + stride - 1) // stride
    elif padding == "VALID":
        out = (size + stride - reach) // stride
    else:
        raise UnsupportedError(f"padding {padding}; supported: SAME, VALID")
    return out, max((out - 1) * stride + reach - size, 0) // 2
