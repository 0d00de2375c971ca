"""The element-wise function behind a Keras layer, operation or `activation` argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecompress.channels.graph import read_weights
from edgecompress.channels.rules import activation_barrier
from edgecompress.datafree.gaussian import IDENTITY, RELU, Activation, rectifier
from edgecompress.datafree.statistics import Array

_NAMED: dict[str, Activation] = {
    "linear": IDENTITY,
    "relu": RELU,
    "relu6": rectifier(maximum=6.0),
    "hard_sigmoid": Activation(kinks=((-3.0, 1 / 6), (3.0, -1 / 6))),
    "hard_tanh": Activation(kinks=((-1.0, 1.0), (1.0, -1.0)), constant=-1.0),
}
_RISING = frozenset("elu selu celu sigmoid tanh softplus softsign exponential log_sigmoid".split())
_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Absolute": "absolute",
    "Square": "square",
}


def argument(layer: Any) -> Activation | None:
    """The `activation=` of a layer; None where it is not known to be element-wise."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return IDENTITY
    if activation_barrier(layer) is not None:
        return None
    name = getattr(activation, "__name__", type(activation).__name__)
    return _NAMED.get(name) or _called(activation, name)


def of(op: Any) -> Activation | None:
    """What an activation layer or operation does to each element; None for any other layer."""
    kind = type(op).__name__
    if kind in _OPERATIONS:
        name = _OPERATIONS[kind]
        return _NAMED.get(name) or _called(op, name)
    make = _LAYERS.get(kind)
    return None if make is None else make(op)


def _relu(layer: Any) -> Activation:
    if layer.threshold:
        return _called(layer, "threshold")
    return rectifier(float(layer.negative_slope or 0.0), layer.max_value)


def _prelu(layer: Any) -> Activation:
    """alpha per channel; the mean of it over the positions that do not share it."""
    alpha = read_weights(layer)["alpha"].astype(np.float64)
    return rectifier(alpha.reshape(-1, alpha.shape[-1]).mean(axis=0))


_LAYERS: dict[str, Callable[[Any], Activation | None]] = {
    "Activation": argument,
    "ReLU": _relu,
    "LeakyReLU": lambda layer: rectifier(float(layer.negative_slope)),
    "PReLU": _prelu,
    "ELU": lambda layer: _called(layer, "elu"),
}


def _called(function: Any, name: str) -> Activation:
    """Any other function, evaluated by Keras."""

    def values(b: Array) -> Array:
        import keras

        return np.asarray(
            keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(b, "float32"))),
            dtype=np.float64,
        )

    return Activation(function=values, monotone=name in _RISING)
