"""Weights of which many are 0, stored without them: docs/sparse-weights.md."""

from __future__ import annotations

import numpy as np

from edgecompress.backends.aot.layer import Ints, padded


def gaps(row: Ints, *, most: int) -> tuple[Ints, Ints]:
    """The distances between the values of `row` other than 0, and these values (int64).

    The first distance is from place 0. One above `most` is made of several, whose values are 0.
    """
    places = np.flatnonzero(row)
    found = np.diff(places, prepend=0)
    fillers = np.maximum(found - 1, 0) // most
    ends = np.cumsum(fillers + 1) - 1
    count = int(ends[-1]) + 1 if len(ends) else 0
    distances, values = np.full(count, most, np.int64), np.zeros(count, np.int64)
    distances[ends] = found - most * fillers
    values[ends] = row[places]
    return distances, values


def entries(row: Ints, *, multiple: int) -> Ints:
    """The int8 weights of `row` in entries of 16 bits, two to a word (uint32): the gap, 0 to 255,
    and the byte of the weight. Entries of 0 fill up to a `multiple` (even)."""
    distances, values = gaps(row, most=255)
    halves = (distances + ((values & 255) << 8)).astype("<u2")
    return padded(halves, axis=0, multiple=multiple).view("<u4")


VALUES = 16
"""Values that an index of 4 bits tells apart."""


def codebook(values: Ints) -> Ints | None:
    """0 and the other values of `values` (int64), None for more than VALUES."""
    found = np.union1d(values.astype(np.int64), [0])
    return found if len(found) <= VALUES else None


def coded(row: Ints, known: Ints, *, multiple: int) -> Ints:
    """The weights of `row` in entries of 8 bits, four to a word (uint32): 16 times the gap, 0 to
    15, and the place in `known` (sorted). Entries of a gap of 0 and a weight of 0 fill up to a
    `multiple` (of 4)."""
    distances, values = gaps(row, most=15)
    count = len(values) + -len(values) % multiple
    found = np.full(count, np.searchsorted(known, 0), np.uint8)
    found[: len(values)] = 16 * distances + np.searchsorted(known, values)
    return found.view("<u4")
