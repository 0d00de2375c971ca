"""The whole run without data, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecompress import cli
from edgecompress.backends import aot
from edgecompress.datafree.distil import BATCH
from edgecompress.recipe import RECIPES, Recipe, named
from edgecompress.report import Report
from edgecompress.tflite import read
from tests.conftest import need
from tests.small_models import batch


def _saved(folder: Path) -> Path:
    """A model whose BatchNormalization layers have seen normal inputs."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(0)
    inputs = y = kl.Input((8, 8, 3))
    for width in (8, 12, 8):
        y = kl.Conv2D(width, 3, padding="same", use_bias=False)(y)
        y = kl.ReLU()(kl.BatchNormalization(momentum=0.0)(y))
    y = kl.Dense(4, activation="softmax")(kl.GlobalAveragePooling2D()(y))
    file = folder / "mine.keras"
    model = keras.Model(inputs, y, name="mine")
    model(batch(model, 64), training=True)
    model.save(file)
    return file


def test_a_model_file_alone_is_enough(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    need("cc")
    out, file = tmp_path / "run", _saved(tmp_path)
    command = ["compress", str(file), "--recipe", "data-free", "--target-macs", "0.7"]
    command += ["--weight-bits", "5", "--board", "host", "--out", str(out)]
    command += ["--optimize", "ram"]
    assert cli.main(command) == 0
    shown = capfd.readouterr().out
    report = Report.read(out)
    assert report.accuracy == ()
    macs = report.size.macs
    assert macs.before is not None and macs.after is not None
    assert macs.after <= 0.7 * macs.before
    assert "Accuracy: not measured" in shown and "estimated from the weights" in shown
    assert report.proof is not None and report.proof.holds
    assert [row.board for row in report.boards] == ["host"]
    program = read((out / "model.tflite").read_bytes())
    assert {program.tensors[i].dtype for i in (*program.inputs, *program.outputs)} == {"int8"}
    kernels = [
        tensor.array
        for tensor in program.tensors
        if tensor.dtype == "int8" and tensor.array is not None and tensor.array.ndim > 1
    ]
    assert kernels and max(np.abs(kernel.astype(int)).max() for kernel in kernels) == 15
    arenas = {how: aot.schedule(program, optimize=how).plan.bytes for how in ("ram", "speed")}
    assert report.size.aot_arena.after == arenas["ram"] < arenas["speed"]
    text = (out / "report.md").read_text()
    assert "## Repair by layer (activation)" in text and "## Weights by layer" in text


def test_a_few_samples_without_labels(tmp_path: Path) -> None:
    out, file, few = tmp_path / "run", _saved(tmp_path), tmp_path / "few.npz"
    rng = np.random.default_rng(1)
    np.savez(few, x_calibration=rng.normal(size=(40, 8, 8, 3)).astype(np.float32))
    command = ["compress", str(file), "--recipe", "few-samples", "--target-macs", "0.7"]
    assert cli.main([*command, "--data", str(few), "--out", str(out)]) == 0
    report = Report.read(out)
    pruned, quantized = report.steps[:2]
    assert report.accuracy == () and pruned.effect["samples"] == 40
    assert all(row["measured"] is not None for row in pruned.effect["repair"])
    assert quantized.params["calibration_samples"] == 40


def test_distilled_inputs_in_both_stages(tmp_path: Path) -> None:
    out, file, recipe = tmp_path / "run", _saved(tmp_path), tmp_path / "r.toml"
    recipe.write_text(
        '[prune]\nratio = 0.3\nrepair = "activation"\ncalibration = "distilled"\nsamples = 16\n'
    )
    command = ["compress", str(file), "--recipe", str(recipe), "--calibration", "distilled"]
    assert cli.main([*command, "--out", str(out)]) == 0
    report = Report.read(out)
    pruned, quantized = report.steps[:2]
    assert pruned.effect["samples"] == 16 and pruned.effect["repair"]
    assert quantized.params["calibration"] == "distilled"
    assert quantized.params["calibration_samples"] == BATCH
    assert "estimated from the weights" not in (out / "report.md").read_text()


def test_without_data_the_recipe_must_do_without(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = _saved(tmp_path)
    assert cli.main(["compress", str(file), "--out", str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert "no data to calibrate and judge it on" in error and "--recipe data-free" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_the_recipes_that_come_along_are_valid(file: Path) -> None:
    assert named(file.stem) == file
    assert Recipe.read(file).prune.repair == "activation"
    assert file.stem in dict(cli.COMMANDS["compress"][2][1:])["--recipe"]["help"]


def test_an_unknown_recipe_names_those_there_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", "kws", "--recipe", "data-fre", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 2
    assert "recipe 'data-fre': no such file, nor a recipe of ours (data-free" in (
        capfd.readouterr().err
    )
