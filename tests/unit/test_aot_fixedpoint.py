"""Fixed-point arithmetic of the ahead-of-time backend, on the generating side and in C."""

from __future__ import annotations

import math
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.backends import firmware_folder
from edgecompress.backends.aot.fixedpoint import (
    activation_range,
    quantize_multiplier,
    window_padding,
)
from edgecompress.errors import UnsupportedError
from tests.conftest import need
from tests.tflite_builder import quantized


@given(st.floats(min_value=2**-31, max_value=2**29))
def test_multiplier_is_the_factor_to_31_bits(real: float) -> None:
    value, shift = quantize_multiplier(real)
    assert 1 << 30 <= value < 1 << 31
    error = Fraction(value) * Fraction(2) ** (shift - 31) - Fraction(real)
    assert abs(error) <= Fraction(2) ** (shift - 32)


def test_multiplier_at_its_edges() -> None:
    assert quantize_multiplier(0.0) == (0, 0)
    assert quantize_multiplier(1.0) == (1 << 30, 1)
    assert quantize_multiplier(math.nextafter(1.0, 0.0)) == (1 << 30, 1)
    assert quantize_multiplier(2.0**-32) == (1 << 30, -31)
    assert quantize_multiplier(2.0**-33) == (0, 0)
    for real in (-1.0, math.inf, math.nan, 2.0**30):
        with pytest.raises(UnsupportedError, match="factor"):
            quantize_multiplier(real)


@pytest.mark.parametrize(
    ("activation", "scale", "zero", "expected"),
    [
        ("NONE", 0.1, 5, (-128, 127)),
        ("RELU", 0.1, 5, (5, 127)),
        ("RELU6", 0.1, 5, (5, 65)),
        ("RELU6", 0.01, -128, (-128, 127)),
        ("RELU_N1_TO_1", 0.1, 5, (-5, 15)),
        ("RELU_N1_TO_1", 0.4, 0, (-3, 3)),
    ],
)
def test_activation_range(
    activation: str, scale: float, zero: int, expected: tuple[int, int]
) -> None:
    assert activation_range(activation, quantized("x", (1,), "int8", scale, zero)) == expected


def test_activation_that_no_kernel_has() -> None:
    with pytest.raises(UnsupportedError, match="TANH; supported: NONE, RELU"):
        activation_range("TANH", quantized("x", (1,), "int8"))


def test_padding_is_smaller_before_than_behind() -> None:
    assert window_padding("SAME", size=10, kernel=4, stride=1) == (10, 1)
    assert window_padding("SAME", size=49, kernel=10, stride=2) == (25, 4)
    assert window_padding("SAME", size=5, kernel=3, stride=1, dilation=2) == (5, 2)
    assert window_padding("VALID", size=5, kernel=3, stride=2) == (2, 0)
    assert window_padding("VALID", size=2, kernel=3, stride=1)[0] <= 0


_CHECK = r"""
#include "ec_math.h"

#include <stdio.h>

/* By the definition: round(x * m / 2^31), halves up, then / 2^right, halves away from zero. */
static int64_t expected(int64_t x, int64_t m, int right)
{
    const int64_t high = (x * m + (INT64_C(1) << 30)) >> 31;
    const int64_t size = high < 0 ? -high : high;
    const int64_t half = right > 0 ? INT64_C(1) << (right - 1) : 0;
    const int64_t rounded = (size + half) >> right;
    return high < 0 ? -rounded : rounded;
}

static uint32_t state = 1;

static uint32_t next(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

int main(void)
{
    static const int32_t edges[8] = {0, 1, -1, INT32_MAX, -INT32_MAX, INT32_MIN, 1 << 30, -7};
    for (uint32_t i = 0; i < 3000000; ++i) {
        const int right = (int)(next() % 32);
        const int32_t x = i % 4 ? (int32_t)next() >> (next() % 32) : edges[next() % 8];
        const uint32_t r = next();
        int32_t m = (int32_t)(r >> 2 | 1u << 30);
        if (r % 8 == 0) m = 1 << 30;
        if (r % 8 == 1) m = INT32_MAX;
        if (ec_requantize(x, m, -right) != expected(x, m, right)) return 1;
        if (ec_rounding_shift_right(x, right) != expected(x, INT64_C(1) << 31, right)) return 2;
        const int32_t small = x % (1 << 30);
        const int few = 1 + right % 22;
        const int32_t zero = (int32_t)(next() % 256) - 128;
        const int32_t got = ec_requantize_right(small, m, ec_rounding_of(zero, few), few);
        if (got != expected(small, m, few) + zero) return 3;
        if (ec_requantize(small >> 8, m, 5) != expected(small >> 8, INT64_C(32) * m, 0)) return 4;
    }
    return 0;
}
"""


def test_c_rounds_by_the_definition(tmp_path: Path) -> None:
    need("cc")
    (tmp_path / "check.c").write_text(_CHECK)
    program = tmp_path / "check"
    command = ["cc", "-std=c11", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    kernels = firmware_folder() / "kernels"
    subprocess.run(
        [*command, f"-I{kernels}", "-o", str(program), str(tmp_path / "check.c")], check=True
    )
    assert subprocess.run([program], timeout=60).returncode == 0
