"""What the operators of a flatbuffer hold: weights, zeros, bits, bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.tflite import Op, Program, Tensor
from edgecompress.tflite.account import accounts


def program(weights: np.ndarray, dtype: str = "int8", calls: int = 1) -> Program:
    """Fully connected layers that all read the same `weights`."""
    scales = {} if dtype == "float32" else {"scales": (0.5,), "zero_points": (0,)}
    width = weights.shape[1]
    tensors = [Tensor("x", (1, width), dtype, **scales)]
    tensors += [Tensor("w", weights.shape, dtype, **scales, data=weights.tobytes())]
    tensors += [Tensor(f"y{i}", (1, len(weights)), dtype, **scales) for i in range(calls)]
    ops = tuple(Op("FULLY_CONNECTED", inputs=(0, 1), outputs=(2 + i,)) for i in range(calls))
    outputs = tuple(range(2, 2 + calls))
    return Program(tuple(tensors), ops, inputs=(0,), outputs=outputs)


@given(st.lists(st.integers(-128, 127), min_size=6, max_size=6))
def test_bits_are_the_fewest_that_hold_every_weight(values: list[int]) -> None:
    weights = np.array(values, np.int8).reshape(2, 3)
    (row,) = accounts(program(weights))
    assert row.bits is not None
    assert all(-(1 << row.bits - 1) <= value < 1 << row.bits - 1 for value in values)
    if row.bits > 1:
        half = 1 << row.bits - 2
        assert not all(-half <= value < half for value in values)
    assert row.zeros == values.count(0)
    assert (row.weights, row.weight_bytes, row.macs) == (6, 6, 6)


def test_shared_weights_count_once() -> None:
    first, second = accounts(program(np.ones((2, 3), np.int8), calls=2))
    assert (first.weights, second.weights) == (6, 0)
    assert (second.weight_bytes, second.bits, second.macs) == (0, None, 6)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_float_weights_have_no_bits(value: float) -> None:
    (row,) = accounts(program(np.full((2, 3), value, np.float32), dtype="float32"))
    assert row.bits is None
    assert row.zeros == (6 if value == 0 else 0)
    assert row.weight_bytes == 24
