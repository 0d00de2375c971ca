"""BatchNormalization folded into the layer in front of it, as a converter folds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress.channels.graph import Call, Graph, Weights, read_weights, rebuild, trace
from edgecompress.datafree.statistics import Array

if TYPE_CHECKING:
    import keras

OUTPUTS = {
    "Conv1D": ("kernel", (-1,)),
    "Conv2D": ("kernel", (-1,)),
    "Conv1DTranspose": ("kernel", (-2,)),
    "Conv2DTranspose": ("kernel", (-2,)),
    "Dense": ("kernel", (-1,)),
    "DepthwiseConv1D": ("kernel", (-2, -1)),
    "DepthwiseConv2D": ("kernel", (-2, -1)),
    "SeparableConv1D": ("pointwise_kernel", (-1,)),
    "SeparableConv2D": ("pointwise_kernel", (-1,)),
}
"""Class of a layer -> the weight that makes its outputs, and the axes that run along them."""


def fold(model: keras.Model) -> keras.Model:
    """A new model that computes the same, each BatchNormalization folded into the layer before.

    The layer's kernel takes the factor gamma / sqrt(variance + epsilon); the normalisation stays
    in the graph and only adds what is left, the folded bias, so that no shape and no layer
    changes. A normalisation that does not stand alone behind one linear layer stays as it is.
    """
    graph = trace(model)
    changes: dict[str, Weights] = {}
    for layer, norm in pairs(graph):
        changes.update(_folded(layer, norm))
    return rebuild(graph, config=lambda name: {}, weights=lambda name, old: changes.get(name, old))


def pairs(graph: Graph) -> Iterator[tuple[Call, Call]]:
    """Each linear layer with the BatchNormalization that alone reads it, both called once."""
    for call in graph.calls:
        activation = getattr(getattr(call.op, "activation", None), "__name__", "linear")
        if type(call.op).__name__ not in OUTPUTS or activation != "linear":
            continue
        made = call.outputs[0]
        reading = graph.readers.get(made, ())
        if len(reading) != 1 or made in graph.outputs:
            continue
        (norm,) = reading
        last = len(graph.shapes[made]) - 1
        if type(norm.op).__name__ == "BatchNormalization" and norm.op.axis in (-1, last):
            if graph.times[call.name] == graph.times[norm.name] == 1:
                yield call, norm


def factor(norm: Any, weights: Weights) -> Array:
    """What a BatchNormalization with these weights multiplies each channel by, (channels,)."""
    variance = weights["moving_variance"].astype(np.float64)
    gamma = weights.get("gamma", np.ones_like(variance))
    return np.asarray(gamma / np.sqrt(variance + norm.epsilon))


def _folded(layer: Call, norm: Call) -> dict[str, Weights]:
    """The new weights of a layer and of the normalisation behind it."""
    old, known = read_weights(layer.op), read_weights(norm.op)
    mean, multiplier = known["moving_mean"].astype(np.float64), factor(norm.op, known)
    bias = known.get("beta", 0) + multiplier * (old.get("bias", np.zeros_like(mean)) - mean)
    weight, axes = OUTPUTS[type(layer.op).__name__]
    kernel = old[weight]
    shape = [kernel.shape[axis] if axis - kernel.ndim in axes else 1 for axis in range(kernel.ndim)]
    new = {**old, weight: (kernel * multiplier.reshape(shape)).astype(kernel.dtype)}
    if "bias" in old:
        new["bias"] = np.zeros_like(old["bias"])
    rest = {
        "gamma": np.ones_like(mean),
        "beta": bias,
        "moving_mean": np.zeros_like(mean) if "beta" in known else -bias,
        "moving_variance": np.full_like(mean, 1 - norm.op.epsilon),
    }
    named = {key: rest[key].astype(array.dtype) for key, array in known.items()}
    return {layer.name: new, norm.name: named}
