"""Small Keras models, one per way in which channels can be coupled, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def randomised(model: Any, seed: int = 0) -> Any:
    """The model with normal weights everywhere, biases and moving statistics included."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.5, weight.shape)
        if weight.name == "moving_variance":
            values = np.abs(values) + 0.5
        weight.assign(values.astype("float32"))
    return model


def batch(model: Any, n: int = 3, seed: int = 1) -> Any:
    """A random input batch for a model with one input."""
    return np.random.default_rng(seed).normal(size=(n, *model.input_shape[1:])).astype("float32")


def outputs(model: Any, x: Any) -> list[Any]:
    """All outputs of an inference, as arrays."""
    import keras

    found = model(keras.ops.convert_to_tensor(x), training=False)
    return [np.asarray(y) for y in (found if isinstance(found, list | tuple) else [found])]


def residual() -> Any:
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 6, 3), name="image")
    x = kl.Conv2D(4, 3, padding="same", name="stem")(inputs)
    skip = kl.ReLU()(kl.BatchNormalization(name="stem_bn")(x))
    x = kl.Conv2D(5, 3, padding="same", name="inner")(skip)
    x = kl.Activation("relu6")(kl.BatchNormalization(name="inner_bn")(x))
    x = kl.Conv2D(4, 3, padding="same", name="back")(x)
    x = kl.GlobalAveragePooling2D()(kl.Add(name="sum")([x, skip]))
    return keras.Model(inputs, kl.Dense(3, activation="softmax", name="head")(x), name="residual")


def concat() -> Any:
    """Concatenation along channels, added to a convolution; then along rows."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 6, 3), name="image")
    a = kl.Conv2D(4, 1, activation="relu", name="left")(inputs)
    b = kl.Conv2D(5, 1, activation="sigmoid", name="right")(inputs)
    both = kl.Concatenate()([a, b])
    wide = kl.Average()([both, kl.Conv2D(9, 1, name="wide")(inputs)])
    below = kl.Conv2D(9, 1, name="below")(inputs)
    x = kl.Conv2D(3, 3, name="mix")(kl.Concatenate(axis=1)([wide, below]))
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.Flatten()(x)), name="concat")


def depthwise_flatten() -> Any:
    """Depthwise with a multiplier, PReLU of both kinds, Flatten into Dense."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 5, 2), name="image")
    x = kl.DepthwiseConv2D(3, depth_multiplier=2, name="fixed_depthwise")(inputs)
    x = kl.Conv2D(4, 1, name="point")(x)
    x = kl.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = kl.PReLU(shared_axes=[1], name="prelu")(x)
    x = kl.MaxPooling2D((2, 1), padding="same")(kl.BatchNormalization(name="bn")(x))
    x = kl.Dense(6, activation="gelu", name="hidden")(kl.Flatten()(x))
    x = kl.PReLU(name="prelu_flat")(x)
    return keras.Model(inputs, kl.Dense(2, name="head")(x), name="depthwise_flatten")


def shared() -> Any:
    """One convolution called twice, on its own output."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 6, 3), name="image")
    conv = kl.Conv2D(4, 3, padding="same", name="shared")
    x = kl.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = conv(kl.BatchNormalization(name="bn")(conv(x)))
    x = kl.GlobalMaxPooling2D()(kl.LeakyReLU()(x))
    return keras.Model(inputs, kl.Dense(2, name="head")(x), name="shared")


def nested() -> Any:
    """A Functional model called twice and a Sequential one, all with a layer named conv."""
    import keras
    from keras import layers as kl

    a = kl.Input((None, None, 4), name="a")
    block = keras.Model(
        a, kl.Add()([kl.Conv2D(4, 3, padding="same", name="conv")(a), a]), name="block"
    )
    tail = keras.Sequential(
        [kl.Input((6, 6, 4)), kl.Conv2D(5, 1, name="conv"), kl.BatchNormalization(name="bn")],
        name="tail",
    )
    inputs = kl.Input((6, 6, 3), name="image")
    x = tail(block(block(kl.Conv2D(4, 1, name="conv")(inputs))))
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.Flatten()(x)), name="nested")


def grouped() -> Any:
    """Grouped convolution of both kinds: several channels a group, and one (depthwise)."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 6, 3), name="image")
    x = kl.Conv2D(8, 1, name="stem")(inputs)
    x = kl.Conv2D(12, 3, groups=2, activation="relu", name="two_groups")(x)
    x = kl.Conv2D(12, 1, name="mix")(x)
    x = kl.Conv2D(24, 3, groups=12, activation="silu", name="one_each")(x)
    x = kl.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.Flatten()(x)), name="grouped")


def transposed() -> Any:
    import keras
    from keras import layers as kl

    inputs = kl.Input((4, 4, 3), name="image")
    x = kl.Conv2D(6, 1, name="stem")(inputs)
    x = kl.Conv2DTranspose(5, 3, strides=2, name="up")(kl.PReLU(shared_axes=[1, 3])(x))
    x = kl.Cropping2D(1)(kl.ZeroPadding2D()(kl.UpSampling2D()(x)))
    x = kl.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(x)
    x = kl.GlobalAveragePooling2D()(kl.SpatialDropout2D(0.2)(x))
    return keras.Model(inputs, kl.Dense(2, name="head")(x), name="transposed")


def squeeze_excite() -> Any:
    """A (1, 1, C) gate, a one-channel spatial gate, `x * y` on tensors, LayerNormalization."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((4, 4, 3), name="image")
    x = kl.Conv2D(6, 1, name="stem")(inputs)
    gate = kl.Dense(4, activation="relu", name="squeeze")(kl.GlobalAveragePooling2D()(x))
    gate = kl.Dense(6, activation="sigmoid", name="excite")(gate)
    x = kl.Multiply()([x, kl.Reshape((1, 1, 6), name="spread")(gate)])
    x = x * kl.Conv2D(1, 1, activation="sigmoid", name="where")(x)
    x = kl.LayerNormalization(name="norm")(kl.Conv2D(4, 1, name="narrow")(x))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(5, 1, name="last")(x))
    return keras.Model(inputs, kl.Dense(2, name="head")(x), name="squeeze_excite")


def one_dimensional() -> Any:
    """1-D layers, Permute there and back, Reshape, RepeatVector, Dense on a sequence; 2 outputs."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((12, 3), name="wave")
    x = kl.SeparableConv1D(5, 3, name="separable")(kl.Conv1D(4, 3, name="stem")(inputs))
    x = kl.Conv1DTranspose(4, 2, name="up")(kl.DepthwiseConv1D(3, name="depthwise")(x))
    x = kl.Permute((2, 1))(kl.ReLU()(kl.Permute((2, 1))(x)))
    x = kl.Reshape((-1, 1, 4), name="rows")(kl.Reshape((-1,), name="flat")(x))
    x = kl.Dense(4, activation="tanh", name="hidden")(kl.Flatten()(x))
    x = kl.Dense(3, name="steps")(kl.RepeatVector(3)(x))
    y = kl.Dense(2, name="head")(kl.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, [x, y], name="one_dimensional")


MODELS: Mapping[str, Callable[[], Any]] = {
    build.__name__: build
    for build in (
        residual,
        concat,
        depthwise_flatten,
        shared,
        nested,
        grouped,
        transposed,
        squeeze_excite,
        one_dimensional,
    )
}
