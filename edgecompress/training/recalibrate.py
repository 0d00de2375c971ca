"""The moving statistics of BatchNormalization, taken anew from rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgecompress.channels.graph import Weights, read_weights, rebuild, trace
from edgecompress.data import Float

if TYPE_CHECKING:
    import keras

STATISTICS = ("moving_mean", "moving_variance")
QUIET = {
    "AlphaDropout": "rate",
    "Dropout": "rate",
    "GaussianDropout": "rate",
    "GaussianNoise": "stddev",
    "SpatialDropout1D": "rate",
    "SpatialDropout2D": "rate",
    "SpatialDropout3D": "rate",
}
"""Layers that make noise while a model trains, and the option that says how much."""


def recalibrated(model: keras.Model, batches: Iterable[Float]) -> keras.Model:
    """A new model whose BatchNormalization layers remember `batches` of rows (N, *input_shape).

    The moving mean and variance become the means over the batches of what each layer sees, with
    batch statistics in all layers before it and without dropout. After channels are cut these are
    no longer those of training, and correcting them alone wins much back: Li et al., "EagleEye"
    (ECCV 2020, arXiv:2007.02491), section 3.3. Layers that are not trainable stay as they are.
    """
    graph = trace(model)
    ops = {name: op for name, op, _ in graph.layers()}

    def silent(name: str) -> dict[str, float]:
        option = QUIET.get(type(ops[name]).__name__)
        return {} if option is None else {option: 0.0}

    quiet = rebuild(graph, config=silent, weights=lambda name, old: old)
    norms = [each for each in quiet.layers if type(each).__name__ == "BatchNormalization"]
    for count, rows in enumerate(batches if norms else ()):
        for norm in norms:
            norm.momentum = count / (count + 1)
        quiet(rows, training=True)
    remembered = {norm.name: read_weights(norm) for norm in norms}

    def weights(name: str, old: Weights) -> Weights:
        known = remembered.get(name, {})
        return {
            key: known.get(key, array) if key in STATISTICS else array for key, array in old.items()
        }

    return rebuild(graph, config=lambda name: {}, weights=weights)
