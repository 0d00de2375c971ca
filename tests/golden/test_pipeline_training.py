"""The whole run with stages that train: a model with every shape of graph, to both backends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import pipeline, runtimes
from edgecompress.budget import Budget
from edgecompress.building import deployment
from edgecompress.data import Dataset
from edgecompress.errors import ConfigError, StageOrderError
from edgecompress.measuring import measurement
from edgecompress.pipeline import Plan
from edgecompress.recipe import Cluster, Finetune, Prune, Qat, Recipe, Sparsify, Train
from edgecompress.report import markdown
from tests.conftest import need
from tests.small_training import everything, task

RECIPE = Recipe(
    prune=Prune(macs=0.7, rounds=2, epochs=1, round_to=4, min_channels=8),
    finetune=Finetune(epochs=4),
    sparsify=Sparsify(sparsity=0.5, epochs=3, protect=()),
    cluster=Cluster(clusters=8, epochs=2),
    qat=Qat(weight_bits=4, epochs=2, learning_rate=1e-3),
    train=Train(batch=32, learning_rate=1e-2, teacher=0.3),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return task()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("given") / "everything.keras"
    everything(channels=16).save(file)
    return file


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def result(given: Path, data: Dataset, kept: Path) -> pipeline.Result:
    return pipeline.run(pipeline.plan(given, data=data, recipe=RECIPE), checkpoints=kept)


def test_every_stage_has_run_and_kept_its_promise(result: pipeline.Result) -> None:
    stages = [step.stage for step in result.artifact.steps]
    assert stages == [
        *("prune_structured", "recalibrate", "finetune", "prune_structured", "recalibrate"),
        *("finetune", "sparsify", "cluster", "qat", "quantize", "promises", "lossless"),
    ]
    promised = next(s for s in result.artifact.steps if s.stage == "promises").effect["promises"]
    for stage in ("sparsify", "cluster", "qat"):
        rows = [row for row in promised if row["stage"] == stage]
        assert {"stem", "depthwise", "point", "shared"} <= {row["layer"] for row in rows}, stage
        for row in rows:
            better = row["found"] >= row["promised"]
            assert better if row["at_least"] else row["found"] <= row["promised"]
    (row,) = result.report.accuracy
    assert row.float is not None and row.trained is not None and row.compressed is not None
    assert row.trained > row.float + 0.3 and abs(row.trained - row.compressed) < 0.1
    assert result.report.size.macs.after <= 0.7 * result.report.size.macs.before  # type: ignore[operator]
    text = markdown.render(result.report)
    assert "## Training" in text and "## Promises" in text and "| trained |" in text


def test_both_backends_give_the_same_bits(result: pipeline.Result, tmp_path: Path) -> None:
    if not runtimes.available("tflm"):
        pytest.skip("no tflite-micro here")
    need("cc")
    assert result.report.proof is not None and result.report.proof.mismatch == 0
    assert not result.report.unsupported and not result.report.aot_unsupported
    image = deployment.build(result.artifact, board="host", out=tmp_path)
    bits = measurement.measure(image, runs=1).bits
    assert bits is not None and bits.exact == bits.elements > 0


def test_a_second_run_only_reads_what_was_trained(
    result: pipeline.Result,
    given: Path,
    data: Dataset,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same flatbuffer without a step of training."""
    from edgecompress.training import fit

    def no_step(*_: Any) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(fit._Loop, "epoch", no_step)
    again = pipeline.run(pipeline.plan(given, data=data, recipe=RECIPE), checkpoints=kept)
    assert again.artifact.tflite == result.artifact.tflite


def test_there_must_be_rows_to_train_on(given: Path, data: Dataset, tmp_path: Path) -> None:
    without = dataclasses.replace(data, training=None)
    recipe = Recipe(finetune=Finetune(), qat=Qat())
    message = "^everything: finetune, qat train, and there are no rows to train on; give --data"
    with pytest.raises(ConfigError, match=message):
        pipeline.plan(given, data=without, recipe=recipe)
    np.savez(tmp_path / "few.npz", x_calibration=data.pool)
    with pytest.raises(ConfigError, match=message):
        pipeline.plan(given, data=str(tmp_path / "few.npz"), recipe=recipe)


def test_a_flatbuffer_cannot_be_trained(
    result: pipeline.Result, data: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(result.artifact.need_tflite("test"))
    with pytest.raises(StageOrderError, match="^finetune: model is a .tflite, which cannot be"):
        pipeline.plan(file, data=data, recipe=Recipe(finetune=Finetune()))


def test_a_plan_says_what_is_judged(given: Path, data: Dataset) -> None:
    plan = pipeline.plan(given, data=data, recipe=Recipe(), budget=Budget())
    assert isinstance(plan, Plan) and plan.splits == (data.test,)
