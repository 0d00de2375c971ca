"""What a model is trained for: its loss, and how a validation is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgecompress.data import Dataset, Split
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict, score
from edgecompress.vocabulary import Metric

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Tensor = Any

Kind = Literal["classes", "binary", "values", "inputs"]
"""What targets are: a class, 0 or 1, values, or the inputs themselves (an autoencoder)."""
Link = Literal["none", "softmax", "sigmoid"]
"""What made outputs of scores: nothing, or a function whose inverse gives them back."""

_ROWS = 64
"""Rows by which the link is recognised."""
_STRETCH = 10.0
_SUM = 1e-3
_LEAST = 1e-30
"""The least probability: its logarithm, and the gradient through it, are still normal float32."""
_NEAR = 1e-7
"""How near 0 and 1 a sigmoid's output is told apart from them."""


@dataclass(frozen=True)
class Task:
    """Loss and validation metric of a model with one input and one output.

    `metric` is the data set's; `width` is how many outputs a row has (classes, or values); `link`
    is what the model ends in.
    """

    kind: Kind
    metric: Metric
    width: int
    link: Link = "none"

    @property
    def classes(self) -> int:
        """How many classes there are; 0 where targets are none."""
        return {"classes": self.width, "binary": 2}.get(self.kind, 0)

    @classmethod
    def of(cls, dataset: Dataset, model: keras.Model) -> Task:
        """The task of `model`, a Keras 3 or tf_keras model, on `dataset`.

        The link is recognised by what comes out for rows of the calibration pool, as they are and
        stretched: only a softmax sums up to 1 then, only a sigmoid stays between 0 and 1. Raises
        ConfigError where the outputs do not fit the metric.
        """
        rows = dataset.pool[:_ROWS]
        outputs = predict(model, np.concatenate([rows, _STRETCH * rows, -_STRETCH * rows]))
        width, size = outputs.shape[-1], outputs[0].size
        if dataset.metric == "mse":
            return cls("inputs" if dataset.test.y is None else "values", "mse", size)
        if dataset.metric == "auc" and size not in (1, 2):
            if outputs.shape[1:] == rows.shape[1:]:
                return cls("inputs", "auc", size)
        elif size == width:
            link = _link(outputs.reshape(len(outputs), width))
            if width == 1 and dataset.metric == "auc":
                return cls("binary", "auc", 1, link)
            if width > 1:
                return cls("classes", dataset.metric, width, link)
        raise ConfigError(
            f"data {dataset.name}: {model.name} gives outputs of shape {list(outputs.shape[1:])},"
            f" which metric {dataset.metric} cannot be trained for; give the model one output per"
            " class"
        )

    def targets(self, x: Float, y: Array | None) -> Array:
        """The targets of a batch as `losses` takes them; ConfigError where they do not fit."""
        if self.kind == "inputs":
            return np.zeros(len(x), np.float32)
        if y is None or len(y) != len(x):
            count = "no" if y is None else f"{len(y)}"
            raise ConfigError(f"training rows: {count} targets for {len(x)} rows; give one each")
        if self.kind == "values":
            values = np.asarray(y, np.float32).reshape(len(x), -1)
            if values.shape[1] != self.width:
                raise ConfigError(
                    f"training rows: targets of {values.shape[1]} values, but the model gives"
                    f" {self.width}; make them alike"
                )
            return values
        labels = np.asarray(y).reshape(len(x))
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise ConfigError(
                f"training rows: label {wrong} is out of range; the model has {self.classes}"
                f" classes (0..{self.classes - 1})"
            )
        return labels.astype(np.float32 if self.kind == "binary" else np.int32)

    def weights(self, y: Array | None, of_class: Float | None, rows: int) -> Float:
        """How much each of `rows` rows counts: by its class (`of_class`, one weight each), and not
        at all where an autoencoder must not learn it (anomalies, y = 1)."""
        if y is not None and self.kind == "inputs" and self.metric == "auc":
            normal: Float = (y.reshape(rows) == 0).astype(np.float32)
            return normal
        if y is None or of_class is None:
            return np.ones(rows, np.float32)
        weights: Float = of_class[y.reshape(rows)]
        return weights

    def scores(self, outputs: Tensor) -> Tensor:
        """The outputs of a model as logits (N, classes), or flat (N, values)."""
        import tensorflow as tf

        flat = tf.reshape(tf.cast(outputs, tf.float32), (tf.shape(outputs)[0], -1))
        if self.link == "softmax":
            return tf.math.log(tf.maximum(flat, _LEAST))
        if self.link == "sigmoid":
            inside = tf.clip_by_value(flat, _NEAR, 1 - _NEAR)
            return tf.math.log(inside) - tf.math.log1p(-inside)
        return flat

    def losses(self, outputs: Tensor, x: Tensor, y: Tensor, *, smoothing: float) -> Tensor:
        """The loss of each row (N,): cross-entropy with labels that are smoothed by the share
        `smoothing`, or the mean squared error."""
        import tensorflow as tf

        found = self.scores(outputs)
        if self.kind == "inputs":
            y = tf.reshape(x, tf.shape(found))
        if self.kind in ("inputs", "values"):
            return tf.reduce_mean(tf.square(found - y), axis=1)
        if self.kind == "binary":
            wanted = y[:, None]
        else:
            wanted = tf.one_hot(y, self.classes)
        return self._entropy(found, wanted * (1 - smoothing) + smoothing / self.classes)

    def towards(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """How far each row's outputs are from the teacher's (N,).

        The divergence of the softened probabilities times the squared temperature, so that its
        gradient is of one size at any (Hinton et al., arXiv:1503.02531, section 2.1); the mean
        squared difference where outputs are no probabilities.
        """
        import tensorflow as tf

        found, wanted = self.scores(outputs), self.scores(teacher)
        if self.kind in ("inputs", "values"):
            return tf.reduce_mean(tf.square(found - wanted), axis=1)
        found, wanted = found / temperature, wanted / temperature
        soft = tf.nn.softmax(wanted) if self._one_of_many else tf.nn.sigmoid(wanted)
        apart = self._entropy(found, soft) - self._entropy(wanted, soft)
        return apart * temperature**2

    def measure(self, split: Split) -> Metric:
        """What a validation split is judged by: the metric, but the mse for an autoencoder where
        normal rows stand without anomalies and have no auc."""
        both = split.y is not None and 0 < np.count_nonzero(split.y) < len(split)
        return "mse" if self.kind == "inputs" and not both else self.metric

    def judge(self, outputs: Float, split: Split) -> float:
        """`outputs` judged by `measure(split)`; raises like `evaluation.score`."""
        if self.measure(split) == self.metric:
            return score(outputs, split, metric=self.metric)
        return score(outputs, Split(split.name, split.x, None, split.source), metric="mse")

    @property
    def _one_of_many(self) -> bool:
        return self.kind == "classes" and self.link != "sigmoid"

    def _entropy(self, scores: Tensor, wanted: Tensor) -> Tensor:
        import tensorflow as tf

        if self._one_of_many:
            return tf.nn.softmax_cross_entropy_with_logits(wanted, scores)
        each = tf.nn.sigmoid_cross_entropy_with_logits(wanted, scores)
        return tf.reduce_mean(each, axis=1)


def _link(outputs: Float) -> Link:
    if not ((outputs >= -_SUM) & (outputs <= 1 + _SUM)).all():
        return "none"
    if outputs.shape[1] > 1 and np.abs(outputs.sum(axis=1) - 1).max() < _SUM:
        return "softmax"
    return "sigmoid"
