"""The kernels of a model as rows, with the moments of what they multiply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Call, Graph, Weights, read_weights
from edgecompress.datafree import fold
from edgecompress.datafree.readers import MOST_INPUTS, shares
from edgecompress.datafree.statistics import Array, Moments, Statistics, fading, patch_covariance


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a layer: `order` brings its axes to (window..., channels, outputs...)."""

    call: Call
    weight: str
    array: npt.NDArray[Any]
    order: tuple[int, ...]
    depthwise: bool
    taps: int

    @property
    def rows(self) -> Array:
        """(taps, channels that an output sums over, outputs), float64."""
        moved = self.array.transpose(self.order).astype(np.float64)
        outputs = moved.shape[-1] * (moved.shape[-2] if self.depthwise else 1)
        return moved.reshape(self.taps, -1, outputs)

    def back(self, rows: Array) -> Array:
        """`rows`, or one number per output, in the shape and order of the kernel."""
        moved = [self.array.shape[axis] for axis in self.order]
        if rows.ndim == 1:
            kept = 2 if self.depthwise else 1
            moved = [1] * (len(moved) - kept) + moved[-kept:]
        return np.asarray(rows.reshape(moved).transpose(np.argsort(self.order)))


def kernels(graph: Graph, statistics: Statistics) -> Iterator[Kernel]:
    """Every kernel that is quantised, in graph order; that of a shared layer once."""
    for _, op, calls in graph.layers():
        kind = type(op).__name__
        if kind not in fold.OUTPUTS:
            continue
        weights, call = read_weights(op), calls[0]
        if kind.startswith("Separable"):
            yield _kernel(call, "depthwise_kernel", weights, depthwise=True)
        weight, axes = fold.OUTPUTS[kind]
        if kind != "Dense":
            yield _kernel(call, weight, weights, depthwise=len(axes) == 2, flip=axes == (-2,))
            continue
        rows, read = len(weights[weight]), statistics.read.get(call.name)
        channels = rows if read is None or rows % len(read.mean) else len(read.mean)
        yield Kernel(call, weight, weights[weight], (0, 1), False, rows // channels)


def _kernel(
    call: Call, weight: str, weights: Weights, *, depthwise: bool, flip: bool = False
) -> Kernel:
    name = weight if weight in weights else "kernel"
    array = weights[name]
    window = tuple(range(array.ndim - 2))
    order = (*window, array.ndim - 1, array.ndim - 2) if flip else tuple(range(array.ndim))
    return Kernel(call, name, array, order, depthwise, int(np.prod(array.shape[:-2])))


def second_moments(kernel: Kernel, read: Moments | None) -> list[Array]:
    """The central second moments of the inputs of the outputs, (taps * channels, same), one matrix
    a group of outputs; of independent inputs of variance 1 where they are not known.

    Half of what the covariances of neighbouring positions are modelled to be, and half of what
    they are where they fade with the distance alone: each errs elsewhere. Beyond MOST_INPUTS inputs
    it is their variances (taps * channels,) alone.
    """
    window = kernel.array.shape[:-2]
    dilation = kernel.call.op.dilation_rate if window else ()
    near = fading(window, dilation) if window else np.eye(kernel.taps)
    inner = kernel.rows.shape[1]
    if kernel.depthwise:
        return [near]
    plain = [np.eye(inner)]
    known = read is not None and not len(read.mean) % inner
    if read is not None and known:
        plain = [read.covariance[part, part] for part in _parts(len(read.mean), inner)]
    if kernel.taps * inner > MOST_INPUTS:
        return [np.tile(np.diag(covariance), kernel.taps) for covariance in plain]
    alike = [np.kron(near, covariance) for covariance in plain]
    if read is None or not known or not window:
        return alike
    rows, columns = (1, *window)[-2:]
    shape = (kernel.taps, len(read.mean), kernel.taps, len(read.mean))
    patches = patch_covariance(read, (rows, columns), (1, *dilation)[-2:])
    if patches is None:
        return alike
    full = patches.reshape(shape)
    own = [
        full[:, part, :, part].reshape(kernel.taps * inner, -1)
        for part in _parts(len(read.mean), inner)
    ]
    return [(a + b) / 2 for a, b in zip(own, alike, strict=True)]


def _parts(channels: int, inner: int) -> list[slice]:
    return [slice(at, at + inner) for at in range(0, channels, inner)]


def mean_output(graph: Graph, kernel: Kernel, rows: Array, read: Moments) -> Array | None:
    """The mean of what `rows`, in place of the kernel's own, make of the inputs, (outputs,).

    None where the mean of the inputs is unknown, as of the first half of a separable convolution.
    """
    separable = type(kernel.call.op).__name__.startswith("Separable")
    if separable and kernel.depthwise:
        return None
    inside = np.ones(kernel.taps)
    if hasattr(kernel.call.op, "strides") and not separable:
        inside = shares(graph, kernel.call)
    summed = np.einsum("t,tco->co", inside, rows)
    if kernel.depthwise:
        return np.asarray(summed[0] * np.repeat(read.mean, len(summed[0]) // len(read.mean)))
    parts = read.mean.reshape(-1, len(summed))
    outputs = np.split(summed, len(parts), axis=-1)
    return np.hstack([mean @ part for mean, part in zip(parts, outputs, strict=True)])
