"""Weights on grids of ours, of few bits or chosen by layer, and the int8 flatbuffer of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgecompress.channels.graph import trace
from edgecompress.channels.view import analyse
from edgecompress.datafree import ranges
from edgecompress.datafree.equalise import equalise
from edgecompress.datafree.fold import OUTPUTS, fold
from edgecompress.datafree.measured import measured
from edgecompress.datafree.model import modelled
from edgecompress.datafree.statistics import Statistics
from edgecompress.datafree.weights import MOST_BITS, OnGrid, Rounded, put_on_grid
from edgecompress.errors import ConfigError
from edgecompress.progress import Progress
from edgecompress.quantization import calibrated, precision
from edgecompress.quantization.conversion import Float, convert, in_ranges
from edgecompress.vocabulary import IoType, Rounding, Source

if TYPE_CHECKING:
    from keras import Model

_LOOKED_AT = 128
"""Samples, at most, whose moments weights are rounded by."""


class OwnWeights(NamedTuple):
    """How weights go onto grids of ours."""

    bits: int | Mapping[str, int] = 8
    flash: float | None = None
    rounding: Rounding = "nearest"
    correct_bias: bool = False
    equalise: bool = False
    per_channel: bool = True

    def to_json(self) -> dict[str, Any]:
        """The arguments of `quantize` that these are, as JSON values."""
        return {
            "weight_bits": dict(self.bits) if isinstance(self.bits, Mapping) else int(self.bits),
            **({} if self.flash is None else {"weight_flash": self.flash}),
            "rounding": self.rounding,
            "correct_bias": self.correct_bias,
            "equalise": self.equalise,
        }


def convert_on_grids(
    model: Model,
    weights: OwnWeights,
    types: tuple[IoType, IoType],
    *,
    rows: Float | None,
    ends: tuple[float, float] | None,
    progress: Progress,
) -> tuple[bytes, dict[str, Any]]:
    """The int8 flatbuffer with weights on grids of ours, and the step's effect.

    `rows` (N, *input_shape) are samples or distilled inputs; without, the ranges are modelled, with
    `ends` as the inputs' range. Raises ConfigError where that is not known, or for a `flash` that
    cannot be met; errors of statistics and conversion as in `quantize`.
    """
    if weights.equalise:
        model = equalise(model)
    progress("statistics", 0, 1)
    graph = ranges.apart(trace(model))
    if rows is None:
        statistics = modelled(graph, input_range=ends)
        _check_known(model, statistics, ends)
    else:
        statistics = measured(analyse(model, unknown="barrier"), _spaced(rows, _LOOKED_AT))
    progress("statistics", 1, 1)
    work = _Work(fold(model), statistics, weights, types, rows, progress)
    effect: dict[str, Any] = {}
    if rows is None:
        named = ranges.ranges(graph, statistics, input_range=ends)
        if ends is None:
            effect["estimated_input_range"] = list(named[graph.input_names[0]])
        data, layers = work.converted(weights.bits, named)
    elif weights.flash is None:
        data, layers = work.converted(weights.bits)
    else:
        data, layers, effect["precision"] = work.within(weights.flash)
    effect["layers"] = [asdict(layer) for layer in layers]
    return data, effect


@dataclass(frozen=True, eq=False)
class _Work:
    """A folded model, and all that its conversion goes by but the bits of its weights."""

    folded: Model
    statistics: Statistics
    weights: OwnWeights
    types: tuple[IoType, IoType]
    rows: Float | None
    progress: Progress

    def placed(self, bits: int | Mapping[str, int], *, correct_bias: bool) -> OnGrid:
        """The model with its kernels on grids."""
        return put_on_grid(
            self.folded,
            self.statistics,
            bits=bits,
            rounding=self.weights.rounding,
            correct_bias=correct_bias,
            per_channel=self.weights.per_channel,
        )

    def converted(
        self,
        bits: int | Mapping[str, int],
        named: Mapping[str, tuple[float, float]] | None = None,
    ) -> tuple[bytes, list[Rounded]]:
        """The flatbuffer, in the ranges `named` where there are no rows, and what became of each
        kernel: what the converter merged with a layer behind it, it has rounded to 8 bits."""
        weights = self.weights
        placed = self.placed(bits, correct_bias=weights.correct_bias)
        if named is not None:
            data = in_ranges(placed.model, named, self.types, per_channel=weights.per_channel)
        else:
            data = convert(
                placed.model,
                mode="int8",
                types=self.types,
                rows=self.rows,
                per_channel=weights.per_channel,
                progress=self.progress,
            )
        data, used = calibrated.on_grids(data, [grid.rows for grid in placed.grids.values()])
        layers = [
            layer if place in used else replace(layer, bits=MOST_BITS, rule="nearest", error=None)
            for place, layer in enumerate(placed.layers)
        ]
        few = any(grid.bits <= 4 for grid in placed.grids.values())
        return calibrated.packed(data) if few else data, layers

    def within(self, asked: float) -> tuple[bytes, list[Rounded], dict[str, Any]]:
        """The flatbuffer with the bits by layer that fit into `asked` (`precision.limit_of`), and
        the choice as JSON values. A layer that the converter rounds counts with 8 bits."""
        assert self.rows is not None  # check_bits
        candidates = precision.sensitivity(
            self.folded,
            _spaced(self.rows, _LOOKED_AT),
            lambda bits: self.placed(bits, correct_bias=False).grids,
            progress=self.progress,
        )
        limit = precision.limit_of(candidates, asked)
        while True:
            chosen = precision.choose(candidates, limit)
            bits = {each.layer: each.bits for each in chosen}
            data, layers = self.converted(bits)
            stuck = {row.layer for row in layers if row.bits > bits[row.layer]}
            if not stuck:
                return data, layers, precision.to_json(candidates, chosen, limit)
            candidates = tuple(
                each for each in candidates if each.bits == MOST_BITS or each.layer not in stuck
            )


def check_bits(model: Model, weights: OwnWeights, *, source: Source | None) -> None:
    """ConfigError for bits or bytes that are none, and bits of layers without a kernel."""
    given = weights.bits if isinstance(weights.bits, Mapping) else {"": weights.bits}
    known = [name for name, op, _ in trace(model).layers() if type(op).__name__ in OUTPUTS]
    for layer, count in given.items():
        where = f" of {layer}" if layer else ""
        if not isinstance(count, int | np.integer) or not 2 <= count <= 8:
            raise ConfigError(
                f"quantize: weight_bits {count}{where}: use a whole number from 2 to 8"
            )
        if layer and layer not in known:
            raise ConfigError(
                f"quantize: weight_bits of {layer}: no layer with a kernel has that name; there are"
                f" {', '.join(known)}"
            )
    if weights.flash is None:
        return
    if not 0 < weights.flash < math.inf:
        raise ConfigError(
            f"quantize: weight_flash {weights.flash}: use a share up to 1, or a number of bytes"
        )
    if weights.bits != MOST_BITS:
        raise ConfigError("quantize: weight_flash chooses the bits; leave weight_bits out")
    if source == "data-free":
        raise ConfigError(
            "quantize: weight_flash: what bits do is measured on rows; calibrate with samples, or"
            ' use calibration "distilled"'
        )


def _check_known(model: Model, statistics: Statistics, ends: tuple[float, float] | None) -> None:
    if statistics.assumed and ends is None:
        raise ConfigError(
            f"quantize: nothing in {model.name} tells the range of its inputs (they go into no"
            " Rescaling, Normalization or layer with BatchNormalization); give input_range, the"
            " least and the largest: --input-range 0 255"
        )


def _spaced(rows: Float, count: int) -> Float:
    """At most `count` of the rows, at even distances: rows are often sorted by class."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
