"""The layers that sum over channels, with their kernels as (taps, channels, outputs)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from edgecompress.channels import View
from edgecompress.channels.atoms import Ids
from edgecompress.channels.graph import Call, Graph, Weights, read_weights
from edgecompress.datafree.statistics import (
    Array,
    Moments,
    Statistics,
    coverage,
    fading,
    patch_covariance,
)

MOST_INPUTS = 2048
"""Inputs of an output up to which the covariances of all of them are looked at."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that sums over the channels of what it reads, of which the moments are known.

    `ids` has an atom per channel of the tensor. The kernel is the weight `kernel` with its input
    channels on `axis`; its taps are the positions of the window in row-major order, of a Dense
    behind a Flatten those of the image. `inside` (taps,) is the share of output positions at
    which a tap is inside the image.
    """

    name: str
    layer: Any
    calls: tuple[Call, ...]
    kernel: str
    axis: int
    ids: Ids
    groups: int
    weights: Weights
    inside: Array
    read: Moments

    def rows(self) -> Array:
        """The kernel as (taps, channels / groups, outputs) float64."""
        kernel = np.moveaxis(self.weights[self.kernel], self.axis, -2)
        inner = len(self.ids) // self.groups
        return kernel.reshape(-1, inner, kernel.shape[-1]).astype(np.float64)

    def with_rows(self, rows: Array) -> Weights:
        """The layer's weights with a kernel of these `rows`."""
        old = self.weights[self.kernel]
        shape = np.moveaxis(old, self.axis, -2).shape
        new = np.moveaxis(rows.reshape(shape), -2, self.axis)
        return {**self.weights, self.kernel: np.ascontiguousarray(new, dtype=old.dtype)}

    def near(self) -> Array:
        """How the taps correlate where nothing tells, (taps, taps): `fading`.

        The positions of a flattened image are taken as independent.
        """
        if not self.window:
            return np.eye(len(self.inside))
        return fading(self.window, getattr(self.layer, "dilation_rate", 1))

    def patches(self, channels: slice) -> Array | None:
        """The covariance of all that the kernel reads of some channels at one position,
        (taps * channels, same), the channels inside; None where nothing is known of how the
        positions correlate, or of more than MOST_INPUTS."""
        read = part(self.read, channels)
        if not self.window or len(self.inside) * len(read.mean) > MOST_INPUTS:
            return None
        rows, columns = (1, *self.window)[-2:]
        steps = (1, *getattr(self.layer, "dilation_rate", (1, 1)))[-2:]
        return patch_covariance(read, (rows, columns), (steps[0], steps[1]))

    @property
    def window(self) -> tuple[int, ...]:
        """The taps along each axis of an image; empty for a Dense."""
        return tuple(self.weights[self.kernel].shape[:-2])

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """The channels that are read together and the outputs made of them: one part, or one for
        each group of a grouped convolution."""
        inner = len(self.ids) // self.groups
        outer = self.rows().shape[-1] // self.groups
        for g in range(self.groups):
            yield slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)


def source(graph: Graph, call: Call) -> tuple[int, tuple[int, ...]]:
    """The tensor that a call reads before any layer of padding, and the zeros that these put in
    front of each spatial axis (empty without such a layer)."""
    index = call.inputs[0]
    before: tuple[int, ...] = ()
    makers = graph.makers
    while index in makers and type(makers[index].op).__name__.startswith("ZeroPadding"):
        padding = makers[index].op.padding
        pairs = (padding,) if isinstance(padding[0], int) else padding
        front = tuple(int(pair[0]) for pair in pairs)
        before = tuple(map(sum, zip(before or (0,) * len(front), front, strict=True)))
        index = makers[index].inputs[0]
    return index, before


def readers(view: View, statistics: Statistics) -> Iterator[Reader]:
    """The layers of the view that sum over channels of known moments, in order of their calls.

    Left out is what reads the channels in an order that repeats no pattern of them, as behind a
    Flatten after a Permute.
    """
    layers = {name: (op, calls) for name, op, calls in view.graph.layers()}
    for name, kernel, axis in view.axes("in"):
        op, calls = layers[name]
        read, weights = statistics.read.get(name), read_weights(op)
        groups = getattr(op, "groups", 1)
        if read is None:
            continue
        ids, channels = np.tile(axis.ids, groups), len(read.mean)
        if len(ids) % channels or (ids.reshape(-1, channels) != ids[:channels]).any():
            continue
        taps = len(ids) // channels * prod(weights[kernel].shape[:-2])
        inside = np.ones(taps)
        if kernel == "kernel" and hasattr(op, "strides"):
            inside = shares(view.graph, calls[0])
        yield Reader(
            name,
            op,
            tuple(calls),
            kernel,
            axis.axis,
            ids[:channels],
            groups,
            weights,
            inside,
            read,
        )


def part(read: Moments, channels: slice) -> Moments:
    """The moments of some of the channels."""
    return replace(
        read,
        mean=read.mean[channels],
        covariance=read.covariance[channels, channels],
        filters=None if read.filters is None else read.filters[channels],
        offsets=None if read.offsets is None else read.offsets[channels],
        spread=None if read.spread is None else read.spread[..., channels, channels],
        rounded=None
        if read.rounded is None
        else (read.rounded[0][channels], read.rounded[1][channels]),
    )


def shares(graph: Graph, call: Call) -> Array:
    """`coverage` of all taps of a convolution, in row-major order; padding layers are outside."""
    op, made = call.op, graph.output_shape(call)
    index, padded = source(graph, call)
    read, whole = graph.shapes[index], graph.input_shapes(call)[0]
    transposed = "Transpose" in type(op).__name__
    shares = []
    for axis, (taps, stride, dilation) in enumerate(
        zip(op.kernel_size, op.strides, op.dilation_rate, strict=True)
    ):
        size, out = read[1 + axis], made[1 + axis]
        wide = (taps - 1) * dilation + 1
        if size is None or out is None:
            shares.append(np.ones(taps))
            continue
        if transposed:
            before = leading(op.padding, out, wide, stride, size)
            # From input position i, tap t reaches output i * stride + t - before.
            reached = coverage(out, wide, stride, before, size) * size / out
            shares.append(reached[::dilation])
            continue
        before = leading(op.padding, whole[1 + axis] or size, wide, stride, out)
        before += padded[axis] if padded else 0
        shares.append(coverage(size, wide, stride, before, out)[::dilation])
    return np.asarray(reduce(np.multiply.outer, shares)).reshape(-1)


def leading(padding: str, size: int, wide: int, stride: int, out: int) -> int:
    """Zeros in front of an axis, as Keras pads."""
    if padding == "causal":
        return wide - 1
    return max((out - 1) * stride + wide - size, 0) // 2 if padding == "same" else 0
