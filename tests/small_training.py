"""Small models to train, and a task that they learn in a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress.data import Dataset, Rows, Split, Training
from edgecompress.recipe import Train

SHAPE = (6, 6, 2)
TRAIN = Train(epochs=3, batch=32, learning_rate=5e-3)


def task(rows: int = 192, classes: int = 4, seed: int = 0) -> Dataset:
    """Noisy copies of one image per class."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(classes, *SHAPE))
    y = rng.integers(0, classes, 2 * rows)
    x = (images[y] + rng.normal(size=(2 * rows, *SHAPE))).astype(np.float32)
    middle = rows + rows // 2
    training = Training(
        Rows(x[:rows], y[:rows]), Split("validation", x[rows:middle], y[rows:middle])
    )
    test = Split("test", x[middle:], y[middle:])
    return Dataset("images", "top1", x[:64], test, training=lambda: training)


def plain(seed: int = 1) -> Any:
    """One of each: convolution, depthwise, 1x1, Dense; a gamma that is negative."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(seed)
    x = inputs = kl.Input(SHAPE, name="image")
    x = kl.Conv2D(8, 3, padding="same", name="stem")(x)
    norm = kl.BatchNormalization(momentum=0.7, name="norm")
    x = kl.ReLU(name="relu")(norm(x))
    x = kl.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = kl.Conv2D(9, 1, activation="gelu", name="point")(x)
    x = kl.Dense(4, name="head")(kl.Flatten(name="flat")(kl.AveragePooling2D(3, name="pool")(x)))
    model = keras.Model(inputs, x, name="plain")
    norm.gamma.assign(np.linspace(-1, 1.5, 8))
    return model


def everything(seed: int = 1, *, channels: int = 8) -> Any:
    """Residual, depthwise, a layer that is called twice, a nested model, concatenation."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(seed)
    a = kl.Input((6, 6, channels), name="a")
    block = keras.Model(a, kl.Conv2D(channels, 1, activation="relu", name="inner")(a), name="block")
    shared = kl.Conv2D(channels, 1, activation="relu", name="shared")
    x = inputs = kl.Input(SHAPE, name="image")
    x = kl.Conv2D(channels, 3, padding="same", use_bias=False, name="stem")(x)
    x = skip = kl.ReLU(name="stem_relu")(kl.BatchNormalization(momentum=0.7, name="stem_bn")(x))
    x = kl.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = kl.BatchNormalization(momentum=0.7, name="depthwise_bn")(x)
    x = kl.ReLU(6.0, name="depthwise_relu")(x)
    x = kl.Conv2D(channels, 1, use_bias=False, name="point")(kl.Dropout(0.1, name="drop")(x))
    x = kl.Add(name="sum")([kl.BatchNormalization(momentum=0.7, name="point_bn")(x), skip])
    x = shared(shared(kl.ReLU(name="sum_relu")(x)))
    x = kl.Concatenate(name="both")([block(x), x])
    x = kl.Flatten(name="flat")(kl.AveragePooling2D(3, name="pool")(x))
    x = kl.Softmax(name="softmax")(kl.Dense(4, name="head")(x))
    return keras.Model(inputs, x, name="everything")
