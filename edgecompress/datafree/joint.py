"""Pruning and rounding in one solve: the kept channels taken as they will be on their grid.

UDFC's S and S' (arXiv 2308.07209) together, for layers that read removed channels: in others S'
does harm. At 3 and 4 bits it gains one to three points over `udfc` before rounding in ResNets,
nothing in a DS-CNN. Errors of rounding are nearly orthogonal to the other filters: in ResNet-20 the
variance that is given back (`apply.JOINT`) alone gains as much.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgecompress.datafree.model import modelled
from edgecompress.datafree.statistics import Moments, Statistics
from edgecompress.datafree.weights import put_on_grid

if TYPE_CHECKING:
    import keras


def on_grid(model: keras.Model, statistics: Statistics, *, bits: int) -> Statistics:
    """The statistics with what each layer reads as it will be with weights of `bits` bits
    (`Moments.rounded`); the moments themselves stay.

    Every weight of the unpruned model goes to the nearest point of its output's grid, as
    `put_on_grid` chooses it; a grid for each output is the same before BatchNormalization is folded
    and after. Channels without filters stay as they are.
    """
    placed = put_on_grid(model, statistics, bits=bits, rounding="nearest", correct_bias=False)
    found = modelled(placed.model).read
    read = {name: _rounded(moments, found[name]) for name, moments in statistics.read.items()}
    return replace(statistics, read=read)


def _rounded(moments: Moments, on_grid: Moments) -> Moments:
    if moments.filters is None or on_grid.filters is None or on_grid.offsets is None:
        return moments
    return replace(moments, rounded=(on_grid.filters, on_grid.offsets))
