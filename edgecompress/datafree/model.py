"""The statistics of a network's activations from its weights alone.

The tensors are taken as normal before an activation, with the means and variances that
BatchNormalization keeps, and with covariances that follow from the filters (`fields`). The next
BatchNormalization's moving mean is a free and exact equation for the means of what its producer
reads: the modelled means are conditioned on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import Call, Graph, read_weights, trace
from edgecompress.datafree import activations, fields, layers
from edgecompress.datafree.fields import Field
from edgecompress.datafree.layers import Linear, Site
from edgecompress.datafree.statistics import Array, Guard, Moments, Statistics
from edgecompress.errors import UnsupportedError

if TYPE_CHECKING:
    import keras

SPREAD, SHIFT = 0.5, 0.25
"""The guard's limits: spread of log sigma, relative shift of the means."""
_NOISE, _EDGE, _SCALE = 0.005, 10.0, 0.5
"""Doubt in the equations for means, as shares of the output's variance and of `Linear.doubt`; and
how far a sum of branches, whose variance nothing tells, follows the next one (in logarithms)."""
_DECAYS = (1e-3, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_MIXES = (0.0, 0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Blank:
    """A tensor without statistics, and the layer to blame."""

    layer: str
    kind: str


@dataclass(frozen=True, eq=False)
class Known:
    """What a BatchNormalization knows of the tensor that it reads."""

    mean: Array
    variance: Array

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """The channels that vary; the others, of dead filters, tell nothing of what was read."""
        return _varying(self.variance)


def modelled(
    model: keras.Model | View | Graph, *, input_range: tuple[float, float] | None = None
) -> Statistics:
    """The moments of every tensor of a network, from its weights alone.

    The moments of the inputs are estimated from the first BatchNormalization. Where there is none
    they are those of numbers evenly spread over `input_range`, else what a Normalization makes of
    inputs or a Rescaling of pixels, else mean 0 and variance 1 (`Statistics.assumed`).
    `read[layer]` is there for every convolution and Dense, depthwise ones included; of a
    SeparableConv it is what its pointwise part reads.

    Raises UnsupportedError where a convolution or Dense reads a tensor that has no statistics,
    naming the layer that they got lost at. Sources: UDFC (arXiv 2308.07209) for the normal model,
    Mehler's formula for covariances through an activation.
    """
    graph = model.graph if isinstance(model, View) else model
    run = _Run(graph if isinstance(graph, Graph) else trace(graph))
    run.start(input_range)
    for call in run.graph.calls:
        run.step(call)
    return Statistics(run.read, run.made, run.guards, run.linear, run.assumed)


def input_moments(graph: Graph) -> Mapping[str, Moments]:
    """The moments, and the covariances with neighbours, of a model's inputs by name, as `modelled`
    estimates them; of the layers only those that read inputs need rules."""
    run = _Run(graph)
    run.start(None)
    for call in graph.calls:
        if set(call.inputs) <= set(graph.inputs):
            run.step(call)
    return run.made


class _Run:
    """One pass through a graph: the tensors so far, and what is reported of them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors: dict[int, Field | Blank] = {}
        self.read: dict[str, Moments] = {}
        self.made: dict[str, Moments] = {}
        self.guards: dict[str, Guard] = {}
        self.linear: dict[str, Moments] = {}
        self.assumed = False

    def start(self, ends: tuple[float, float] | None) -> None:
        """The model's inputs, each in the range `ends`."""
        for index, name in zip(self.graph.inputs, self.graph.input_names, strict=True):
            shape = self.graph.shapes[index]
            channels = int(shape[-1] or 1) if len(shape) > 1 else 1
            x = layers.unknown(channels, layers.image(shape))
            if ends is not None:
                x = _within(x, ends)
            self.put(index, name, "InputLayer", x)
            made = self.tensors[index]
            if isinstance(made, Field):
                self.made[name] = made.moments(spatial=True)

    def step(self, call: Call) -> None:
        """One call: its rule, then what is known about its output."""
        ins = [self.tensors[i] for i in call.inputs]
        kind = type(call.op).__name__
        result: Field | Blank | None
        lost = [x for x in ins if isinstance(x, Blank)]
        if lost and layers.sums(call.op):
            raise UnsupportedError(
                f"data-free statistics: layer {lost[0].layer} ({lost[0].kind}) has no rule, and"
                f" {call.name} ({kind}) reads what comes of it; use samples, or replace the"
                " layer"
            )
        site = Site(call, call.op, self.graph, tuple(x for x in ins if isinstance(x, Field)))
        if lost:
            result = lost[0]
        else:
            linear = layers.linear(site)
            result = self._through(site, linear) if linear else layers.element(site)
        if not (isinstance(result, Field) and result.free):
            self.assumed |= any(x.free and not x.known for x in site.ins)
        self.put(call.outputs[0], call.name, kind, result or Blank(call.name, kind))
        for index in call.outputs[1:]:
            self.tensors[index] = Blank(call.name, kind)
        self._backwards(site)
        for index in {i for i in call.inputs if self.graph.readers[i][-1] is call}:
            del self.tensors[index]

    def put(self, index: int, name: str, kind: str, x: Field | Blank) -> None:
        """Keep a tensor, corrected by all that later layers know of it."""
        if isinstance(x, Field):
            x = self._corrected(index, x, refine=kind not in layers.TRANSPARENT)
            self.made.setdefault(name, x.moments())
        self.tensors[index] = x

    def _backwards(self, site: Site) -> None:
        """What a Rescaling's output tells of a model input that nothing was known of."""
        x = self.tensors[site.call.outputs[0]]
        if not (site.ins and site.x.free and isinstance(x, Field)):
            return
        affine = layers.rescaling(site.op, len(x.mean))
        inputs = dict(zip(self.graph.inputs, self.graph.input_names, strict=True))
        if affine is not None and site.call.inputs[0] in inputs and affine[0].all():
            back = fields.scaled(x, 1.0 / affine[0], -affine[1] / affine[0])
            self.made[inputs[site.call.inputs[0]]] = back.moments(spatial=True)

    def _through(self, site: Site, linear: Linear) -> Field | None:
        """A linear layer: report what it reads, judge it, go through it and its activation."""
        name, x = site.call.name, site.x
        y = linear(x)
        if type(site.op).__name__.startswith("Separable"):
            x, y = y, layers.pointwise(site.op, y)(y)
        self._report(name, x, y, self._behind(site.call))
        phi = activations.argument(site.op)
        return None if phi is None else fields.applied(y, phi)

    def _report(self, name: str, x: Field, y: Field, known: Known | None) -> None:
        if name in self.read:
            return
        self.read[name] = x.moments(spatial=True)
        self.linear[name] = y.moments()
        spread = None
        if known is not None and len(known.variance) == len(y.mean):
            alive = known.alive & _varying(y.variance)  # cut filters leave old statistics
            if alive.any():
                ratio = np.log(y.variance[alive] / known.variance[alive]) / 2
                spread = float(ratio.std())
        self.guards[name] = _guard(spread, x.shift)

    def _behind(self, call: Call) -> Known | None:
        """What the BatchNormalization right behind a call knows of its output."""
        for reader in self.graph.readers.get(call.outputs[0], []):
            if type(reader.op).__name__ == "BatchNormalization":
                return known_statistics(reader.op)
        return None

    def _corrected(self, index: int, x: Field, *, refine: bool) -> Field:
        """The field with what BatchNormalization knows: of it, or of what its readers make."""
        for reader in self.graph.readers.get(index, []):
            known = known_statistics(reader.op)
            if known is not None and len(known.mean) == len(x.mean):
                anchored = fields.anchored(x, known.mean, known.variance)
                return replace(anchored, source="bn", known=True)
        found = list(self._equations(index, x))
        if not found:
            return x
        equations = [(linear, known) for linear, known, _ in found]
        if x.free:
            x = _fitted(x, equations)
        if not refine:
            return x
        if x.source == "propagated" and not x.free:
            logs = [
                np.log(k.variance[k.alive] / linear(y).variance[k.alive]).mean()
                for linear, k, y in found
            ]
            x = replace(x, spread=x.spread * np.exp(_SCALE * np.mean(logs)), behind=None)
        rows, target, noise = _system(equations)
        noise += _EDGE * np.concatenate(
            [linear.doubt(x.variance)[k.alive] for linear, k in equations]
        )
        mean = conditioned(x.mean, x.variance, rows, target, noise)
        moved, before = float(np.linalg.norm(mean - x.mean)), float(np.linalg.norm(x.mean))
        shift = moved / max(before, 1e-9)
        return replace(x, mean=mean, shift=None if x.free else shift, behind=None)

    def _equations(self, index: int, x: Field) -> Iterator[tuple[Linear, Known, Field]]:
        """(linear layer, what is known of its output, what it reads) for a tensor's readers."""
        for reader in self.graph.readers.get(index, []):
            kind = type(reader.op).__name__
            if kind in layers.TRANSPARENT:
                site = Site(reader, reader.op, self.graph, (x,))
                y = layers.element(site)
                if y is not None:
                    yield from self._equations(reader.outputs[0], y)
                continue
            known = self._behind(reader)
            phi = activations.argument(reader.op)
            if known is None or phi is None or not phi.linear or kind.startswith("Separable"):
                continue
            linear = layers.linear(Site(reader, reader.op, self.graph, (x,)))
            if linear is None or len(linear.bias) != len(known.mean):
                continue
            filters = linear.kernel.reshape(-1, len(known.mean)).any(axis=0)
            told = replace(known, variance=known.variance * filters)
            if told.alive.any():
                yield linear, told, x


def _varying(variance: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(variance > 1e-8 * variance.max(initial=0))


def _system(equations: list[tuple[Linear, Known]]) -> tuple[Array, Array, Array]:
    """The known means as equations for those of what is read: rows, targets and their doubt."""
    alive = [known.alive for _, known in equations]
    pairs = list(zip(equations, alive, strict=True))
    return (
        np.concatenate([linear.rows()[at] for (linear, _), at in pairs]),
        np.concatenate([(known.mean - linear.bias)[at] for (linear, known), at in pairs]),
        np.concatenate([_NOISE * known.variance[at] for (_, known), at in pairs]),
    )


def conditioned(mean: Array, variance: Array, rows: Array, target: Array, noise: Array) -> Array:
    """Means (C,) conditioned on rows (m, C) @ mean = target (m,).

    The prior is normal around `mean` with `variance`; `noise` (m,) is the variance up to which the
    equations hold.
    """
    gain = variance[:, None] * rows.T
    system = rows @ gain + np.diag(noise + 1e-12)
    return np.asarray(mean + gain @ np.linalg.solve(system, target - rows @ mean))


def _guard(spread: float | None, shift: float | None) -> Guard:
    if spread is not None and spread > SPREAD:
        return Guard(
            False,
            f"modelled deviations scatter by {spread:.2f} (log) around those that the next"
            f" BatchNormalization knows, over {SPREAD}",
            spread,
            shift,
        )
    if shift is not None and shift > SHIFT:
        return Guard(
            False,
            f"means moved by {shift:.0%} to agree with the next BatchNormalization, over"
            f" {SHIFT:.0%}",
            spread,
            shift,
        )
    return Guard(True, "", spread, shift)


def _within(x: Field, ends: tuple[float, float]) -> Field:
    """An input of numbers evenly spread between two ends, with the default correlations."""
    low, high = ends
    every = np.ones_like(x.mean)
    even = fields.anchored(x, (low + high) / 2 * every, (high - low) ** 2 / 12 * every)
    return replace(even, known=True)


def _fitted(x: Field, equations: list[tuple[Linear, Known]]) -> Field:
    """The correlation, scale and means of an unknown input that explain the first statistics."""
    channels = len(x.mean)
    least, scale, decay, mix = np.inf, 1.0, (0.5, 0.5), 0.0
    mixes = _MIXES if channels == 3 else (0.0,)
    for down, right, mixed in itertools.product(
        _DECAYS[:1] if x.size[0] == 1 else _DECAYS, _DECAYS, mixes
    ):
        logs = np.concatenate(
            [
                np.log(k.variance[k.alive] / linear.variances((down, right), mixed)[k.alive])
                for linear, k in equations
            ]
        )
        if logs.std() < least - 1e-9:
            least, scale = float(logs.std()), float(np.exp(logs.mean()))
            decay, mix = (down, right), mixed
    best = replace(fields.white(channels, x.size, decay, mix), pad=x.pad)
    best = fields.anchored(best, x.mean, np.full(channels, scale))
    mean = conditioned(x.mean, 4 * best.variance, *_system(equations))
    return replace(best, mean=mean, free=True, known=True)


def known_statistics(op: Any) -> Known | None:
    """The moving statistics of a BatchNormalization that has seen data; else None."""
    if type(op).__name__ != "BatchNormalization":
        return None
    weights = read_weights(op)
    mean = weights["moving_mean"].astype(np.float64)
    variance = weights["moving_variance"].astype(np.float64)
    if not mean.any() and (variance == 1.0).all():
        return None
    return Known(mean, variance)
