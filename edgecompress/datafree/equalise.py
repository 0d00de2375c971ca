"""Cross-layer equalisation: channels scaled between two layers, the function left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress.channels.graph import Call, Graph, Weights, read_weights, rebuild, trace
from edgecompress.datafree import activations, fold
from edgecompress.datafree.gaussian import Activation
from edgecompress.datafree.kernels import Kernel, kernels
from edgecompress.datafree.statistics import Array, Statistics

if TYPE_CHECKING:
    import keras

Known = dict[str, Weights]
"""The present weights of every layer."""

SWEEPS, CLOSE = 50, 1e-3
"""Passes over all pairs at most, and the change of a scale that is none (in logarithms)."""
LIMIT = 1e3
"""The most that one channel is scaled by in one step."""
_BETWEEN = frozenset(
    "Dropout SpatialDropout1D SpatialDropout2D GaussianDropout Identity ActivityRegularization"
    " ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D AveragePooling1D AveragePooling2D"
    " GlobalAveragePooling1D GlobalAveragePooling2D MaxPooling1D MaxPooling2D GlobalMaxPooling1D"
    " GlobalMaxPooling2D Flatten".split()
)
"""Layers that scale each channel of their output as that of their input is scaled."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers of which the second alone reads what the first makes, every channel scalable.

    `norm` is the BatchNormalization behind the first, None where there is none.
    """

    first: str
    norm: str | None
    second: str


def equalise(model: keras.Model) -> keras.Model:
    """A new model of the same function whose neighbouring kernels have channels of like size.

    Between two layers with nothing but BatchNormalization, ReLU, LeakyReLU, PReLU, pooling and the
    like, channel i is divided by s_i = sqrt(r1_i / r2_i), the largest weights that make it and that
    read it, and the second layer's weights multiplied by it, until nothing changes (Nagel et al.,
    DFQ, ICCV 2019, section 4.1, equation 11). Other activations, ReLU6 too, and tensors that are
    read twice end a pair. The scales go into gamma and beta, so that the statistics of what every
    BatchNormalization reads stay right.
    """
    graph = trace(model)
    found = list(pairs(graph))
    known: Known = {name: read_weights(op) for name, op, _ in graph.layers()}
    by_layer = {kernel.call.name: kernel for kernel in kernels(graph, Statistics({}, {}))}
    norms = {layer.name: norm for layer, norm in fold.pairs(graph)}
    for _ in range(SWEEPS):
        most = 0.0
        for pair in found:
            first, second = (
                _current(by_layer[name], known, norms) for name in (pair.first, pair.second)
            )
            made = np.abs(first.rows).max(axis=(0, 1))
            read = _read(second, len(made))
            alive = (made > 0) & (read > 0)
            ratio = np.where(alive, made, 1.0) / np.where(alive, read, 1.0)
            scale = np.clip(np.sqrt(ratio), 1 / LIMIT, LIMIT)
            known.update(_divided(by_layer[pair.first], pair.norm, scale, known))
            known.update(_multiplied(by_layer[pair.second], scale, known))
            most = max(most, float(np.abs(np.log(scale)).max()))
        if most < CLOSE:
            break
    return rebuild(graph, config=lambda name: {}, weights=lambda name, old: known.get(name, old))


def pairs(graph: Graph) -> Iterator[Pair]:
    """The pairs of layers that can be equalised, in graph order; each layer is called once."""
    norms = {layer.name: norm for layer, norm in fold.pairs(graph)}
    for call in graph.calls:
        phi = activations.argument(call.op)
        if not _weighted(call) or graph.times[call.name] > 1 or phi is None or not _scales(phi):
            continue
        norm, index = norms.get(call.name), call.outputs[0]
        if norm is not None and "gamma" not in read_weights(norm.op):
            continue
        while index not in graph.outputs and len(graph.readers.get(index, ())) == 1:
            (reader,) = graph.readers[index]
            if _weighted(reader) and graph.times[reader.name] == 1:
                yield Pair(call.name, None if norm is None else norm.name, reader.name)
            inner = activations.of(reader.op)
            passes = type(reader.op).__name__ in _BETWEEN or (inner is not None and _scales(inner))
            if not passes and (norm is None or reader is not norm):
                break
            index = reader.outputs[0]


def _weighted(call: Call) -> bool:
    return type(call.op).__name__ in fold.OUTPUTS and not hasattr(call.op, "pointwise_kernel")


def _scales(phi: Activation) -> bool:
    """Whether phi(s b) = s phi(b) for every s > 0."""
    return phi.function is None and phi.constant == 0 and all(at == 0 for at, _ in phi.kinks)


def _current(kernel: Kernel, known: Known, norms: dict[str, Call]) -> Kernel:
    """A kernel with its present weights, the normalisation behind it folded in."""
    array = known[kernel.call.name][kernel.weight]
    norm = norms.get(kernel.call.name)
    if norm is not None:
        factor = fold.factor(norm.op, known[norm.name])
        array = array * kernel.back(np.broadcast_to(factor, (kernel.rows.shape[-1],)))
    return replace(kernel, array=array)


def _read(kernel: Kernel, channels: int) -> Array:
    """The largest weight that reads each of the channels, (channels,)."""
    return np.asarray(np.abs(_by_channel(kernel, channels)).max(axis=(0, 2)))


def _by_channel(kernel: Kernel, channels: int) -> Array:
    """The weights of each channel that is read, (taps, channels, weights)."""
    rows = kernel.rows
    taps, inner, outputs = rows.shape
    if kernel.depthwise:
        return rows.reshape(taps, channels, outputs // channels)
    if inner > channels:  # flattened
        return rows.reshape(-1, channels, outputs)
    groups = channels // inner
    by_group = rows.reshape(taps, inner, groups, outputs // groups)
    return by_group.transpose(0, 2, 1, 3).reshape(taps, channels, outputs // groups)


def _multiplied(kernel: Kernel, scale: Array, known: Known) -> Known:
    """The weights of the second layer of a pair, each channel it reads times its scale."""
    name = kernel.call.name
    kernel = replace(kernel, array=known[name][kernel.weight])
    whole = _by_channel(kernel, len(scale)) * scale[:, None]
    taps, inner, outputs = kernel.rows.shape
    if not kernel.depthwise and inner < len(scale):
        groups = len(scale) // inner
        whole = whole.reshape(taps, groups, inner, -1).transpose(0, 2, 1, 3)
    rows = whole.reshape(taps, inner, outputs)
    return {name: {**known[name], kernel.weight: kernel.back(rows).astype(kernel.array.dtype)}}


def _divided(kernel: Kernel, norm: str | None, scale: Array, known: Known) -> Known:
    """The weights of the first layer of a pair, or of its norm, each output over its scale."""
    if norm is not None:
        old = known[norm]
        keys: dict[str, Array] = {key: old[key] / scale for key in ("gamma", "beta") if key in old}
        return {norm: {**old, **{key: _like(value, old[key]) for key, value in keys.items()}}}
    old = known[kernel.call.name]
    new = {kernel.weight: _like(old[kernel.weight] / kernel.back(scale), old[kernel.weight])}
    if "bias" in old:
        new["bias"] = _like(old["bias"] / scale, old["bias"])
    return {kernel.call.name: {**old, **new}}


def _like(value: Array, old: Any) -> Any:
    return value.astype(old.dtype)
