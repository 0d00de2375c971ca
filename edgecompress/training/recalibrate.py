"""The moving statistics of BatchNormalization, taken anew from rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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

MEMORY = (0.25, 5)
"""How far back moving statistics look while a model trains: a share of an epoch's steps, but so
many steps at least."""


@contextmanager
def forgetful(model: keras.Model, steps: int) -> Iterator[None]:
    """Within, the BatchNormalization layers of a Keras 3 or tf_keras model have a momentum that
    looks back on no more than MEMORY of the `steps` of an epoch; then their own again.

    With Keras' own 0.99, a hundred steps, short stages are judged, and end, on the statistics of
    weights that are long gone: fine-tuned for 50 steps, a small network for MNIST came to 63 % with
    it, and to 80 % with 0.9.
    """
    share, least = MEMORY
    most = 1 - 1 / max(share * steps, least)
    known = [(norm, norm.momentum) for norm in _norms(model)]
    for norm, own in known:
        norm.momentum = min(own, most)
    try:
        yield
    finally:
        for norm, own in known:
            norm.momentum = own


def _norms(model: Any) -> list[Any]:
    """The BatchNormalization layers of a model and of those nested in it."""
    found = []
    for layer in model.layers:
        found += _norms(layer) if hasattr(layer, "layers") else [layer]
    return [layer for layer in found if type(layer).__name__ == "BatchNormalization"]


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
