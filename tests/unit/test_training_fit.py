"""The training loop, on Keras 3 and tf_keras models."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.artifact import Artifact
from edgecompress.data import Batch, Dataset, Rows, Split, Training
from edgecompress.errors import ConfigError, EdgeCompressError, StageOrderError, UnsupportedError
from edgecompress.evaluation import predict, score
from edgecompress.prune import prune_structured
from edgecompress.recipe import Finetune, Train
from edgecompress.training.finetune import finetune
from edgecompress.training.fit import CLIP, fit, rate
from edgecompress.training.task import Task
from tests.conftest import nightly

TASK = Task("classes", "top1", 3, "softmax")
TRAIN = Train(epochs=6, batch=32, learning_rate=0.02)


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of 6 numbers; the class is the largest of the first 3."""
    x = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1)


def training(n: int = 200, *, validation: int = 150, augment: Any = None) -> Training:
    return Training(Rows(*rows(n, 1)), Split("validation", *rows(validation, 2)), augment)


def dataset(**changes: Any) -> Dataset:
    x, y = rows(300, 3)
    made = Dataset("points", "top1", x[:100], Split("test", x[100:], y[100:]), training=training)
    return replace(made, **changes)


def family(name: str) -> Any:
    return importlib.import_module(name)


def model(name: str = "keras", *, dropout: float = 0.1, width: int = 16, seed: int = 0) -> Any:
    """Two dense layers with BatchNormalization and dropout between them, and a softmax."""
    k = family(name)
    start = [k.initializers.GlorotUniform(seed=seed * 2 + i) for i in range(2)]
    source = k.layers.Input((6,), name="x")
    x = k.layers.Dense(width, kernel_initializer=start[0], name="hidden")(source)
    x = k.layers.BatchNormalization(name="norm")(x)
    x = k.layers.Dropout(dropout, name="drop")(k.layers.ReLU(name="relu")(x))
    x = k.layers.Dense(3, activation="softmax", kernel_initializer=start[1], name="head")(x)
    return k.Model(source, x, name="small")


def line(*, bias: bool = True, **options: Any) -> Any:
    """y = x at first: one dense layer of 2 x 2."""
    import keras

    source = keras.Input((2,), name="x")
    dense = keras.layers.Dense(
        2, use_bias=bias, kernel_initializer="identity", name="dense", **options
    )
    return keras.Model(source, dense(source), name="line")


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_the_best_weights_by_the_validation_are_left(name: str) -> None:
    """Moving statistics with them."""
    net, data = model(name), training()
    seen: list[list[np.ndarray]] = []
    per_epoch = 7

    def remember(step: int, total: int) -> None:
        assert total == 6 * per_epoch
        if step % per_epoch == per_epoch - 1:
            seen.append(net.get_weights())

    done = fit(net, data, TASK, replace(TRAIN, schedule="constant"), after_step=remember)
    assert (done.metric, done.rows, done.epochs) == ("top1", 150, 6)
    assert done.after == max(done.validations) > max(0.85, done.before + 0.2)
    assert done.best_epoch == done.validations.index(done.after) + 1
    assert same(net.get_weights(), seen[done.best_epoch - 1])
    assert score(predict(net, data.validation.x), data.validation, metric="top1") == done.after
    assert done.losses[-1] < done.losses[0] / 2
    assert json.loads(json.dumps(done.to_json()))["losses"] == list(done.losses)


@pytest.mark.parametrize("name", nightly(["keras"], ["keras", "tf_keras"]))
def test_the_seed_alone_decides(name: str) -> None:
    """Order, dropout and augmentation."""
    calls = []

    def augment(x: np.ndarray, y: Any, rng: np.random.Generator) -> np.ndarray:
        calls.append(len(x))
        return x + rng.normal(0, 0.1, x.shape).astype(np.float32)

    found = []
    for seed in (0, 0, 1):
        net = model(name, dropout=0.4)
        fit(net, training(augment=augment), TASK, replace(TRAIN, epochs=2), seed=seed)
        found.append(net.get_weights())
    assert same(found[0], found[1])
    assert not same(found[0], found[2])
    assert sum(calls) == 3 * 2 * 200


def test_weights_that_training_makes_worse_are_not_left() -> None:
    net, data = model(), training()
    fit(net, data, TASK, TRAIN)
    good = net.get_weights()
    worse = replace(TRAIN, learning_rate=3.0, optimizer="sgd", schedule="constant", epochs=2)
    done = fit(net, data, TASK, worse)
    assert max(done.validations) <= done.before == done.after
    assert done.best_epoch == 0
    assert same(net.get_weights(), good)


def test_no_epoch_counts_before_the_share_that_is_given() -> None:
    """Though it be better, and however long nothing gets better till then."""
    net = model()

    def spoil(step: int, total: int) -> None:
        if step >= 7:  # after the first of four epochs
            net.get_layer("head").kernel.assign(np.zeros((16, 3)))

    options = replace(TRAIN, epochs=4, patience=1)
    done = fit(net, training(), TASK, options, best_from=0.6, after_step=spoil)
    assert done.best_epoch == 3
    assert done.after == done.validations[2] < min(done.before, done.validations[0])


def test_training_ends_where_nothing_gets_better() -> None:
    still = replace(TRAIN, learning_rate=1e-12, epochs=9, patience=3)
    done = fit(model(), training(), TASK, still)
    assert done.best_epoch + 3 == done.epochs < 9


def test_frozen_layers_keep_their_weights() -> None:
    net = model()
    net.get_layer("hidden").trainable = net.get_layer("norm").trainable = False
    before = [net.get_layer(name).get_weights() for name in ("hidden", "norm", "head")]
    fit(net, training(), TASK, replace(TRAIN, epochs=1))
    after = [net.get_layer(name).get_weights() for name in ("hidden", "norm", "head")]
    assert [same(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False]
    net.trainable = False
    with pytest.raises(ConfigError, match="^small: every layer is frozen; nothing can be trained"):
        fit(net, training(), TASK, TRAIN)


def test_some_variables_alone_may_be_trained() -> None:
    net = model("tf_keras")
    before = net.get_layer("hidden").get_weights()
    fit(net, training(), TASK, TRAIN, variables=net.get_layer("head").trainable_variables)
    assert same(net.get_layer("hidden").get_weights(), before)


@pytest.mark.parametrize("spoiled", ["loss", "weights"])
def test_numbers_that_are_none_are_never_kept(spoiled: str) -> None:
    net, data = model(), training()
    if spoiled == "loss":
        data = replace(data, augment=lambda x, y, rng: x * np.float32(np.inf))
        options: dict[str, Any] = {}
    else:  # by the last step of an epoch, whose own loss is a number

        def spoil(step: int, total: int) -> None:
            if step == 6:
                net.get_layer("norm").gamma.assign(np.full(16, np.nan))

        options = {"after_step": spoil}
    before = net.get_weights()
    with pytest.raises(EdgeCompressError, match=r"^training: the loss .* epoch 1; lower learning_"):
        fit(net, data, TASK, TRAIN, **options)
    assert same(net.get_weights(), before)


def test_an_interrupt_leaves_the_best_so_far_and_is_passed_on() -> None:
    net, data = model(), training()
    seen = {}

    def stop(step: int, total: int) -> None:
        if step == 4 * 7 + 3:
            raise KeyboardInterrupt

    def told(label: str, done: int, total: int) -> None:
        seen[done] = net.get_weights()

    with pytest.raises(KeyboardInterrupt):
        fit(net, data, TASK, TRAIN, before_step=stop, progress=told)
    ends = [score(_outputs(seen[7 * e], data), data.validation, metric="top1") for e in range(1, 5)]
    assert same(net.get_weights(), seen[7 * (1 + ends.index(max(ends)))])


def _outputs(weights: list[np.ndarray], data: Training) -> np.ndarray:
    net = model()
    net.set_weights(weights)
    return predict(net, data.validation.x)


def test_progress_counts_steps() -> None:
    told = []
    fit(
        model(),
        training(),
        TASK,
        replace(TRAIN, epochs=2, batch=64),
        label="tune",
        progress=lambda *now: told.append(now),
    )
    assert told == [("tune", done, 8) for done in range(9)]


def test_a_smaller_last_batch_makes_no_new_graph() -> None:
    import keras

    traced = []

    class Counted(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, training: bool = False) -> Any:
            traced.append(training)
            return x

    source = keras.Input((6,), name="x")
    x = Counted(name="counted")(source)
    net = keras.Model(source, keras.layers.Dense(3, activation="softmax", name="head")(x))
    traced.clear()
    for_each = training(n=61, validation=300)
    fit(net, for_each, TASK, replace(TRAIN, batch=8, epochs=3))
    assert sorted(traced) == [False, True]


def test_hooks_run_before_and_after_every_step() -> None:
    calls: list[tuple[str, int, int]] = []
    net = model()
    fit(
        net,
        training(),
        TASK,
        replace(TRAIN, epochs=2, batch=100),
        before_step=lambda step, total: calls.append(("before", step, total)),
        after_step=lambda step, total: calls.append(("after", step, total)),
    )
    assert calls == [(when, step, 4) for step in range(4) for when in ("before", "after")]


def values(x: Any, y: Any) -> Training:
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    return Training(Rows(x, y), Split("validation", x, y))


def test_gradients_are_cut() -> None:
    """The first step of SGD is the gradient times the rate."""
    net = line()
    plain = Train(epochs=1, optimizer="sgd", weight_decay=0, schedule="constant", warm_up=0)
    before = np.concatenate([w.ravel() for w in net.get_weights()])
    fit(
        net,
        values([[1, 2]], [[-1e3, 5e3]]),
        Task("values", "mse", 2),
        replace(plain, learning_rate=0.01),
        best_from=1,
    )
    moved = np.concatenate([w.ravel() for w in net.get_weights()]) - before
    assert np.linalg.norm(moved) == pytest.approx(0.01 * CLIP, rel=1e-4)
    assert moved[:2] / moved[2:4] == pytest.approx(0.5, rel=1e-2)  # as the inputs are


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_kernels_decay_and_biases_do_not(optimizer: Any) -> None:
    """There is nothing else to learn for y = x."""
    net = line(bias_initializer="zeros")
    options = Train(
        epochs=1, optimizer=optimizer, weight_decay=0.1, learning_rate=0.5, schedule="constant",
        warm_up=0,
    )  # fmt: skip
    x = np.zeros((4, 2))
    net.get_layer("dense").bias.assign([3.0, 3.0])
    fit(net, values(x, x + 3), Task("values", "mse", 2), options, best_from=1)
    kernel, bias = net.get_weights()
    assert kernel == pytest.approx(np.eye(2) * 0.95, abs=1e-6)
    assert bias.tolist() == [3.0, 3.0]


def test_regularisers_and_constraints_of_layers_hold() -> None:
    import keras

    net = line(bias=False, kernel_regularizer=keras.regularizers.L2(0.5))
    options = Train(epochs=1, optimizer="sgd", weight_decay=0, learning_rate=0.1, warm_up=0)
    x = np.zeros((4, 2))
    done = fit(net, values(x, x), Task("values", "mse", 2), options, best_from=1)
    assert net.get_weights()[0] == pytest.approx(np.eye(2) * 0.9, abs=1e-6)
    assert done.losses[0] == pytest.approx(1.0)
    net = line(bias=False, kernel_constraint=keras.constraints.NonNeg())
    x = np.eye(2)
    fit(net, values(x, -x), Task("values", "mse", 2), replace(options, epochs=20), best_from=1)
    assert (net.get_weights()[0] >= 0).all()
    assert net.get_weights()[0].max() < 0.5


def test_classes_of_few_rows_count_as_much() -> None:
    """Rows that may be of either class go to the rarer one more often."""
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 8 == 0).astype(int)
    x = (rng.normal(size=(400, 6)) + 0.7 * y[:, None] * np.eye(6)[0]).astype(np.float32)
    data = Training(Rows(x, y), Split("validation", x, y))
    share = {}
    for weights in ("none", "balanced"):
        net = model(dropout=0.0)
        options = replace(TRAIN, class_weights=weights, learning_rate=0.005)
        fit(net, data, TASK, options, best_from=1)
        share[weights] = (predict(net, x).argmax(axis=1) == 1).mean()
    assert share["none"] < 0.1 < 0.3 < share["balanced"] < 0.7


@pytest.mark.parametrize("schedule", ["cosine", "constant", "step"])
def test_the_rate_rises_and_falls(schedule: Any) -> None:
    train = Train(learning_rate=0.4, schedule=schedule, warm_up=0.1)
    rates = [rate(train, step, 200) for step in range(200)]
    assert rates[:20] == pytest.approx(np.linspace(0, 0.4, 22)[1:-1], rel=1e-6)
    assert rates[20] == 0.4
    middle, late = {"cosine": (0.2, 0.0), "constant": (0.4, 0.4), "step": (0.04, 0.004)}[schedule]
    assert rates[110] == pytest.approx(middle)
    assert rates[199] == pytest.approx(late, abs=1e-4)


@given(st.integers(1, 300), st.floats(0, 0.99), st.sampled_from(["cosine", "constant", "step"]))
def test_no_step_is_lost_to_a_rate_of_nothing(total: int, warm_up: float, schedule: Any) -> None:
    train = Train(learning_rate=1.0, schedule=schedule, warm_up=warm_up)
    rates = [rate(train, step, total) for step in range(total)]
    assert 0 < min(rates) <= max(rates) <= 1
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_models_and_rows_that_do_not_fit_are_refused() -> None:
    import keras

    data = training()
    source = keras.Input(batch_shape=(1, 6), name="x")
    fixed = keras.Model(source, keras.layers.Dense(3, name="d")(source), name="fixed")
    with pytest.raises(UnsupportedError, match=r"^fixed takes batches of 1; .*keras.Input\(\(6,\)"):
        fit(fixed, data, TASK, TRAIN)
    net = model()
    two = keras.Model(net.inputs, [*net.outputs, net.get_layer("relu").output], name="two")
    with pytest.raises(UnsupportedError, match="^two has 1 inputs and 2 outputs; models with one"):
        fit(two, data, TASK, TRAIN)
    x, y = rows(9, 1)
    with pytest.raises(ConfigError, match=r"^training: rows are \(5,\) but small takes \(6,\)"):
        fit(net, Training(data.rows, Split("v", x[:, 1:], y)), TASK, TRAIN)
    with pytest.raises(
        ConfigError, match=r"^training rows are \(5,\) but the validation's are \(6"
    ):
        fit(net, Training(Rows(x[:, 1:], y), data.validation), TASK, TRAIN)
    with pytest.raises(ConfigError, match="^200 rows to train on and 0 to validate; at least 1"):
        fit(net, Training(data.rows, data.validation.rows(np.arange(0))), TASK, TRAIN)
    with pytest.raises(ConfigError, match="^training rows: label 3 is out of range; the model has"):
        fit(net, Training(Rows(x, y + 1), data.validation), TASK, TRAIN)


def accuracy(artifact: Artifact) -> float:
    test = dataset().test
    return score(predict(artifact.need_keras("test"), test.x), test, metric="top1")


def test_fine_tuning_gives_a_new_artifact() -> None:
    start = Artifact("small", keras=model())
    before = start.need_keras("test").get_weights()
    options = Finetune(epochs=5, learning_rate=0.03)
    tuned = finetune(start, data=dataset(), options=options, train=TRAIN, seed=1)
    assert same(start.need_keras("test").get_weights(), before)
    (step,) = tuned.steps
    assert step.stage == "finetune"
    assert (step.params["epochs"], step.params["learning_rate"], step.params["seed"]) == (
        5,
        0.03,
        1,
    )
    assert json.loads(json.dumps(step.effect)) == step.effect
    assert step.effect["training"]["epochs"] == 5
    again = finetune(start, data=dataset(), options=options, train=TRAIN, seed=1)
    assert same(*(a.need_keras("test").get_weights() for a in (tuned, again)))
    test = dataset().test
    scores = [
        score(predict(a.need_keras("t"), test.x), test, metric="top1") for a in (start, tuned)
    ]
    assert scores[1] > scores[0] + 0.2


def test_fine_tuning_wins_back_what_pruning_loses() -> None:
    net = model(width=24)
    fit(net, training(), TASK, TRAIN)
    cut = prune_structured(Artifact("small", keras=net), ratio=0.9)
    before, after = accuracy(Artifact("small", keras=net)), accuracy(cut)
    assert after < before - 0.1
    assert accuracy(finetune(cut, data=dataset(), train=TRAIN)) > (before + after) / 2


def test_fine_tuning_needs_a_keras_model_and_rows() -> None:
    with pytest.raises(ConfigError, match="^finetune: data points has no rows to train on; give"):
        finetune(Artifact("small", keras=model()), data=dataset(training=None))
    with pytest.raises(StageOrderError, match="^finetune: small is already quantised; call finet"):
        finetune(Artifact("small", keras=model(), tflite=b"x"), data=dataset())


def test_training_without_tf_keras_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(EdgeCompressError, match=r"^this stage needs tf-keras; pip install 'edge"):
        fit(model(), training(), TASK, TRAIN)


def test_rows_may_come_as_a_stream() -> None:
    class Stream:
        def __len__(self) -> int:
            return 90

        def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
            x, y = rows(90, int(rng.integers(99)))
            yield from ((x[i : i + size], y[i : i + size]) for i in range(0, 90, size))

        def key(self) -> str:
            return "90"

    done = fit(model(), Training(Stream(), training().validation), TASK, TRAIN)
    assert done.after > done.before
