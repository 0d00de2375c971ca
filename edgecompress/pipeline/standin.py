"""A model with the zeros, the distinct values and the grids that stages promise, without training.

Its weights are worth nothing; what they take in flash is what those of the trained model will.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Graph, read_weights, rebuild, trace
from edgecompress.datafree.rounding import largest
from edgecompress.recipe.settings import Cluster, Qat, Sparsify
from edgecompress.training.kernels import Kernel, chosen, kernels
from edgecompress.training.sparsify import BLOCKS

if TYPE_CHECKING:
    import keras

    from edgecompress.recipe import Recipe

Array = npt.NDArray[Any]
Grids = Mapping[str, Mapping[str, Any]]
"""As the effect of a qat step has them (see `trained.convert_trained`)."""


def stand_in(model: keras.Model, recipe: Recipe) -> tuple[keras.Model, Grids]:
    """A new model of the same layers whose kernels are as `sparsify`, `cluster` and `qat` of the
    recipe leave them, and the grids of those that have one: all with qat, else those of cluster.

    The smallest weights become zero, once; distinct values lie at even distances. Raises
    ConfigError as these stages do, where they have nothing to work on.
    """
    graph = trace(model)
    known = {name: read_weights(op) for name, op, _ in graph.layers()}
    rows = {k: np.array(k.rows(known[k.layer][k.weight])) for k in kernels(graph)}
    if recipe.sparsify is not None:
        for kernel in _sparse(graph, recipe.sparsify):
            rows[kernel] = _thinned(rows[kernel], kernel, recipe.sparsify)
    tied = () if recipe.cluster is None else chosen(graph, recipe.cluster.protect, "cluster")
    for kernel in tied:
        assert recipe.cluster is not None
        rows[kernel] = _clustered(rows[kernel], recipe.cluster)
    grids: dict[str, Any] = {}
    bits = Qat.weight_bits if recipe.qat is None else recipe.qat.weight_bits
    for kernel in tied if recipe.qat is None else tuple(rows):
        rows[kernel], scales = _on_grid(rows[kernel], bits, shared=kernel in tied)
        grids[kernel.key] = {"weight": kernel.weight, "bits": bits, "scales": scales}
    changes: dict[str, dict[str, Array]] = {}
    for kernel, values in rows.items():
        own = changes.setdefault(kernel.layer, {})
        own[kernel.weight] = np.asarray(kernel.back(values), np.float32)
    made = rebuild(
        graph,
        config=lambda name: {},
        weights=lambda name, old: {**old, **changes.get(name, {})},
    )
    return made, grids


def _sparse(graph: Graph, options: Sparsify) -> list[Kernel]:
    """The kernels that `sparsify` works on: a pattern is none of depthwise ones."""
    found = chosen(graph, options.protect, "sparsify")
    return [k for k in found if options.pattern == "unstructured" or not k.depthwise]


def _thinned(rows: Array, kernel: Kernel, options: Sparsify) -> Array:
    """Rows (outputs, rest) with the share of zeros, or the pattern, that is asked for."""
    kept, colon, of = options.pattern.partition(":")
    width = kernel.inputs if colon else rows.shape[1]
    size = int(of) if colon else BLOCKS.get(options.pattern, 1)
    parts = rows.reshape(-1, width)
    blocks = np.pad(parts, [(0, 0), (0, -width % size)]).reshape(len(parts), -1, size)
    if colon:  # the smallest of each block
        rank = np.abs(blocks).argsort(axis=-1, kind="stable").argsort(axis=-1)
        zero = rank < int(of) - int(kept)
    else:  # the smallest blocks
        sums = np.abs(blocks).sum(axis=-1)
        count = min(round(sums.size * options.share), sums.size - 1)
        least = np.zeros(sums.size, np.bool_)
        least[sums.reshape(-1).argsort(kind="stable")[:count]] = True
        zero = np.broadcast_to(least.reshape(*sums.shape, 1), blocks.shape)
    thinned = np.where(zero, 0, blocks).reshape(len(parts), -1)[:, :width]
    return np.asarray(thinned.reshape(rows.shape))


def _clustered(rows: Array, options: Cluster) -> Array:
    """Rows with at most so many distinct values; 0, where there is any, stays one of them."""
    alive = rows[rows != 0]
    if not alive.size:
        return rows
    count = options.clusters - bool((rows == 0).any())
    values = np.linspace(alive.min(), alive.max(), count)
    place = np.rint((rows - values[0]) / (np.ptp(values) or 1) * (count - 1)).astype(np.int64)
    return np.where(rows == 0, 0, values[np.clip(place, 0, count - 1)])


def _on_grid(rows: Array, bits: int, *, shared: bool) -> tuple[Array, list[float]]:
    """Rows as whole numbers times their scale, and the scales, one for each output or one."""
    peak = np.abs(rows).max(axis=None if shared else 1, keepdims=True, initial=0)
    steps = np.where(peak > 0, peak, 1) / largest(bits)
    scales = np.asarray(steps, np.float32)
    values = np.rint(rows / scales) * scales
    return values, [float(scale) for scale in scales.reshape(-1)]
