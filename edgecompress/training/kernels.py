"""The kernels of a model that stages make sparse, cluster and quantise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress.channels.graph import Graph, read_weights
from edgecompress.datafree.fold import OUTPUTS
from edgecompress.errors import ConfigError
from edgecompress.training.bridge import Bridged

Array = Any
"""A numpy array or a tensor."""

DEPTHWISE = "/depthwise"
"""Behind a layer's name: the first kernel of a separable convolution."""
SMALLEST = 64
"""Kernels of fewer weights are neither made sparse nor clustered: there is nothing to win."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a layer, of the class `kind`: `weight` is its Keras 3 name, `shape` its shape.

    `order` brings its axes to (outputs..., window..., inputs), the first `leading` of them being
    outputs: the order in which a flatbuffer has the weights. `trainable` is the layer's, `path` its
    name behind those of the models it is nested in (`block/conv`).
    """

    layer: str
    kind: str
    weight: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    leading: int
    trainable: bool
    path: str

    @property
    def key(self) -> str:
        """The kernel's name in the effect of a step: the layer's, with DEPTHWISE for the first
        kernel of a separable convolution."""
        return self.layer + (DEPTHWISE if self.weight == "depthwise_kernel" else "")

    def row(self, values: Array) -> dict[str, Any]:
        """What a step says of the kernel, whose weights are now `values`: how it is found in a
        flatbuffer (the layer's path; (outputs, rest)), and whether any weight is not 0."""
        return {
            "weight": self.weight,
            "path": self.path,
            "shape": [self.outputs, self.size // self.outputs],
            "alive": bool(np.any(values)),
        }

    @property
    def depthwise(self) -> bool:
        """Whether each output reads one channel."""
        return self.leading == 2

    @property
    def attribute(self) -> str:
        """What the layer in tf_keras calls it."""
        return "depthwise_kernel" if self.depthwise else self.weight

    @property
    def size(self) -> int:
        """How many weights there are."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        return math.prod(self._moved[: self.leading])

    @property
    def inputs(self) -> int:
        """How many channels an output sums over at each place of the window."""
        return 1 if self.depthwise else self._moved[-1]

    @property
    def _moved(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.order)

    def rows(self, kernel: Array, xp: Any = np) -> Array:
        """(outputs, rest): the weights of each output as a flatbuffer has them; `xp` is numpy or
        tensorflow."""
        return xp.reshape(xp.transpose(kernel, self.order), (self.outputs, -1))

    def back(self, rows: Array, xp: Any = np) -> Array:
        """Rows (outputs, rest), or one number per output (outputs,), in the kernel's own axes."""
        moved = self._moved
        if len(rows.shape) == 1:
            moved = moved[: self.leading] + (1,) * (len(moved) - self.leading)
        inverse = [int(axis) for axis in np.argsort(self.order)]
        return xp.transpose(xp.reshape(rows, moved), inverse)


def kernels(graph: Graph) -> Iterator[Kernel]:
    """Every kernel of the model, in graph order; that of a shared layer once."""
    paths = _paths(graph.function, "")
    for name, op, _ in graph.layers():
        kind = type(op).__name__
        if kind not in OUTPUTS:
            continue
        if kind.startswith("Separable"):
            yield _kernel(name, op, "depthwise_kernel", (-2, -1), paths[id(op)])
        weight, axes = OUTPUTS[kind]
        yield _kernel(name, op, weight, axes, paths[id(op)])


def chosen(graph: Graph, protect: Sequence[str], stage: str) -> list[Kernel]:
    """The kernels that `stage` works on: those of at least SMALLEST weights, outside the layers
    `protect` (names, or classes such as DepthwiseConv2D, which a model need not have) and those
    that are frozen.

    Raises ConfigError where a protected layer is not in the model, and where none is left.
    """
    every = list(kernels(graph))
    known = {kernel.layer for kernel in every}
    for name in protect:
        if name not in known and name not in OUTPUTS:
            raise ConfigError(
                f"{stage}.protect: the model has no layer {name!r} with a kernel; it has:"
                f" {', '.join(sorted(known))}; or name a class, such as DepthwiseConv2D"
            )
    left = [
        kernel
        for kernel in every
        if not {kernel.layer, kernel.kind} & {*protect}
        and kernel.trainable
        and kernel.size >= SMALLEST
    ]
    if not left:
        raise ConfigError(
            f"{stage}: the model has no kernel of at least {SMALLEST} weights that is neither"
            f" protected nor frozen; leave {stage} out"
        )
    return left


def variable(bridged: Bridged, kernel: Kernel) -> Any:
    """The tf.Variable of a kernel."""
    return bridged.variables[kernel.layer][kernel.weight]


def grid(kernel: Kernel, bits: int, points: Array, scales: Array) -> dict[str, Any]:
    """What a step says of a kernel whose weights are `points`, signed whole numbers of `bits` bits,
    times `scales` (float32): one for each output, or a single one."""
    return {**kernel.row(points), "bits": bits, "scales": scales.astype(float).tolist()}


def _paths(model: Any, prefix: str) -> dict[int, str]:
    """The path of every layer in a model, by the layer's id."""
    found: dict[int, str] = {}
    for layer in model.layers:
        own = prefix + layer.name
        inner = _paths(layer, f"{own}/") if hasattr(layer, "layers") else {id(layer): own}
        found = {**inner, **found}
    return found


def _kernel(name: str, op: Any, weight: str, axes: tuple[int, ...], path: str) -> Kernel:
    shape = read_weights(op)[weight].shape
    rank = len(shape)
    first = tuple(rank + axis for axis in axes)
    rest = tuple(axis for axis in range(rank) if axis not in first)
    kind, trainable = type(op).__name__, bool(op.trainable)
    return Kernel(name, kind, weight, shape, first + rest, len(first), trainable, path)
