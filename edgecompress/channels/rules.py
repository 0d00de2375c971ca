"""How each layer carries channels: one rule per kind of layer, one line per layer.

A rule looks at the layouts of a call's inputs and says where the output's channels come from,
along which weight axes they lie, and which config keys count them. A rule that cannot keep
"masked equals cut" exact answers with a Barrier: the channels around the layer stay.

Barriers by decision, because the value of one channel depends on which others exist:
LayerNormalization, GroupNormalization, RMSNormalization, UnitNormalization, softmax over
channels; and per-channel constants in a config (Normalization, Rescaling with a list).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from edgecompress.channels.atoms import Atoms, Ids, Layout
from edgecompress.channels.graph import Shape

Side = Literal["in", "out", "through"]
"""in: the layer sums over these channels; out: it makes them; through: each keeps to itself."""

Count = Callable[[Ids], int]
Config = Callable[[Count], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class WeightAxis:
    """One axis of one weight that runs along channels: `ids` has an atom per index of it."""

    axis: int
    ids: Ids
    side: Side


@dataclass(frozen=True, eq=False)
class Flow:
    """What a layer does with channels.

    `weights` maps each weight's name to its channel axes; a weight without any is never sliced.
    `config` gives the config keys that count channels, from a function that counts the kept ones.
    """

    output: Layout
    weights: Mapping[str, tuple[WeightAxis, ...]] = field(default_factory=dict)
    config: Config | None = None


@dataclass(frozen=True)
class Barrier:
    """Channels must not change around this layer. `known` is False where no rule covers it."""

    reason: str
    known: bool = True


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a layer as a rule sees it; shapes include the batch dimension."""

    name: str
    layer: Any
    ins: tuple[Layout, ...]
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    constants: tuple[Any, ...]
    atoms: Atoms

    @property
    def x(self) -> Layout:
        """The layout of the first input."""
        return self.ins[0]


Rule = Callable[[Site], "Flow | Barrier"]
T = TypeVar("T")

_POINTWISE = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish tanh sigmoid softplus softsign exponential"
    " linear hard_sigmoid hard_silu hard_tanh hard_shrink soft_shrink tanh_shrink threshold"
    " log_sigmoid squareplus sparse_plus sparse_sigmoid".split()
)
_OVER_CHANNELS = frozenset(["softmax", "log_softmax", "sparsemax"])


def activation_barrier(layer: Any) -> Barrier | None:
    """Why the `activation` of a layer does not treat channels one by one; None when it does."""
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None:
        return None
    if str(getattr(activation, "__module__", "")).startswith("keras."):
        if name in _POINTWISE:
            return None
        if name in _OVER_CHANNELS:
            return Barrier(f"{name} over channels")
    return Barrier(f"activation {name} is not known to be element-wise", known=False)


def _produced(site: Site, n: int) -> Ids | Barrier:
    """The atoms of `n` new output channels, frozen where the activation mixes them."""
    barrier = activation_barrier(site.layer)
    if barrier is not None and not barrier.known:
        return barrier
    ids = site.atoms.fresh(n, owner=site.name)
    if barrier is not None:
        site.atoms.freeze(ids, f"{site.name}: {barrier.reason}")
    return ids


def _last(site: Site) -> Barrier | None:
    """A barrier unless the channels lie on the last axis, as the layer takes them."""
    if getattr(site.layer, "data_format", None) == "channels_first":
        return Barrier("data_format channels_first is not supported", known=False)
    if site.x.axis != -1:
        return Barrier("channels are not on the last axis")
    return None


def _linear(kernel_in: int, kernel_out: int, key: str) -> Rule:
    """A layer that sums over all input channels: the axes of its kernel, its config key."""

    def rule(site: Site) -> Flow | Barrier:
        barrier = _last(site)
        if barrier is not None:
            return barrier
        groups = getattr(site.layer, "groups", 1)
        if groups > 1:
            return _grouped(site, groups)
        out = _produced(site, int(site.out_shape[-1] or 0))
        if isinstance(out, Barrier):
            return out
        weights = {
            "kernel": (
                WeightAxis(kernel_in, site.x.ids, "in"),
                WeightAxis(kernel_out, out, "out"),
            ),
            "bias": (WeightAxis(-1, out, "out"),),
        }
        return Flow(Layout(-1, out), weights, lambda count: {key: count(out)})

    return rule


def _grouped(site: Site, groups: int) -> Flow | Barrier:
    """A grouped convolution; the kernel is (..., in / groups, out).

    One input channel per group (a depthwise convolution in disguise): removal takes whole groups.
    Otherwise channel k of every group goes at once, so that the groups stay equal.
    """
    x = site.x.ids
    per_group = len(x) // groups
    multiplier = int(site.out_shape[-1] or 0) // groups
    if per_group == 1:
        barrier = activation_barrier(site.layer)
        if barrier is not None:
            return barrier
        out = np.repeat(x, multiplier)
        through = (WeightAxis(-1, out, "through"),)
        return Flow(
            Layout(-1, out),
            {"kernel": through, "bias": through},
            lambda count: {"filters": count(out), "groups": count(x)},
        )
    first = _produced(site, multiplier)
    if isinstance(first, Barrier):
        return first
    site.atoms.union(np.tile(x[:per_group], groups), x)
    out = np.tile(first, groups)
    weights = {
        "kernel": (WeightAxis(-2, x[:per_group], "in"), WeightAxis(-1, out, "out")),
        "bias": (WeightAxis(-1, out, "out"),),
    }
    return Flow(Layout(-1, out), weights, lambda count: {"filters": count(out)})


def _depthwise(site: Site) -> Flow | Barrier:
    """Depthwise convolution: kernel (..., in, multiplier), output c * multiplier + m."""
    barrier = _last(site) or activation_barrier(site.layer)
    if barrier is not None:
        return barrier
    out = np.repeat(site.x.ids, site.layer.depth_multiplier)
    weights = {
        "kernel": (WeightAxis(-2, site.x.ids, "through"),),
        "bias": (WeightAxis(-1, out, "through"),),
    }
    return Flow(Layout(-1, out), weights)


def _separable(site: Site) -> Flow | Barrier:
    """Depthwise (..., in, multiplier), then pointwise (..., in * multiplier, out)."""
    barrier = _last(site)
    if barrier is not None:
        return barrier
    out = _produced(site, int(site.out_shape[-1] or 0))
    if isinstance(out, Barrier):
        return out
    inner = np.repeat(site.x.ids, site.layer.depth_multiplier)
    weights = {
        "depthwise_kernel": (WeightAxis(-2, site.x.ids, "through"),),
        "pointwise_kernel": (WeightAxis(-2, inner, "in"), WeightAxis(-1, out, "out")),
        "bias": (WeightAxis(-1, out, "out"),),
    }
    return Flow(Layout(-1, out), weights, lambda count: {"filters": count(out)})


def _batch_norm(site: Site) -> Flow | Barrier:
    """Inference batch normalisation: four vectors over its axis."""
    axis = site.layer.axis
    if (axis if axis < 0 else axis - len(site.in_shapes[0])) != site.x.axis:
        return Barrier("normalises another axis than the channels'")
    through = (WeightAxis(-1, site.x.ids, "through"),)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return Flow(site.x, dict.fromkeys(names, through))


def _prelu(site: Site) -> Flow | Barrier:
    """PReLU: alpha has the input's shape, 1 on shared axes."""
    shared = {a - len(site.in_shapes[0]) if a > 0 else a for a in site.layer.shared_axes or ()}
    own = site.x.axis not in shared
    axes = (WeightAxis(site.x.axis, site.x.ids, "through"),) if own else ()
    return Flow(site.x, {"alpha": axes})


def _elementwise(site: Site) -> Flow | Barrier:
    """The output's channels are the inputs' channels, position by position, with broadcasting."""
    if not site.ins or any(not isinstance(c, int | float | str | None) for c in site.constants):
        return Barrier("a constant array among its arguments", known=False)
    barrier = activation_barrier(site.layer)
    if barrier is not None:
        return barrier
    full = [x for x in site.ins if len(x.ids) == site.out_shape[x.axis]]
    if not full or len({x.axis for x in site.ins}) > 1:
        return Barrier("its inputs carry channels on different axes")
    for x in site.ins:
        if len(x.ids) == len(full[0].ids):
            site.atoms.union(full[0].ids, x.ids)
        else:
            site.atoms.freeze(x.ids, f"{site.name}: broadcast over channels")
    return Flow(full[0])


def _concatenate(site: Site) -> Flow | Barrier:
    """Along the channel axis the atoms follow each other; along another they are coupled."""
    axis = site.layer.axis
    axis = axis if axis < 0 else axis - len(site.out_shape)
    if len({x.axis for x in site.ins}) > 1:
        return Barrier("its inputs carry channels on different axes")
    if axis == site.x.axis:
        return Flow(Layout(axis, np.concatenate([x.ids for x in site.ins])))
    for x in site.ins[1:]:
        site.atoms.union(site.x.ids, x.ids)
    return Flow(site.x)


def _spatial(site: Site) -> Flow | Barrier:
    """Works on the axes between batch and channels, each channel by itself."""
    return _last(site) or Flow(site.x)


def _reshape(site: Site) -> Flow | Barrier:
    """Follow every element's atom through the new shape (row-major, as Keras reshapes)."""
    if getattr(site.layer, "data_format", None) == "channels_first":
        return Barrier("data_format channels_first is not supported", known=False)
    before = [size for size in site.in_shapes[0][1:] if size is not None]
    after = [size for size in site.out_shape[1:] if size is not None]
    if (len(before), len(after)) != (len(site.in_shapes[0]) - 1, len(site.out_shape) - 1):
        return Barrier("needs a static shape; load the model with a fixed input shape", known=False)
    spread = [1] * len(before)
    spread[site.x.axis] = -1
    elements = np.broadcast_to(site.x.ids.reshape(spread), before).reshape(after)
    varies = [k for k in range(len(after)) if (elements != elements.take([0], axis=k)).any()]
    if len(varies) > 1:
        return Barrier("spreads channels over several axes")
    axis = varies[0] if varies else len(after) - 1
    ids = np.moveaxis(elements, axis, 0).reshape(after[axis], -1)[:, 0]
    if not hasattr(site.layer, "target_shape"):
        return Flow(Layout(axis - len(after), ids))

    def config(count: Count) -> dict[str, Any]:
        return {"target_shape": (*after[:axis], count(ids), *after[axis + 1 :])}

    return Flow(Layout(axis - len(after), ids), config=config)


def _permute(site: Site) -> Flow | Barrier:
    """The channel axis moves with the permutation."""
    rank = len(site.out_shape)
    return Flow(Layout(1 + site.layer.dims.index(rank + site.x.axis) - rank, site.x.ids))


def _softmax(site: Site) -> Flow | Barrier:
    axes = site.layer.axis if isinstance(site.layer.axis, list | tuple) else [site.layer.axis]
    rank = len(site.out_shape)
    if any((a if a < 0 else a - rank) == site.x.axis for a in axes):
        return Barrier("softmax over channels")
    return Flow(site.x)


def _rescaling(site: Site) -> Flow | Barrier:
    if math.prod(np.shape(site.layer.scale)) * math.prod(np.shape(site.layer.offset)) > 1:
        return Barrier("per-channel constants")
    return Flow(site.x)


def _barrier(reason: str) -> Rule:
    return lambda site: Barrier(reason)


def by_name(rules: Mapping[str, T]) -> dict[str, T]:
    """A table whose keys list the layers of a rule, with a key for each of them."""
    return {name: rule for names, rule in rules.items() for name in names.split()}


LAYERS: Mapping[str, Rule] = by_name(
    {
        "Dense": _linear(-2, -1, "units"),
        "Conv1D Conv2D Conv3D": _linear(-2, -1, "filters"),
        "Conv1DTranspose Conv2DTranspose Conv3DTranspose": _linear(-1, -2, "filters"),
        "DepthwiseConv1D DepthwiseConv2D": _depthwise,
        "SeparableConv1D SeparableConv2D": _separable,
        "BatchNormalization": _batch_norm,
        "PReLU": _prelu,
        "Activation ReLU LeakyReLU ELU Identity Dropout SpatialDropout1D SpatialDropout2D"
        " SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout ActivityRegularization"
        " Add Subtract Multiply Average Maximum Minimum": _elementwise,
        "Concatenate": _concatenate,
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D"
        " GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D"
        " GlobalAveragePooling2D GlobalAveragePooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D"
        " Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D"
        " AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D AdaptiveAveragePooling1D"
        " AdaptiveAveragePooling2D AdaptiveAveragePooling3D RepeatVector Resizing": _spatial,
        "Flatten Reshape": _reshape,
        "Permute": _permute,
        "Softmax": _softmax,
        "Rescaling": _rescaling,
        "Normalization": _barrier("per-channel constants"),
        "LayerNormalization RMSNormalization UnitNormalization": _barrier(
            "its statistics run over channels"
        ),
        "GroupNormalization": _barrier("its statistics run over groups of channels"),
    }
)

OPERATIONS: Mapping[str, Rule] = by_name(
    {
        "Add Subtract Multiply Maximum Minimum Relu Relu6 Sigmoid Tanh Silu Gelu HardSigmoid"
        " HardSilu LeakyRelu Elu Selu Softplus Negative Absolute Square": _elementwise,
        "Concatenate": _concatenate,
    }
)
"""Keras operations called on symbolic tensors, such as the Add behind `x + y`."""


def rule_for(op: Any) -> Rule | None:
    """The rule of a layer or operation; None for one that is not Keras' own or not in a table."""
    import keras

    if not type(op).__module__.startswith("keras."):
        return None
    table = LAYERS if isinstance(op, keras.layers.Layer) else OPERATIONS
    return table.get(type(op).__name__)
