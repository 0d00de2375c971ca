"""From scores to channels: rank, take the least, respect the minimum and the rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.vocabulary import Scope

Counts = npt.NDArray[np.int64]

ROUNDING = 1e-9
"""0.29 * 100 is 28.999999999999996 in floating point; asked are 29 channels."""


@dataclass(frozen=True, eq=False)
class Chooser:
    """Nested choices of channels: a larger fraction removes a superset of a smaller one.

    `orders` holds each group's channels, least important first; `queue` the groups in the order
    in which the global ranking takes a channel from them, None for scope "layer".
    """

    orders: tuple[npt.NDArray[np.int64], ...]
    queue: npt.NDArray[np.int64] | None
    round_to: int
    least: tuple[int, ...]

    @staticmethod
    def of(
        scores: Sequence[npt.NDArray[Any]], scope: Scope, *, round_to: int, least: tuple[int, ...]
    ) -> Chooser:
        """Rank the channels of the prunable groups by their scores, ties by position; of each
        group at least so many stay as `least` says."""
        orders = tuple(np.argsort(s, kind="stable") for s in scores)
        if scope == "layer" or not scores:
            return Chooser(orders, None, round_to, least)
        levels, owners = [], []
        for g, (s, order) in enumerate(zip(scores, orders, strict=True)):
            free = max(len(s) - least[g], 0)
            levels.append(s[order][:free])
            owners.append(np.full(free, g))
        queue = np.concatenate(owners)[np.argsort(np.concatenate(levels), kind="stable")]
        return Chooser(orders, queue, round_to, least)

    @property
    def steps(self) -> tuple[float, ...]:
        """The fractions at which the choice changes, ascending from 0."""
        sizes = [len(order) for order in self.orders]
        if self.queue is not None:
            return tuple(n / sum(sizes) for n in range(len(self.queue) + 1))
        return tuple(sorted({k / size for size in sizes for k in range(size)} | {0.0}))

    def drops(self, fraction: float) -> list[tuple[int, ...]]:
        """The channels of each group to remove for a fraction of all (global) or of each."""
        sizes = np.array([len(order) for order in self.orders], dtype=np.int64)
        if self.queue is None:
            counts = np.floor(fraction * sizes + ROUNDING).astype(np.int64)
        else:
            n = math.floor(fraction * int(sizes.sum()) + ROUNDING)
            counts = np.bincount(self.queue[:n], minlength=len(sizes))
        kept = np.maximum(sizes - counts, np.minimum(sizes, np.array(self.least, dtype=np.int64)))
        kept = np.minimum(sizes, -(-kept // self.round_to) * self.round_to)
        return [
            tuple(sorted(order[: size - keep].tolist()))
            for order, size, keep in zip(self.orders, sizes, kept, strict=True)
        ]
