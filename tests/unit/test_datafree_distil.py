"""Distilled inputs: their statistics in front of every normalisation, their start, their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress.artifact import Artifact
from edgecompress.datafree.distil import distilled, noise
from edgecompress.datafree.statistics import Moments
from edgecompress.errors import UnsupportedError
from edgecompress.quantization import quantize
from tests import small_models
from tests.unit.test_datafree_quantize import noise as decibels


def network() -> Any:
    """Normalisations on the last and on another axis, one called twice, a nested model."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    x = kl.ReLU()(kl.BatchNormalization(name="first")(kl.Conv2D(6, 3, use_bias=False)(x)))
    inner = keras.Sequential(
        [keras.Input((6, 6, 6)), kl.Conv2D(6, 3, padding="same"), kl.BatchNormalization(axis=1)]
    )
    both = kl.BatchNormalization(name="both")
    x = kl.Add()([both(inner(x)), both(kl.Conv2D(6, 1)(x))])
    x = kl.BatchNormalization(name="last")(kl.Conv2D(6, 3)(kl.ReLU()(x)))
    x = kl.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, kl.Dense(3, activation="softmax")(x))


@pytest.fixture(scope="module")
def seen() -> tuple[Any, Any]:
    """The network after inputs with channels of their own means and deviations, and those."""
    model = network()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 8, 8, 3)) * [3.0, 1.0, 2.0] + [2.0, 0.0, -4.0]
    for layer in model._flatten_layers():
        if "batch_normalization" in layer.name or layer.name in ("first", "both", "last"):
            layer.momentum = 0.0
    model(x.astype("float32"), training=True)
    return model, x


def before(model: Any, name: str, x: Any) -> Any:
    import keras

    part = keras.Model(model.inputs, model.get_layer(name).input)
    return small_models.outputs(part, x.astype("float32"))[0].reshape(-1, 6)


def test_statistics_are_those_that_were_seen(seen: tuple[Any, Any]) -> None:
    model, _ = seen
    norm = model.get_layer("last")
    std = np.sqrt(np.asarray(norm.moving_variance))

    def wrong(steps: int) -> float:
        rows = before(model, "last", distilled(model, count=32, seed=0, steps=steps))
        shift = (rows.mean(0) - np.asarray(norm.moving_mean)) / std
        return float(np.square(shift).mean() + np.square(rows.std(0) / std - 1).mean())

    assert wrong(40) < 0.1 * wrong(0)


def test_a_classifier_finds_every_class(seen: tuple[Any, Any]) -> None:
    model, _ = seen
    (found,) = small_models.outputs(model, distilled(model, count=30, seed=0))
    assert (found.argmax(-1) == np.arange(30) % 3).mean() > 0.9


def test_the_same_seed_gives_the_same_bytes(seen: tuple[Any, Any]) -> None:
    model, _ = seen
    told: list[tuple[str, int, int]] = []
    made = [
        distilled(model, count=70, seed=seed, steps=3, progress=lambda *now: told.append(now))
        for seed in (1, 1, 2)
    ]
    assert made[0].shape == (70, 8, 8, 3) and made[0].dtype == np.float32
    assert made[0].tobytes() == made[1].tobytes() != made[2].tobytes()
    assert not np.allclose(made[0][:35], made[0][35:])  # each batch has its own start
    assert told[:4] == [("distil", n, 6) for n in range(4)] and told[7] == ("distil", 6, 6)


def test_noise_has_the_covariances_it_was_asked_for() -> None:
    own = np.array([[4.0, 1.0], [1.0, 1.0]])
    steps = np.abs(np.fft.fftfreq(8) * 8)
    near = 0.8 ** np.hypot(steps[:, None], steps)
    read = Moments(np.zeros(2), own, spread=near[:, :, None, None] * own)
    x = noise(read, (4000, 8, 8, 2), np.random.default_rng(0))
    centre, right = x[:, 3, 3], x[:, 3, 4]
    assert np.cov(centre.T) == pytest.approx(own, abs=0.25)
    assert centre.T @ right / len(x) == pytest.approx(0.8 * own, abs=0.25)
    flat = noise(Moments(np.zeros(2), own), (4000, 2), np.random.default_rng(0))
    assert np.cov(flat.T) == pytest.approx(own, abs=0.25)


def test_activations_are_calibrated_with_them(seen: tuple[Any, Any]) -> None:
    model, x = seen
    artifact = quantize(Artifact("made", model), calibration="distilled")
    params = artifact.steps[-1].params
    assert (params["calibration"], params["calibration_samples"]) == ("distilled", 64)
    rows = x[:64].astype("float32")
    assert decibels(model, artifact, rows) > 18


def test_what_inputs_cannot_be_made_for() -> None:
    import keras

    x, y = keras.Input((4,)), keras.Input((4,))
    norm = keras.layers.BatchNormalization()
    with pytest.raises(UnsupportedError, match="no BatchNormalization that has seen data, which"):
        distilled(keras.Model(x, norm(x)), count=4, seed=0)
    two = keras.Model([x, y], norm(keras.layers.Add()([x, y])))
    with pytest.raises(UnsupportedError, match="one input of fixed size, use samples"):
        distilled(two, count=4, seed=0)
    free = keras.Model(z := keras.Input((None, 4)), keras.layers.Conv1D(2, 1)(z))
    with pytest.raises(UnsupportedError, match=r"\(None, None, 4\); they are made for one"):
        distilled(free, count=4, seed=0)
