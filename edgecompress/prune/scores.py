"""How much each channel matters: one function per score, one line per score in SCORES.

A score gives a value per channel class of the view; the least go first, and a global ranking
compares the values of all groups as they are. NaN means "cannot be scored", and keeps the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import read_weights
from edgecompress.channels.rules import Side
from edgecompress.datafree import obs
from edgecompress.datafree.readers import readers
from edgecompress.datafree.statistics import Statistics
from edgecompress.errors import ConfigError
from edgecompress.progress import Progress
from edgecompress.vocabulary import ScoreName

if TYPE_CHECKING:
    import keras


Array = npt.NDArray[Any]
Data = tuple[Array, Array | None]
"""(x, y): float32 inputs (N, *input_shape); y as in `data.Split`: integer classes, 0 or 1, float
targets of the output's shape, or None for an autoencoder."""

BATCH = 32


@dataclass(frozen=True, eq=False)
class Task:
    """All that a score may look at; a score reads what it needs."""

    view: View
    model: keras.Model
    data: Data | None
    seed: int
    progress: Progress
    statistics: Statistics | None = None


def _relative(task: Task, sides: tuple[Side, ...], value: Callable[[Array], Array]) -> Array:
    """Sum over the kernels that a channel takes part in of its value / the kernel's mean value.

    `value` maps a kernel's rows (one per position of the channel axis) to a number per row.
    Relative to the kernel, because layers differ in scale by more than channels do. Summed and
    not averaged, so that channels that hold many layers together, as a residual stream does, go
    last. On the MLPerf Tiny DS-CNN and ResNet-8 this keeps more accuracy at equal MACs than
    norms divided by the group's mean (DepGraph's reference code), and on the DS-CNN than raw norms.
    """
    view = task.view
    ops = {name: op for name, op, _ in view.graph.layers()}
    total = np.zeros(len(view.roots))
    for name, weight, axis in view.axes():
        kernel = read_weights(ops[name]).get(weight)
        if axis.side not in sides or kernel is None or kernel.ndim == 1:
            continue
        rows = np.moveaxis(kernel, axis.axis, 0).astype(np.float64)
        classes = view.roots[axis.ids]
        own = np.bincount(classes, value(rows.reshape(len(rows), -1)), minlength=len(total))
        total += own / (own[np.unique(classes)].mean() or 1.0)
    return total


def _norm(power: int) -> Callable[[Task], Array]:
    """The l1 or squared l2 norm of the weights that make the channel and that read it.

    The sum over coupled weights of |w|^p as in DepGraph (Fang et al., CVPR 2023), each kernel's
    part relative to its mean (see `_relative`).
    """

    def value(rows: Array) -> Array:
        return np.asarray((np.abs(rows) ** power).sum(axis=1))

    return lambda task: _relative(task, ("out", "in"), value)


def _random(task: Task) -> Array:
    """Uniform in [0, 1), the same for the same seed."""
    return np.random.default_rng(task.seed).random(len(task.view.roots))


def _bn_gamma(task: Task) -> Array:
    """Mean |gamma| of the channel's BatchNormalization layers (Liu et al., Network Slimming, 2017).

    NaN where a channel has none.
    """
    total = np.zeros(len(task.view.roots))
    count = np.zeros(len(task.view.roots))
    for name, op, _ in task.view.graph.layers():
        gamma = read_weights(op).get("gamma")
        flow = task.view.flows.get(name)
        if gamma is None or flow is None:
            continue
        classes = task.view.roots[flow.weights["gamma"][0].ids]
        np.add.at(total, classes, np.abs(gamma))
        np.add.at(count, classes, 1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _geometric_median(task: Task) -> Array:
    """Sum of distances to the other filters of the layer (He et al., FPGM, CVPR 2019).

    A filter near all others is replaceable. Over the layers that make the channel (`_relative`).
    """

    def value(rows: Array) -> Array:
        squares = (rows**2).sum(axis=1)
        distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
        return np.asarray(np.sqrt(distances).sum(axis=1))

    return _relative(task, ("out",), value)


def _taylor(task: Task) -> Array:
    """First-order change of the loss when the channel reads as zero, squared, mean over batches.

    A gate on a channel scales the weights that read it, so dL/dgate = sum of w * dL/dw over them:
    Molchanov et al., CVPR 2019, with gates where `channels.mask` has zeros.
    """
    if task.data is None:
        raise ConfigError("prune: score taylor needs data=(x, y), some training samples")
    import tensorflow as tf

    x, y = task.data
    target = np.asarray(x if y is None else y)
    if len(x) == 0 or target.shape[:1] != (len(x),):
        targets = len(target) if target.ndim else "a single value as"
        raise ConfigError(f"prune: data has {len(x)} inputs and {targets} targets")
    loss = _loss(task, target)
    ops = {name: op for name, op, _ in task.view.graph.layers()}
    readers = [
        (variable.value, axis)
        for name, weight, axis in task.view.axes("in")
        for variable in ops[name].weights
        if variable.name == weight
    ]
    total = np.zeros(len(task.view.roots))
    batches = range(0, len(x), BATCH)
    for done, start in enumerate(batches):
        task.progress("taylor", done, len(batches))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value, _ in readers:
                tape.watch(value)
            output = task.model(tf.constant(x[start : start + BATCH]), training=False)
            error = loss(target[start : start + BATCH], output)
        gradients = tape.gradient(error, [value for value, _ in readers])
        gates = np.zeros_like(total)
        for (value, axis), gradient in zip(readers, gradients, strict=True):
            if gradient is not None:
                rows = np.moveaxis(value.numpy() * gradient.numpy(), axis.axis, 0)
                np.add.at(gates, task.view.roots[axis.ids], rows.reshape(len(rows), -1).sum(axis=1))
        total += gates**2
    task.progress("taylor", len(batches), len(batches))
    return total / len(batches)


def _obs(task: Task) -> Array:
    """What the removal of the channel adds to the predicted relative error of the layers that read
    it, when channels go in the greedy order of `datafree.obs` and the layers are repaired.

    NaN where nothing is known of what reads the channel.
    """
    if task.statistics is None:
        raise ConfigError("prune: score obs needs statistics; call prune.plan")
    known = tuple(readers(task.view, task.statistics))
    total = np.full(len(task.view.roots), np.nan)
    for group in task.view.groups:
        classes = task.view.channels[group.name]
        if group.protected is None and obs.covered(task.view, group.name, known):
            found = obs.order(task.view, group.name, known)
            total[classes[found.channels]] = found.increments
    return total


def _loss(task: Task, target: Array) -> Callable[[Any, Any], Any]:
    """The loss that fits the targets: classes, 0 or 1 for one output, or values."""
    import keras

    graph = task.view.graph
    shape = graph.shapes[graph.outputs[0]]
    if len(graph.outputs) > 1:
        raise ConfigError(
            f"prune: score taylor needs one output; the model has {len(graph.outputs)}"
        )
    if target.dtype.kind in "iub":
        last = graph.calls[-1].op
        activation = getattr(getattr(last, "activation", None), "__name__", type(last).__name__)
        logits = activation.lower() not in ("softmax", "sigmoid")
        _check_classes(target, shape)
        if shape[-1] == 1:
            binary = keras.losses.BinaryCrossentropy(from_logits=logits)
            return lambda y, p: binary(y.reshape(-1, 1), keras.ops.reshape(p, (-1, 1)))
        sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        return lambda y, p: sparse(y.reshape(-1), keras.ops.reshape(p, (-1, shape[-1])))
    if target.shape[1:] != shape[1:]:
        raise ConfigError(
            f"prune: targets have shape {target.shape}, the model's output {shape}; give integer"
            " classes or values of the output's shape"
        )
    return keras.losses.MeanSquaredError()  # type: ignore[no-any-return]


def _check_classes(target: Array, shape: tuple[int | None, ...]) -> None:
    """ConfigError unless each row has one whole number, a class of the output's last axis."""
    if target.size != len(target) or any(side != 1 for side in shape[1:-1]):
        raise ConfigError(
            f"prune: targets are whole numbers of shape {target.shape}, the model's output"
            f" {shape}; give a class per row (of one-hot y, y.argmax(1)), or float values of the"
            " output's shape"
        )
    classes = max(shape[-1] or 0, 2)
    if target.min() < 0 or target.max() >= classes:
        wrong = target.min() if target.min() < 0 else target.max()
        raise ConfigError(
            f"prune: class {wrong} is out of range; the model has {classes} classes"
            f" (0..{classes - 1})"
        )


SCORES: Mapping[ScoreName, Callable[[Task], Array]] = {
    "l1": _norm(1),
    "l2": _norm(2),
    "random": _random,
    "bn_gamma": _bn_gamma,
    "geometric_median": _geometric_median,
    "taylor": _taylor,
    "obs": _obs,
}
