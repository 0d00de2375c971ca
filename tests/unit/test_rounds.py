"""Pruning in rounds, and the moving statistics taken anew after a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress import cost, prune
from edgecompress.artifact import Artifact, Step
from edgecompress.data import Rows, Split, Training
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict
from edgecompress.prune.rounds import goals, prune_in_rounds
from edgecompress.recipe import Train
from edgecompress.training.bridge import to_tf_keras
from edgecompress.training.fit import fit
from edgecompress.training.recalibrate import forgetful, recalibrated
from edgecompress.training.task import Task
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
    left = [1.0, *(1 - share for share in goals("ratio", asked, None, rounds))]
    assert left[-1] == pytest.approx(1 - asked)
    assert np.allclose([b / a for a, b in zip(left, left[1:], strict=False)], left[1])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_ratio_is_reached_in_rounds_that_are_too_small_for_the_rounding(
    model: Any, scope: str
) -> None:
    """A quarter of 12 and 8 channels in 4 rounds is less than 4 channels a round."""
    options: dict[str, Any] = {"ratio": 0.5, "round_to": 4, "scope": scope}
    whole = Artifact("rounds", model)
    found = prune_in_rounds(whole, rounds=4, tune=lambda artifact, done: artifact, **options)
    left = sum(found.need_keras("x").get_layer(name).filters for name in "ab")
    assert 10 <= left <= 16  # of 20


def test_a_target_of_nothing_is_refused_as_in_one_round(model: Any) -> None:
    with pytest.raises(ConfigError, match="macs=0 is not in"):
        prune_in_rounds(Artifact("rounds", model), rounds=2, tune=lambda a, n: a, macs=0)


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


def test_moving_statistics_forget_within_a_short_epoch(model: Any) -> None:
    """And only while a model trains; those of nested models too."""
    import keras

    inner = keras.Model(model.inputs, model.outputs, name="inner")
    x = keras.Input((6, 6, 2))
    norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
    outer = keras.Model(x, inner(norm(x)))
    norms = [norm, model.get_layer("a_bn"), model.get_layer("b_bn")]
    own = [each.momentum for each in norms]
    assert own == [0.5, 0.99, 0.99]
    for steps, most in ((1, 0.8), (40, 0.9), (10_000, 0.99)):
        with forgetful(outer, steps):
            assert [each.momentum for each in norms] == pytest.approx([0.5, most, most])
        assert [each.momentum for each in norms] == own


@pytest.mark.parametrize("family", ["keras", "tf_keras"])
def test_a_short_training_is_judged_on_statistics_of_its_own(model: Any, family: str) -> None:
    """Those of the rows, not the ones that the model came with."""
    import keras

    net = keras.models.clone_model(model)
    x, y = rows(320), np.arange(320) % 3
    held = Split("validation", x[:32], y[:32])
    task = Task("classes", "top1", 3, "none")
    slow = Train(epochs=1, batch=8, learning_rate=1e-5, schedule="constant")
    found = recalibrated(net, [x])
    net = net if family == "keras" else to_tf_keras(net).model
    net.get_layer("a_bn").moving_mean.assign(np.full(12, 50.0))
    fit(net, Training(Rows(x, y), held), task, slow, best_from=1.0)
    norm, wanted = (each.get_layer("a_bn").moving_mean for each in (net, found))
    assert np.abs(np.asarray(norm) - np.asarray(wanted)).max() < 1.5  # 0.99: 33 away
