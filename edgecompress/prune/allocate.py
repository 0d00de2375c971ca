"""How many channels of each group go: where the repaired layers lose least for what is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import read_weights
from edgecompress.datafree import obs
from edgecompress.datafree.apply import normalisation
from edgecompress.datafree.readers import Reader, readers
from edgecompress.datafree.repair import Kept
from edgecompress.datafree.statistics import Array, Statistics
from edgecompress.prune.budgets import meter
from edgecompress.vocabulary import Target

DAMPING = 0.3
"""As `repair.DAMPING`, where the error is predicted: what the model of the activations promises of
the last channels is seldom kept."""
MIXING = ("Add", "Subtract", "Average", "Concatenate")
"""Layers of which each input makes only a share of the output."""
ROUNDS = 50
"""How often what a channel saves is counted anew while all of them are taken."""
DEAD = 1e-6
"""The least share of a layer's signal that counts as left."""


def queue(
    view: View,
    orders: Mapping[str, npt.NDArray[np.int64]],
    prices: Sequence[Array],
    *,
    target: Target,
    least: Sequence[int],
) -> npt.NDArray[np.int64]:
    """The groups, by their places in `orders`, in the order in which to take a channel from them.

    `orders` has each group's channels, least important first, `prices` what the removal of each but
    the last costs, and `least` how many of each group stay. The next channel is that of the group
    with the least price per saved unit of the target (`budgets.meter`).
    """
    measure = meter(view, target)
    sizes = np.array([len(order) for order in orders.values()], dtype=np.int64)
    free = np.maximum(sizes - np.array(least, dtype=np.int64), 0)
    taken, found = np.zeros_like(sizes), list[int]()
    while len(found) < free.sum():
        saved = _saved(view, orders, taken, measure)
        for _ in range(-(-int(free.sum()) // ROUNDS)):
            offers = [
                price[k] / saving if k < most else np.inf
                for price, k, most, saving in zip(prices, taken, free, saved, strict=True)
            ]
            place = int(np.argmin(offers))
            if offers[place] == np.inf:
                break
            taken[place] += 1
            found.append(place)
    return np.array(found, dtype=np.int64)


def predicted(
    view: View,
    orders: Mapping[str, npt.NDArray[np.int64]],
    scores: Sequence[Array],
    statistics: Statistics,
) -> list[Array]:
    """The price of each channel of `orders`, by group: predicted loss times score (see `queue`).

    See `losses` for the loss; of a group it is made convex, so that a channel whose removal pays
    only together with the next is no hurdle. On ResNet-20, ResNet-8 and the DS-CNN the product
    keeps more accuracy than the loss alone, which trusts the model of the activations, or the
    score alone, which knows no repair.
    """
    shares = shares_of(view, statistics)
    known = [folded(view, reader) for reader in readers(view, statistics)]
    return [
        convex(losses(view, group, known, order, shares)) * score[order][:-1]
        for (group, order), score in zip(orders.items(), scores, strict=True)
    ]


def losses(
    view: View,
    group: str,
    known: Sequence[Reader],
    order: npt.NDArray[np.int64],
    shares: Mapping[str, float],
) -> Array:
    """The predicted loss (n,) when the first 0 .. n - 1 channels of `order` are gone.

    A layer's outputs keep the share 1 - e of their variance, e the relative error after the
    repair (`obs.errors`). Shares multiply along a chain of layers, so the loss is the sum of
    -log(1 - e) over the layers that read the group, each weighted by how much of the model's
    output goes through it (`shares_of`).
    """
    total = np.zeros(len(order))
    for name, errors in obs.errors(view, group, known, order, damping=DAMPING).items():
        total[1:] -= shares[name] * np.log(np.maximum(1 - errors[:-1], DEAD))
    return total


def convex(curve: Array) -> Array:
    """The slopes (n - 1,) of the largest convex curve below `curve` (n,)."""
    corners = [0]
    for k in range(1, len(curve)):
        while len(corners) > 1:
            first, last = corners[-2:]
            if (curve[last] - curve[first]) * (k - last) < (curve[k] - curve[last]) * (
                last - first
            ):
                break
            corners.pop()
        corners.append(k)
    steps = np.diff(corners)
    return np.repeat(np.diff(curve[corners]) / steps, steps)


def shares_of(view: View, statistics: Statistics) -> dict[str, float]:
    """For each layer, how much of the variance of the model's outputs goes through it.

    The inputs of a sum count by their variances, as independent; what is not known of one counts
    as all of it.
    """
    graph = view.graph
    names = dict(zip(graph.inputs, graph.input_names, strict=True))
    names |= {index: call.name for index, call in graph.makers.items()}
    through = dict.fromkeys(graph.outputs, 1.0)
    found: dict[str, float] = {}
    for call in reversed(graph.calls):
        share = sum(through.get(index, 0.0) for index in call.outputs)
        found[call.name] = found.get(call.name, 0.0) + share
        parts = np.ones(len(call.inputs))
        moments = [statistics.made.get(names[index]) for index in call.inputs]
        if type(call.op).__name__ in MIXING and None not in moments:
            sums = np.array([np.trace(m.covariance) for m in moments if m is not None])
            parts = sums / sums.sum() if sums.sum() > 0 else parts
        for index, each in zip(call.inputs, parts.tolist(), strict=True):
            through[index] = through.get(index, 0.0) + share * each
    return found


def folded(view: View, reader: Reader) -> Reader:
    """The reader with the scale of the BatchNormalization behind it in its kernel, so that each
    output counts as much as it does there."""
    norm = normalisation(view, reader)
    if norm is None:
        return reader
    weights = read_weights(norm.op)
    variance = weights["moving_variance"].astype(np.float64) + norm.op.epsilon
    scale = weights.get("gamma", np.ones(len(variance))) / np.sqrt(variance)
    return replace(reader, weights=reader.with_rows(reader.rows() * scale))


def _saved(
    view: View,
    orders: Mapping[str, npt.NDArray[np.int64]],
    taken: npt.NDArray[np.int64],
    measure: Callable[[Kept], float],
) -> list[float]:
    """What the next channel of each group saves, at least a hair."""
    drops = {
        group: order[:count].tolist()
        for (group, order), count in zip(orders.items(), taken, strict=True)
    }
    before = measure(view.keep(drops))
    found = []
    for group, order in orders.items():
        more = order[: len(drops[group]) + 1].tolist()
        last = len(more) == len(order)
        after = before if last else measure(view.keep({**drops, group: more}))
        found.append(max(before - after, 1e-9 * before))
    return found
