"""What earlier stages promise of the weights, kept while later ones train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Step
from edgecompress.channels.graph import Graph, read_weights, trace
from edgecompress.datafree import fold
from edgecompress.training.bridge import Bridged
from edgecompress.training.finetune import copied
from edgecompress.training.fit import Hook
from edgecompress.training.kernels import Kernel, kernels, variable

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int32]


def masks(steps: Sequence[Step], graph: Graph) -> Mapping[Kernel, Bool]:
    """The kernels that `sparsify` made sparse, and where they are not zero."""
    return {
        kernel: read_weights(op)[kernel.weight] != 0
        for kernel, op in _promised(steps, "sparsify", graph)
    }


def labels(steps: Sequence[Step], graph: Graph) -> Mapping[Kernel, Int]:
    """The kernels that `cluster` clustered, and the number of each weight's cluster, from 0."""
    found = {}
    for kernel, op in _promised(steps, "cluster", graph):
        weights = read_weights(op)[kernel.weight]
        numbers = np.unique(weights, return_inverse=True)[1]
        found[kernel] = numbers.reshape(weights.shape).astype(np.int32)
    return found


def upright(model: keras.Model) -> keras.Model:
    """A copy that computes the same, without a negative gamma behind a kernel.

    BatchNormalization, folded, multiplies the weights of an output by gamma over the deviation: a
    negative one turns their signs, and a kernel of k distinct weights would become one of 2k. So
    the signs go into the kernel, the bias and the moving mean first.
    """
    model = copied(model)
    graph = trace(model)
    by_layer = {kernel.layer: kernel for kernel in kernels(graph) if kernel.key == kernel.layer}
    for layer, norm in fold.pairs(graph):
        known, own = read_weights(norm.op), read_weights(layer.op)
        signs = np.where(known.get("gamma", np.ones(1)) < 0, np.float32(-1), np.float32(1))
        if not (signs < 0).any():
            continue
        kernel = by_layer[layer.name]
        own[kernel.weight] = own[kernel.weight] * kernel.back(signs)
        if "bias" in own:
            own["bias"] = own["bias"] * signs
        layer.op.set_weights(list(own.values()))
        for key in ("gamma", "moving_mean"):
            known[key] = known[key] * signs
        norm.op.set_weights(list(known.values()))
    return model


def keep_zeros(bridged: Bridged, kept: Mapping[Kernel, Bool]) -> Hook:
    """After a step of training: zeros of the kernels `kept` become zero again."""
    pairs = [(variable(bridged, kernel), mask.astype(np.float32)) for kernel, mask in kept.items()]

    def hook(step: int, total: int) -> None:
        for weights, mask in pairs:
            weights.assign(weights * mask)

    return hook


def keep_signs(bridged: Bridged, clustered: Iterable[Kernel]) -> Hook:
    """After a step of training: no gamma behind the kernels `clustered` is negative."""
    import tensorflow as tf

    layers = {kernel.layer for kernel in clustered}
    gammas = [
        bridged.variables[norm.name]["gamma"]
        for layer, norm in fold.pairs(bridged.graph)
        if layer.name in layers and "gamma" in bridged.variables[norm.name]
    ]

    def hook(step: int, total: int) -> None:
        for gamma in gammas:
            gamma.assign(tf.maximum(gamma, 0.0))

    return hook


def both(*hooks: Hook) -> Hook:
    """All of them, one after the other."""

    def hook(step: int, total: int) -> None:
        for each in hooks:
            each(step, total)

    return hook


def _promised(steps: Sequence[Step], stage: str, graph: Graph) -> Iterable[tuple[Kernel, Any]]:
    """The kernels that the last step of `stage` promises something of, with their layers."""
    promised: Mapping[str, Any] = next(
        (step.effect["kernels"] for step in reversed(steps) if step.stage == stage), {}
    )
    ops = {name: op for name, op, _ in graph.layers()}
    return [(kernel, ops[kernel.layer]) for kernel in kernels(graph) if kernel.key in promised]
