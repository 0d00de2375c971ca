"""Bits by layer: what each costs the outputs, and the choice under a number of bytes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.artifact import Artifact
from edgecompress.errors import ConfigError
from edgecompress.quantization import quantize
from edgecompress.quantization.precision import Candidate, choose, divergence, limit_of
from edgecompress.tflite import read

ROWS = np.random.default_rng(3).standard_normal((40, 8, 8, 4)).astype(np.float32)

OPTIONS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 40), st.floats(0, 10)), min_size=1, max_size=3
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(OPTIONS, st.integers(0, 200))
def test_no_other_choice_is_better(options: list[list[tuple[int, float]]], limit: int) -> None:
    found = [
        [Candidate(str(layer), bits, size, error) for bits, (size, error) in enumerate(given)]
        for layer, given in enumerate(options)
    ]
    flat = [each for given in found for each in given]
    fitting = [way for way in itertools.product(*found) if sum(each.bytes for each in way) <= limit]
    if not fitting:
        with pytest.raises(ConfigError, match=f"{limit} bytes cannot be reached: .* take "):
            choose(flat, limit)
        return
    chosen = choose(flat, limit)
    assert [each.layer for each in chosen] == [str(layer) for layer in range(len(options))]
    assert sum(each.bytes for each in chosen) <= limit
    best = min(sum(each.error for each in way) for way in fitting)
    assert sum(each.error for each in chosen) == pytest.approx(best, abs=1e-9)


def test_a_limit_is_a_share_or_bytes() -> None:
    two = [Candidate("a", 8, 100, 0.0), Candidate("a", 4, 50, 1.0), Candidate("b", 8, 11, 0.0)]
    assert [limit_of(two, asked) for asked in (1.0, 0.5, 80.0)] == [111, 55, 80]


def test_divergence_of_distributions_and_of_numbers() -> None:
    p, q = np.float32([[0.5, 0.5], [0.9, 0.1]]), np.float32([[0.25, 0.75], [0.9, 0.1]])
    expected = (0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert divergence(p, q) == pytest.approx(expected, rel=1e-5)
    assert divergence(p, p) == 0
    values = np.float32([[1.0, -2.0], [3.0, 4.0]])
    wrong = values + np.float32([[0.5, 0.0], [0.0, 0.0]])
    assert divergence(values, wrong) == pytest.approx((0.25 / 4) / ((1 + 9) / 2), rel=1e-5)
    assert divergence(10 * values, 10 * wrong) == pytest.approx(divergence(values, wrong))


@pytest.fixture(scope="module")
def model() -> Any:
    """A wide layer that hardly matters, a small one that everything goes through, a depthwise one
    and a dense one."""
    import keras
    from keras import layers as kl

    def seeded(seed: int) -> Any:
        return keras.initializers.RandomNormal(stddev=0.3, seed=seed)

    x = keras.Input((8, 8, 4), name="x")
    y = kl.Conv2D(8, 1, activation="relu", name="narrow", kernel_initializer=seeded(1))(x)
    wide = kl.Conv2D(8, 3, padding="same", name="wide", kernel_initializer=seeded(2))(y)
    wide = kl.Rescaling(1e-3, name="quiet")(kl.ReLU(name="relu")(wide))
    y = kl.Add(name="sum")([y, wide])
    y = kl.DepthwiseConv2D(3, name="deep", depthwise_initializer=seeded(3))(y)
    y = kl.GlobalAveragePooling2D(name="mean")(y)
    return keras.Model(x, kl.Dense(5, name="out", kernel_initializer=seeded(4))(y), name="mixed")


SIZES = {"narrow": 32, "wide": 576, "deep": 72, "out": 40}


@pytest.fixture(scope="module")
def mixed(model: Any) -> Artifact:
    return quantize(Artifact("mixed", model), calibration=ROWS, weight_flash=0.6)


def test_what_hardly_matters_has_fewer_bits(mixed: Artifact) -> None:
    step = mixed.steps[-1]
    told = step.effect["precision"]
    assert told["before"] == sum(SIZES.values()) == 720 and told["limit"] == 432
    rows = {row["layer"]: row for row in told["layers"]}
    assert {name: row["bits"] for name, row in rows.items()} == {
        "narrow": 8,
        "wide": 4,
        "deep": 8,
        "out": 8,
    }
    assert told["bytes"] == sum(row["bytes"] for row in rows.values()) == 720 - 288
    assert rows["deep"]["errors"].keys() == {"8"}
    for name in ("narrow", "wide", "out"):
        assert rows[name]["errors"]["4"] > 10 * rows[name]["errors"]["8"] > 0
    assert rows["wide"]["errors"]["4"] < rows["narrow"]["errors"]["4"] / 100
    assert step.params["weight_flash"] == 0.6
    assert {row["layer"]: row["bits"] for row in step.effect["layers"]} == {
        name: row["bits"] for name, row in rows.items()
    }


def test_the_flatbuffer_has_the_bits_that_were_chosen(mixed: Artifact) -> None:
    program = read(mixed.need_tflite("test"))
    found = {
        program.layer_of(op).split("/")[0]: program.tensors[op.inputs[1]]
        for op in program.ops
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }
    assert {tensor.elements: tensor.dtype for tensor in found.values()} == {
        SIZES["narrow"]: "int8",
        SIZES["wide"]: "int4",
        SIZES["deep"]: "int8",
        SIZES["out"]: "int8",
    }


def test_bits_may_be_given_by_layer(model: Any) -> None:
    bits = {"wide": 4, "out": 3, "narrow": 5}
    made = quantize(Artifact("mixed", model), calibration=ROWS, weight_bits=bits)
    program = read(made.need_tflite("test"))
    peaks = {
        tensor.elements: int(np.abs(np.asarray(tensor.array, np.int16)).max())
        for op in program.ops
        for tensor in (program.tensors[op.inputs[1]],)
        if tensor.array is not None and op.kind in ("CONV_2D", "FULLY_CONNECTED")
    }
    assert peaks == {SIZES["wide"]: 7, SIZES["out"]: 3, SIZES["narrow"]: 15}
    assert made.steps[-1].params["weight_bits"] == bits


def test_a_kernel_that_the_converter_merges_keeps_its_bits() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((8, 8, 4), name="x")
    y = kl.Rescaling(1e-3, name="quiet")(kl.Conv2D(8, 1, use_bias=False, name="merged")(x))
    y = kl.Conv2D(9, 1, name="conv")(y)
    model = keras.Model(x, kl.Dense(3, name="out")(kl.Flatten(name="flat")(y)), name="merges")
    # 8 bits: 32 + 72 + 1728 bytes. Half of all fits into 925, with 8 bits in `merged` it does not.
    with pytest.raises(ConfigError, match="925 bytes cannot be reached: .* take 932"):
        quantize(Artifact("merges", model), calibration=ROWS, weight_flash=0.505)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_flash": 0.3}, "216 bytes cannot be reached: with the fewest bits .* take 396"),
        ({"weight_flash": 0.0}, "weight_flash 0.0: use a share up to 1, or a number of bytes"),
        ({"weight_flash": 0.5, "weight_bits": 4}, "weight_flash chooses the bits; leave weight_"),
        ({"weight_flash": 0.5, "calibration": "data-free"}, "what bits do is measured on rows"),
        ({"weight_flash": 0.5, "mode": "int16x8"}, "are for mode \"int8\", not 'int16x8'"),
        ({"weight_bits": {"wide": 9}}, "weight_bits 9 of wide: use a whole number from 2 to 8"),
        ({"weight_bits": {"mean": 4}}, "weight_bits of mean: no layer with a kernel has that name;"
         " there are narrow, wide, deep, out"),
    ],
)  # fmt: skip
def test_impossible_options(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize(Artifact("mixed", model), **{"calibration": ROWS, **options})
