"""What the kernels for int16 activations and int8 weights share: bounds and factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.fixedpoint import INTEGERS, Multiplier
from edgecompress.backends.aot.layer import Ints

MOST_SUM = 1 << 31
LEAST_RIGHT, MOST_RIGHT = 16, 32
"""Right shifts of a factor with 16 bits that one multiplication of 32 bits can do."""


def reduced(value: int) -> int:
    """A multiplier cut to 16 bits (TFLite's MultiplyByQuantizedMultiplier for int64)."""
    return (value + (1 << 15)) >> 16 if value < 0x7FFF0000 else 0x7FFF


def high_factors(multipliers: Sequence[Multiplier]) -> Ints | None:
    """Per multiplier the f with round(x * f / 2^32), halves up, equal to TFLite's result (int32).

    TFLite computes (x * m + 2^(n - 1)) >> n with m = reduced(multiplier) and n = 15 - shift. With
    f = m * 2^(32 - n) that is (x * f + 2^31) >> 32, for every x. None where some n is not in
    LEAST_RIGHT..MOST_RIGHT: f would need more than 31 bits, or be no integer.
    """
    found = []
    for value, shift in multipliers:
        right = 15 - shift
        if value and not LEAST_RIGHT <= right <= MOST_RIGHT:
            return None
        found.append(reduced(value) << (MOST_RIGHT - right) if value else 0)
    return np.array(found, np.int32)


def fits(weights: Ints, bias: Ints | None) -> bool:
    """Whether every sum of products with int16 inputs, the bias added, fits int32.

    `weights` has a row per output channel, `bias` is int64 or int32.
    """
    low, high = INTEGERS["int16"]
    weights = weights.astype(np.int64)
    negative, positive = (np.abs(side(weights, 0)).sum(axis=1) for side in (np.minimum, np.maximum))
    least = low * positive - high * negative
    greatest = high * positive - low * negative
    start = [0] * len(weights) if bias is None else bias.tolist()  # int64 would wrap
    return all(
        -MOST_SUM <= int(bottom) + first and int(top) + first < MOST_SUM
        for bottom, top, first in zip(least, greatest, start, strict=True)
    )


def ending(low: int, high: int) -> int:
    """How results are limited: 0 to int16, 1 to [0, 32767], 2 to another range."""
    kinds = {INTEGERS["int16"]: 0, (0, INTEGERS["int16"][1]): 1}
    return kinds.get((low, high), 2)


def unsigned(values: Ints) -> Ints:
    """Integers modulo 2^32 as words."""
    return (values.astype(np.int64) & 0xFFFFFFFF).astype("<u4")
