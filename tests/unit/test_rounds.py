"""Pruning in rounds, and the moving statistics taken anew after a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress import cost, prune
from edgecompress.artifact import Artifact, Step
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict
from edgecompress.prune.rounds import goals, prune_in_rounds
from edgecompress.training.recalibrate import recalibrated
from tests.small_models import randomised


@pytest.fixture(scope="module")
def model() -> Any:
    import keras
    from keras import layers as kl

    x = inputs = kl.Input((6, 6, 2))
    for name, channels in (("a", 12), ("b", 8)):
        x = kl.Conv2D(channels, 3, padding="same", name=name)(x)
        x = kl.ReLU(name=f"{name}_relu")(kl.BatchNormalization(name=f"{name}_bn")(x))
        x = kl.Dropout(0.4, name=f"{name}_drop")(x)
    x = kl.Dense(3, name="out")(kl.GlobalAveragePooling2D(name="pool")(x))
    return randomised(keras.Model(inputs, x, name="rounds"))


def rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(1, 2, size=(count, 6, 6, 2)).astype(np.float32)


@given(
    asked=st.floats(0.01, 1) | st.integers(2, 10**6).map(float),
    before=st.integers(2, 10**7),
    rounds=st.integers(1, 9),
)
def test_goals_fall_to_the_target(asked: float, before: int, rounds: int) -> None:
    last = int(asked * before + 1e-9) if asked <= 1 else int(asked)
    if not 1 < last <= before:
        return
    found = goals("macs", asked, before, rounds)
    assert len(found) == rounds and found[-1] == last
    assert all(a >= b for a, b in zip(found, found[1:], strict=False))
    assert all(last <= goal <= before and goal == int(goal) for goal in found)


@given(asked=st.floats(0.01, 0.99), rounds=st.integers(1, 9))
def test_shares_of_rounds_multiply_to_the_ratio(asked: float, rounds: int) -> None:
    left = np.prod([1 - share for share in goals("ratio", asked, None, rounds)])
    assert left == pytest.approx(1 - asked)


def test_rounds_train_in_between_and_reach_the_target(model: Any) -> None:
    seen: list[int] = []

    def tune(artifact: Artifact, done: int) -> Artifact:
        seen.append(cost.macs(artifact.need_keras("tune")))
        return artifact.after(Step("tuned", {"round": done}))

    whole = cost.macs(model)
    given_options: dict[str, Any] = {"macs": 0.3, "floor": 0.25}
    found = prune_in_rounds(Artifact("rounds", model), rounds=4, tune=tune, **given_options)
    assert [step.stage for step in found.steps] == [
        *["prune_structured", "tuned"] * 3,
        "prune_structured",
    ]
    assert sorted(seen, reverse=True) == seen and len(set(seen)) == 3
    assert cost.macs(found.need_keras("x")) <= 0.3 * whole < seen[-1] < seen[0] < whole
    kept = {
        group["name"]: group["size"] - len(group["drop"])
        for group in found.steps[-1].effect["plan"]["groups"]
    }
    assert kept["a"] >= 3 and kept["b"] >= 2
    assert found.steps[-1].params["sizes"]["a"] == 12
    once = prune_in_rounds(Artifact("rounds", model), rounds=1, tune=tune, **given_options)
    plain = prune.prune_structured(Artifact("rounds", model), **given_options)
    assert once.steps[0].effect["plan"] == plain.steps[0].effect["plan"]
    with pytest.raises(ConfigError, match="cannot be reached"):
        prune_in_rounds(Artifact("rounds", model), rounds=2, tune=tune, macs=0.3, floor=0.9)


def test_statistics_are_those_of_the_rows(model: Any) -> None:
    before = [w.copy() for w in model.get_weights()]
    batches = [rows(20, seed) for seed in range(3)]
    found = recalibrated(model, batches)
    kernel, bias = model.get_layer("a").get_weights()
    import keras

    made = [keras.ops.conv(x, kernel, padding="same") + bias for x in batches]
    moments = [np.asarray(y) for y in made]
    norm = found.get_layer("a_bn")
    mean = np.mean([y.mean(axis=(0, 1, 2)) for y in moments], axis=0)
    variance = np.mean([y.var(axis=(0, 1, 2)) for y in moments], axis=0)
    assert np.allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-5)
    assert np.allclose(norm.moving_variance, variance, rtol=1e-4)
    for layer in ("a", "b", "out"):
        assert all(
            np.array_equal(one, two)
            for one, two in zip(
                found.get_layer(layer).get_weights(),
                model.get_layer(layer).get_weights(),
                strict=True,
            )
        )
    assert np.array_equal(found.get_layer("b_bn").gamma, model.get_layer("b_bn").gamma)
    assert found.get_layer("a_drop").rate == 0.4
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    again = recalibrated(found, batches)
    x = rows(8, 9)
    assert np.allclose(predict(again, x), predict(found, x), rtol=1e-4, atol=1e-5)


def test_frozen_statistics_stay(model: Any) -> None:
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.get_layer("b_bn").trainable = False
    found = recalibrated(copy, [rows(20)])
    assert np.array_equal(found.get_layer("b_bn").moving_mean, copy.get_layer("b_bn").moving_mean)
    assert not np.allclose(found.get_layer("a_bn").moving_mean, copy.get_layer("a_bn").moving_mean)
