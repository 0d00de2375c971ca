"""The whole run on a small residual model, through the command line and the Python API."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecompress as ec
from edgecompress import cost, pipeline
from edgecompress.cli import main
from edgecompress.data import Dataset, Split, load_npz
from edgecompress.errors import ConfigError, ModelFileError, StageOrderError
from edgecompress.report import markdown
from edgecompress.tflite import read
from tests.conftest import need

FILES = {
    "aot/ec_model.h",
    "aot/example/main.c",
    "aot/model.c",
    "float.keras",
    "model.tflite",
    "report.html",
    "report.json",
    "report.md",
    "steps.json",
    "tflm/ec_model.h",
    "tflm/model.cc",
    "tflm/model_data.cc",
    "tflm/model_data.h",
    "tflm/model_ops.cc",
    "tflm/model_ops.h",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained-enough residual model, and its data: which quarter of the image is bright."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("small")
    keras.utils.set_random_seed(3)
    source = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(source)
    x = skip = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = layers.Conv2D(8, 1, activation="relu", name="point")(x)
    x = layers.Add(name="join")([x, skip])
    x = layers.Flatten(name="flat")(layers.AveragePooling2D(4, name="pool")(x))
    model = keras.Model(source, layers.Dense(4, activation="softmax", name="classes")(x))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    images = rng.normal(0, 0.5, (400, 2, 4, 2, 4, 1)).astype(np.float32)
    images[np.arange(400), y // 2, :, y % 2] += 1.5
    images = images.reshape(400, 8, 8, 1)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(images, y, epochs=6, batch_size=32, verbose=0)
    model.save(folder / "quarter.keras")
    np.savez(folder / "quarter.npz", x=images, y=y)
    return folder / "quarter.keras", folder / "quarter.npz"


@pytest.fixture(scope="module")
def run(small: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory made by the command line at ratio 0.5."""
    model, data = small
    out = tmp_path_factory.mktemp("run") / "quarter"
    assert main(["compress", str(model), "--data", str(data), "--out", str(out), *HALF]) == 0
    return out


HALF = ("--ratio", "0.5")


def table(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def test_the_run_directory_is_complete(run: Path) -> None:
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    kernels = {file for file in found if file.startswith("aot/ec_")} - FILES
    assert found - kernels == FILES
    assert "aot/ec_math.h" in kernels
    assert any(file.startswith("aot/ec_conv") and file.endswith(".c") for file in kernels)


def test_everything_really_shrinks(run: Path, small: tuple[Path, Path]) -> None:
    size = table(run)["size"]
    for figure in ("params", "macs", "tflite", "arena"):
        assert 0 < size[figure]["after"] < size[figure]["before"], figure
    whole = ec.load(small[0])
    before, after = cost.total(whole.keras), cost.total(ec.load(run / "float.keras").keras)
    assert size["params"] == {"before": before.params, "after": after.params}
    assert size["macs"] == {"before": before.macs, "after": after.macs}
    assert size["tflite"]["after"] == (run / "model.tflite").stat().st_size
    assert read((run / "model.tflite").read_bytes()).macs == after.macs


def test_the_bits_are_proven(run: Path) -> None:
    proof = table(run)["proof"]
    assert proof["samples"] == 64
    assert proof["elements"] == 64 * 4
    assert proof["exact"] == proof["elements"]
    assert "tflite-micro" in proof["subject"]


def test_accuracy_by_stage(run: Path, small: tuple[Path, Path]) -> None:
    (row,) = table(run)["accuracy"]
    assert row["samples"] == 320
    assert row["float"] > 0.95
    assert abs(row["compressed"] - row["pruned"]) < 0.05
    assert abs(row["tflm"] - row["compressed"]) < 0.15
    assert row["tflm_samples"] == 64
    loaded, test = ec.load(run), load_npz(small[1]).test
    for stage, runtime in (("compressed", "tflite"), ("pruned", "keras")):
        assert ec.evaluate(loaded, test, metric="top1", runtime=runtime).value == row[stage]


def test_the_array_is_the_flatbuffer(run: Path) -> None:
    digest = hashlib.sha256((run / "model.tflite").read_bytes()).hexdigest()
    assert table(run)["sha256"] == digest
    assert digest in (run / "tflm" / "model_data.cc").read_text()
    assert f"{table(run)['size']['arena']['after']}" in (run / "tflm" / "model.cc").read_text()


def test_the_c_array_compiles(run: Path, tmp_path: Path) -> None:
    need("cc")
    source = run / "tflm" / "model_data.cc"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
    subprocess.run(["c++", *flags, "-c", source, "-o", tmp_path / "data.o"], check=True)


def test_the_ahead_of_time_c_compiles_and_runs_by_itself(run: Path, tmp_path: Path) -> None:
    need("cc")
    shutil.copytree(run / "aot", tmp_path / "project")
    command = "cc -std=c11 -O2 -Wall -Wextra -Werror -I. *.c example/main.c -lm && ./a.out"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "project", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[^:\n]+:( [0-9a-f]{2}){4}\n", done.stdout)


def test_every_layer_has_its_error(run: Path) -> None:
    found = table(run)["operators"]
    matched = [row for row in found if row["sqnr_db"] is not None]
    assert len(matched) >= 4
    assert all(row["sqnr_db"] > 10 for row in matched)
    assert sum(row["macs"] for row in found) == table(run)["size"]["macs"]["after"]
    (first,) = table(run)["accuracy"][:1]
    right = sum(row[i] for i, row in enumerate(first["confusion"]))
    assert right / first["samples"] == first["compressed"]


def test_the_steps_can_be_repeated(run: Path, small: tuple[Path, Path]) -> None:
    from edgecompress.prune import PrunePlan, cut

    steps = ec.load(run).steps
    assert [step.stage for step in steps] == ["prune_structured", "quantize", "lossless"]
    plan = PrunePlan.from_json(steps[0].effect["plan"])
    original = ec.load(small[0]).keras
    assert original is not None
    again, kept = cut(original, plan), ec.load(run / "float.keras").keras
    assert kept is not None
    for mine, theirs in zip(again.get_weights(), kept.get_weights(), strict=True):
        assert (mine == theirs).all()


def test_a_run_directory_is_loaded_whole(run: Path) -> None:
    artifact = ec.load(run)
    assert artifact.name == "quarter"
    assert artifact.tflite == (run / "model.tflite").read_bytes()
    assert artifact.keras is not None


def test_a_damaged_run_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text('{"name": "x"}')
    with pytest.raises(ModelFileError, match="steps.json: missing key steps$"):
        ec.load(tmp_path)
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(ModelFileError, match="steps.json is no JSON"):
        ec.load(tmp_path)


def test_a_second_run_gives_the_same_bytes(
    run: Path, small: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = small
    result = pipeline.run(
        pipeline.plan(model, data=data, changes={"prune": {"ratio": 0.5}}, seed=0)
    )
    result.save(tmp_path)
    for name in sorted(FILES - {"float.keras", "steps.json"}):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name


def test_json_goes_to_stdout_alone(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == table(run)
    assert err == ""


def test_report_prints_the_table(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    out = capfd.readouterr().out
    for row in ("parameters", "MACs per inference", ".tflite bytes", "arena bytes", "top1 test"):
        assert row in out
    assert "all equal." in out


def test_a_tflite_is_judged_as_it_is(run: Path, small: tuple[Path, Path], tmp_path: Path) -> None:
    flatbuffer = run / "model.tflite"
    result = ec.compress(flatbuffer, data=small[1])
    assert result.artifact.tflite == flatbuffer.read_bytes()
    assert result.report.size.tflite.before == result.report.size.tflite.after
    assert result.report.accuracy[0].compressed == table(run)["accuracy"][0]["compressed"]
    assert result.report.proof is not None
    assert result.report.proof.holds


def test_a_model_that_tflm_cannot_run_is_said_so(
    small: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "tflm" / "model_data.cc"
    stale.parent.mkdir()
    stale.write_text("an earlier model")
    model, data = small
    arguments = ["compress", str(model), "--data", str(data), "--mode", "float16"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "TFLM cannot run this model: " in capfd.readouterr().out
    assert table(tmp_path)["proof"] is None
    assert table(tmp_path)["size"]["arena"]["after"] is None
    assert not stale.exists()


def test_without_the_interpreter_the_report_says_so(
    run: Path, small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecompress.runtimes.available", lambda runtime: False)
    report = ec.compress(run / "model.tflite", data=small[1]).report
    assert report.proof is None
    assert report.size.arena.after is None
    assert report.accuracy[0].compressed == table(run)["accuracy"][0]["compressed"]
    tools = {tool: v for tool, v in report.tools.items() if tool != "tflite-micro"}
    text = markdown.render(dataclasses.replace(report, tools=tools))
    assert "TFLM was not run: tflite-micro is not installed" in text


def test_auc_of_data_sorted_by_class(small: tuple[Path, Path], tmp_path: Path) -> None:
    """The rows that TFLM is judged on are spread over the split; one class alone gives no AUC."""
    with np.load(small[1]) as file:
        x, y = file["x"], file["y"]
    order = np.argsort(y // 2, kind="stable")
    data = Dataset("halves", "auc", x[:50], Split("test", x[order], (y // 2)[order]))
    model = _two_outputs(tmp_path)
    for samples, seen in ((20, True), (1, False)):
        changes = {"evaluate": {"tflm_samples": samples}}
        plan = pipeline.plan(model, data=data, changes=changes, name="halves")
        (row,) = pipeline.run(plan).report.accuracy
        assert row.compressed is not None
        assert (row.tflm is not None) is seen


def _two_outputs(folder: Path) -> Path:
    import keras

    source = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(source))
    model = keras.Model(source, keras.layers.Dense(2, activation="softmax")(x))
    model.layers[-1].set_weights([np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]]), np.zeros(2)])
    model.save(folder / "two.keras")
    return folder / "two.keras"


def test_a_name_that_makes_no_identifier_is_refused_first(small: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="no ASCII letter or digit"):
        pipeline.plan(small[0], data=small[1], name="модель")
    assert pipeline.plan(small[0], data=small[1], name="other").name == "other"


def test_a_tflite_is_not_quantised_again(run: Path, small: tuple[Path, Path]) -> None:
    changes = {"quantize": {"mode": "int16x8"}}
    with pytest.raises(StageOrderError, match="model is a .tflite, which is quantised already"):
        pipeline.plan(run / "model.tflite", data=small[1], changes=changes)


def test_inspect_lists_layers_and_channels(
    small: tuple[Path, Path], run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(small[0]), "--channels"]) == 0
    out = capfd.readouterr().out
    for word in ("stem_bn", "DepthwiseConv2D", "8x8x8", "total"):
        assert word in out
    assert "tflm cannot run" not in out
    assert main(["inspect", str(run / "model.tflite"), "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["macs"] == table(run)["size"]["macs"]["after"]
    assert summary["unsupported"] == []
    assert [line["kind"] for line in summary["lines"]][-2:] == ["FULLY_CONNECTED", "SOFTMAX"]


def test_the_installed_command_gives_its_exit_code(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("edgecompress"), "inspect", "gone.keras"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr == "edgecompress: gone.keras: no such file; check the path\n"
    assert done.stdout == ""
