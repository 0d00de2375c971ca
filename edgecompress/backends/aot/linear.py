"""int8 ADD and SUB as one linear form of both inputs, held against TFLM's bits for every pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgecompress.backends.aot.fixedpoint import Ints, Multiplier, high_mul, rounded_shift

SHIFT = 21
"""Fraction bits of a form; EC_LINEAR_SHIFT of ec_linear_s8.h."""

_BYTES: Ints = np.arange(-128, 128, dtype=np.int64)
_FREE = 1 << 40
_NEAR = 1 << (SHIFT - 9)
_STEP = 1 << (SHIFT - 16)


class Form(NamedTuple):
    """clamp((x * factor1 + y * factor2 + constant) >> SHIFT)."""

    factor1: int
    factor2: int
    constant: int


def scaled(values: Ints, factor: Multiplier) -> Ints:
    """`values` times a factor below 1, rounded twice.

    TFLM's MultiplyByQuantizedMultiplierSmallerThanOneExp, for products below 2^62.
    """
    return rounded_shift(high_mul(values, factor.value), -factor.shift)


def linear_form(
    outputs: Ints, *, low: int, high: int, slopes: tuple[float, float], offset: float
) -> Form | None:
    """The form that gives `outputs` [256, 256] for every int8 x (rows) and y; None: none found.

    `outputs` is clamped to [low, high] and close to slopes[0] * x + slopes[1] * y + offset. A form,
    also with 128 added, stays in int32. The factors are searched around the slopes: how far they
    miss is convex in both.
    """
    if low > high:
        return None
    wanted = outputs.reshape(-1)
    pairs = np.repeat(_BYTES, 256), np.tile(_BYTES, 256)
    least = np.where(wanted == low, -_FREE, wanted << SHIFT)
    most = np.where(wanted == high, _FREE, ((wanted + 1) << SHIFT) - 1)
    factors = [round(slope * (1 << SHIFT)) for slope in slopes]
    value = factors[0] * pairs[0] + factors[1] * pairs[1] + round((offset + 0.5) * (1 << SHIFT))
    near = np.minimum(value - least, most - value) < _NEAR
    if near.any():
        factors = _searched(factors, [values[near] for values in (*pairs, least, most)])
    value = factors[0] * pairs[0] + factors[1] * pairs[1]
    constant = int((least - value).max()), int((most - value).min())
    if constant[0] > constant[1]:
        return None
    middle = min(max((constant[0] + constant[1]) // 2, -(1 << 31)), (1 << 31) - 1)
    value = value + middle
    if value.max() + (128 << SHIFT) >= 1 << 31 or value.min() < -(1 << 31):
        return None
    if not np.array_equal(np.clip(value >> SHIFT, low, high), wanted):
        return None
    return Form(factors[0], factors[1], middle)


def _searched(factors: list[int], points: list[Ints]) -> list[int]:
    """Factors around `factors` for which a constant fits every point, or that miss least."""
    x, y, least, most = points

    def misses(first: int, second: int) -> int:
        value = first * x + second * y
        return int((least - value).max() - (most - value).min())

    step, best = _STEP, misses(*factors)
    while best > 0 and step:
        around = [
            (factors[0] + a * step, factors[1] + b * step)
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            if a or b
        ]
        found = [misses(*one) for one in around]
        if min(found) < best:
            best = min(found)
            factors = list(around[found.index(best)])
        else:
            step //= 2
    return factors
