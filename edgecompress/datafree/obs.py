"""Greedy Optimal Brain Surgeon: which channels the layers that read them can do without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.datafree.readers import Reader, part
from edgecompress.datafree.repair import DAMPING
from edgecompress.datafree.statistics import Array


@dataclass(frozen=True, eq=False)
class Order:
    """The channels of a group in the order in which to remove them, and what that costs.

    `losses[k]` is the predicted relative error of what the group's readers make, summed over the
    readers, when the first k + 1 channels of `channels` are gone and the readers are repaired:
    trace(W Cov(residual) W^T) / trace(W Cov(X) W^T). The last channel is never removed.
    """

    channels: npt.NDArray[np.int64]
    losses: Array

    @property
    def increments(self) -> Array:
        """What each channel of `channels` adds, made to grow strictly so that it sorts as they."""
        steps = np.maximum.accumulate(np.diff(self.losses, prepend=0.0))
        return np.asarray(steps + 1e-12 * max(steps.max(initial=0), 1e-12) * np.arange(len(steps)))


@dataclass(eq=False)
class _Surgery:
    """One reader's weights (n, outputs) and inverse covariance (n, n), channel by channel less.

    `places` (group channels, times) are the positions of each channel of the group in it.
    """

    weights: Array
    inverse: Array
    places: npt.NDArray[np.int64]
    total: float

    def costs(self, channels: slice = slice(None)) -> Array:
        """What the removal of each channel of the group adds to the error: |W_i|^2 / H_ii."""
        places = self.places[channels]
        blocks = self.inverse[places[:, :, None], places[:, None, :]]
        rows = self.weights[places]
        costs = np.einsum("gac,gab,gbc->g", rows, np.linalg.inv(blocks), rows)
        return np.asarray(costs / self.total)

    def remove(self, channel: int) -> None:
        """Spread the channel's weights over those that correlate with it, and forget it."""
        places = self.places[channel]
        columns = self.inverse[:, places]
        share = columns @ np.linalg.inv(self.inverse[np.ix_(places, places)])
        self.weights -= share @ self.weights[places]
        self.inverse -= share @ columns.T
        self.weights[places] = 0
        self.inverse[places, :] = self.inverse[:, places] = 0
        self.inverse[places, places] = 1


def order(view: View, group: str, readers: Sequence[Reader], *, damping: float = DAMPING) -> Order:
    """Remove the channel of the group that costs its readers least, repair them, and so on.

    Optimal Brain Surgeon (Hassibi and Stork, NIPS 1992) with the covariance of the activations as
    the Hessian, as in OBSPA (arXiv 2403.18955); the costs of several readers, each relative to
    the variance of what it makes, are added.
    """
    classes = view.channels[group]
    sites = [site for reader in readers for site in _sites(view, reader, classes, damping)]
    free = np.ones(len(classes), dtype=np.bool_)
    found, losses = [], []
    for _ in classes:
        costs = np.where(free, sum((s.costs() for s in sites), np.zeros(len(classes))), np.inf)
        channel = int(np.argmin(costs))
        found.append(channel)
        losses.append(max(float(costs[channel]), 0.0))
        free[channel] = False
        for site in sites:
            site.remove(channel)
    return Order(np.array(found, dtype=np.int64), np.cumsum(losses))


def errors(
    view: View,
    group: str,
    readers: Sequence[Reader],
    channels: npt.NDArray[np.int64],
    *,
    damping: float = DAMPING,
) -> dict[str, Array]:
    """The predicted relative error of each layer that reads the group, as `Order.losses`, when
    its channels go in the order of `channels` (n,) and the layer is repaired: (n,) by layer."""
    found: dict[str, Array] = {}
    for reader in readers:
        sites = list(_sites(view, reader, view.channels[group], damping))
        steps = np.zeros((len(sites), len(channels)))
        for site, added in zip(sites, steps, strict=True):
            for k, channel in enumerate(channels.tolist()):
                added[k] = max(float(site.costs(slice(channel, channel + 1))[0]), 0.0)
                site.remove(channel)
        if sites:
            found[reader.name] = np.cumsum(steps.mean(axis=0))
    return found


def covered(view: View, group: str, readers: Sequence[Reader]) -> bool:
    """Whether all layers that sum over channels of the group are among `readers`."""
    classes = view.channels[group]
    reading = {name for name, _, a in view.axes("in") if np.isin(view.roots[a.ids], classes).any()}
    return bool(reading) and reading <= {reader.name for reader in readers}


def _sites(
    view: View, reader: Reader, classes: npt.NDArray[np.int64], damping: float
) -> list[_Surgery]:
    found = []
    rows = reader.rows()
    for channels, outputs in reader.parts():
        roots = view.roots[reader.ids[channels]]
        times = [np.flatnonzero(roots == c) for c in classes]
        if not len(times[0]):
            continue
        weights = np.moveaxis(rows[..., outputs], 1, 0).reshape(len(roots), -1)
        covariance = part(reader.read, channels).covariance
        variances = np.diag(covariance)
        least = 1e-9 * variances.max(initial=0) or 1.0
        covariance = covariance + np.diag(damping * variances + least)
        total = float(np.einsum("ic,ij,jc->", weights, covariance, weights)) or 1.0
        found.append(_Surgery(weights, np.linalg.inv(covariance), np.array(times), total))
    return found
