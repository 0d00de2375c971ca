"""Every int8 function of one value as a table: TFLite Micro's fixed-point arithmetic in numpy.

Values are int64 arrays; a product of two 32-bit numbers fits, and nothing wraps unnoticed. A
number in Qm.n has m integer bits and 31 - m fractional bits (gemmlowp's FixedPoint<int32_t, m>).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.fixedpoint import Multiplier, quantize_multiplier
from edgecompress.errors import UnsupportedError

Values: TypeAlias = npt.NDArray[np.int64]

_ONE = (1 << 31) - 1
_ONE_Q2 = 1 << 29
_EXP_STEPS: tuple[tuple[int, int], ...] = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
"""(k, exp(-2^k) in Q0.31)."""


def inputs(dtype: str) -> Values:
    """The 256 values of `dtype` (int8 or uint8) in the order of a table: by their bits."""
    return np.arange(256, dtype=np.uint8).view("i1" if dtype == "int8" else "u1").astype(np.int64)


def high_mul(a: Values, b: Values | int) -> Values:
    """round(a * b / 2^31), halves up (gemmlowp SaturatingRoundingDoublingHighMul)."""
    return (a * b + (1 << 30)) >> 31


def rounding_shift(x: Values, exponent: int) -> Values:
    """round(x / 2^exponent), halves away from zero (gemmlowp RoundingDivideByPOT)."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def requantize(x: Values, multiplier: Multiplier) -> Values:
    """x times the real factor, rounded twice (TFLM MultiplyByQuantizedMultiplier).

    Raises UnsupportedError where the shifted value leaves int32, which TFLM leaves undefined.
    """
    left, right = max(multiplier.shift, 0), max(-multiplier.shift, 0)
    shifted = x << left
    if np.abs(shifted).max(initial=0) >= 1 << 31:
        raise UnsupportedError("the output's scale is too small for the input's; use a larger one")
    return rounding_shift(high_mul(shifted, multiplier.value), right)


def signed_multiplier(real: float) -> Multiplier:
    """`quantize_multiplier` for a factor of either sign."""
    size = quantize_multiplier(abs(real))
    return Multiplier(-size.value if real < 0 else size.value, size.shift)


def _saturating_left(x: Values, exponent: int) -> Values:
    return np.clip(x << exponent, -(1 << 31), _ONE)


def _exp_of_negative(a: Values, integer_bits: int) -> Values:
    """exp(a) in Q0.31 for a <= 0 in Q(integer_bits) (gemmlowp exp_on_negative_values)."""
    quarter = 1 << (29 - integer_bits)
    part = (a & (quarter - 1)) - quarter
    x = (part << integer_bits) + (1 << 28)
    square = high_mul(x, x)
    cube, fourth = high_mul(square, x), high_mul(square, square)
    inner = high_mul(rounding_shift(fourth, 2) + cube, 715827883) + square
    result = 1895147668 + high_mul(x + rounding_shift(inner, 1), 1895147668)
    rest = part - a
    for exponent, factor in _EXP_STEPS:
        if integer_bits > exponent:
            bit = 1 << (31 - integer_bits + exponent)
            result = np.where(rest & bit, high_mul(result, factor), result)
    return np.where(a == 0, _ONE, result)


def _inverse(x: Values) -> Values:
    """2 / (1 + x) in Q2.29 for x in (0, 1) in Q0.31: three Newton-Raphson steps."""
    half = (x + _ONE + 1) >> 1
    guess = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        error = high_mul(guess, _ONE_Q2 - high_mul(half, guess))
        guess = guess + _saturating_left(error, 2)
    return guess


def _logistic(a: Values) -> Values:
    """logistic(a) in Q0.31 for a in Q4.27 (gemmlowp logistic)."""
    positive = _saturating_left(_inverse(_exp_of_negative(-np.abs(a), 4)), 1)
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, _ONE - positive))


def _tanh(a: Values) -> Values:
    """tanh(a) in Q0.31 for a in Q4.27 (gemmlowp tanh)."""
    size = _saturating_left(_inverse(_exp_of_negative(-np.abs(a), 5)) - _ONE_Q2, 2)
    return np.where(a == 0, 0, np.where(a > 0, size, -size))


def logistic(x: Values, *, scale: float) -> Values:
    """int8 LOGISTIC of x = q - zero point; scale 1/256 and zero point -128 at the output."""
    wide, outside = _in_q4(x, scale)
    inside = rounding_shift(_logistic(wide), 23) - 128
    return np.where(outside < 0, -128, np.where(outside > 0, 127, np.clip(inside, -128, 127)))


def tanh(x: Values, *, scale: float) -> Values:
    """int8 TANH of x = q - zero point; scale 1/128 and zero point 0 at the output."""
    wide, outside = _in_q4(x, scale)
    inside = rounding_shift(_tanh(wide), 24)
    return np.where(outside < 0, -128, np.where(outside > 0, 127, np.clip(inside, -128, 127)))


def _in_q4(x: Values, scale: float) -> tuple[Values, Values]:
    """x * scale in Q4.27, and -1 or 1 where that is below or above what TFLM computes with."""
    if not 2.0**-28 <= scale <= 2.0**20:
        raise UnsupportedError(f"the input's scale is {scale}; supported: 2^-28 to 2^20")
    fraction, shift = math.frexp(scale * (1 << 27))
    radius = math.floor(15 * (1 << 27) / (1 << shift))
    outside = np.where(x <= -radius, -1, np.where(x >= radius, 1, 0))
    inside = np.where(outside == 0, x, 0)
    return requantize(inside, Multiplier(math.floor(fraction * (1 << 31) + 0.5), shift)), outside


def leaky_relu(x: Values, *, scale: float, alpha: float, out_scale: float) -> Values:
    """int8 LEAKY_RELU of x = q - zero point, less the output's zero point, not clamped."""
    positive, negative = leaky_relu_multipliers(scale, alpha=alpha, out_scale=out_scale)
    return np.where(
        x >= 0,
        requantize(np.maximum(x, 0), positive),
        requantize(np.minimum(x, 0), negative),
    )


def leaky_relu_multipliers(
    scale: float, *, alpha: float, out_scale: float
) -> tuple[Multiplier, Multiplier]:
    """The factors for x >= 0 and for x < 0 (TFLM's CalculateOpDataLeakyRelu)."""
    return quantize_multiplier(scale / out_scale), signed_multiplier(scale * alpha / out_scale)


def hard_swish(x: Values, *, scale: float, out_scale: float, out_zero: int) -> Values:
    """int8 HARD_SWISH of x = q - zero point: the stored output (TFLM reference_ops::HardSwish).

    Computed in int16. Raises UnsupportedError where the output's scale is below 1/128 of the
    input's, which TFLM refuses.
    """
    fine = np.float32(1 / 128) * np.float32(scale)
    with np.errstate(all="ignore"):
        out = quantize_multiplier(float(fine / np.float32(out_scale)))
        gate = quantize_multiplier(float(fine / (np.float32(3) / np.float32(32768))))
    if out.shift > 0:
        raise UnsupportedError("the output's scale is below 1/128 of the input's; use a larger one")
    wide = x << 7
    value = _high_mul16(wide, _to_int16(out.value))
    share = wide
    if gate.shift > 0:
        share = _clip16(share << (gate.shift - 1))
    share = _high_mul16(share, _to_int16(gate.value))
    if gate.shift > 0:
        share = _clip16(share << 1)
    if gate.shift < 0:
        share = _rounding_shift16(share, -gate.shift)
    share = (share + (1 << 15)) >> 1
    product = share * value
    cut = np.sign(product) * (np.abs(product) >> 15)
    stored = _wrap16(_rounding_shift16(cut, -out.shift) + out_zero)
    return np.clip(stored, -128, 127)


def _to_int16(multiplier: int) -> int:
    """DownScaleInt32ToInt16Multiplier"""
    return min((multiplier + (1 << 15)) >> 16, 32767)


def _high_mul16(a: Values, b: int) -> Values:
    return (a * b + (1 << 14)) >> 15


def _clip16(x: Values) -> Values:
    return np.clip(x, -32768, 32767)


def _wrap16(x: Values) -> Values:
    return ((x + 32768) & 0xFFFF) - 32768


def _rounding_shift16(x: Values, exponent: int) -> Values:
    """gemmlowp RoundingDivideByPOT<int16_t>, whose mask is all ones from 2^16 on."""
    mask = (((1 << exponent) - 1 + 32768) & 0xFFFF) - 32768
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def elu(x: Values, *, scale: float, out_scale: float, out_zero: int) -> Values:
    """int8 ELU of x = q - zero point: the stored output, computed in float32 as in TFLM."""
    with np.errstate(all="ignore"):
        real = np.float32(scale) * x.astype(np.float32)
        power = np.array([math.exp(min(float(value), 0.0)) for value in real]).astype(np.float32)
        value = np.where(real < 0, power - np.float32(1), real)
        quotient = value * (np.float32(1) / np.float32(out_scale))
    if not np.isfinite(quotient).all() or np.abs(quotient).max() >= 1 << 30:
        raise UnsupportedError("the output's scale is too small for the input's; use a larger one")
    rounded = np.trunc(quotient + np.copysign(np.float32(0.5), quotient).astype(np.float64))
    moved = rounded.astype(np.float32) + np.float32(out_zero)
    return np.asarray(np.clip(moved, -128, 127), np.int64)
