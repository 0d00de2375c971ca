"""Losses, distillation and checkpoints of the training stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.data import Dataset, Rows, Split, Training
from edgecompress.digest import digest
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict
from edgecompress.recipe import Train
from edgecompress.training.checkpoint import Checkpoint, Checkpoints, State
from edgecompress.training.fit import fit
from edgecompress.training.task import Kind, Link, Task
from edgecompress.training.teacher import teaching
from edgecompress.vocabulary import Metric
from tests.conftest import nightly

RNG = np.random.default_rng(0)


def dense(units: int, activation: str | None, *, size: int = 5, scale: float = 0.3) -> Any:
    import keras

    source = keras.Input((size,), name="x")
    start = keras.initializers.RandomNormal(stddev=scale, seed=0)
    layer = keras.layers.Dense(units, activation=activation, kernel_initializer=start, name="d")
    return keras.Model(source, layer(source), name="model")


def data(metric: Metric, y: Any) -> Dataset:
    x = np.random.default_rng(1).uniform(0, 1, (20, 5)).astype(np.float32)
    return Dataset("d", metric, x, Split("test", x, y))


@pytest.mark.parametrize(
    ("metric", "units", "activation", "kind", "link", "classes"),
    [
        ("top1", 3, "softmax", "classes", "softmax", 3),
        ("top1", 3, None, "classes", "none", 3),
        ("top1", 3, "relu", "classes", "none", 3),
        ("top1", 3, "sigmoid", "classes", "sigmoid", 3),
        ("auc", 1, "sigmoid", "binary", "sigmoid", 2),
        ("auc", 1, None, "binary", "none", 2),
        ("auc", 2, "softmax", "classes", "softmax", 2),
        ("auc", 5, None, "inputs", "none", 0),
        ("mse", 4, "sigmoid", "values", "none", 0),
    ],
)
def test_a_task_is_recognised(
    metric: Metric, units: int, activation: str | None, kind: Kind, link: Link, classes: int
) -> None:
    task = Task.of(data(metric, np.zeros(20, np.int64)), dense(units, activation))
    assert (task.kind, task.link, task.classes) == (kind, link, classes)
    assert (task.metric, task.width) == (metric, units)


def test_rows_without_targets_are_reconstructed() -> None:
    assert Task.of(data("mse", None), dense(5, None)).kind == "inputs"


@pytest.mark.parametrize(("metric", "units"), [("top1", 1), ("auc", 4)])
def test_outputs_that_fit_no_metric_are_refused(metric: Metric, units: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data d: model gives outputs of shape \[{units}\], wh"
    ):
        Task.of(data(metric, np.zeros(20, np.int64)), dense(units, None))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.floats(0, 0.5), st.sampled_from(["none", "softmax", "sigmoid"]))
def test_losses_are_those_of_keras(seed: int, smoothing: float, link: Link) -> None:
    import keras

    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (7, 4)).astype(np.float32)
    y = rng.integers(0, 4, 7)
    made = {"none": lambda v: v, "softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid}[link]
    options = {"label_smoothing": smoothing, "reduction": None, "from_logits": True}
    if link == "sigmoid":  # each class on its own; Keras smooths the two sides of each
        expected = keras.losses.BinaryCrossentropy(reduction=None, from_logits=True)(
            np.eye(4)[y] * (1 - smoothing) + smoothing / 4, logits
        )
    else:
        expected = keras.losses.CategoricalCrossentropy(**options)(np.eye(4)[y], logits)
    found = Task("classes", "top1", 4, link).losses(made(logits), logits, y, smoothing=smoothing)
    assert np.asarray(found) == pytest.approx(np.asarray(expected), rel=1e-3, abs=1e-4)


def test_the_loss_of_two_sides_and_of_values() -> None:
    import keras

    score, y = np.array([[2.0], [-1.0]], np.float32), np.array([1.0, 1.0], np.float32)
    found = Task("binary", "auc", 1, "sigmoid").losses(
        keras.ops.sigmoid(score), score, y, smoothing=0.2
    )
    p = 1 / (1 + np.exp(-score[:, 0]))
    assert np.asarray(found) == pytest.approx(-0.9 * np.log(p) - 0.1 * np.log(1 - p), rel=1e-5)
    x = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    value = Task("values", "mse", 4).losses(x, x, np.zeros((2, 4), np.float32), smoothing=0)
    assert np.asarray(value).tolist() == [3.5, 31.5]
    own = Task("inputs", "mse", 4).losses(x + 2, x, y, smoothing=0)
    assert np.asarray(own).tolist() == [4, 4]


def test_a_class_that_a_softmax_rules_out_still_teaches() -> None:
    """Probabilities of 1e-20, where a logarithm cut at 1e-7 has no slope."""
    import tensorflow as tf

    logits = tf.Variable([[46.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = Task("classes", "top1", 2, "softmax").losses(
            tf.nn.softmax(logits), logits, [1], smoothing=0
        )
    assert tape.gradient(loss, logits).numpy().ravel() == pytest.approx([1, -1], rel=1e-3)


@pytest.mark.parametrize(
    ("task", "made"),
    [
        (Task("classes", "top1", 4), "none"),
        (Task("classes", "top1", 4, "softmax"), "softmax"),
        (Task("classes", "top1", 4, "sigmoid"), "sigmoid"),
        (Task("binary", "auc", 1, "sigmoid"), "sigmoid"),
        (Task("values", "mse", 4), "none"),
    ],
)
def test_a_student_is_nearest_where_it_is_like_its_teacher(task: Task, made: str) -> None:
    import keras

    link = {"none": lambda v: v, "softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid}[made]
    a, b = (RNG.normal(0, 2, (6, task.width)).astype(np.float32) for _ in range(2))
    assert np.abs(task.towards(link(a), link(a), 3.0)).max() < 1e-5
    assert (np.asarray(task.towards(link(a), link(b), 3.0)) > 1e-3).all()


def test_the_divergence_is_of_softened_probabilities() -> None:
    a, b = (RNG.normal(0, 2, (6, 4)) for _ in range(2))

    def soft(v: np.ndarray) -> np.ndarray:
        e = np.exp(v / 2.5)
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    expected = (soft(b) * np.log(soft(b) / soft(a))).sum(axis=1) * 2.5**2
    found = Task("classes", "top1", 4).towards(a, b, 2.5)
    assert np.asarray(found) == pytest.approx(expected, rel=1e-4)


def test_an_autoencoder_learns_normal_rows_alone() -> None:
    """And is judged by its error where there is no anomaly to tell apart."""
    task = Task("inputs", "auc", 5)
    y = np.array([0, 1, 1, 0])
    assert task.weights(y, None, 4).tolist() == [1, 0, 0, 1]
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    apart, normal = Split("v", x, y), Split("v", x, y * 0)
    outputs = x + y[:, None].astype(np.float32)
    assert (task.measure(apart), task.judge(outputs, apart)) == ("auc", 1.0)
    assert task.measure(normal) == "mse"
    assert task.judge(outputs, normal) == pytest.approx(0.5)


def test_targets_that_do_not_fit_are_refused() -> None:
    x = np.zeros((3, 5), np.float32)
    classes, values = Task("classes", "top1", 3), Task("values", "mse", 2)
    for task, y, message in (
        (classes, None, "^training rows: no targets for 3 rows; give one each$"),
        (classes, np.zeros(2), "^training rows: 2 targets for 3 rows"),
        (
            classes,
            np.array([0, -1, 2]),
            "^training rows: label -1 is out of range; the model has 3",
        ),
        (values, np.zeros((3, 4)), "^training rows: targets of 4 values, but the model gives 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            task.targets(x, y)


def network(
    *, channels: int = 4, seed: int = 0, size: int = 6, name: str = "keras", pre: str = ""
) -> Any:
    """Two convolutions and a softmax; `pre` goes before the names of its layers."""
    import importlib

    k: Any = importlib.import_module(name)
    start = iter(k.initializers.GlorotUniform(seed=seed * 10 + i) for i in range(3))
    source = k.layers.Input((size, size, 1), name="x")
    x = k.layers.Conv2D(
        channels, 3, activation="relu", kernel_initializer=next(start), name=f"{pre}one"
    )(source)
    x = k.layers.Conv2D(4, 3, activation="relu", kernel_initializer=next(start), name=f"{pre}two")(
        x
    )
    x = k.layers.Flatten(name=f"{pre}flat")(x)
    x = k.layers.Dense(3, activation="softmax", kernel_initializer=next(start), name=f"{pre}head")(
        x
    )
    return k.Model(source, x, name="network")


def images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6, 6, 1)).astype(np.float32)


def unlabelled(y: Any = None) -> Training:
    """Images whose labels tell nothing."""
    x = images(240, 1)
    return Training(Rows(x, np.arange(240) % 3), Split("v", images(30, 2), np.arange(30) % 3))


TASK = Task("classes", "top1", 3, "softmax")
TRAIN = Train(epochs=20, batch=24, learning_rate=0.01, weight_decay=0)


def agreement(student: Any, teacher: Any) -> float:
    x = images(200, 3)
    return float((predict(student, x).argmax(axis=1) == predict(teacher, x).argmax(axis=1)).mean())


@pytest.mark.parametrize("name", nightly(["keras"], ["keras", "tf_keras"]))
def test_a_student_follows_its_teacher_and_not_the_labels(name: str) -> None:
    import keras

    teacher = network(seed=5)
    head = teacher.get_layer("head")
    head.kernel.assign(keras.ops.multiply(head.kernel, 4.0))
    before = teacher.get_weights()
    found = {}
    for share in (0.0, 1.0):
        student = network(seed=6, name=name)
        fit(
            student, unlabelled(), TASK, replace(TRAIN, teacher=share), teacher=teacher, best_from=1
        )
        found[share] = agreement(student, teacher)
    assert found[1.0] > 0.65 > 0.55 > found[0.0]
    assert all((a == b).all() for a, b in zip(before, teacher.get_weights(), strict=True))


@pytest.mark.parametrize("channels", [4, 2])
@pytest.mark.parametrize("name", nightly(["tf_keras"], ["keras", "tf_keras"]))
def test_layers_of_a_student_follow_the_teachers(name: str, channels: int) -> None:
    """Of as many channels by their values, of fewer by their attention maps."""
    teacher, student = network(seed=5), network(seed=6, channels=channels, name=name, pre="own_")
    train = replace(TRAIN, features=("one",), feature_weight=20.0)
    names = {"one": "own_one"}
    lesson = teaching(student, teacher, TASK, train, names)
    x = images(20, 3)

    def apart() -> float:
        made, told = lesson.answers(x), lesson.told(x)
        return float(np.mean(lesson.losses(made, told, np.zeros(20, np.float32))))

    before = apart()
    fit(student, unlabelled(), TASK, train, teacher=teacher, names=names, best_from=1)
    assert apart() < before / 3


def test_like_layers_are_not_apart() -> None:
    teacher, student = network(seed=5), network(seed=5)
    lesson = teaching(student, teacher, TASK, replace(TRAIN, features=("one", "flat"), teacher=0.5))
    x = images(9, 3)
    plain = np.arange(9, dtype=np.float32)
    found = np.asarray(lesson.losses(lesson.answers(x), lesson.told(x), plain))
    assert found == pytest.approx(plain / 2, abs=1e-5)
    assert lesson.follow == ("one", "flat")


def test_a_distance_is_in_units_of_the_teachers_variance() -> None:
    """So that a layer of large values does not outweigh the others."""
    teacher, student = network(seed=5), network(seed=5)
    for model in (teacher, student):
        layer = model.get_layer("one")
        layer.kernel.assign(layer.kernel * 1000)
    student.get_layer("one").kernel.assign(student.get_layer("one").kernel * 0)
    lesson = teaching(student, teacher, TASK, replace(TRAIN, features=("one",)))
    x = images(50, 3)
    found = lesson.losses(lesson.answers(x), lesson.told(x), np.zeros(50, np.float32))
    assert 1 < float(np.mean(found)) < 3  # the mean square over the variance, of what a ReLU gives


def test_layers_that_cannot_be_followed_are_named() -> None:
    import keras

    net, small, wide = network(), network(size=5), network(channels=5)
    source = keras.Input((6, 6, 1), name="x")
    shared = keras.layers.Conv2D(1, 1, name="shared")
    twice = keras.Model(source, keras.layers.Flatten(name="f")(shared(shared(source))))
    head = keras.layers.Dense(5, name="head")(wide.get_layer("flat").output)
    other = keras.Model(wide.inputs, head)
    for student, teacher, names, message in (
        (
            net,
            net,
            ("three",),
            "train.features: the trained model has no layer 'three'; it has: x, ",
        ),
        (
            twice,
            twice,
            ("shared",),
            "train.features: layer 'shared' is a model, or called several times",
        ),
        (
            small,
            net,
            ("one",),
            r"layer 'one' gives \[3, 3, 4\], the uncompressed model's \[4, 4, 4",
        ),
        (
            other,
            net,
            ("head",),
            r"layer 'head' gives \[5\], the uncompressed model's \[3\], which c",
        ),
        (net, None, ("one",), "follow the uncompressed model, and there is none; leave them out"),
    ):
        with pytest.raises(ConfigError, match=message):
            teaching(student, teacher, TASK, replace(TRAIN, features=names))


def test_no_teacher_is_asked_where_none_is_wanted() -> None:
    lesson = teaching(network(), network(), TASK, TRAIN)
    assert lesson.teacher is None
    assert lesson.told(images(2, 0)) == ()


STATE = State({"a/0": np.arange(6.0).reshape(2, 3), "b": np.array(True)}, {"epoch": 3, "x": [None]})


def test_a_checkpoint_comes_back_under_its_key_alone(tmp_path: Path) -> None:
    spot = Checkpoints(tmp_path).under("round-1").at("fine tune/1", "key").of("more")
    assert spot.read() is None
    spot.write(STATE)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [
        Path("round-1/fine_tune_1.npz")
    ]
    found = spot.read()
    assert found is not None
    assert found.notes == STATE.notes
    assert found.arrays.keys() == STATE.arrays.keys()
    assert all((found.arrays[k] == v).all() for k, v in STATE.arrays.items())
    assert Checkpoints(tmp_path / "round-1").at("fine tune/1", "key").read() is None
    assert Checkpoint(spot.path, "other").read() is None


def test_a_write_that_fails_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = Checkpoints(tmp_path).at("tune")
    spot.write(STATE)
    (tmp_path / ".tune-killed.npz").write_bytes(b"half a file")

    def cut(file: Any, **arrays: Any) -> None:
        file.write(b"PK half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", cut)
    with pytest.raises(OSError, match="no space left"):
        spot.write(State({}, {"epoch": 4}))
    found = spot.read()
    assert found is not None
    assert found.notes["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["tune.npz"]


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 99])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    spot = Checkpoints(tmp_path).at("tune")
    spot.path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=f"^{spot.path}: a damaged checkpoint; delete it to train"
    ):
        spot.read()
    np.savez(spot.path, notes=np.frombuffer(b"[1]", np.uint8))
    with pytest.raises(ConfigError, match="a damaged checkpoint"):
        spot.read()


@given(st.lists(st.text(max_size=4), max_size=3), st.lists(st.text(max_size=4), max_size=3))
def test_digests_tell_parts_apart(a: list[str], b: list[str]) -> None:
    assert (digest(*a) == digest(*b)) == (a == b)


def test_digests_tell_arrays_apart() -> None:
    x = np.arange(6.0)
    parts = [x, x.reshape(2, 3), x.astype(np.float32), x.view(np.int64), x[::-1], "x"]
    assert len({digest(part) for part in parts}) == len(parts)
    assert digest(x[::2]) == digest(x[::2].copy())
