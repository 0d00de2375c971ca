"""MACs and parameters, against counts made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgecompress import cost
from edgecompress.errors import UnsupportedError


def alone(layer: Any, shape: tuple[int, ...]) -> Any:
    import keras

    x = keras.Input(shape)
    return keras.Model(x, layer(x))


@pytest.mark.parametrize(
    ("kind", "shape", "options", "macs", "params"),
    [
        ("Dense", (5,), {"units": 3}, 5 * 3, 5 * 3 + 3),
        ("Dense", (7, 5), {"units": 3, "use_bias": False}, 7 * 5 * 3, 5 * 3),
        ("Conv1D", (9, 4), {"filters": 6, "kernel_size": 2, "strides": 2}, 4 * 2 * 4 * 6, 54),
        ("Conv2D", (8, 6, 3), {"filters": 4, "kernel_size": 3}, 6 * 4 * 9 * 3 * 4, 9 * 3 * 4 + 4),
        (
            "Conv2D",
            (8, 6, 4),
            {"filters": 6, "kernel_size": 3, "groups": 2, "padding": "same"},
            8 * 6 * 9 * 2 * 6,
            9 * 2 * 6 + 6,
        ),
        ("Conv3D", (3, 4, 5, 2), {"filters": 3, "kernel_size": 1}, 60 * 2 * 3, 9),
        (
            "DepthwiseConv2D",
            (8, 6, 3),
            {"kernel_size": 3, "depth_multiplier": 2},
            6 * 4 * 9 * 3 * 2,
            9 * 6 + 6,
        ),
        ("DepthwiseConv1D", (8, 3), {"kernel_size": 3}, 6 * 3 * 3, 9 + 3),
        (
            "SeparableConv2D",
            (6, 6, 3),
            {"filters": 5, "kernel_size": 3, "strides": 2, "depth_multiplier": 2},
            4 * (9 * 3 * 2 + 6 * 5),
            9 * 6 + 30 + 5,
        ),
        (
            "Conv2DTranspose",
            (4, 5, 3),
            {"filters": 2, "kernel_size": 3, "strides": 2},
            4 * 5 * 9 * 3 * 2,
            9 * 6 + 2,
        ),
        ("BatchNormalization", (4, 4, 3), {}, 0, 12),
        ("PReLU", (4, 3), {}, 0, 12),
        ("MaxPooling2D", (4, 4, 3), {}, 0, 0),
    ],
)
def test_one_layer(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], macs: int, params: int
) -> None:
    import keras

    model = alone(getattr(keras.layers, kind)(name="it", **options), shape)
    (layer,) = cost.layers(model)
    assert layer == cost.LayerCost("it", kind, tuple(model.output_shape), macs, params)
    assert cost.macs(model) == macs
    assert cost.params(model) == params == model.count_params()


def test_a_shared_layer_works_at_every_call_and_is_stored_once() -> None:
    import keras

    x = keras.Input((4, 5))
    dense = keras.layers.Dense(5, name="shared")
    model = keras.Model(x, dense(dense(x)))
    (layer,) = cost.layers(model)
    assert (layer.macs, layer.params) == (2 * 4 * 25, 30)


def test_a_nested_model_counts_at_the_size_it_is_called_with() -> None:
    import keras

    a = keras.Input((None, None, 3))
    inner = keras.Model(a, keras.layers.Conv2D(2, 1, name="conv")(a))
    x = keras.Input((6, 4, 3))
    (layer,) = cost.layers(keras.Model(x, inner(x)))
    assert (layer.macs, layer.output_shape) == (6 * 4 * 3 * 2, (None, 6, 4, 2))


def test_unknown_arithmetic_is_not_zero() -> None:
    import keras

    model = alone(keras.layers.SimpleRNN(4, name="memory"), (6, 3))
    assert cost.layers(model)[0].macs is None
    assert cost.total(model) == cost.Total(None, 4 * 3 + 4 * 4 + 4)
    with pytest.raises(
        UnsupportedError, match=r"^cost: the MACs of layer memory \(SimpleRNN\) -> \(None, 4\) are"
    ):
        cost.macs(model)


def test_a_dynamic_size_is_an_error() -> None:
    import keras

    model = alone(keras.layers.Conv1D(4, 1, name="conv"), (None, 3))
    with pytest.raises(UnsupportedError, match=r"^cost: layer conv \(Conv1D\) works on shape"):
        cost.layers(model)
