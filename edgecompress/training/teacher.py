"""Distillation: a model that follows another one's outputs, and its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecompress.channels.graph import trace
from edgecompress.errors import ConfigError
from edgecompress.recipe.settings import Train
from edgecompress.training import legacy
from edgecompress.training.task import Task

if TYPE_CHECKING:
    import keras

Tensor = Any
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Teaching:
    """A student and its teacher, each with the outputs of the layers to follow behind its own.

    `follow` names these layers, as the teacher has them.
    """

    student: keras.Model
    teacher: keras.Model | None
    task: Task
    train: Train
    follow: tuple[str, ...] = ()

    def told(self, x: Tensor) -> Sequence[Tensor]:
        """What the teacher, which does not learn, makes of a batch."""
        return () if self.teacher is None else _all(self.teacher(x, training=False))

    def answers(self, x: Tensor) -> Sequence[Tensor]:
        """What the student makes of a batch in training."""
        return _all(self.student(x, training=True))

    def losses(self, made: Sequence[Tensor], told: Sequence[Tensor], plain: Tensor) -> Tensor:
        """The loss of each row (N,), of which `plain` is the part that goes by the labels."""
        if not told:
            return plain
        share = self.train.teacher
        total = plain * (1 - share)
        if share:
            total += share * self.task.towards(made[0], told[0], self.train.temperature)
        for mine, wanted in zip(made[1:], told[1:], strict=True):
            total += self.train.feature_weight * _apart(mine, wanted)
        return total


def teaching(
    student: keras.Model,
    teacher: keras.Model | None,
    task: Task,
    train: Train,
    names: Mapping[str, str] | None = None,
) -> Teaching:
    """`student` (Keras 3 or tf_keras) and `teacher` as `train` has the one follow the other.

    `names` leads from a layer's name to the student's own where that differs. Raises ConfigError
    where `train` asks for a teacher and there is none, for layers that a model has not, or has
    several times, and for outputs that cannot be compared: those of unlike sizes between rows and
    channels, and of unlike channels with nothing between.
    """
    if not train.teacher and not train.features:
        return Teaching(student, None, task, train)
    if teacher is None:
        raise ConfigError(
            "train.teacher and train.features follow the uncompressed model, and there is none;"
            " leave them out, or pass teacher="
        )
    own = [(names or {}).get(name, name) for name in train.features]
    mine = [_output(student, name, of="trained") for name in own]
    wanted = [_output(teacher, name, of="uncompressed") for name in train.features]
    for name, a, b in zip(train.features, mine, wanted, strict=True):
        _check(name, tuple(a.shape), tuple(b.shape))
    return Teaching(_with(student, mine), _with(teacher, wanted), task, train, train.features)


def _output(model: keras.Model, name: str, *, of: str) -> Tensor:
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        raise ConfigError(
            f"train.features: the {of} model has no layer {name!r}; it has: {', '.join(layers)}"
        )
    layer = layers[name]
    if _calls(model, layer) != 1:
        raise ConfigError(
            f"train.features: layer {name!r} is a model, or called several times; name another one"
        )
    output = layer.output
    if isinstance(output, list | tuple | dict):
        raise ConfigError(f"train.features: layer {name!r} has several outputs; name another one")
    return output


def _check(name: str, mine: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> None:
    between = len(mine) > 2 or mine == wanted
    if len(mine) != len(wanted) or mine[1:-1] != wanted[1:-1] or not between:
        raise ConfigError(
            f"train.features: layer {name!r} gives {list(mine[1:])}, the uncompressed model's"
            f" {list(wanted[1:])}, which cannot be compared; name a layer of equal height and width"
        )


def _with(model: keras.Model, outputs: Sequence[Tensor]) -> keras.Model:
    if not outputs:
        return model
    import keras

    family = keras if isinstance(model, keras.Model) else legacy.tf_keras()
    return family.Model(model.inputs[0], [model.outputs[0], *outputs])


def _calls(model: keras.Model, layer: Any) -> int:
    """How often `model` itself calls `layer`, which is no model."""
    import keras

    if isinstance(model, keras.Model):
        return sum(call.op is layer for call in trace(model).calls)
    return len(layer.inbound_nodes)


def _all(outputs: Any) -> Sequence[Tensor]:
    return outputs if isinstance(outputs, list | tuple) else [outputs]


def _apart(mine: Tensor, wanted: Tensor) -> Tensor:
    """How far a layer's outputs are from the teacher's, of each row (N,).

    Of as many channels: the mean squared difference in units of the teacher's variance. Of others:
    the squared distance of the attention maps, which channels share: the mean of their squares at
    each place, as a vector of length 1 (Zagoruyko and Komodakis, arXiv:1612.03928, equation 2).
    """
    import tensorflow as tf

    if mine.shape[-1] == wanted.shape[-1]:
        apart = tf.reshape(tf.square(mine - wanted), (tf.shape(mine)[0], -1))
        return tf.reduce_mean(apart, axis=1) / (tf.math.reduce_variance(wanted) + _TINY)
    maps = []
    for tensor in (mine, wanted):
        places = tf.reduce_mean(tf.square(tensor), axis=-1)
        maps.append(tf.math.l2_normalize(tf.reshape(places, (tf.shape(places)[0], -1)), axis=1))
    return tf.reduce_sum(tf.square(maps[0] - maps[1]), axis=1)
