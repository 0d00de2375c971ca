"""Metrics against their definitions, predictions, and the comparison of bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.data import Split
from edgecompress.errors import (
    ConfigError,
    EdgeCompressError,
    ModelFileError,
    StageOrderError,
    UnsupportedError,
)
from edgecompress.evaluation import compare, evaluate, first_difference, predict, score

RESIDUAL = (Path(__file__).with_name("models") / "residual_int8.tflite").read_bytes()
ROWS = np.random.default_rng(0).standard_normal((5, 6, 6, 2)).astype(np.float32)


def split(x: Any, y: Any = None) -> Split:
    return Split("test", np.asarray(x, np.float32), None if y is None else np.asarray(y))


def test_top1_is_a_fraction_and_ties_go_to_the_first() -> None:
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.5, 0.5]], np.float32)
    assert score(outputs, split(np.zeros(4), [1, 0, 0, 1]), metric="top1") == 0.75
    assert (
        score(outputs.reshape(4, 1, 1, 2), split(np.zeros(4), [0, 1, 1, 0]), metric="top1") == 0.25
    )


@given(
    arrays(np.int8, st.integers(2, 30), elements=st.integers(-4, 4)),
    st.data(),
)
def test_auc_is_the_chance_to_rank_a_pair_right(scores: np.ndarray, data: st.DataObject) -> None:
    labels = data.draw(arrays(np.int64, len(scores), elements=st.integers(0, 1)))
    labels[:2] = 0, 1
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p in scores[labels == 1].astype(int)
        for n in scores[labels == 0].astype(int)
    ]
    target = split(np.zeros(len(scores)), labels)
    assert score(scores[:, None], target, metric="auc") == pytest.approx(np.mean(pairs))
    two = np.stack([-scores.astype(int), scores], axis=1)
    assert score(two, target, metric="auc") == pytest.approx(np.mean(pairs))


def test_auc_of_an_autoencoder_ranks_its_reconstruction_error() -> None:
    x = np.zeros((4, 5), np.float32)
    outputs = x + np.array([[0.1], [-2.0], [0.3], [3.0]], np.float32)
    assert score(outputs, split(x, [0, 1, 0, 1]), metric="auc") == 1.0
    assert score(outputs, split(x, [0, 0, 1, 1]), metric="auc") == 0.75


def test_mse() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert score(x + 2, split(x), metric="mse") == 4.0
    assert score(np.ones((2, 1)), split(x, [1.0, 4.0]), metric="mse") == 4.5


@pytest.mark.parametrize(
    ("metric", "outputs", "y", "message"),
    [
        ("f1", np.zeros((2, 2)), [0, 1], "metric 'f1' is unknown; use top1, auc, mse"),
        ("top1", np.zeros((2, 2)), None, "metric top1 needs labels y"),
        ("auc", np.zeros((2, 1)), None, "metric auc needs labels y"),
        ("top1", np.zeros((3, 2)), [0, 1], "3 outputs for 2 rows"),
        ("top1", np.zeros((2, 2)), [0, 1, 1], "3 labels for 2 rows"),
        ("top1", np.zeros((2, 2)), [0, 2], r"label 2 is out of range; the model has 2 classes"),
        ("top1", np.zeros((2, 2)), [-1, 1], r"label -1 is out of range"),
        ("top1", np.zeros((2, 1)), [0, 1], r"one output per class; the model's are of shape \[1\]"),
        ("top1", np.zeros((2, 4, 3)), [0, 1], r"shape \[4, 3\]"),
        ("top1", np.zeros((2, 2)), [0.0, 1.0], "float64; pass one integer per row"),
        ("top1", np.zeros((2, 2)), [[0, 1], [1, 0]], r"labels of shape \[2, 2\]"),
        ("auc", np.zeros((2, 1)), [1, 1], "labels 0 and 1, and both"),
        ("auc", np.zeros((2, 1)), [1, 2], "labels 0 and 1, and both"),
        ("auc", np.zeros((2, 7)), [0, 1], r"outputs are of shape \[7\]"),
        ("top1", np.zeros((2, 2)), 1, "y is a single value; give one per row"),
        ("mse", np.zeros((2, 2)), [0, 1], r"shape \[\] for outputs of shape \[2\]; give whole num"),
        ("mse", np.zeros((2, 1)), [0, np.nan], "type float64 that are not all finite numbers"),
        ("mse", np.zeros((2, 1)), ["0", "1"], "type <U1 that are not all finite numbers"),
        (
            "mse",
            np.zeros((2, 7)),
            None,
            r"shape \[3\] for .* \[7\].*; rows without y belong in",
        ),
    ],
)
def test_targets_that_do_not_fit(metric: Any, outputs: np.ndarray, y: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(outputs, split(np.zeros((2, 3)), y), metric=metric)


def test_outputs_that_are_not_finite() -> None:
    outputs = np.array([[1, 2], [3, np.nan], [np.inf, 0]])
    with pytest.raises(EdgeCompressError, match="2 of 3 outputs hold NaN.* the first in row 1"):
        score(outputs, split(np.zeros(3), [0, 1, 1]), metric="top1")


@given(arrays(np.int8, (3, 4)), arrays(np.int8, (3, 4)))
def test_compare_counts_every_element_once(a: np.ndarray, b: np.ndarray) -> None:
    bits = compare(a, b)
    assert bits.exact + bits.off_by_one + bits.mismatch == bits.elements == 12
    assert (bits.max_diff == 0) == (bits.exact == 12)
    assert compare(b, a) == bits and compare(a, a).exact == 12


def test_compare_measures_in_lsb() -> None:
    bits = compare(np.array([-128, 0, 5, 7], np.int8), np.array([127, 1, 5, 9], np.int8))
    assert (bits.exact, bits.off_by_one, bits.mismatch, bits.max_diff) == (1, 1, 2, 255)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros(3, np.int8), np.zeros(4, np.int8)),
        (np.zeros(3, np.int8), np.zeros(3, np.uint8)),
        (np.zeros(3, np.float32), np.zeros(3, np.float32)),
        (np.zeros(0, np.int8), np.zeros(0, np.int8)),
    ],
)
def test_compare_refuses_what_cannot_be_compared(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="bit comparison of"):
        compare(a, b)


def test_no_difference_between_reference_and_tflm() -> None:
    assert first_difference(RESIDUAL, ROWS, between=("tflm", "tflm")) is None
    if runtimes.run(RESIDUAL, ROWS[:1]).runtime == "tflite-runtime":
        assert first_difference(RESIDUAL, ROWS) is None


def test_the_first_operator_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    result = runtimes.Job.result

    def altered(job: runtimes.Job) -> runtimes.Outcome:
        outcome = result(job)
        if job.package.name == "tflite-micro":
            for op in outcome.program.ops[2:]:  # ADD and all behind it
                outcome.tensors[op.outputs[0]].flat[:3] -= np.int8(2)
        return outcome

    monkeypatch.setattr(runtimes.Job, "result", altered)
    found = first_difference(RESIDUAL, ROWS, between=("litert", "tflm"))
    assert found is not None
    assert (found.operator, found.kind, found.layer) == (2, "ADD", "add")
    assert (found.mismatch, found.elements, found.max_diff) == (3, 5 * 64, 2.0)


def test_a_flatbuffer_is_judged_under_the_runtime_asked_for() -> None:
    artifact = Artifact("residual", tflite=RESIDUAL)
    outcome = runtimes.run(RESIDUAL, ROWS, runtime="tflm")
    labels = outcome.raw.argmax(axis=1)
    labels[0] = (labels[0] + 1) % 3
    target = split(ROWS, labels)
    found = evaluate(artifact, target, metric="top1", runtime="tflm")
    assert (found.value, found.samples, found.metric) == (0.8, 5, "top1")
    assert found.runtime == outcome.label
    assert np.array_equal(found.outputs, outcome.values)
    assert evaluate(artifact, target, metric="top1").runtime.startswith(("tflite-", "ai-edge"))


def test_what_cannot_be_evaluated() -> None:
    artifact = Artifact("residual", tflite=RESIDUAL)
    target = split(ROWS, [0] * 5)
    with pytest.raises(ConfigError, match="the split is empty"):
        evaluate(artifact, target.rows(np.arange(0)), metric="top1")
    with pytest.raises(ConfigError, match="runtime 'xnn' is unknown"):
        evaluate(artifact, target, metric="top1", runtime="xnn")
    with pytest.raises(StageOrderError, match="residual has no Keras model"):
        evaluate(artifact, target, metric="top1", runtime="keras")
    with pytest.raises(ConfigError, match=r"the model takes \(N, 6, 6, 2\)"):
        evaluate(artifact, split(ROWS[:, :5], [0] * 5), metric="top1")
    with pytest.raises(ModelFileError):
        evaluate(Artifact("bad", tflite=b"\0" * 64), target, metric="top1")


def test_predictions_of_a_keras_model() -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2, name="d")]
    )
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    kernel, bias = model.get_weights()
    seen: list[tuple[str, int, int]] = []
    outputs = predict(model, x, progress=lambda *step: seen.append(step))
    assert outputs.shape == (300, 2) and outputs.dtype == np.float32
    assert np.allclose(outputs, x @ kernel + bias, atol=1e-5)
    assert seen == [("predict", 0, 300), ("predict", 150, 300), ("predict", 300, 300)]
    labels = (x @ kernel + bias).argmax(axis=1)
    found = evaluate(Artifact("dense", model), split(x, labels), metric="top1")
    assert (found.value, found.runtime) == (1.0, "Keras")
    for shape in ((4, 2), (4, 3, 1)):
        with pytest.raises(ConfigError, match=r"do not fit .* which takes \[3\]"):
            predict(model, np.zeros(shape, np.float32))
    with pytest.raises(ConfigError, match="no rows"):
        predict(model, x[:0])
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    fixed.set_weights(model.get_weights())
    assert np.allclose(predict(fixed, x[:7]), outputs[:7], atol=1e-5)
    double = keras.Model(model.inputs, [model.outputs[0], model.outputs[0]])
    with pytest.raises(UnsupportedError, match="1 inputs and 2 outputs"):
        predict(double, x)
