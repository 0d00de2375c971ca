"""Repair from a few samples, layer by layer, through the network as pruned so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import Call, Weights
from edgecompress.datafree.apply import (
    KEEPING,
    Effect,
    Outcome,
    change,
    groups_of,
    relative_error,
)
from edgecompress.datafree.measured import (
    Sums,
    computed,
    layer_like,
    linear_output,
    measured,
    reading,
    windows,
)
from edgecompress.datafree.readers import MOST_INPUTS, Reader, readers
from edgecompress.datafree.repair import DAMPING, Kept, crossed, regression
from edgecompress.datafree.statistics import Array
from edgecompress.progress import Progress, silent

POSITIONS = 20_000
"""Positions of its output, drawn at random, at which the windows of a layer are looked at."""
HELD = 0.3
"""The damping of the step from one combination for all taps to one of whole windows: as many more
coefficients as there are taps are found from the same samples."""
WINDOWED = frozenset("Conv1D Conv2D Conv3D".split())
"""Layers of which an output sums over a window of positions."""


def sequential(
    view: View,
    keep: Kept,
    x: npt.NDArray[Any],
    *,
    damping: float = DAMPING,
    progress: Progress = silent,
) -> Outcome:
    """Make up for the channels whose atoms are not kept, from samples x (N, *input_shape).

    Each layer that reads removed channels gets the least-squares combination of what the others
    have become behind the layers repaired before: first one for all taps of a kernel, then, from
    there, over all that it reads at one position. The means and variances of its outputs then are
    as they were. A shared layer is repaired where it is called first. Raises ConfigError where x
    does not fit.
    """
    run = _Run(view, keep, damping, {r.name: r for r in readers(view, measured(view, x))})
    values: dict[int, Any] = {view.graph.inputs[0]: np.asarray(x, np.float32)}
    others = dict(values)
    last = {i: n for n, call in enumerate(view.graph.calls) for i in call.inputs}
    for n, call in enumerate(view.graph.calls):
        progress("repair", n, len(view.graph.calls))
        before, after = [values[i] for i in call.inputs], [others[i] for i in call.inputs]
        run.visit(call, before, after)
        made = computed(call, before)
        same = call.name not in run.layers and all(
            a is b for a, b in zip(before, after, strict=True)
        )
        values.update(zip(call.outputs, made, strict=True))
        remade = made if same else computed(call, after, run.layers.get(call.name))
        others.update(zip(call.outputs, remade, strict=True))
        for index in {i for i in call.inputs if last[i] == n}:
            del values[index], others[index]
    progress("repair", len(view.graph.calls), len(view.graph.calls))
    return run.outcome


class _Run:
    """What was changed so far, and the layers with the new weights."""

    def __init__(self, view: View, keep: Kept, damping: float, known: dict[str, Reader]) -> None:
        self.view, self.keep, self.damping, self.known = view, keep, damping, known
        self.outcome = Outcome()
        self.layers: dict[str, Any] = {}

    def visit(self, call: Call, before: Sequence[Any], after: Sequence[Any]) -> None:
        """Repair the layer of this call, where it is the first of one that reads pruned tensors."""
        reader = self.known.get(call.name)
        if reader is None or reader.calls[0] is not call or call.name in self.layers:
            return
        kept = self.keep[reader.ids]
        if before[0] is after[0] and kept.all():
            return
        old, rows = linear_output(call, before, reader.weights), reader.rows()
        if not kept.all():
            rows = self._mixed(reader, kept, before[0], after[0])
            rows = self._fitted(reader, kept, rows, old, after[0])
        new = linear_output(call, after, reader.with_rows(rows))
        shift = old.mean(axis=0) - new.mean(axis=0)
        spread = np.maximum(old.var(axis=0), 1e-12)
        ratio = (new.var(axis=0) / spread) ** KEEPING["activation"]
        changes: dict[str, Weights] = {}
        change(self.view, reader, rows, shift, ratio, changes)
        self.outcome.changes.update(changes)
        operations = {c.name: c.op for c in self.view.graph.calls}
        self.layers.update({k: layer_like(operations[k], w) for k, w in changes.items()})
        if not kept.all():
            error = ((new + shift - old) ** 2).mean(axis=0).sum() / spread.sum()
            self.outcome.effects.append(
                Effect(
                    reader.name,
                    groups_of(self.view, reader, kept),
                    int((~kept).sum()),
                    len(kept),
                    relative_error(reader, rows),
                    float(error),
                )
            )

    def _mixed(self, reader: Reader, kept: Kept, before: Any, after: Any) -> Array:
        """The reader's rows on what the kept channels have become."""
        graph, call = self.view.graph, reader.calls[0]
        rows = np.hstack([reading(graph, call, value) for value in (before, after)])
        old, n = reader.rows(), len(reader.ids)
        new = np.zeros_like(old)
        moments = Sums.of(rows).moments()
        for channels, outputs in reader.parts():
            places = np.r_[np.arange(n)[channels], n + np.arange(n)[channels]]
            mixture = crossed(
                moments.mean[places],
                moments.covariance[np.ix_(places, places)],
                kept[channels],
                damping=self.damping,
            )
            block = np.zeros_like(old[..., outputs])
            block[:, kept[channels]] = np.einsum("tco,cp->tpo", old[..., outputs], mixture.mixing)
            new[..., outputs] = block
        return new

    def _fitted(self, reader: Reader, kept: Kept, rows: Array, wanted: Array, after: Any) -> Array:
        """The rows moved towards the least squares of the outputs `wanted` (positions, outputs)
        on whole windows of the kept channels; the damping holds them where few samples tell."""
        if type(reader.layer).__name__ not in WINDOWED or len(rows) == 1:
            return rows
        at, new = np.arange(len(wanted)), rows.copy()
        if len(wanted) > POSITIONS:
            at = np.random.default_rng(0).choice(len(wanted), POSITIONS, replace=False)
        for channels, outputs in reader.parts():
            staying = kept[channels]
            start = rows[:, staying, outputs]
            if start.shape[0] * start.shape[1] > MOST_INPUTS:
                continue
            read = windows(reader.layer, after[..., channels][..., staying], at)
            read -= read.mean(axis=0)
            missing = wanted[at, outputs] - read @ start.reshape(read.shape[1], -1)
            missing -= missing.mean(axis=0)
            step = regression(missing.T @ read / len(at), read.T @ read / len(at), HELD)
            new[:, staying, outputs] += step.T.reshape(start.shape)
        return new
