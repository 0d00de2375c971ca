"""Statistics measured on a few samples, which need no labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import Call, Graph, Weights, read_weights
from edgecompress.datafree.fold import OUTPUTS
from edgecompress.datafree.readers import leading, source
from edgecompress.datafree.statistics import Array, Moments, Statistics
from edgecompress.errors import ConfigError

CHUNK = 64
"""Samples that are computed at once."""


def measured(view: View, x: npt.NDArray[Any]) -> Statistics:
    """The moments of every tensor that a kernel reads, of the samples x (N, *input_shape).

    Means and covariances run over samples and positions, and over all calls of a shared layer.
    Raises ConfigError where x does not fit the model.
    """
    graph, readers = view.graph, {name for name, _, _ in view.axes("in")}
    readers |= {name for name, op, _ in graph.layers() if type(op).__name__ in OUTPUTS}
    sums: dict[str, Sums] = {}
    for start in range(0, len(x), CHUNK):
        for call, values in walked(graph, x[start : start + CHUNK]):
            if call.name in readers:
                rows = reading(graph, call, values[source(graph, call)[0]])
                sums.setdefault(call.name, Sums(rows[0])).add(rows)
    return Statistics({name: found.moments() for name, found in sums.items()}, {})


def walked(graph: Graph, x: npt.NDArray[Any]) -> Iterator[tuple[Call, Mapping[int, Any]]]:
    """Each call in turn, with the values of tensors before it: all that it reads, also what lies
    before padding in front of it. The samples x (N, *input_shape) go through the graph at once;
    raises ConfigError where they do not fit."""
    _check(graph, x)
    last = {
        i: n for n, call in enumerate(graph.calls) for i in (*call.inputs, source(graph, call)[0])
    }
    values: dict[int, Any] = {graph.inputs[0]: np.asarray(x, np.float32)}
    for n, call in enumerate(graph.calls):
        yield call, values
        made = computed(call, [values[i] for i in call.inputs])
        values.update(zip(call.outputs, made, strict=True))
        for index in [i for i in values if last.get(i) == n]:
            del values[index]


class Sums:
    """Running sums of rows (count, n) and of their outer products, around one of the rows."""

    def __init__(self, origin: Array) -> None:
        self.origin = origin
        self.count = 0
        self.first = np.zeros(len(origin))
        self.second = np.zeros((len(origin), len(origin)))

    @staticmethod
    def of(rows: Array) -> Sums:
        """The sums of these rows."""
        sums = Sums(rows[0])
        sums.add(rows)
        return sums

    def add(self, rows: Array) -> None:
        """Take in more rows."""
        centred = rows - self.origin
        self.count += len(rows)
        self.first += centred.sum(axis=0)
        self.second += centred.T @ centred

    def moments(self) -> Moments:
        """Mean and covariance of all rows so far."""
        mean = self.first / self.count
        covariance = self.second / self.count - np.outer(mean, mean)
        return Moments(self.origin + mean, covariance, source="measured")


def computed(call: Call, inputs: Sequence[Any], layer: Any = None) -> list[Any]:
    """What a call gives on these arrays in inference mode, by another `layer` where one is given.

    float32 arrays; a chunk of samples at a time.
    """
    import keras

    arguments, chunks = call.node.arguments, []
    for start in range(0, len(inputs[0]), CHUNK):
        parts = [keras.ops.convert_to_tensor(value[start : start + CHUNK]) for value in inputs]
        filled = dict(zip(map(id, arguments.keras_tensors), parts, strict=True))
        args, kwargs = arguments.fill_in(filled)
        made = (layer or call.op)(*args, **kwargs)
        chunks.append([np.asarray(value) for value in keras.tree.flatten(made)])
    return [np.concatenate(values) for values in zip(*chunks, strict=True)]


def linear_output(call: Call, inputs: Sequence[Any], weights: Weights) -> Array:
    """What a layer with these weights makes before its activation: (positions, outputs) float64."""
    layer = layer_like(call.op, weights, activation=None)
    (made,) = computed(call, inputs, layer)
    return np.asarray(made.reshape(-1, made.shape[-1]), np.float64)


def layer_like(op: Any, weights: Weights, **config: Any) -> Any:
    """A layer like `op` with other weights."""
    if "bias" in weights and "bias" not in read_weights(op):
        config["use_bias"] = True
    made = type(op).from_config({**op.get_config(), **config})
    made.build(op.input.shape)
    made.set_weights(list(weights.values()))
    return made


def reading(graph: Graph, call: Call, value: Any) -> Array:
    """What a layer sums over as rows of channels (positions, channels) float64, from what it reads.

    Behind a Flatten the rows are the positions of the image; in a separable convolution they are
    what its depthwise part makes.
    """
    import keras

    layer = call.op
    if hasattr(layer, "depthwise_kernel"):
        value = keras.ops.depthwise_conv(
            value,
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
        )
    channels, index = int(value.shape[-1]), call.inputs[0]
    makers = graph.makers
    while index in makers and type(makers[index].op).__name__ in _UNCHANGED:
        channels = int(graph.input_shapes(makers[index])[0][-1] or channels)
        index = makers[index].inputs[0]
    return np.asarray(value, dtype=np.float64).reshape(-1, channels)


def windows(op: Any, value: npt.NDArray[Any], at: npt.NDArray[np.int64]) -> Array:
    """What a convolution `op` sums over, as its kernel has it: (len(at), taps * channels) float64.

    `at` are the positions of the output, counted in row-major order over the samples and the image;
    `value` (N, *image, channels) is what the layer reads, or some channels of it. Zeros lie beyond
    the image.
    """
    made = op.compute_output_shape((*value.shape[:-1], op.input.shape[-1]))[1:-1]
    sample, *places = np.unravel_index(at, (len(value), *made))
    flat = (1,) * len(made)
    index, padding = [sample.reshape(-1, *flat)], [(0, 0)]
    for axis, (taps, stride, dilation) in enumerate(
        zip(op.kernel_size, op.strides, op.dilation_rate, strict=True)
    ):
        size, out, wide = value.shape[1 + axis], made[axis], (taps - 1) * dilation + 1
        front = leading(op.padding, size, wide, stride, out)
        padding.append((front, max((out - 1) * stride + wide - front - size, 0)))
        reached = places[axis][:, None] * stride + np.arange(taps) * dilation
        index.append(reached.reshape(-1, *flat[:axis], taps, *flat[axis + 1 :]))
    padded = np.pad(value, [*padding, (0, 0)])
    return np.asarray(padded[tuple(index)], dtype=np.float64).reshape(len(at), -1)


_UNCHANGED = frozenset("Flatten Dropout Activation ReLU LeakyReLU Identity".split())
"""Layers that keep the channels of what was flattened before."""


def _check(graph: Graph, x: npt.NDArray[Any]) -> None:
    shape = graph.shapes[graph.inputs[0]]
    fits = np.ndim(x) == len(shape) and all(
        want in (None, got) for want, got in zip(shape[1:], np.shape(x)[1:], strict=True)
    )
    if len(graph.inputs) != 1 or not fits or not len(x):
        wanted = ", ".join(str(graph.shapes[i]) for i in graph.inputs)
        raise ConfigError(
            f"samples: shape {np.shape(x)} does not fit the inputs {wanted} of {graph.name}"
        )
