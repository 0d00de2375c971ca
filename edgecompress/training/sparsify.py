"""Training while the smallest weights become zero: tfmot's gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact
from edgecompress.data import Dataset
from edgecompress.progress import Progress, silent
from edgecompress.recipe.settings import Sparsify, Train
from edgecompress.training import legacy
from edgecompress.training.bridge import Bridged, Layer, Wrap, to_tf_keras
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.kernels import Kernel, chosen, variable
from edgecompress.training.trainer import Trainer
from edgecompress.vocabulary import Pattern

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]
Tensor = Any

BLOCKS: dict[Pattern, int] = {"pairs": 2, "quads": 4}
"""How many neighbouring weights of an output become zero together."""
UPDATES = 100
"""How often masks change while sparsity rises, at most."""
_DEFAULT, _TRAIN = Sparsify(), Train()


def sparsify(
    artifact: Artifact,
    *,
    data: Dataset,
    options: Sparsify = _DEFAULT,
    train: Train = _TRAIN,
    teacher: keras.Model | None = None,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Make the kernels sparse, in training, and check the converted result.

    Of each kernel the weights with the smallest magnitudes become zero, more and more along
    `options.ramp` (Zhu and Gupta, arXiv:1710.01878, equation 1), by tfmot's PruneLowMagnitude. With
    a pattern n:m all but the n largest of each m neighbouring input channels, with "pairs" and
    "quads" whole blocks of neighbours in the order of the flatbuffer (input channels, then places
    of the window), those with the smallest sums. Frozen layers and kernels of fewer than
    `kernels.SMALLEST` weights stay as they are; with a pattern also depthwise ones, which have no
    neighbours. Only epochs with the whole sparsity count as best.

    The step's effect has the training and, by kernel, how many weights are zero.

    Raises like `training.fit`, `bridge.to_tf_keras` and `promises.check`; ConfigError where a
    protected layer does not exist, or nothing is left to do.
    """
    source = artifact.need_keras("sparsify")
    trainer = Trainer(
        "sparsify", artifact, data, options, train, teacher, seed, checkpoints, progress
    )
    ramp = _ramp(options, trainer.steps)
    bridged = to_tf_keras(source)
    picked = chosen(bridged.graph, options.protect, "sparsify")
    if options.pattern != "unstructured":
        picked = [kernel for kernel in picked if not kernel.depthwise]
    wrappers: dict[str, Any] = {}
    model = bridged.wrapped(_wrapping(bridged, picked, options, ramp, wrappers))
    for kernel in picked:
        _follow_pattern(wrappers[kernel.layer].pruning_obj, kernel, options)

    def count(step: int, total: int) -> None:
        for wrapper in wrappers.values():
            wrapper.pruning_step.assign(step)

    best_from = _whole_from(ramp) / trainer.steps
    done = trainer.fit(bridged, model, best_from=best_from, before_step=count)
    made = {
        kernel: _exact(_masked(wrappers[kernel.layer], bridged, kernel), kernel, options)
        for kernel in picked
    }
    promised = {k.key: {**k.row(values), **_promise(k, options)} for k, values in made.items()}
    return trainer.finished(bridged, done, made, pattern=options.pattern, kernels=promised)


def _ramp(options: Sparsify, total: int) -> Any:
    """tfmot's schedule for `total` steps, which it counts from 1.

    Its masks change every so many steps, and sparsity is whole only if the last of them is one:
    the end is moved to the last multiple.
    """
    module = legacy.tfmot().sparsity.keras
    last = max(1, round(options.end * total))
    every = max(1, last // UPDATES)
    end = 1 + (last - 1) // every * every
    if options.ramp == "constant" or end == 1:
        return module.ConstantSparsity(options.share, 1, end, every)
    return module.PolynomialDecay(0.0, options.share, 1, end, frequency=every)


def _whole_from(ramp: Any) -> int:
    """After how many steps the sparsity is whole."""
    return 1 if hasattr(ramp, "target_sparsity") else int(ramp.end_step)


def _wrapping(
    bridged: Bridged,
    picked: Sequence[Kernel],
    options: Sparsify,
    ramp: Any,
    wrappers: dict[str, Any],
) -> Wrap:
    """Wrap the layers of `picked` in tfmot's PruneLowMagnitude, which `wrappers` gets by name."""
    own: dict[str, list[Kernel]] = {}
    for kernel in picked:
        own.setdefault(kernel.layer, []).append(kernel)

    def wrap(name: str, layer: Layer) -> Layer:
        if name not in own:
            return layer
        weights = [variable(bridged, kernel) for kernel in own[name]]
        layer.get_prunable_weights = lambda: weights  # tfmot has none for depthwise kernels
        made = legacy.tfmot().sparsity.keras.prune_low_magnitude(
            layer, pruning_schedule=ramp, sparsity_m_by_n=_n_of_m(options)
        )
        made._name = layer.name
        wrappers[name] = made
        return made

    return wrap


def _follow_pattern(pruning: Any, kernel: Kernel, options: Sparsify) -> None:
    """Give tfmot's `pruning` of one kernel the masks that it has not itself.

    Its n:m runs along the last axis but one, or the first of two, which are the input channels of
    Conv2D and Dense; its blocks are for two axes only.
    """
    import tensorflow as tf

    if options.pattern in BLOCKS:
        size = BLOCKS[options.pattern]

        def blocks(weights: Tensor) -> tuple[Tensor, Tensor]:
            share = pruning._pruning_schedule(pruning._step_fn())[1]
            return tf.constant(0.0), _block_mask(weights, kernel, size, share)

        pruning._update_mask = blocks
    elif options.pattern != "unstructured":
        known = pruning._update_mask_sparsity_m_by_n

        def groups(weights: Tensor, n_of_m: tuple[int, int]) -> Tensor:
            rows = kernel.rows(weights, tf)
            moved = tf.transpose(tf.reshape(rows, (-1, kernel.inputs)))
            mask = tf.transpose(known(moved, n_of_m))
            return kernel.back(tf.reshape(mask, tf.shape(rows)), tf)

        pruning._update_mask_sparsity_m_by_n = groups


def _block_mask(weights: Tensor, kernel: Kernel, size: int, share: Tensor) -> Tensor:
    """1 for the weights of the blocks with the largest sums, 0 for the `share` of the others."""
    import tensorflow as tf

    rows = tf.abs(kernel.rows(weights, tf))
    width = rows.shape[1]
    padded = tf.pad(rows, [[0, 0], [0, -width % size]])
    sums = tf.reduce_sum(tf.reshape(padded, (-1, size)), axis=1)
    count = tf.cast(tf.size(sums), tf.float32)
    keep = tf.cast(tf.maximum(tf.round(count * (1 - share)), 1), tf.int32)
    rank = tf.argsort(tf.argsort(sums, direction="DESCENDING", stable=True))
    kept = tf.cast(rank < keep, weights.dtype)
    mask = tf.reshape(tf.repeat(kept, size), padded.shape)[:, :width]
    return kernel.back(mask, tf)


def _masked(wrapper: Any, bridged: Bridged, kernel: Kernel) -> Array:
    """The weights of a kernel that the wrapper keeps, 0 in the place of the others."""
    own = variable(bridged, kernel)
    mask = next(mask for weight, mask, _ in wrapper.pruning_vars if weight is own)
    return np.asarray(own * mask)


def _exact(weights: Array, kernel: Kernel, options: Sparsify) -> Array:
    """The kernel with as many zeros as promised: tfmot keeps all weights that are as large as the
    smallest one it keeps."""
    if options.pattern != "unstructured":
        return weights
    flat = weights.ravel().copy()
    flat[np.abs(flat).argsort(kind="stable")[: _zeros(kernel.size, options.share)]] = 0
    return flat.reshape(weights.shape)


def _zeros(count: int, share: float) -> int:
    """How many of `count` become zero, as tfmot rounds it."""
    kept = np.round(np.float32(count) * (np.float32(1) - np.float32(share)))
    return count - max(int(kept), 1)


def _n_of_m(options: Sparsify) -> tuple[int, int] | None:
    """How many of how many neighbours become zero, as tfmot has it; None for other patterns."""
    kept, colon, of = options.pattern.partition(":")
    return (int(of) - int(kept), int(of)) if colon else None


def _promise(kernel: Kernel, options: Sparsify) -> dict[str, Any]:
    """What is promised of a kernel: `block` is how many neighbours are zero together, `zeros` how
    many of these blocks are; with n:m `group` is [n, m]: no more than n of each m of the `inputs`
    at each place of the window are not zero."""
    n_of_m = _n_of_m(options)
    if n_of_m is not None:
        group = [n_of_m[1] - n_of_m[0], n_of_m[1]]
        return {"group": group, "inputs": kernel.inputs}
    block = BLOCKS.get(options.pattern, 1)
    blocks = kernel.outputs * -(-kernel.size // kernel.outputs // block)
    return {"block": block, "zeros": _zeros(blocks, options.share)}
