"""Ranges of activations from the weights, against what the network computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress.channels.graph import trace
from edgecompress.datafree.model import modelled
from edgecompress.datafree.ranges import LINEAR, apart, ranges
from tests import small_models
from tests.unit.test_datafree_quantize import CASES, settled

NORMAL = (-(3**0.5), 3**0.5)
"""A range of mean 0 and deviation 1."""


def found(model: Any, *, input_range: Any = None, **options: Any) -> Any:
    """The ranges with standard normal inputs, or those of inputs in `input_range`."""
    graph = apart(trace(model))
    known = modelled(graph, input_range=input_range or NORMAL)
    return ranges(graph, known, input_range=input_range, **options)


@pytest.mark.parametrize("name", CASES)
def test_ranges_hold_the_activations_and_are_not_much_wider(name: str) -> None:
    import keras

    model = settled(CASES[name]())
    limits = found(model)
    layers = [
        layer for layer in model.layers if layer.name in limits and len(layer._inbound_nodes) == 1
    ]
    assert len(layers) > len(model.layers) / 3
    x = small_models.batch(model, 256)
    values = small_models.outputs(keras.Model(model.inputs, [y.output for y in layers]), x)
    for layer, value in zip(layers, values, strict=True):
        low, high = limits[layer.name]
        assert low <= 0 <= high
        outside = np.mean((value < low - 1e-5) | (value > high + 1e-5))
        assert outside < 1e-3, layer.name
        assert high - low < 8 * (max(value.max(), 0) - min(value.min(), 0)), layer.name


def test_a_shared_layer_gets_the_widest_of_its_calls() -> None:
    import keras

    x = keras.Input((1,))
    twice = keras.layers.Dense(1, use_bias=False, name="twice")
    model = keras.Model(x, twice(twice(x)))
    twice.set_weights([np.array([[3.0]], np.float32)])
    names = [call.name for call in apart(trace(model)).calls]
    assert names == ["twice", "twice#1"]
    assert found(model)["twice"] == pytest.approx((-54, 54))  # 6 deviations of 9


def test_the_middle_of_a_layer() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((8, 8, 1))
    y = kl.SeparableConv2D(1, 1, name="both")(x)
    y = kl.Conv2D(1, 1, activation="silu", name="silu")(y)
    y = kl.Dense(2, activation="softmax", name="soft")(kl.Flatten()(y))
    model = keras.Model(x, y)
    model.get_layer("both").set_weights(
        [np.full((1, 1, 1, 1), 2.0), np.full((1, 1, 1, 1), 0.5), np.zeros(1)]
    )
    model.get_layer("silu").set_weights([np.full((1, 1, 1, 1), 1.0), np.ones(1)])
    limits = found(model)
    assert limits["both" + LINEAR] == pytest.approx((-12, 12))
    assert limits["both"] == pytest.approx((-6, 6))
    assert limits["silu" + LINEAR] == pytest.approx((-5, 7))
    low, high = limits["silu"]
    assert low == pytest.approx(-0.2785, abs=2e-3) and high == pytest.approx(7, abs=0.01)
    assert limits["soft"] == (0, 1) and limits["soft" + LINEAR][1] > 0


def test_what_inputs_do_not_allow_is_left_out() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((8, 8, 2))
    y = kl.ReLU(max_value=6, name="six")(x)
    summed = kl.Add(name="sum")([y, kl.ReLU(name="other")(x)])
    pooled = kl.MaxPooling2D(name="pool")(y)
    model = keras.Model(x, [summed, pooled])
    limits = found(model, input_range=(-10, 20))
    assert limits["six"] == (0, 6) and limits["other"] == (0, 20)
    assert limits["sum"][0] == 0 and limits["sum"][1] <= 26
    assert limits["pool"][0] == 0 and limits["pool"][1] <= 6


def test_an_affine_layer_is_as_narrow_as_the_inputs() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((8, 8, 2))
    y = kl.Rescaling([1 / 255, -1 / 51], 1.0, name="pixels")(x)
    norm = kl.Normalization(name="norm", mean=[0.5, 1.0], variance=[0.25, 4.0])
    model = keras.Model(x, [kl.Conv2D(2, 1)(y), kl.Conv2D(2, 1)(norm(x))])
    limits = found(model, input_range=(0, 255))
    assert limits["pixels"] == pytest.approx((-4, 2))
    inner = found(model, input_range=(-0.5, 1.5))
    assert inner["norm"] == pytest.approx((-2, 2))


def test_the_input_is_as_given_or_as_wide_as_its_moments() -> None:
    import keras

    x = keras.Input((4,), name="given")
    model = keras.Model(x, keras.layers.Dense(2, name="out")(x))
    assert found(model, input_range=(-1.0, 2.0))["given"] == (-1.0, 2.0)
    assert found(model)["given"] == pytest.approx((-6, 6))
    assert found(model, width=3.0)["given"] == pytest.approx((-3, 3))
