"""Inputs made from what BatchNormalization remembers of the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Graph, trace
from edgecompress.datafree.fields import signed
from edgecompress.datafree.model import Known, input_moments, known_statistics
from edgecompress.datafree.statistics import Array, Moments, displaced
from edgecompress.errors import UnsupportedError
from edgecompress.progress import Progress, silent

if TYPE_CHECKING:
    import keras

Float = npt.NDArray[np.float32]
Tensor = Any

BATCH = 64
"""Inputs whose statistics are matched together."""
STEPS = 100
RATE = 0.3
"""Adam's first step, in standard deviations of the input; it falls to 0 along half a cosine."""
LABELS = 0.1
"""Weight of a classifier's surprise at its classes."""
_TINY, _RARE = 1e-12, 1e-7


def distilled(
    model: keras.Model,
    *,
    count: int = BATCH,
    seed: int,
    steps: int = STEPS,
    progress: Progress = silent,
) -> Float:
    """Inputs (count, *input_shape) float32 that a network takes for its training data.

    Random fields with the moments that the weights tell of the input, changed in `steps` steps of
    Adam until their means and variances in front of every BatchNormalization are its moving ones,
    in batches of at most BATCH, and until a classifier that ends in a softmax takes them for one
    class each, all in turn: without that, nothing is asked of what its last layers make. The same
    seed gives the same inputs. Raises UnsupportedError for a model with several inputs or without a
    fixed input size, and for one without a BatchNormalization that has seen data. Sources: ZeroQ
    (Cai et al., CVPR 2020), equation 4, here of a whole batch and relative to the moving
    deviations; DeepInversion (Yin et al., CVPR 2020), equation 4, for the classes.
    """
    graph = trace(model)
    shape = _shape(graph)
    targets = _targets(graph)
    read = input_moments(graph)[graph.input_names[0]]
    draws = np.random.default_rng(seed)
    batches = -(-count // BATCH)
    size = -(-count // batches)
    match = _matcher(graph, targets, (size, *shape), steps)
    scale = np.sqrt(np.maximum(np.diag(read.covariance), _TINY))
    made = []
    for batch in range(batches):
        start = noise(read, (size, *shape), draws) / scale

        def told(done: int, before: int = batch * steps) -> None:
            progress("distil", before + done, batches * steps)

        made.append(match(start, read.mean, scale, told))
    return np.concatenate(made)[:count]


def noise(read: Moments, shape: tuple[int, ...], draws: np.random.Generator) -> Array:
    """Normal random fields (N, ..., C) of mean 0 with the covariances of `read`.

    Those with neighbours (`spread`) go over at most two axes between N and C; each variance is
    kept where they are no covariances of a stationary field. float64.
    """
    size = (1, 1, *shape[1:-1])[-2:]
    grid = [2 * n if n > 1 else 1 for n in size]
    spread = read.covariance[None, None] if read.spread is None else read.spread
    spectrum = np.fft.fft2(displaced(spread, signed(grid[0]), signed(grid[1])), axes=(0, 1))
    power, basis = np.linalg.eigh((spectrum + spectrum.conj().swapaxes(-1, -2)) / 2)
    root = (basis * np.sqrt(np.maximum(power, 0.0))[..., None, :]) @ basis.conj().swapaxes(-1, -2)
    kept = np.square(np.abs(root)).sum(axis=(0, 1, 3)) / (grid[0] * grid[1])
    root *= np.sqrt(np.diag(read.covariance) / np.maximum(kept, _TINY))[:, None]
    white = np.fft.fft2(draws.standard_normal((shape[0], *grid, shape[-1])), axes=(1, 2))
    fields = np.fft.ifft2(np.einsum("hwij,nhwj->nhwi", root.conj(), white), axes=(1, 2))
    return np.asarray(fields.real[:, : size[0], : size[1]]).reshape(shape)


def _shape(graph: Graph) -> tuple[int, ...]:
    sizes = [size for index in graph.inputs for size in graph.shapes[index][1:]]
    fixed = [size for size in sizes if size is not None]
    if len(graph.inputs) > 1 or len(fixed) < len(sizes):
        raise UnsupportedError(
            f"distilled inputs: {graph.name} has inputs"
            f" {', '.join(str(graph.shapes[index]) for index in graph.inputs)}; they are made for"
            " one input of fixed size, use samples"
        )
    return tuple(fixed)


def _targets(graph: Graph) -> Mapping[str, tuple[int, Known]]:
    """Each BatchNormalization that has seen data, with the axis of its channels."""
    found = {}
    for name, op, _ in graph.layers():
        known = known_statistics(op)
        if known is not None:
            found[name] = op.axis if isinstance(op.axis, int) else op.axis[0], known
    if not found:
        raise UnsupportedError(
            f"distilled inputs: {graph.name} has no BatchNormalization that has seen data, which"
            ' they are made from; use samples, or calibration "data-free"'
        )
    return found


def _matcher(
    graph: Graph, targets: Mapping[str, tuple[int, Known]], shape: tuple[int, ...], steps: int
) -> Callable[[Array, Array, Array, Callable[[int], None]], Float]:
    """What makes inputs of a start (in deviations), their mean and their deviations."""
    import keras
    import tensorflow as tf

    x = keras.Variable(np.zeros(shape, np.float32), name="inputs")
    mean, scale = (keras.Variable(np.zeros(shape[-1], np.float32), name=n) for n in ("mean", "std"))
    decay = keras.optimizers.schedules.CosineDecay(RATE, max(steps, 1))
    adam = keras.optimizers.Adam(decay)
    adam.build([x])

    def step() -> None:
        with tf.GradientTape() as tape:
            loss = _distance(graph, targets, x.value * scale.value + mean.value)
        adam.apply(tape.gradient(loss, [x.value]), [x])

    compiled = tf.function(step)

    def match(start: Array, at: Array, width: Array, told: Callable[[int], None]) -> Float:
        for variable in adam.variables:
            if variable is not adam.learning_rate:
                variable.assign(tf.zeros_like(variable.value))
        for variable, value in ((x, start), (mean, at), (scale, width)):
            variable.assign(value.astype(np.float32))
        for done in range(steps):
            told(done)
            compiled()
        told(steps)
        return np.asarray(x.value * scale.value + mean.value)

    return match


def _distance(graph: Graph, targets: Mapping[str, tuple[int, Known]], inputs: Tensor) -> Tensor:
    """By how much means and deviations in front of each normalisation miss its moving ones,
    squared, in moving deviations, the mean over channels summed over layers; and `_surprise`."""
    import keras
    import tensorflow as tf

    values = {graph.inputs[0]: inputs}
    read: dict[str, list[Tensor]] = {}
    for call in graph.calls:
        given = [values[index] for index in call.inputs]
        if call.name in targets:
            rows = tf.experimental.numpy.moveaxis(given[0], targets[call.name][0], -1)
            read.setdefault(call.name, []).append(tf.reshape(rows, (-1, rows.shape[-1])))
        arguments = call.node.arguments
        filled = dict(zip(map(id, arguments.keras_tensors), given, strict=True))
        args, kwargs = arguments.fill_in(filled)
        values.update(zip(call.outputs, keras.tree.flatten(call.op(*args, **kwargs)), strict=True))
    total = _surprise(graph, values[graph.outputs[0]])
    for name, parts in read.items():
        known = targets[name][1]
        mean, variance = tf.nn.moments(tf.concat(parts, 0), 0)
        width = tf.constant(np.sqrt(np.maximum(known.variance, _TINY)), tf.float32)
        shift = (mean - tf.constant(known.mean, tf.float32)) / width
        ratio = tf.sqrt(variance + _TINY) / width
        total += tf.reduce_mean(tf.square(shift) + tf.square(ratio - 1.0))
    return total


def _surprise(graph: Graph, outputs: Tensor) -> Tensor:
    """LABELS times the mean surprise at all classes in turn, where the model ends in a softmax."""
    import tensorflow as tf

    maker = next(call.op for call in graph.calls if graph.outputs[0] in call.outputs)
    name = getattr(getattr(maker, "activation", None), "__name__", type(maker).__name__.lower())
    if name != "softmax" or outputs.shape.rank != 2:
        return tf.zeros(())
    count, classes = outputs.shape
    labels = tf.one_hot(np.arange(count) % classes, classes)
    chances = tf.reduce_sum(labels * outputs, axis=-1)
    return -LABELS * tf.reduce_mean(tf.math.log(chances + _RARE))
