"""The ranges of activations, from what the weights say of their moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecompress.channels.graph import Call, Graph
from edgecompress.channels.rules import by_name
from edgecompress.datafree import activations, fold, layers
from edgecompress.datafree.gaussian import Activation
from edgecompress.datafree.statistics import Array, Moments, Statistics

Range = tuple[float, float]
Interval = tuple[Array, Array]
"""The lower and the upper end, each (C,) or (1,)."""

WIDTH = 6.0
"""Standard deviations on each side of the mean that a range covers, as in DFQ."""
LINEAR = "/linear"
"""Behind a layer's name: what it makes before an activation that is not part of its operator."""
NODES = 257
_AGAIN = "#"
_FUSED = frozenset(["linear", "relu", "relu6"])
_UNIT = (np.zeros(1), np.ones(1))


def apart(graph: Graph) -> Graph:
    """The graph with a name of its own for every call: the second of a layer is `name#1`.

    Statistics of it tell the calls of a shared layer apart; the first keeps the layer's name.
    """
    count: dict[str, int] = {}
    calls = []
    for call in graph.calls:
        number = count[call.name] = count.get(call.name, -1) + 1
        calls.append(replace(call, name=f"{call.name}{_AGAIN}{number}") if number else call)
    return replace(graph, calls=tuple(calls))


def ranges(
    graph: Graph,
    statistics: Statistics,
    *,
    input_range: Range | None = None,
    width: float = WIDTH,
) -> Mapping[str, Range]:
    """Layer -> the least and the largest value that its output is to hold, and the inputs by name.

    `graph` has all calls `apart`, `statistics` are of it. Mean -+ `width` standard deviations of
    each channel, before the activation and through it (Nagel et al., DFQ, ICCV 2019, section 5, of
    BatchNormalization; here of every tensor with moments), and no further than the ranges of the
    inputs allow; the widest channel and call count. `name + LINEAR` is what a layer makes before
    an activation that has operators of its own, or inside, between two kernels. `input_range` is
    that of the model's inputs, else it is taken from their moments. A layer that nothing is known
    of is left out.
    """
    found: dict[int, Interval] = {}
    named: dict[str, Interval] = {}
    for name, index in zip(graph.input_names, graph.inputs, strict=True):
        if input_range is not None:
            low, high = input_range
            found[index] = named[name] = (np.array([low]), np.array([high]))
        elif name in statistics.made:
            found[index] = named[name] = _around(statistics.made[name], width)
    for call in graph.calls:
        made, before = (
            _around(known[call.name], width) if call.name in known else None
            for known in (statistics.made, statistics.linear)
        )
        layer = call.name.partition(_AGAIN)[0]
        for interval in _before(call, before, statistics.read.get(call.name), width):
            named[layer + LINEAR] = _union(named.get(layer + LINEAR), interval)
        inputs = [found[i] for i in call.inputs if i in found]
        own = _interval(call, made, inputs, before)
        if own is not None:
            found[call.outputs[0]] = own
            named[layer] = _union(named.get(layer), own)
    return {
        name: (float(min(low.min(), 0.0)), float(max(high.max(), 0.0)))
        for name, (low, high) in named.items()
    }


def _before(
    call: Call, before: Interval | None, read: Moments | None, width: float
) -> list[Interval]:
    """What a layer has in its middle: between its kernels, and before its own activation."""
    inner = []
    if type(call.op).__name__.startswith("Separable") and read is not None:
        inner.append(_around(read, width))
    if before is not None and _name(call.op) not in _FUSED:
        inner.append(before)
    return inner


def _interval(
    call: Call, made: Interval | None, inputs: list[Interval], before: Interval | None
) -> Interval | None:
    """The interval of a call's output, as narrow as what is known allows."""
    kind, own = type(call.op).__name__, activations.argument(call.op)
    phi = activations.of(call.op)
    if phi is not None:
        return _through(phi, inputs[0]) if inputs else made
    if kind == "Softmax" or _name(call.op) == "softmax":
        return _UNIT
    if kind in fold.OUTPUTS and before is not None:
        return None if own is None else _through(own, before)
    channels = 1 if made is None else len(made[0])
    bound = _bound(call, inputs, channels) if len(inputs) == len(call.inputs) else None
    if bound is None or made is None:
        return made if bound is None else bound
    return np.maximum(made[0], bound[0]), np.minimum(made[1], bound[1])


def _bound(call: Call, inputs: Sequence[Interval], channels: int) -> Interval | None:
    """What a call cannot go beyond, given the intervals of its inputs; None without a rule."""
    rule = _BOUNDS.get(type(call.op).__name__)
    if rule is not None:
        return rule(inputs)
    affine = layers.rescaling(call.op, channels)
    if affine is None:
        return None
    ends = [affine[0] * end + affine[1] for end in inputs[0]]
    return np.minimum(*ends), np.maximum(*ends)


def _name(op: Any) -> str:
    """The name of a layer's own activation."""
    return str(getattr(getattr(op, "activation", None), "__name__", "linear"))


def _hull(inputs: Sequence[Interval]) -> Interval:
    low = np.array([min(low.min() for low, _ in inputs)])
    return low, np.array([max(high.max() for _, high in inputs)])


def _sum(inputs: Sequence[Interval]) -> Interval:
    zero = np.zeros(1)
    return sum((low for low, _ in inputs), zero), sum((high for _, high in inputs), zero)


Bound = Callable[[Sequence[Interval]], Interval]
_BOUNDS: Mapping[str, Bound] = by_name(
    {
        "Dropout SpatialDropout1D SpatialDropout2D Flatten Reshape Permute RepeatVector Identity"
        " MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D Cropping1D Cropping2D"
        " AveragePooling1D AveragePooling2D GlobalAveragePooling1D GlobalAveragePooling2D"
        " UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D Concatenate Maximum Minimum Average"
        " ActivityRegularization GaussianNoise GaussianDropout": _hull,
        "Add": _sum,
    }
)
"""What the outputs of a layer cannot go beyond, given the intervals of its inputs."""


def _around(made: Moments, width: float) -> Interval:
    std = np.sqrt(np.maximum(np.diag(made.covariance), 0.0))
    return made.mean - width * std, made.mean + width * std


def _through(phi: Activation, interval: Interval) -> Interval:
    """What phi makes of all values of the interval; it need not be monotone."""
    if phi.linear:
        return interval
    low, high = interval
    share = np.linspace(0.0, 1.0, NODES)[:, None]
    values = phi(low + share * (high - low))
    return values.min(axis=0), values.max(axis=0)


def _union(old: Interval | None, new: Interval) -> Interval:
    """Both, of a layer that is called twice."""
    if old is None:
        return new
    low, high = np.minimum(old[0].min(), new[0].min()), np.maximum(old[1].max(), new[1].max())
    return np.array([low]), np.array([high])
