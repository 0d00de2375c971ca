"""What each kind of layer does to a field: one rule per kind, one line per layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress.channels.graph import Call, Graph, read_weights
from edgecompress.channels.rules import by_name
from edgecompress.datafree import activations, fields
from edgecompress.datafree.fields import Field, Pair, Window
from edgecompress.datafree.statistics import Array

_UNKNOWN_SIZE = 32
_PIXELS = 127.5, 64.0
"""Mean and deviation of unscaled images."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer that is linear in what it reads: kernel (kh, kw, in, out), or depthwise."""

    kernel: Array
    bias: Array
    over: Window
    depthwise: bool

    def rows(self) -> Array:
        """The outputs' means as a matrix (out, in) on the inputs' means, edges included."""
        if not self.depthwise:
            return np.asarray(np.einsum("hw,hwio->oi", self.over.coverage, self.kernel))
        share = np.einsum("hw,hwim->im", self.over.coverage, self.kernel)
        channels, multiplier = share.shape
        rows = np.zeros((channels * multiplier, channels))
        rows[np.arange(len(rows)), np.repeat(np.arange(channels), multiplier)] = share.ravel()
        return rows

    def doubt(self, variance: Array) -> Array:
        """By how much the border may spoil the outputs' means (out,): a variance.

        The means of the first and last rows and columns, which the edge taps miss, differ from
        those of the image by a share of the deviations.
        """
        rows, columns = self.over.missed
        k = self.kernel
        if self.depthwise:
            k = (k * np.sqrt(variance)[:, None]).reshape(*k.shape[:2], 1, -1)
        else:
            k = k * np.sqrt(variance)[:, None]
        missed = np.einsum("hio,h->o", k.sum(1) ** 2, rows**2)
        return np.asarray(missed + np.einsum("wio,w->o", k.sum(0) ** 2, columns**2))

    def variances(self, decay: tuple[float, float], mix: float) -> Array:
        """Variances of the outputs on an input like `fields.white`, the border left out."""
        kernel = self.kernel
        if self.depthwise:
            kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        (kh, kw), (dh, dw) = kernel.shape[:2], self.over.dilation
        rows, columns = (dh * np.arange(kh).repeat(kw), dw * np.tile(np.arange(kw), kh))
        near = fields.decline(
            np.subtract.outer(rows, rows), np.subtract.outer(columns, columns), decay
        )
        taps = kernel.reshape(kh * kw, *kernel.shape[2:])
        own = np.einsum("sck,st,tck->k", taps, near, taps, optimize=True)
        shared = taps.sum(axis=1)
        every = np.einsum("sk,st,tk->k", shared, near, shared, optimize=True)
        return np.asarray((1 - mix) * own + mix * every)

    def __call__(self, x: Field) -> Field:
        step = fields.depthwise if self.depthwise else fields.convolved
        return replace(step(x, self.kernel, self.bias, self.over), source="propagated")


@dataclass(frozen=True, eq=False)
class Site:
    """One call as a rule sees it."""

    call: Call
    op: Any
    graph: Graph
    ins: tuple[Field, ...]

    @property
    def x(self) -> Field:
        """The first input."""
        return self.ins[0]

    @property
    def out(self) -> Pair:
        """The output's image size."""
        return image(self.graph.output_shape(self.call))


def unknown(channels: int, size: Pair) -> Field:
    """A model input of which nothing is known: mean 0, variance 1."""
    return fields.white(channels, size, (0.9, 0.9), 0.8 if channels == 3 else 0.0)


def image(shape: tuple[int | None, ...]) -> Pair:
    """The image size behind a tensor's shape: (H, W), (1, steps) or (1, 1)."""
    sizes = [1, 1, *(_UNKNOWN_SIZE if size is None else size for size in shape[1:-1])]
    return sizes[-2], sizes[-1]


def sums(op: Any) -> bool:
    return type(op).__name__ in _CONVOLUTIONS


def _pair(value: Any) -> Pair:
    """A layer's per-axis setting as (rows, columns)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def linear(site: Site) -> Linear | None:
    """The kernel, bias and window of a layer that is linear in what it reads; None for others."""
    kind = type(site.op).__name__
    if kind not in _CONVOLUTIONS:
        return None
    weights = {k: v.astype(np.float64) for k, v in read_weights(site.op).items()}
    name = "depthwise_kernel" if kind.startswith("Separable") else "kernel"
    kernel = weights[name]
    if kind == "Dense":
        return _dense(site, kernel, weights.get("bias"))
    if kernel.ndim == 3:
        kernel = kernel[None]
    depthwise = kind.startswith(("Depthwise", "Separable"))
    groups = getattr(site.op, "groups", 1)
    if groups > 1 and not depthwise:
        kernel = _dense_groups(kernel, groups)
    over = _window(site, (kernel.shape[0], kernel.shape[1]))
    outputs = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
    bias = weights.get("bias") if not kind.startswith("Separable") else None
    return Linear(kernel, np.zeros(outputs) if bias is None else bias, over, depthwise)


def pointwise(op: Any, y: Field) -> Linear:
    """The second half of a SeparableConv."""
    weights = {k: v.astype(np.float64) for k, v in read_weights(op).items()}
    kernel = weights["pointwise_kernel"]
    kernel = kernel.reshape(1, 1, *kernel.shape[-2:])
    bias = weights.get("bias", np.zeros(kernel.shape[-1]))
    over = fields.window(y.size, (1, 1), (1, 1), (1, 1), (0, 0), y.size)
    return Linear(kernel, bias, over, False)


def _dense(site: Site, kernel: Array, bias: Array | None) -> Linear:
    """A Dense layer as a convolution: 1x1, or as large as the image that was flattened."""
    x = site.x
    bias = np.zeros(kernel.shape[-1]) if bias is None else bias
    taps = x.size if x.flat else (1, 1)
    out = (1, 1) if x.flat else x.size
    over = fields.window(x.size, taps, (1, 1), (1, 1), (0, 0), out)
    return Linear(kernel.reshape(*taps, -1, kernel.shape[-1]), bias, over, False)


def _dense_groups(kernel: Array, groups: int) -> Array:
    """The kernel of a grouped convolution with the zeros written out."""
    kh, kw, part, outputs = kernel.shape
    whole = np.zeros((kh, kw, part * groups, outputs))
    each = outputs // groups
    for g in range(groups):
        rows, columns = slice(g * part, (g + 1) * part), slice(g * each, (g + 1) * each)
        whole[:, :, rows, columns] = kernel[..., columns]
    return whole


def _window(site: Site, taps: Pair) -> Window:
    """Where the kernel or pool of a layer goes, padding of layers before included."""
    op, x, out = site.op, site.x, site.out
    stride = _pair(op.strides)
    dilation = _pair(getattr(op, "dilation_rate", (1, 1)))
    padding = op.padding
    before = []
    for axis in (0, 1):
        reach = (taps[axis] - 1) * dilation[axis] + 1
        size = x.size[axis] + sum(x.pad[axis])
        extra = max((out[axis] - 1) * stride[axis] + reach - size, 0)
        own = {"same": extra // 2, "causal": reach - 1 if axis == 1 else 0}.get(padding, 0)
        before.append(own + x.pad[axis][0])
    return fields.window(x.size, taps, stride, dilation, (before[0], before[1]), out)


def element(site: Site) -> Field | None:
    """The output of a layer that mixes no channels; None where there is no rule."""
    phi = activations.of(site.op)
    if phi is not None:
        return fields.applied(site.x, phi)
    rule = _RULES.get(type(site.op).__name__)
    return None if rule is None else rule(site)


def _batch_norm(site: Site) -> Field | None:
    """Mean beta, deviation |gamma| where the statistics are known; an affine map in any case."""
    weights = {k: v.astype(np.float64) for k, v in read_weights(site.op).items()}
    mean, variance = weights["moving_mean"], weights["moving_variance"]
    axis = site.op.axis if isinstance(site.op.axis, int) else site.op.axis[0]
    last = axis in (-1, len(site.graph.input_shapes(site.call)[0]) - 1)
    if not last or len(mean) != len(site.x.mean):
        return None
    factor = weights.get("gamma", np.ones(len(mean))) / np.sqrt(variance + site.op.epsilon)
    shift = weights.get("beta", np.zeros(len(mean))) - factor * mean
    return fields.scaled(site.x, factor, shift)


def _pool(site: Site) -> Field | None:
    average = "Average" in type(site.op).__name__
    if type(site.op).__name__.startswith("Global"):
        over = fields.window(site.x.size, site.x.size, (1, 1), (1, 1), (0, 0), (1, 1))
    else:
        over = _window(site, _pair(site.op.pool_size))
    return (fields.averaged if average else fields.largest)(site.x, over)


def _padding(site: Site) -> Field | None:
    value = site.op.padding
    pairs = (value,) if isinstance(value, int) or isinstance(value[0], int) else tuple(value)
    both = [(p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in pairs]
    rows, columns = ((0, 0), both[0]) if len(both) == 1 else (both[0], both[1])
    old = site.x.pad
    pad = (
        (old[0][0] + rows[0], old[0][1] + rows[1]),
        (old[1][0] + columns[0], old[1][1] + columns[1]),
    )
    return replace(site.x, pad=pad, behind=None)


def _reshape(site: Site) -> Field | None:
    """Flatten, and a Reshape that keeps the channels or only names the axes of a model input."""
    x, shape = site.x, site.graph.output_shape(site.call)
    channels, size = int(shape[-1] or 0), image(shape)
    count = len(x.mean)
    if x.flat:
        return None if (channels, size) != (count, x.size) else replace(x, flat=False)
    if channels == count * x.size[0] * x.size[1] and size == (1, 1):
        return replace(x, flat=x.size != (1, 1))
    if channels == count and size == x.size:
        return x
    if x.free:
        return unknown(channels, size)
    if channels == count and size == (1, x.size[0] * x.size[1]):
        line = fields.resampled(x.spread, (1, min(x.size[1], x.spread.shape[1])), (1, 1))
        return replace(x, spread=line, size=size, behind=None)
    return None


def _upsampled(site: Site) -> Field | None:
    x, out = site.x, site.out
    step = x.size[0] / out[0], x.size[1] / out[1]
    grid = fields.torus(out, len(x.mean))
    return replace(x, spread=fields.resampled(x.spread, grid, step), size=out)


def rescaling(op: Any, channels: int) -> tuple[Array, Array] | None:
    """Factor and shift (C,) of a Rescaling or of an adapted Normalization; None for others."""
    if type(op).__name__ == "Rescaling":
        factor, shift = op.scale, op.offset
    elif type(op).__name__ == "Normalization":
        deviation = np.maximum(np.sqrt(_numbers(op.variance)), 1e-7)
        factor, shift = 1.0 / deviation, -_numbers(op.mean) / deviation
        if op.invert:
            factor, shift = deviation, _numbers(op.mean)
    else:
        return None
    factor, shift = _numbers(factor).ravel(), _numbers(shift).ravel()
    if {factor.size, shift.size} - {1, channels}:
        return None
    return np.broadcast_to(factor, (channels,)), np.broadcast_to(shift, (channels,))


def _numbers(value: Any) -> Array:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), dtype=np.float64)


def _rescaled(site: Site) -> Field | None:
    """A model input comes out of a Normalization with mean 0 and variance 1; one of unknown scale
    is scaled as pixels are, where that makes small numbers of them."""
    x = site.x
    affine = rescaling(site.op, len(x.mean))
    if affine is None:
        return None
    if x.free and type(site.op).__name__ == "Normalization" and not site.op.invert:
        normal = fields.anchored(x, np.zeros_like(x.mean), np.ones_like(x.mean))
        return replace(normal, known=True)
    if x.known or not x.free:
        return fields.scaled(x, *affine)
    mean, deviation = _PIXELS
    centre, width = affine[0] * mean + affine[1], np.abs(affine[0]) * deviation
    if (width < 4.0).all() and (np.abs(centre) < 8.0).all():
        return replace(fields.anchored(x, centre, np.square(width)), known=True)
    return x


def _sum(signs: Callable[[int], list[float]]) -> Callable[[Site], Field | None]:
    def rule(site: Site) -> Field | None:
        shapes = set(site.graph.input_shapes(site.call))
        if len(shapes) > 1 or len(site.ins) < 2:
            return None
        return fields.added(site.ins, signs(len(site.ins)))

    return rule


def _average(site: Site) -> Field | None:
    x = _sum(lambda n: [1.0] * n)(site)
    share = np.full(len(site.x.mean), 1.0 / len(site.ins))
    return None if x is None else fields.scaled(x, share, np.zeros(len(share)))


def _multiply(site: Site) -> Field | None:
    if len(site.ins) != 2 or len(site.ins[0].mean) != len(site.ins[1].mean):
        return None
    a, b = sorted(site.ins, key=lambda f: f.size == (1, 1))
    return fields.product(a, b) if b.size in (a.size, (1, 1)) else None


def _concatenate(site: Site) -> Field | None:
    rank = len(site.graph.output_shape(site.call))
    if any(f.flat for f in site.ins):
        return None
    if site.op.axis in (-1, rank - 1):
        return fields.joined(site.ins)
    return fields.stacked(site.ins, site.out)


def _same(site: Site) -> Field | None:
    return replace(site.x, size=site.out) if not site.x.flat else site.x


Rule = Callable[[Site], "Field | None"]

_CONVOLUTIONS = frozenset(
    "Dense Conv1D Conv2D DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D".split()
)
TRANSPARENT = frozenset(
    "Dropout SpatialDropout1D SpatialDropout2D GaussianDropout GaussianNoise AlphaDropout Identity"
    " ActivityRegularization ZeroPadding1D ZeroPadding2D AveragePooling1D AveragePooling2D"
    " GlobalAveragePooling1D GlobalAveragePooling2D Flatten".split()
)
"""Layers that keep the means of every channel."""


_RULES = by_name(
    {
        "BatchNormalization": _batch_norm,
        "AveragePooling1D AveragePooling2D GlobalAveragePooling1D GlobalAveragePooling2D"
        " MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D": _pool,
        "ZeroPadding1D ZeroPadding2D": _padding,
        "Flatten Reshape": _reshape,
        "UpSampling1D UpSampling2D": _upsampled,
        "Rescaling Normalization": _rescaled,
        "Add": _sum(lambda n: [1.0] * n),
        "Subtract": _sum(lambda n: [1.0, -1.0]),
        "Average": _average,
        "Multiply": _multiply,
        "Concatenate": _concatenate,
        "Dropout SpatialDropout1D SpatialDropout2D GaussianDropout GaussianNoise AlphaDropout"
        " Identity ActivityRegularization Cropping1D Cropping2D": _same,
    }
)
