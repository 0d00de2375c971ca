"""Where an int8 flatbuffer has a tensor of its own, which training quantises too."""

from __future__ import annotations

from typing import Any

from edgecompress.channels.graph import Call, Graph
from edgecompress.datafree.fold import OUTPUTS
from edgecompress.datafree.ranges import LINEAR

FUSED = frozenset({"linear", "relu", "relu6"})
"""Activations that are part of the operator in front of them."""
FIXED = frozenset({"sigmoid", "softmax", "tanh"})
"""Activations whose output has a range of its own, whatever is trained."""
THROUGH = frozenset(
    "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise"
    " AlphaDropout ActivityRegularization Identity".split()
)
"""Layers that are no operator."""
SEPARABLE = frozenset({"SeparableConv1D", "SeparableConv2D"})
SUMS = frozenset("Add Subtract Multiply Average".split())
OWN = SUMS | frozenset(
    "BatchNormalization LayerNormalization GroupNormalization UnitNormalization Normalization"
    " Rescaling LeakyReLU PReLU ELU Relu Relu6 Silu Gelu HardSigmoid HardSilu LeakyRelu Elu Selu"
    " Softplus".split()
)
"""Layers and operations whose output is a tensor with a range of its own. Those of others (pooling,
reshaping, concatenation) take the range of what they read."""


def points(graph: Graph) -> frozenset[str]:
    """The names whose ranges training learns, as `datafree.ranges.ranges` has them.

    A layer where a chain of a kernel, BatchNormalization and ReLU, or of a sum and ReLU, ends;
    `layer + LINEAR` for what a layer makes in front of an activation that is an operator of its
    own, or between the two kernels of a separable convolution. The model's inputs are not among
    them.
    """
    found = set()
    for call in graph.calls:
        name, kind = activation(call.op), type(call.op).__name__
        if kind in OUTPUTS and (name not in FUSED or kind in SEPARABLE):
            found.add(call.name + LINEAR)
        if _own(kind, name) and not _goes_on(graph, call, kind, name):
            found.add(call.name)
    return frozenset(found)


def activation(op: Any) -> str:
    """The name of the activation that a layer applies; "linear" for none."""
    if type(op).__name__ != "ReLU":
        return str(getattr(getattr(op, "activation", None), "__name__", "linear"))
    if op.negative_slope or op.threshold or op.max_value not in (None, 6):
        return "leaky_relu"
    return "relu"


def _own(kind: str, name: str) -> bool:
    """Whether a layer's output has a range of its own."""
    if name in FIXED:
        return False
    return kind in OWN or kind in OUTPUTS or (kind in ("Activation", "ReLU") and name != "linear")


def _goes_on(graph: Graph, call: Call, kind: str, name: str) -> bool:
    """Whether what a call makes is no tensor of its own: its only reader is the same operator."""
    if name != "linear":
        return False
    made = call.outputs[0]
    while True:
        readers = graph.readers.get(made, ())
        if len(readers) != 1 or made in graph.outputs:
            return False
        (reader,) = readers
        if not _through(reader.op):
            break
        made = reader.outputs[0]
    then = type(reader.op).__name__
    if then == "BatchNormalization":
        return kind in OUTPUTS and graph.times[call.name] == graph.times[reader.name] == 1
    fused = then in ("ReLU", "Activation") and activation(reader.op) in FUSED
    return (fused or then in ("Relu", "Relu6")) and (
        kind in OUTPUTS or kind in SUMS or kind == "BatchNormalization"
    )


def _through(op: Any) -> bool:
    kind = type(op).__name__
    return kind in THROUGH or (kind == "Activation" and activation(op) == "linear")
