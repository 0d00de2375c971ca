"""The bridge between Keras 3 and tf_keras: exact on every supported layer, clear on the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecompress.channels.graph import trace
from edgecompress.errors import UnsupportedError
from edgecompress.training import bridge, legacy
from edgecompress.training.bridge import to_tf_keras
from edgecompress.training.kernels import Kernel, kernels
from tests import small_models

EXACT = 1e-6
"""Of the largest value: rounding of float32 in sums of another order."""

IMAGE, SERIES, VOLUME, FLAT = (6, 6, 4), (6, 4), (4, 4, 4, 2), (6,)
LAYERS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "dense": (FLAT, lambda kl: kl.Dense(3, activation="gelu")),
    "dense over places": (SERIES, lambda kl: kl.Dense(3, use_bias=False)),
    "conv1d": (SERIES, lambda kl: kl.Conv1D(3, 3, padding="causal", dilation_rate=2)),
    "conv2d": (IMAGE, lambda kl: kl.Conv2D(3, 3, strides=2, padding="same", activation="silu")),
    "grouped": (IMAGE, lambda kl: kl.Conv2D(6, 3, groups=2, activation="leaky_relu")),
    "conv3d": (VOLUME, lambda kl: kl.Conv3D(3, 2)),
    "conv1d transpose": (SERIES, lambda kl: kl.Conv1DTranspose(3, 3, strides=2)),
    "conv2d transpose": (
        IMAGE,
        lambda kl: kl.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1),
    ),
    "conv3d transpose": (VOLUME, lambda kl: kl.Conv3DTranspose(3, 2)),
    "depthwise1d": (SERIES, lambda kl: kl.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": (IMAGE, lambda kl: kl.DepthwiseConv2D(3, depth_multiplier=2, padding="same")),
    "separable1d": (SERIES, lambda kl: kl.SeparableConv1D(3, 3, activation="tanh")),
    "separable2d": (IMAGE, lambda kl: kl.SeparableConv2D(3, 3, depth_multiplier=2)),
    "batch normalization": (IMAGE, lambda kl: kl.BatchNormalization(epsilon=0.01)),
    "without scale": (FLAT, lambda kl: kl.BatchNormalization(scale=False, center=False)),
    "layer normalization": (IMAGE, lambda kl: kl.LayerNormalization(axis=[2, 3])),
    "group normalization": (IMAGE, lambda kl: kl.GroupNormalization(groups=2)),
    "unit normalization": (FLAT, lambda kl: kl.UnitNormalization()),
    "normalization": (IMAGE, lambda kl: kl.Normalization()),
    "given normalization": (
        IMAGE,
        lambda kl: kl.Normalization(mean=[1, 2, 3, 4], variance=[1, 2, 3, 4], invert=True),
    ),
    "rescaling": (IMAGE, lambda kl: kl.Rescaling([1, 2, 3, 4], offset=-0.5)),
    "prelu": (IMAGE, lambda kl: kl.PReLU(shared_axes=[1, 2])),
    "relu": (FLAT, lambda kl: kl.ReLU(max_value=1, negative_slope=0.1, threshold=0.2)),
    "leaky relu": (FLAT, lambda kl: kl.LeakyReLU(negative_slope=0.1)),
    "elu": (FLAT, lambda kl: kl.ELU(alpha=0.5)),
    "softmax": (IMAGE, lambda kl: kl.Softmax(axis=[1, 2])),
    # Keras 2 has another function of this name.
    "hard sigmoid": (FLAT, lambda kl: kl.Activation("hard_sigmoid")),
    "identity": (FLAT, lambda kl: kl.Identity()),
    "dropout": (FLAT, lambda kl: kl.Dropout(0.5, seed=1)),
    "spatial dropout": (IMAGE, lambda kl: kl.SpatialDropout2D(0.5, seed=1)),
    "gaussian dropout": (FLAT, lambda kl: kl.GaussianDropout(0.5, seed=1)),
    "gaussian noise": (FLAT, lambda kl: kl.GaussianNoise(0.5, seed=1)),
    "alpha dropout": (FLAT, lambda kl: kl.AlphaDropout(0.5, seed=1)),
    "activity regularization": (FLAT, lambda kl: kl.ActivityRegularization(l2=0.1)),
    "max pooling": (IMAGE, lambda kl: kl.MaxPooling2D(3, strides=2, padding="same")),
    "average pooling": (IMAGE, lambda kl: kl.AveragePooling2D(3, strides=2, padding="same")),
    "pooling of a series": (SERIES, lambda kl: kl.AveragePooling1D(2)),
    "global maximum": (IMAGE, lambda kl: kl.GlobalMaxPooling2D(keepdims=True)),
    "global average": (SERIES, lambda kl: kl.GlobalAveragePooling1D()),
    "zero padding": (IMAGE, lambda kl: kl.ZeroPadding2D(((1, 2), (0, 1)))),
    "padding of a series": (SERIES, lambda kl: kl.ZeroPadding1D(2)),
    "cropping": (IMAGE, lambda kl: kl.Cropping2D(((1, 0), (2, 1)))),
    "upsampling": (IMAGE, lambda kl: kl.UpSampling2D(2, interpolation="bilinear")),
    "repeat": (FLAT, lambda kl: kl.RepeatVector(3)),
    "resizing": (IMAGE, lambda kl: kl.Resizing(9, 5)),
    "flatten": (IMAGE, lambda kl: kl.Flatten()),
    "reshape": (IMAGE, lambda kl: kl.Reshape((-1, 2))),
    "permute": (IMAGE, lambda kl: kl.Permute((3, 1, 2))),
    "lstm": (SERIES, lambda kl: kl.LSTM(3, return_sequences=True)),
    "gru": (SERIES, lambda kl: kl.GRU(3, recurrent_activation="hard_sigmoid")),
    "simple rnn": (SERIES, lambda kl: kl.SimpleRNN(3, unroll=True)),
}
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot")


def of_one(layer: Any, shape: tuple[int, ...]) -> Any:
    import keras

    x = keras.Input(shape, name="x")
    model = small_models.randomised(keras.Model(x, layer(x)))
    if isinstance(layer, keras.layers.Normalization) and layer.weights:
        layer.adapt(small_models.batch(model))
    return model


def there_and_back(model: Any) -> bridge.Bridged:
    """Cross the bridge, and assert that both ways are exact."""
    bridged = to_tf_keras(model)
    x = small_models.batch(model)
    wanted = small_models.outputs(model, x)
    made = bridged.model(x, training=False)
    for a, b in zip(wanted, made if isinstance(made, list) else [made], strict=True):
        assert np.abs(a - np.asarray(b)).max() <= EXACT * max(1, np.abs(a).max())
    back = bridged.back()
    assert back is not model and [layer.name for layer in back.layers] == [
        layer.name for layer in model.layers
    ]
    for a, b in zip(wanted, small_models.outputs(back, x), strict=True):
        np.testing.assert_array_equal(a, b)
    return bridged


@pytest.mark.parametrize("kind", LAYERS)
def test_each_layer_is_exact(kind: str) -> None:
    from keras import layers as kl

    shape, make = LAYERS[kind]
    there_and_back(of_one(make(kl), shape))


@pytest.mark.parametrize("kind", MERGES)
def test_each_merge_is_exact(kind: str) -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((5, 4), name="x")
    merge = kl.Dot(axes=2, normalize=True) if kind == "Dot" else getattr(kl, kind)()
    there_and_back(keras.Model(x, merge([x, kl.ReLU(name="relu")(x)])))


def test_every_supported_layer_is_tested() -> None:
    import keras
    from keras import layers as kl

    tested = {type(make(kl)).__name__ for _, make in LAYERS.values()} | set(MERGES)
    # The same code in one dimension more, or less, of a layer that is tested.
    twins = {"SpatialDropout", "MaxPooling", "AveragePooling", "ZeroPadding", "Cropping"}
    twins |= {"UpSampling", "GlobalMaxPooling", "GlobalAveragePooling"}
    rest = {name for name in bridge.LAYERS - tested if name.rstrip("123D") not in twins}
    assert rest == {"Activation"} - tested
    assert all(hasattr(keras.layers, name) for name in bridge.LAYERS)


@pytest.mark.parametrize("name", small_models.MODELS)
def test_whole_models_are_exact(name: str) -> None:
    there_and_back(small_models.randomised(small_models.MODELS[name]()))


def test_shared_layers_stay_shared_and_keep_their_names() -> None:
    model = small_models.randomised(small_models.nested())
    bridged = there_and_back(model)
    assert len(bridged.model.weights) == len(model.weights)
    assert set(bridged.names) == {call.name for call in trace(model).calls}
    assert {"block.conv", "tail.conv", "conv"} <= set(bridged.names.values())


def test_names_that_tensorflow_does_not_take_survive() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((4,), name="in put")
    y = kl.Dense(3, name="größe")(kl.Dense(3, name="gr__e")(kl.Dense(4, name="a.b c")(x)))
    model = small_models.randomised(keras.Model(x, y, name="my model"))
    bridged = there_and_back(model)
    assert len(set(bridged.names.values())) == 3
    changed = bridged.back({"größe": {"bias": np.full(3, 7, np.float32)}})
    np.testing.assert_array_equal(changed.get_layer("größe").bias, np.full(3, 7))


def test_what_matters_in_training_goes_across() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((4,), name="x")
    dense = kl.Dense(
        3, kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2), name="dense"
    )
    frozen = kl.Dense(3, name="frozen", trainable=False)
    norm = kl.BatchNormalization(momentum=0.7, name="norm")
    model = small_models.randomised(keras.Model(x, norm(frozen(dense(x)))))
    made = to_tf_keras(model).model
    assert float(sum(made.losses)) == pytest.approx(float(sum(model.losses)))
    assert made.get_layer("norm").momentum == 0.7
    assert not made.get_layer("frozen").trainable
    assert len(made.trainable_variables) == len(model.trainable_variables) == 4
    bound = made.get_layer("dense").kernel
    assert float(np.linalg.norm(bound.constraint(bound * 100), axis=0).max()) <= 2.0001


def refused(layer: Any, shape: tuple[int, ...] = FLAT) -> str:
    with pytest.raises(UnsupportedError) as caught:
        to_tf_keras(of_one(layer, shape))
    return str(caught.value)


def test_other_layers_options_and_types_are_refused_by_name() -> None:
    import keras
    from keras import layers as kl

    class Own(kl.Dense):
        pass

    assert "layer 'root' (keras, RMSNormalization)" in refused(kl.RMSNormalization(name="root"))
    assert "layer 'own'" in refused(Own(2, name="own"))
    message = refused(kl.Resizing(4, 4, antialias=True, name="size"), IMAGE)
    assert "layer 'size' (Resizing): tf_keras has no option antialias = True" in message
    message = refused(kl.Resizing(4, 4, pad_to_aspect_ratio=True, name="pad"), IMAGE)
    assert "layer 'pad' (Resizing): tf_keras has no option pad_to_aspect_ratio = True" in message
    assert "layer 'half' (Dense) computes in mixed_float16" in refused(
        kl.Dense(2, dtype="mixed_float16", name="half")
    )

    class OwnRegularizer(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            return 0.0

        def get_config(self) -> dict[str, Any]:
            return {}

    assert "no kernel_regularizer OwnRegularizer" in refused(
        kl.Dense(2, kernel_regularizer=OwnRegularizer(), name="dense")
    )


def test_an_operation_of_ones_own_is_refused() -> None:
    import keras

    class Twice(keras.Operation):
        def call(self, x: Any) -> Any:
            return x * 2

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((4,), name="x")
    with pytest.raises(UnsupportedError, match="operation 'twice'"):
        to_tf_keras(keras.Model(x, Twice(name="twice")(x)))


def test_the_environment_of_child_processes_is_left_alone() -> None:
    legacy.tfmot()
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def of(kind: str) -> Kernel:
    from keras import layers as kl

    shape, make = LAYERS[kind]
    return next(iter(kernels(trace(of_one(make(kl), shape)))))


@pytest.mark.parametrize(
    ("kind", "outputs", "rest"),
    [
        ("dense", 3, 6),
        ("conv1d", 3, 12),
        ("conv2d", 3, 36),
        ("conv2d transpose", 3, 36),
        ("depthwise2d", 8, 9),
        ("separable2d", 8, 9),
    ],
)
def test_rows_of_a_kernel_are_its_outputs_as_a_flatbuffer_has_them(
    kind: str, outputs: int, rest: int
) -> None:
    kernel = of(kind)
    array = np.arange(kernel.size).reshape(kernel.shape)
    rows = kernel.rows(array)
    assert rows.shape == (kernel.outputs, rest) and kernel.outputs == outputs
    np.testing.assert_array_equal(kernel.back(rows), array)
    scaled = array * kernel.back(np.arange(1, outputs + 1))
    np.testing.assert_array_equal(kernel.rows(scaled), rows * np.arange(1, outputs + 1)[:, None])
    if kind == "conv2d":  # input channels change fastest, then columns
        np.testing.assert_array_equal(rows[1, :5], [*array[0, 0, :, 1], array[0, 1, 0, 1]])
    if kind == "depthwise2d":
        np.testing.assert_array_equal(rows[3, :2], [array[0, 0, 1, 1], array[0, 1, 1, 1]])
