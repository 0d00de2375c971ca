"""Channels as atoms in a union-find: which channels are one and the same for removal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Which atom each position of a tensor's channel axis belongs to.

    `axis` is negative (counted from the end); `ids` is int64 with one atom per position of that
    axis. An atom may stand at several positions: a Flatten repeats each channel per pixel.
    """

    axis: int
    ids: Ids


class Atoms:
    """A growing set of atoms, with unions, owners and reasons not to remove them."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.made: list[tuple[str, Ids]] = []
        self._frozen: list[tuple[Ids, str]] = []

    def fresh(self, n: int, *, owner: str) -> Ids:
        """`n` new atoms: the output channels of layer `owner`."""
        start = len(self._parent)
        self._parent.extend(range(start, start + n))
        ids = np.arange(start, start + n, dtype=np.int64)
        self.made.append((owner, ids))
        return ids

    def union(self, a: Ids, b: Ids) -> None:
        """Couple a[i] with b[i] for every i."""
        for x, y in np.unique(np.stack([a, b], axis=1), axis=0).tolist():
            first, second = sorted((self._find(x), self._find(y)))
            self._parent[second] = first

    def freeze(self, ids: Ids, reason: str) -> None:
        """Never remove these atoms; the last reason given is the one reported."""
        self._frozen.append((ids, reason))

    def roots(self) -> Ids:
        """For every atom the atom that stands for its class."""
        return np.array([self._find(x) for x in range(len(self._parent))], dtype=np.int64)

    def reasons(self) -> dict[int, str]:
        """Class (by root) -> why it must not be removed, for the frozen ones."""
        found: dict[int, str] = {}
        for ids, reason in self._frozen:
            for x in np.unique(ids).tolist():
                found[self._find(x)] = reason
        return found

    def _find(self, x: int) -> int:
        parent = self._parent
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x
