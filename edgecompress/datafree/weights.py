"""The weights of a folded model put on grids of k bits, and what that does to the means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Call, Weights, read_weights, rebuild, trace
from edgecompress.datafree import fold
from edgecompress.datafree import rounding as rules
from edgecompress.datafree.kernels import kernels, mean_output, second_moments
from edgecompress.datafree.statistics import Array, Statistics
from edgecompress.vocabulary import Rounding

if TYPE_CHECKING:
    import keras

MOST_BITS = 8
"""Of a weight in a flatbuffer."""
MOST_STRETCH = 2.0
"""By how much a scale is changed at most to keep the variance of an output."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A kernel's weights as whole numbers.

    `values` int8 in the kernel's own shape, from -(2^(bits-1) - 1) to 2^(bits-1) - 1; `scales`
    float64 that broadcast to it, one number for each output. `rows` are the same as a flatbuffer
    has them: (outputs, rest) and (outputs,).
    """

    values: npt.NDArray[np.int8]
    scales: Array
    bits: int
    rows: tuple[npt.NDArray[np.int8], Array]


@dataclass(frozen=True)
class Rounded:
    """What rounding did to one kernel: the predicted squared error of its outputs over their
    variance (None where the variance is not known), and by which rule."""

    layer: str
    weight: str
    bits: int
    rule: Rounding
    error: float | None


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A model with its kernels on grids: by layer and weight, and what it cost, in graph order."""

    model: keras.Model
    grids: Mapping[tuple[str, str], Grid]
    layers: tuple[Rounded, ...]


def put_on_grid(
    model: keras.Model,
    statistics: Statistics,
    *,
    bits: int | Mapping[str, int],
    rounding: Rounding,
    correct_bias: bool,
    per_channel: bool = True,
) -> OnGrid:
    """A new model whose kernels hold whole numbers of `bits` bits, signed, times their scales.

    `bits` are those of all kernels, or by layer (MOST_BITS where a layer is not named). `model` is
    a folded one (see `fold`), `statistics` those of the model before folding. One scale for each
    output, or with `per_channel=False` for each kernel: max|w| / 127 with 8 bits, with fewer the
    one with the smallest error, times what keeps the variance of the outputs. Depthwise
    kernels, and those of too many inputs for their covariances, take "squant" in place of
    "compensated".
    `correct_bias` takes the mean of the error out of the outputs, in the bias or what stands for it
    (Nagel et al., DFQ, ICCV 2019, section 4.2).
    """
    graph = trace(model)
    norms = {layer.name: norm for layer, norm in fold.pairs(graph)}
    changes: dict[str, Weights] = {}
    grids: dict[tuple[str, str], Grid] = {}
    told: list[Rounded] = []
    for kernel in kernels(graph, statistics):
        read = statistics.read.get(kernel.call.name)
        second = second_moments(kernel, read)
        rule: Rounding = rounding
        if rule == "compensated" and (kernel.depthwise or second[0].ndim == 1):
            rule = "squant"
        name, weight = kernel.call.name, kernel.weight
        own = bits if isinstance(bits, int) else bits.get(name, MOST_BITS)
        points, scales = _points(kernel.rows, own, rule, second, shared=not per_channel)
        whole = points.astype(np.int8)
        flat = whole.transpose(2, 0, 1).reshape(whole.shape[-1], -1)
        grid = Grid(kernel.back(points).astype(np.int8), kernel.back(scales), own, (flat, scales))
        old = changes.get(name, read_weights(kernel.call.op))
        new = (grid.values * grid.scales).astype(kernel.array.dtype)
        changes[name] = {**old, weight: new}
        grids[name, weight] = grid
        wrong = points * scales - kernel.rows
        told.append(Rounded(name, weight, own, rule, _error(kernel.rows, wrong, second)))
        mean = (
            mean_output(graph, kernel, wrong, read) if correct_bias and read is not None else None
        )
        if mean is not None and mean.any():
            _shift(kernel.call, norms.get(name), -mean, changes)
    ops = {name: op for name, op, _ in graph.layers()}
    added = {name for name in changes if "bias" in changes[name].keys() - read_weights(ops[name])}
    changed = rebuild(
        graph,
        config=lambda name: {"use_bias": True} if name in added else {},
        weights=lambda name, old: changes.get(name, old),
    )
    return OnGrid(changed, grids, tuple(told))


def _points(
    rows: Array, bits: int, rule: Rounding, second: list[Array], *, shared: bool
) -> tuple[Array, Array]:
    """The whole numbers and the scales."""
    parts = np.split(rows, len(second), axis=-1)
    weighed = [
        np.broadcast_to(_variances(m).reshape(*part.shape[:2], 1), part.shape)
        for part, m in zip(parts, second, strict=True)
    ]
    scales = rules.scales_of(rows, bits, shared=shared)
    if bits < 8:
        scales = rules.fitted_scales(rows, bits, np.concatenate(weighed, axis=-1), shared=shared)
    by_part = np.split(scales, len(second))
    points = [
        _RULES[rule](part, scale, bits, moments)
        for part, scale, moments in zip(parts, by_part, second, strict=True)
    ]
    whole = np.concatenate(points, axis=-1)
    if bits < 8:
        scales = scales * _spread_kept(rows, whole * scales, second, shared=shared)
    return whole, scales


def _spread_kept(rows: Array, rounded: Array, second: list[Array], *, shared: bool) -> Array:
    """The factors (outputs,) that give the outputs of `rounded` the deviations of those of `rows`.

    A coarse grid loses or adds variance, layer after layer. With `shared` they are one number.
    """
    before, after = _powers(rows, second), _powers(rounded, second)
    if shared:
        before, after = np.full_like(before, before.sum()), np.full_like(after, after.sum())
    alive = np.minimum(before, after) > 0
    ratio = np.divide(before, after, out=np.ones_like(before), where=alive)
    return np.asarray(np.clip(np.sqrt(ratio), 1 / MOST_STRETCH, MOST_STRETCH))


_RULES: Mapping[Rounding, Callable[[Array, Array, int, Array], Array]] = {
    "nearest": lambda rows, scales, bits, _: rules.nearest(rows, scales, bits),
    "squant": lambda rows, scales, bits, _: rules.squant(rows, scales, bits),
    "compensated": rules.compensated,
}


def _error(rows: Array, wrong: Array, second: list[Array]) -> float | None:
    """The squared error over the variance, of all outputs together."""
    whole = float(_powers(rows, second).sum())
    return float(_powers(wrong, second).sum()) / whole if whole > 0 else None


def _powers(rows: Array, second: list[Array]) -> Array:
    """The variances (outputs,) of what `rows` make of inputs with these second moments."""
    parts = np.split(rows, len(second), axis=-1)
    flat = [part.reshape(len(m), -1) for part, m in zip(parts, second, strict=True)]
    pairs = zip(flat, second, strict=True)
    return np.concatenate(
        [np.sum(w * (m @ w if m.ndim == 2 else m[:, None] * w), axis=0) for w, m in pairs]
    )


def _variances(second: Array) -> Array:
    """Of the inputs, from their second moments as `second_moments` has them."""
    return np.diag(second) if second.ndim == 2 else second


def _shift(layer: Call, norm: Call | None, shift: Array, changes: dict[str, Weights]) -> None:
    """Add `shift` (outputs,) to what the layer makes: in its bias, in the normalisation behind it
    that only adds, or in a new bias."""
    own = changes[layer.name]
    if "bias" in own or norm is None:
        old = own.get("bias", np.zeros(len(shift), np.float32))
        changes[layer.name] = {**own, "bias": (old + shift).astype(old.dtype)}
        return
    known = read_weights(norm.op)
    changes[norm.name] = {**known, "moving_mean": (known["moving_mean"] - shift).astype(np.float32)}
