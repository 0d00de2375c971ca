"""Which layers can do with fewer bits: what each costs the outputs, and the best choice for a size.

The error of a layer's kernel on its grid of k bits is measured at the model's outputs, all other
layers float. The errors of all layers together are taken for the sum of these (Wang et al., HAQ,
CVPR 2019, search the same choice; Dong et al., HAWQ-V2, NeurIPS 2020, equation 11, add up the same
way), so that the choice is a knapsack, solved exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import read_weights, rebuild, trace
from edgecompress.datafree.kernels import kernels
from edgecompress.datafree.statistics import Statistics
from edgecompress.datafree.weights import Grid
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict
from edgecompress.progress import Progress, silent

if TYPE_CHECKING:
    import keras

Float = npt.NDArray[np.float32]

BITS = (8, 4)
"""Those that both backends store as such; others gain in the ahead-of-time C alone."""
LEAST = 1e-12
"""A probability that is 0, for its logarithm."""


@dataclass(frozen=True)
class Candidate:
    """One layer with weights of so many bits: the bytes of its kernels, biases left out, and the
    error of the model's outputs that it makes alone (see `divergence`)."""

    layer: str
    bits: int
    bytes: int
    error: float


def sensitivity(
    model: keras.Model,
    rows: Float,
    on_grid: Callable[[int], Mapping[tuple[str, str], Grid]],
    *,
    bits: Sequence[int] = BITS,
    progress: Progress = silent,
) -> tuple[Candidate, ...]:
    """Every layer with kernels at each of `bits` (2 to 8), in graph order.

    `model` is a folded one, with one input and output, `rows` (N, *input_shape) float32; `on_grid`
    gives all kernels by layer and weight on grids of so many bits. A layer with nothing but
    depthwise kernels is offered with the most bits alone: they are small, suffer most, and the
    ahead-of-time C does not pack them.
    """
    graph = trace(model)
    trial = rebuild(graph, config=lambda name: {}, weights=lambda name, old: old)
    ops = {name: op for name, op, _ in trace(trial).layers()}
    expected = predict(trial, rows)
    sizes: dict[str, list[int]] = {}
    few: set[str] = set()
    for kernel in kernels(graph, Statistics({}, {})):
        sizes.setdefault(kernel.call.name, []).append(kernel.array.size)
        few |= set() if kernel.depthwise else {kernel.call.name}
    made = {count: on_grid(count) for count in bits}
    found = []
    for done, (layer, elements) in enumerate(sizes.items()):
        progress("sensitivity", done, len(sizes))
        for count in bits if layer in few else (max(bits),):
            with _rounded(ops[layer], layer, made[count]):
                error = divergence(expected, predict(trial, rows))
            held = sum(math.ceil(size * count / 8) for size in elements)
            found.append(Candidate(layer, count, held, error))
    progress("sensitivity", len(sizes), len(sizes))
    return tuple(found)


@contextmanager
def _rounded(op: Any, layer: str, grids: Mapping[tuple[str, str], Grid]) -> Iterator[None]:
    """The layer `op` with its kernels on their grids for a while."""
    old = read_weights(op)
    new = {
        name: (grids[layer, name].values * grids[layer, name].scales).astype(array.dtype)
        if (layer, name) in grids
        else array
        for name, array in old.items()
    }
    op.set_weights(list(new.values()))
    yield
    op.set_weights(list(old.values()))


def divergence(expected: Float, found: Float) -> float:
    """How far outputs (N, ...) are from those expected.

    Where every expected row is a distribution, the mean Kullback-Leibler divergence from it in
    nats; else the squared difference over the variance, the inverse of a signal to noise ratio.
    """
    p, q = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (expected, found))
    if p.shape[1] > 1 and (p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-3):
        logs = np.log(np.maximum(p, LEAST)) - np.log(np.maximum(q, LEAST))
        return max(float(np.mean(np.sum(p * logs, axis=1))), 0.0)
    spread = float(np.mean(np.square(p - p.mean(axis=0))))
    return float(np.mean(np.square(p - q))) / max(spread, LEAST)


def limit_of(candidates: Sequence[Candidate], asked: float) -> int:
    """Bytes: `asked` itself above 1, else its share of what the most bits take in all layers."""
    return math.floor(asked * _total(candidates, max) + 1e-9) if asked <= 1 else int(asked)


def choose(candidates: Sequence[Candidate], limit: int) -> tuple[Candidate, ...]:
    """One candidate for each layer: the least sum of errors that fits into `limit` bytes.

    Exact: all sums of bytes and errors that no other is below in both are kept, layer by layer
    (Nemhauser and Ullmann, Management Science 15, 1969). Raises ConfigError where nothing fits.
    """
    least = _total(candidates, min)
    if least > limit:
        raise ConfigError(
            f"quantize: weight_flash: {limit} bytes cannot be reached: with the fewest bits the"
            f" weights take {least}; allow more, or prune"
        )
    sizes, errors = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[list[Candidate], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for options in _by_layer(candidates):
        size = np.concatenate([sizes + each.bytes for each in options])
        error = np.concatenate([errors + each.error for each in options])
        order = np.lexsort((error, size))
        order = order[size[order] <= limit]
        best = np.minimum.accumulate(error[order])
        order = order[np.concatenate([[True], best[1:] < best[:-1]])]
        option, before = np.divmod(order, len(sizes))
        trail.append((options, option, before))
        sizes, errors = size[order], error[order]
    place, chosen = len(errors) - 1, []
    for options, option, before in reversed(trail):
        chosen.append(options[option[place]])
        place = int(before[place])
    return tuple(reversed(chosen))


def _by_layer(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for each in candidates:
        found.setdefault(each.layer, []).append(each)
    return list(found.values())


def _total(candidates: Sequence[Candidate], pick: Callable[[Iterator[int]], int]) -> int:
    return sum(pick(each.bytes for each in options) for options in _by_layer(candidates))


def to_json(
    candidates: Sequence[Candidate], chosen: Sequence[Candidate], limit: int
) -> dict[str, Any]:
    """What was chosen and from what, as JSON values: a row for each layer, in graph order."""
    errors = {
        options[0].layer: {str(each.bits): each.error for each in options}
        for options in _by_layer(candidates)
    }
    return {
        "limit": limit,
        "before": _total(candidates, max),
        "bytes": sum(each.bytes for each in chosen),
        "layers": [{**vars(each), "errors": errors[each.layer]} for each in chosen],
    }
