"""Training with few distinct weights in each kernel: tfmot's weight clustering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact
from edgecompress.data import Dataset
from edgecompress.datafree.rounding import largest
from edgecompress.errors import ConfigError
from edgecompress.progress import Progress, silent
from edgecompress.recipe.settings import Cluster, Train
from edgecompress.training import legacy, preserve
from edgecompress.training.bridge import Bridged, Layer, Wrap, to_tf_keras
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.kernels import Kernel, chosen, grid, variable
from edgecompress.training.trainer import Trainer
from edgecompress.vocabulary import Centroids

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]

CENTROIDS: dict[Centroids, str] = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
}
"""What tfmot calls the places where centroids start."""
_BITS = 8
_DEFAULT, _TRAIN = Cluster(), Train()


def cluster(
    artifact: Artifact,
    *,
    data: Dataset,
    options: Cluster = _DEFAULT,
    train: Train = _TRAIN,
    teacher: keras.Model | None = None,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Give each kernel at most `options.clusters` distinct weights, in training, and check the
    converted result.

    Every weight is the nearest of the kernel's centroids, which learn (tfmot's ClusterWeights), and
    are put on one int8 grid for the kernel in the end.
    The zeros of `sparsify` stay and count as one cluster. Frozen layers and kernels of fewer than
    `kernels.SMALLEST` weights stay as they are. Gammas behind a kernel are made positive, and kept
    so: see `preserve.upright`.

    The step's effect has the training and, by kernel, how many distinct weights are promised
    (`kernels`), and the grids that keep them apart from more (`grids`, as those of `qat.qat`).

    Raises like `training.fit`, `bridge.to_tf_keras` and `promises.check`; ConfigError where a
    protected layer does not exist, nothing is left to do, or zeros leave no cluster.
    """
    source = preserve.upright(artifact.need_keras("cluster"))
    trainer = Trainer(
        "cluster", artifact, data, options, train, teacher, seed, checkpoints, progress
    )
    bridged = to_tf_keras(source)
    picked = chosen(bridged.graph, options.protect, "cluster")
    sparse = preserve.masks(artifact.steps, bridged.graph)
    if options.clusters == 2 and not sparse.keys().isdisjoint(picked):
        raise ConfigError(
            "cluster.clusters = 2: the zeros of sparsify are one cluster, so that one is left for"
            " all other weights; use at least 3"
        )
    wrappers: dict[str, Any] = {}
    wrapped = [kernel for kernel in picked if _most(kernel, sparse) > options.clusters]
    model = bridged.wrapped(_wrapping(bridged, wrapped, sparse, options, wrappers))
    loose = {kernel: mask for kernel, mask in sparse.items() if kernel not in wrapped}
    zeros, signs = preserve.keep_zeros(bridged, loose), preserve.keep_signs(bridged, picked)
    done = trainer.fit(bridged, model, after_step=preserve.both(zeros, signs))
    made, promised, grids = {}, {}, {}
    for kernel in picked:
        points, scale = _snapped(_weights(bridged, kernel, wrappers.get(kernel.layer)))
        made[kernel] = points * scale
        promised[kernel.key] = {**kernel.row(points), "distinct": options.clusters}
        grids[kernel.key] = grid(kernel, _BITS, points, scale)
    return trainer.finished(bridged, done, made, kernels=promised, grids=grids)


def _weights(bridged: Bridged, kernel: Kernel, wrapper: Any) -> Array:
    """The weights of a kernel, in tfmot's wrapper or as it is."""
    if wrapper is None:
        return np.asarray(variable(bridged, kernel))
    wrapper.update_clustered_weights_associations()
    return np.asarray(wrapper.get_weight_from_layer(kernel.attribute))


def _snapped(weights: Array) -> tuple[Array, Array]:
    """The nearest whole numbers of 8 bits, and the one scale (1,) of the kernel, float32: with a
    scale per output each output would have as few distinct weights, but the kernel more."""
    scale = np.array([(np.abs(weights).max() or 1) / largest(_BITS)], np.float32)
    return np.rint(weights / scale), scale


def _most(kernel: Kernel, sparse: Mapping[Kernel, preserve.Bool]) -> int:
    """How many distinct weights a kernel can have: all, or those that are not zero and zero."""
    if kernel not in sparse:
        return kernel.size
    return int(np.count_nonzero(sparse[kernel])) + 1


def _wrapping(
    bridged: Bridged,
    picked: Sequence[Kernel],
    sparse: Mapping[Kernel, preserve.Bool],
    options: Cluster,
    wrappers: dict[str, Any],
) -> Wrap:
    """Wrap the layers of `picked` in tfmot's ClusterWeights, which `wrappers` gets by name."""
    module = legacy.tfmot().clustering.keras
    init = getattr(module.CentroidInitialization, CENTROIDS[options.centroids])
    own: dict[str, list[Kernel]] = {}
    for kernel in picked:
        own.setdefault(kernel.layer, []).append(kernel)

    def wrap(name: str, layer: Layer) -> Layer:
        if name not in own:
            return layer
        weights = [(kernel.attribute, variable(bridged, kernel)) for kernel in own[name]]
        made = module.cluster_weights(
            layer,
            number_of_clusters=options.clusters,
            cluster_centroids_init=init,
            preserve_sparsity=any(kernel in sparse for kernel in own[name]),
            name=layer.name,
        )
        layer.get_clusterable_weights = lambda: weights  # tfmot has none for depthwise kernels
        wrappers[name] = made
        return made

    return wrap
