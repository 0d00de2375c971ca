"""Multiply-accumulates and parameters of a Keras model, layer by layer, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import Call, Graph, Shape, read_weights, trace
from edgecompress.channels.rules import rule_for
from edgecompress.channels.view import kept_shape
from edgecompress.errors import UnsupportedError

if TYPE_CHECKING:
    import keras

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_POSITIONS: Mapping[str, Literal["in", "out"]] = {
    **dict.fromkeys(["Dense", "Conv1D", "Conv2D", "Conv3D"], "out"),
    **dict.fromkeys(["DepthwiseConv1D", "DepthwiseConv2D"], "out"),
    **dict.fromkeys(["SeparableConv1D", "SeparableConv2D"], "out"),
    **dict.fromkeys(["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"], "in"),
}
"""Each element of a kernel is used once per position of this tensor."""


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for batch 1.

    `macs` counts multiply-accumulates of kernels over all calls of the layer, border padding
    included; 0 for layers without kernels, None for a layer whose arithmetic is not known.
    `params` counts all weights, moving statistics included, once however often it is called.
    """

    layer: str
    kind: str
    output_shape: Shape
    macs: int | None
    params: int


@dataclass(frozen=True)
class Total:
    """MACs (None where a layer's are not known) and parameters of a whole model, batch 1."""

    macs: int | None
    params: int


def layers(model: keras.Model) -> tuple[LayerCost, ...]:
    """Cost of every layer in execution order, nested models inlined, inputs left out.

    Raises UnsupportedError for a subclassed model or a kernel over a tensor of unknown size.
    """
    graph = trace(model)
    return tuple(
        _layer(graph, name, op, calls, {k: w.shape for k, w in read_weights(op).items()})
        for name, op, calls in graph.layers()
    )


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one inference, batch 1; UnsupportedError where a layer's are unknown.

    Counts what the kernels of convolutions and dense layers do, as MLPerf Tiny does.
    """
    costs = layers(model)
    for cost in costs:
        if cost.macs is None:
            raise UnsupportedError(
                f"cost: the MACs of layer {cost.layer} ({cost.kind}) -> {cost.output_shape} are"
                " not known; aim at ratio or params instead"
            )
    return sum(cost.macs or 0 for cost in costs)


def params(model: keras.Model) -> int:
    """Number of weights, moving statistics included."""
    return sum(cost.params for cost in layers(model))


def total(model: keras.Model) -> Total:
    """MACs and parameters of a model; MACs are None where those of a layer are not known."""
    return _sum(layers(model))


def meter(view: View) -> Callable[[npt.NDArray[np.bool_]], Total]:
    """A function from kept atoms (`View.keep`) to the cost of the model after removal.

    Analytic: nothing is rebuilt. It equals `macs` and `params` of the rebuilt model.
    """
    found = [
        (name, op, calls, {k: w.shape for k, w in read_weights(op).items()})
        for name, op, calls in view.graph.layers()
    ]

    def measure(keep: npt.NDArray[np.bool_]) -> Total:
        costs = []
        for name, op, calls, old in found:
            flow = view.flows.get(name)
            new = {k: kept_shape(flow, k, s, keep) for k, s in old.items()} if flow else old
            costs.append(_layer(view.graph, name, op, calls, new))
        return _sum(costs)

    return measure


def _sum(costs: Sequence[LayerCost]) -> Total:
    known = [cost.macs for cost in costs if cost.macs is not None]
    macs = sum(known) if len(known) == len(costs) else None
    return Total(macs, sum(cost.params for cost in costs))


def _layer(
    graph: Graph, name: str, op: Any, calls: list[Call], shapes: Mapping[str, tuple[int, ...]]
) -> LayerCost:
    kernels = sum(math.prod(shape) for key, shape in shapes.items() if key in _KERNELS)
    kind = type(op).__name__
    macs: int | None = None
    if rule_for(op) is not None:
        side = _POSITIONS.get(kind)
        macs = sum(kernels * _positions(graph, call, name, side) for call in calls) if side else 0
    return LayerCost(
        layer=name,
        kind=kind,
        output_shape=graph.output_shape(calls[0]),
        macs=macs,
        params=sum(math.prod(shape) for shape in shapes.values()),
    )


def _positions(graph: Graph, call: Call, name: str, side: Literal["in", "out"]) -> int:
    """How many positions (pixels, steps) of one sample a kernel is applied at."""
    shape = graph.output_shape(call) if side == "out" else graph.input_shapes(call)[0]
    if getattr(call.op, "data_format", None) == "channels_first":
        shape = (shape[0], *shape[2:], shape[1])
    sizes = [size for size in shape[1:-1] if size is not None]
    if len(sizes) != len(shape) - 2:
        raise UnsupportedError(
            f"cost: layer {name} ({type(call.op).__name__}) works on shape {shape}; load the model"
            " with a fixed input shape"
        )
    return math.prod(sizes)
