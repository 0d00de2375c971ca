"""What the outputs of a model lose when one group of channels alone loses some, as measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import rebuild
from edgecompress.channels.rules import WeightAxis
from edgecompress.evaluation import predict
from edgecompress.progress import Progress
from edgecompress.prune.allocate import convex

Array = npt.NDArray[Any]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of a group without its most important channel, at which it is measured."""
LEAST = 1e-12
"""The least probability in a logarithm."""


def prices(
    view: View,
    orders: Mapping[str, npt.NDArray[np.int64]],
    x: Array,
    *,
    progress: Progress,
) -> list[Array]:
    """What the outputs for `x` (N, *input_shape) lose with each channel of `orders` but the last,
    by group, when its channels go one after the other and those of the other groups stay.

    Measured at SHARES of the group by `divergence` from the whole model's outputs, in between
    along straight lines, and made convex. No targets are needed. Source: the sensitivity analysis
    of Li et al., "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), section 3.2, with
    the outputs' divergence in the place of the accuracy.
    """
    outputs = _Silenced(view, x)
    apart = divergence(outputs({}))
    found = []
    for done, (group, order) in enumerate(orders.items()):
        progress("sensitivity", done, len(orders))
        most = len(order) - 1
        counts = sorted({round(share * most) for share in SHARES} - {0})
        lost = [apart(outputs({group: order[:count].tolist()})) for count in counts]
        rising = np.maximum.accumulate([0.0, *lost])
        found.append(convex(np.interp(np.arange(len(order)), [0, *counts], rising)))
    progress("sensitivity", len(orders), len(orders))
    return found


def divergence(whole: Array) -> Callable[[Array], float]:
    """How far outputs (N, ...) are from those of the whole model, at least 0.

    Where these are probabilities of classes, the Kullback-Leibler divergence in nats (of sums that
    rounding makes other than 1, too), else the squared error over the variance; the mean over all
    rows.
    """
    whole = whole.astype(np.float64)
    sums = whole.sum(axis=-1)
    several = whole.ndim == 2 and whole.shape[1] > 1
    if several and whole.min() >= 0 and np.allclose(sums, 1, 0, 1e-3):
        logs = np.log(np.maximum(whole, LEAST))

        def entropy(p: Array) -> float:
            apart = whole * (logs - np.log(np.maximum(p, LEAST).astype(np.float64))) - whole + p
            return max(float(apart.sum(axis=-1).mean()), 0.0)

        return entropy
    variance = float(whole.var()) or 1.0
    return lambda y: float(np.mean((y - whole) ** 2)) / variance


class _Silenced:
    """The outputs of a model without some channels, from one copy whose weights are changed."""

    def __init__(self, view: View, x: Array) -> None:
        self._view, self._x = view, np.asarray(x, np.float32)
        self._model = rebuild(view.graph, config=lambda name: {}, weights=lambda name, old: old)
        ops = {layer.name: layer for layer in self._model.layers}
        self._readers: dict[int, tuple[Any, Array, list[WeightAxis]]] = {}
        for name, weight, axis in view.axes("in"):
            for variable in ops[name].weights:
                if variable.name == weight:
                    entry = (variable, np.array(variable), list[WeightAxis]())
                    self._readers.setdefault(id(variable), entry)[2].append(axis)

    def __call__(self, drops: Mapping[str, list[int]]) -> Array:
        keep = self._view.keep(drops)
        for variable, old, axes in self._readers.values():
            new = old.copy()
            for axis in axes:
                np.moveaxis(new, axis.axis, 0)[~keep[axis.ids]] = 0
            variable.assign(new)
        return predict(self._model, self._x)
