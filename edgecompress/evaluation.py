"""Accuracy of a model, and bit comparison of two runs of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.data import NUMERIC, Split
from edgecompress.errors import ConfigError, EdgeCompressError, StageOrderError, UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.runtimes import Runtime
from edgecompress.vocabulary import METRICS, Metric

if TYPE_CHECKING:
    from keras import Model

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Where = Literal["auto", "keras", "tflite", "litert", "tflm"]

BATCH = 256
"""Rows that a Keras model computes at once."""

MOST_CLASSES = 64
"""Classes up to which a confusion matrix is made."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """A metric measured on a split.

    `value`: top1 and auc are fractions from 0 to 1, mse is in the squared unit of the outputs;
    `runtime` says what ran, `outputs` (N, *output_shape) float32 is what it computed.
    """

    metric: Metric
    samples: int
    value: float
    runtime: str
    outputs: Float = field(repr=False)


@dataclass(frozen=True)
class BitComparison:
    """Two runs, element by element: `exact + off_by_one + mismatch == elements`.

    `off_by_one` differ by 1 LSB, `mismatch` by more; `max_diff` is in LSB.
    """

    elements: int
    exact: int
    off_by_one: int
    mismatch: int
    max_diff: int


@dataclass(frozen=True)
class Difference:
    """The first operator whose output is not the same under two runtimes.

    `operator` is its place in execution order, `kind` its TFLite name, `layer` the Keras layer
    ("" where unknown); `mismatch` of `elements` output elements differ, the worst by `max_diff`
    (LSB; in the output's own unit for a float operator).
    """

    operator: int
    kind: str
    layer: str
    mismatch: int
    elements: int
    max_diff: float


def evaluate(
    artifact: Artifact,
    split: Split,
    *,
    metric: Metric,
    runtime: Where = "auto",
    timeout: float = runtimes.TIMEOUT,
    progress: Progress = silent,
) -> Accuracy:
    """The metric of a model on a split.

    `runtime`: `keras` for the float model; `tflite`, `litert` or `tflm` for the flatbuffer, with
    exact kernels; `auto` takes `tflite` where there is a flatbuffer. Raises like `score`,
    `predict` and `runtimes.run`.
    """
    if runtime not in get_args(Where):
        raise ConfigError(f"runtime {runtime!r} is unknown; use {', '.join(get_args(Where))}")
    _check(split, metric)
    if runtime == "keras" or (runtime == "auto" and artifact.tflite is None):
        if artifact.keras is None:
            raise StageOrderError(f"evaluate: {artifact.name} has no Keras model; use 'tflite'")
        outputs, label = predict(artifact.keras, split.x, progress=progress), "Keras"
    else:
        engine: Runtime = "tflite" if runtime == "auto" else runtime
        data = artifact.need_tflite("evaluate")
        outcome = runtimes.run(data, split.x, runtime=engine, timeout=timeout)
        outputs, label = outcome.values, outcome.label
    return Accuracy(metric, len(split), score(outputs, split, metric=metric), label, outputs)


def predict(model: Model, x: Float, *, progress: Progress = silent) -> Float:
    """The outputs of a Keras model in inference mode, float32 (N, *output_shape).

    Runs `predict_on_batch`: measured, it beats `predict` and calling the model, tracing included.
    Raises UnsupportedError for several inputs or outputs, ConfigError for rows that do not fit.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs;"
            " models with one of each can be evaluated"
        )
    shape = tuple(model.inputs[0].shape)
    if x.ndim != len(shape) or any(
        want not in (None, got) for want, got in zip(shape[1:], x.shape[1:], strict=True)
    ):
        raise ConfigError(
            f"rows of shape {list(x.shape[1:])} do not fit {model.name}, which takes"
            f" {list(shape[1:])}"
        )
    if not len(x):
        raise ConfigError("no rows to run the model on; give at least 1")
    # One size for every batch: another one would make TensorFlow trace the model again.
    size = shape[0] or math.ceil(len(x) / math.ceil(len(x) / BATCH))
    parts = []
    for start in range(0, len(x), size):
        progress("predict", start, len(x))
        batch = x[start : start + size]
        padding = [batch[-1:]] * (size - len(batch))
        parts.append(np.asarray(model.predict_on_batch(np.concatenate([batch, *padding]))))
    progress("predict", len(x), len(x))
    outputs: Float = np.concatenate(parts)[: len(x)].astype(np.float32, copy=False)
    return outputs


def score(outputs: Array, split: Split, *, metric: Metric) -> float:
    """`outputs` (N, *output_shape) judged by `split`, one number.

    `top1`: the fraction of rows whose largest output is the class `y` (the first one on a tie).
    `auc`: the probability that a row with y = 1 scores higher than one with y = 0, ties half
    (the area under the ROC curve, by ranks: Hanley and McNeil 1982); the score is the output, the
    second of two, or the reconstruction error where outputs and inputs have one shape. `mse`: the
    mean squared difference from `y`, or from `x` where y is None (autoencoder). Raises ConfigError
    for targets that do not fit, and EdgeCompressError for outputs that are not finite.
    """
    _check(split, metric)
    if len(outputs) != len(split):
        raise ConfigError(f"{split.name}: {len(outputs)} outputs for {len(split)} rows")
    bad = np.flatnonzero(~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1))
    if len(bad):
        raise EdgeCompressError(
            f"{split.name}: {len(bad)} of {len(outputs)} outputs hold NaN or infinite values, the"
            f" first in row {bad[0]}; check the model's weights and the input's range"
        )
    return _METRICS[metric](outputs.astype(np.float64), split)


def confusion(outputs: Array, split: Split) -> tuple[tuple[int, ...], ...] | None:
    """How often each class (a row) was answered with each class (a column), as top1 judges.

    None above MOST_CLASSES classes. Raises like `score`.
    """
    score(outputs, split, metric="top1")
    classes = outputs.shape[-1]
    if classes > MOST_CLASSES:
        return None
    pairs = _labels(split) * classes + outputs.reshape(-1, classes).argmax(axis=1)
    table = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(map(int, row)) for row in table)


def compare(a: Array, b: Array) -> BitComparison:
    """Integer outputs of two runs, element by element; ConfigError where they cannot be compared.

    Both of one shape and one integer type, as `Outcome.raw` gives them.
    """
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "iu" or not a.size:
        raise ConfigError(
            f"bit comparison of {list(a.shape)} {a.dtype} with {list(b.shape)} {b.dtype}: both"
            " must be integer outputs of one model on the same rows"
        )
    apart = np.abs(a.astype(np.int64) - b.astype(np.int64))
    exact, one = int((apart == 0).sum()), int((apart == 1).sum())
    return BitComparison(apart.size, exact, one, apart.size - exact - one, int(apart.max()))


def first_difference(
    model: bytes,
    x: npt.ArrayLike,
    *,
    between: tuple[Runtime, Runtime] = ("tflite", "tflm"),
    timeout: float = runtimes.TIMEOUT,
) -> Difference | None:
    """Which operator makes two runtimes disagree on the rows `x`; None where none does.

    Runs the model under both with all tensors kept and compares the operators' outputs in
    execution order. An output that a runtime overwrites in place cannot be compared: the operator
    that overwrites it is named instead. Raises like `runtimes.run`.
    """
    jobs = [runtimes.submit(model, x, runtime=r, tensors=True, timeout=timeout) for r in between]
    one, two = (job.result() for job in jobs)
    for place, op in enumerate(one.program.ops):
        for index in op.outputs:
            if index not in one.tensors or index not in two.tensors:
                continue
            a, b = one.tensors[index], two.tensors[index]
            if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                continue
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
            return Difference(
                operator=place,
                kind=op.title,
                layer=one.program.layer_of(op),
                mismatch=int((apart != 0).sum()),
                elements=apart.size,
                max_diff=float(apart.max()),
            )
    return None


def _check(split: Split, metric: Metric) -> None:
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} is unknown; use {', '.join(METRICS)}")
    if not len(split):
        raise ConfigError(f"{split.name}: the split is empty; give at least 1 row")
    if split.y is None:
        if metric != "mse":
            raise ConfigError(f"{split.name}: metric {metric} needs labels y; the split has none")
    elif not np.ndim(split.y):
        raise ConfigError(f"{split.name}: y is a single value; give one per row")
    elif len(split.y) != len(split):
        raise ConfigError(f"{split.name}: {len(split.y)} labels for {len(split)} rows")


def _labels(split: Split) -> npt.NDArray[np.int64]:
    y = np.asarray(split.y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise ConfigError(
            f"{split.name}: labels of shape {list(y.shape)} {y.dtype}; pass one integer per row"
        )
    return y.astype(np.int64)


def _top1(outputs: Array, split: Split) -> float:
    y = _labels(split)
    classes = outputs.shape[-1] if outputs.ndim > 1 else 1
    if classes < 2 or outputs.size != len(outputs) * classes:
        raise ConfigError(
            f"{split.name}: top1 needs one output per class; the model's are of shape"
            f" {list(outputs.shape[1:])}"
        )
    if y.min() < 0 or y.max() >= classes:
        wrong = y.min() if y.min() < 0 else y.max()
        raise ConfigError(
            f"{split.name}: label {wrong} is out of range; the model has {classes} classes"
            f" (0..{classes - 1})"
        )
    return float((outputs.reshape(-1, classes).argmax(axis=1) == y).mean())


def _auc(outputs: Array, split: Split) -> float:
    y = _labels(split)
    positives = int((y == 1).sum())
    if positives + int((y == 0).sum()) != len(y) or not 0 < positives < len(y):
        raise ConfigError(f"{split.name}: auc needs labels 0 and 1, and both of them")
    _, place, counts = np.unique(_scores(outputs, split), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    above = float(ranks[y == 1].sum()) - positives * (positives + 1) / 2
    return above / (positives * (len(y) - positives))


def _scores(outputs: Array, split: Split) -> Array:
    """One number per row, higher for class 1."""
    rows = outputs.reshape(len(outputs), -1)
    if rows.shape[1] in (1, 2):
        return rows[:, -1]
    if outputs.shape == split.x.shape:
        return np.asarray(((outputs - split.x) ** 2).reshape(len(outputs), -1).mean(axis=1))
    raise ConfigError(
        f"{split.name}: auc needs a score, two classes or a reconstruction of the input; the"
        f" model's outputs are of shape {list(outputs.shape[1:])}"
    )


def _mse(outputs: Array, split: Split) -> float:
    target = np.asarray(split.x if split.y is None else split.y)
    if target.size != outputs.size:
        without = "; rows without y belong in x_calibration" if split.y is None else ""
        raise ConfigError(
            f"{split.name}: targets of shape {list(target.shape[1:])} for outputs of shape"
            f" {list(outputs.shape[1:])}; give whole numbers for classes, or values of the outputs'"
            f" shape{without}"
        )
    if target.dtype.kind not in NUMERIC or not np.isfinite(target).all():
        raise ConfigError(
            f"{split.name}: targets of type {target.dtype} that are not all finite numbers; clean"
            " the data"
        )
    return float(((outputs - target.reshape(outputs.shape).astype(np.float64)) ** 2).mean())


_METRICS: dict[Metric, Callable[[Array, Split], float]] = {
    "top1": _top1,
    "auc": _auc,
    "mse": _mse,
}
