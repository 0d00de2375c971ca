"""Training of the DS-CNN on real and synthesised speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.progress import Progress, silent

from .augment import augment
from .clips import LABELS, SILENCE, Clips
from .mfcc import COEFFICIENTS, FRAMES, Float

if TYPE_CHECKING:
    import keras

Int = npt.NDArray[np.int64]

CHANNELS = 64
BLOCKS = 4


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train; one step sees `batch` clips, `real` of them real speech."""

    steps: int = 6000
    batch: int = 128
    real: float = 0.6
    learning_rate: float = 3e-3
    warm_up_steps: int = 300
    weight_decay: float = 1e-3
    label_smoothing: float = 0.05
    averaging: float = 0.998
    dropout: float = 0.1
    last_dropout: float = 0.3


def ds_cnn(*, seed: int, dropout: float = 0.0, last_dropout: float = 0.0) -> keras.Model:
    """The MLPerf Tiny DS-CNN with fresh weights: (49, 10, 1) MFCC to 12 class probabilities.

    Source: mlcommons/tiny, keras_model.py, with the pool over all 25 x 5 places, as the published
    weights have it; Zhang et al., "Hello Edge", arXiv:1711.07128.
    """
    import keras
    from keras import layers

    seeds = iter(range(seed * 1000, seed * 1000 + 1000))

    def start() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def norm_relu(layer: Any, x: Any) -> Any:
        y = layers.BatchNormalization(name=f"{layer.name}_norm")(layer(x))
        return layers.Activation("relu", name=f"{layer.name}_relu")(y)

    def conv(name: str, size: Any, strides: int = 1) -> Any:
        return layers.Conv2D(
            CHANNELS, size, strides, padding="same", kernel_initializer=start(), name=name
        )

    def depthwise(name: str) -> Any:
        return layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=start(), name=name)

    source = keras.Input((FRAMES, COEFFICIENTS, 1), name="mfcc")
    x = norm_relu(conv("conv", (10, 4), 2), source)
    x = layers.Dropout(dropout, seed=next(seeds), name="dropout")(x)
    for block in range(1, BLOCKS + 1):
        x = norm_relu(depthwise(f"depthwise{block}"), x)
        x = norm_relu(conv(f"pointwise{block}", 1), x)
    x = layers.Dropout(last_dropout, seed=next(seeds), name="last_dropout")(x)
    x = layers.Flatten(name="flatten")(layers.AveragePooling2D((25, 5), name="pool")(x))
    dense = layers.Dense(
        len(LABELS), activation="softmax", kernel_initializer=start(), name="classes"
    )
    return keras.Model(source, dense(x), name="kws")


def fit(
    real: Clips,
    synthetic: Clips,
    *,
    seed: int,
    schedule: Schedule | None = None,
    progress: Progress = silent,
) -> keras.Model:
    """A DS-CNN trained on augmented `real` and `synthetic` clips."""
    s = schedule if schedule is not None else Schedule()
    model = ds_cnn(seed=seed, dropout=s.dropout, last_dropout=s.last_dropout)
    clips = batches(real, synthetic, s, np.random.default_rng(seed))
    optimize(model, clips, s, label="training", progress=progress)
    return model


def optimize(
    model: keras.Model,
    clips: Iterator[tuple[Float, Float]],
    s: Schedule,
    *,
    label: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Progress = silent,
) -> None:
    """Train `model` where it stands on endless batches `clips` of inputs and target probabilities.

    AdamW with a cosine schedule; the weights left are an exponential average over the steps.
    """
    import keras

    rate = keras.optimizers.schedules.CosineDecay(
        s.learning_rate / 100,
        s.steps - s.warm_up_steps,
        warmup_target=s.learning_rate,
        warmup_steps=s.warm_up_steps,
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=s.weight_decay, use_ema=True, ema_momentum=s.averaging
    )
    model.compile(
        optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=s.label_smoothing)
    )
    length = max(1, s.steps // 100)
    epochs = s.steps // length
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress(label, epoch + 1, epochs)
    )
    model.fit(
        clips,
        epochs=epochs,
        steps_per_epoch=length,
        callbacks=[*callbacks, report],
        shuffle=False,
        verbose=0,
    )


def save(model: keras.Model, file: Path) -> None:
    """Write the model without its optimizer; `file` holds the old one until the new is complete."""
    part = file.with_name(f"partial-{file.name}")
    fresh = ds_cnn(seed=0)
    fresh.set_weights(model.get_weights())
    fresh.save(part)
    part.replace(file)


def batches(
    real: Clips, synthetic: Clips, s: Schedule, rng: np.random.Generator
) -> Iterator[tuple[Float, Float]]:
    """Endless batches of augmented clips and one-hot classes, drawn with `rng`."""
    noise = np.concatenate([clips.x[clips.y == SILENCE] for clips in (real, synthetic)])
    ones = np.eye(len(LABELS), dtype=np.float32)
    of_real = round(s.batch * s.real)
    real_rows = _rows(len(real), of_real, rng)
    synthetic_rows = _rows(len(synthetic), s.batch - of_real, rng)
    for a, b in zip(real_rows, synthetic_rows, strict=True):
        x = np.concatenate([real.x[a], synthetic.x[b]])
        y = np.concatenate([real.y[a], synthetic.y[b]])
        yield augment(x, noise, rng), ones[y]


def _rows(total: int, count: int, rng: np.random.Generator) -> Iterator[Int]:
    """`count` row numbers at a time, every row once before any comes again."""
    left = np.zeros(0, np.int64)
    while True:
        while len(left) < count:
            left = np.concatenate([left, rng.permutation(total)])
        yield left[:count]
        left = left[count:]
