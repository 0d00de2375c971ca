"""Slimming: train on until the channels that matter least are zero and nothing misses them.

The weights keep the full architecture. A dead channel has every weight that makes it, carries it
or reads it at exactly zero, so cutting it out changes no output. Source: P. Molchanov et al.,
"Importance Estimation for Neural Network Pruning", CVPR 2019 (removal a few channels at a time
between training steps, by the first-order Taylor score); targets from the model before slimming:
G. Hinton et al., arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress import channels, cost, prune
from edgecompress.progress import Progress, silent

from .clips import Clips
from .mfcc import Float
from .train import BLOCKS, CHANNELS, Schedule, batches, ds_cnn, optimize

if TYPE_CHECKING:
    import keras

Drops = Mapping[str, Sequence[int]]
"""Name of the layer that makes the channels -> which of them are dead."""

_LEAST_CHANNELS = 16


@dataclass(frozen=True)
class Slimming:
    """How much is removed and when; `macs` is the share of multiply-accumulates that stays.

    In the first `removing` of the steps the share falls geometrically over `rounds` rounds; the
    steps after them repair. Every layer keeps a multiple of `round_to` channels. `imitation` is
    the weight of the unslimmed model's outputs in the targets.
    """

    macs: float = 0.45
    rounds: int = 24
    removing: float = 0.5
    round_to: int = 4
    score_clips: int = 768
    imitation: float = 0.7


SCHEDULE = Schedule(
    steps=2700, learning_rate=2e-3, warm_up_steps=100, dropout=0.05, last_dropout=0.2
)


def slim(
    model: keras.Model,
    real: Clips,
    synthetic: Clips,
    *,
    seed: int,
    slimming: Slimming | None = None,
    schedule: Schedule | None = None,
    progress: Progress = silent,
) -> keras.Model:
    """A copy of a trained DS-CNN, trained on while channels go to zero until `slimming` is met.

    Channels that are dead in `model` stay dead. Shape and parameter count stay as they are.
    """
    import keras

    how = slimming if slimming is not None else Slimming()
    s = schedule if schedule is not None else SCHEDULE
    student = ds_cnn(seed=seed, dropout=s.dropout, last_dropout=s.last_dropout)
    student.set_weights(model.get_weights())
    # two streams: training draws its batches in a thread of its own
    clips, judged = (
        batches(real, synthetic, s, np.random.default_rng([seed, stream])) for stream in (1, 2)
    )
    gates = Gates(student)
    gates.close(dead(model))
    at = {round(s.steps * how.removing * k / how.rounds): k for k in range(1, how.rounds + 1)}
    step = 0

    def after_step(batch: int, logs: Mapping[str, Any] | None = None) -> None:
        nonlocal step
        step += 1
        gates.hold()
        if step in at:
            share = how.macs ** (at[step] / how.rounds)
            gates.close(_least(student, judged, share, how))
            gates.hold()

    optimize(
        student,
        _imitating(model, clips, how.imitation),
        s,
        label="slimming",
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=after_step)],
        progress=progress,
    )
    gates.hold()
    return student


def dead(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The channels of a DS-CNN of which every weight is zero, groups without any left out."""
    found = {}
    for name, members in _groups(model).items():
        alive = np.zeros(CHANNELS, bool)
        for variable, axis, resting in members:
            rows = np.moveaxis(np.asarray(variable), axis, 0).reshape(CHANNELS, -1)
            alive |= (rows != resting).any(axis=1)
        if not alive.all():
            found[name] = tuple(np.flatnonzero(~alive).tolist())
    return found


class Gates:
    """Which channels of a DS-CNN are closed; `hold` puts all their weights at rest.

    An optimizer with momentum moves weights without a gradient too, so hold after every step.
    """

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self._groups = _groups(model)
        self._open = {name: tf.Variable(tf.ones(CHANNELS)) for name in self._groups}

        @tf.function  # type: ignore[untyped-decorator]
        def hold() -> None:
            for name, members in self._groups.items():
                for variable, axis, resting in members:
                    shape = [1] * len(variable.shape)
                    shape[axis] = CHANNELS
                    gate = tf.reshape(self._open[name], shape)
                    variable.value.assign(tf.where(gate > 0, variable.value, resting))

        self.hold = hold

    def close(self, drops: Drops) -> None:
        """Close more channels; none opens again."""
        for name, closing in drops.items():
            gate = np.array(self._open[name])
            gate[list(closing)] = 0.0
            self._open[name].assign(gate)


def _groups(model: keras.Model) -> dict[str, list[tuple[Any, int, float]]]:
    """Per layer that makes channels: the variables they run through, their axis, and rest value.

    The layers with weights are conv, norm, then per block depthwise, norm, conv, norm, then dense.
    """
    layers = [layer for layer in model.layers if layer.weights]
    starts = range(0, 4 * BLOCKS + 1, 4)
    groups = {}
    for start in starts:
        reader = layers[min(start + 4, len(layers) - 1)]
        carriers = layers[start + 1 : layers.index(reader)]
        members = [(layers[start].kernel, -1, 0.0), (layers[start].bias, 0, 0.0)]
        for layer in carriers:
            for variable in layer.weights:
                axis = 2 if variable.name == "kernel" else 0
                members.append((variable, axis, float(variable.name == "moving_variance")))
        groups[layers[start].name] = [*members, (reader.kernel, -2, 0.0)]
    return groups


def _least(
    model: keras.Model,
    clips: Iterator[tuple[Float, Float]],
    share: float,
    how: Slimming,
) -> Drops:
    """The live channels without which `share` of the MACs is left and the loss changes least."""
    parts: list[tuple[Float, Float]] = []
    while sum(len(x) for x, _ in parts) < how.score_clips:
        parts.append(next(clips))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    gone = dead(model)
    small = channels.remove(model, gone)
    drops = prune.plan(
        small,
        macs=min(1.0, share * cost.macs(model) / cost.macs(small)),
        score="taylor",
        scope="global",
        round_to=how.round_to,
        min_channels=_LEAST_CHANNELS,
        data=(x, y.argmax(axis=1)),
    ).drops
    return {
        name: np.delete(np.arange(CHANNELS), gone.get(name, ()))[list(places)].tolist()
        for name, places in drops.items()
    }


def _imitating(
    teacher: keras.Model, clips: Iterator[tuple[Float, Float]], share: float
) -> Iterator[tuple[Float, Float]]:
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def answer(x: Any) -> Any:
        return teacher(x, training=False)

    for x, y in clips:
        yield x, (1 - share) * y + share * np.asarray(answer(x))
