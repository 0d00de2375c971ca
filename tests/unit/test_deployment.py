"""From a compressed model to firmware: which model is meant, and the commands, on this computer."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import cli, runtimes
from edgecompress.artifact import Artifact, Step
from edgecompress.backends import aot
from edgecompress.building import deployment
from edgecompress.data import load_npz
from edgecompress.errors import ConfigError, ModelFileError, StageOrderError, UnsupportedError
from edgecompress.tflite import read
from tests.conftest import need
from tests.reports import REPORT
from tests.tflite_builder import build as tflite
from tests.tflite_builder import conv_net

NET = tflite(conv_net())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with net.tflite in it."""
    (tmp_path / "net.tflite").write_bytes(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_a_file_a_run_directory_or_the_name_of_a_run() -> None:
    artifact, folder = deployment.find("net.tflite")
    assert (artifact.name, artifact.tflite, folder) == ("net", NET, Path("build/net"))
    Artifact("mine", tflite=NET).save(Path("build/mine"))
    for given in ("mine", "build/mine", "mine.keras"):
        artifact, folder = deployment.find(given)
        assert (artifact.name, artifact.tflite, folder) == ("mine", NET, Path("build/mine"))


def test_a_model_that_is_not_there_or_not_whole() -> None:
    with pytest.raises(StageOrderError, match="kws: no build/kws/model.tflite yet; run `edgecom"):
        deployment.find("kws")
    with pytest.raises(ModelFileError, match="gone.tflite: no such file"):
        deployment.find("gone.tflite")
    Artifact("mine", tflite=NET).save(Path("build/mine"))
    Path("build/mine/model.tflite").write_bytes(NET + b"!")
    with pytest.raises(ModelFileError, match="model.tflite: not the file that steps.json lists"):
        deployment.find("mine")
    Path("build/mine/steps.json").unlink()
    with pytest.raises(ModelFileError, match="build/mine: "):
        deployment.find("mine")
    with pytest.raises(StageOrderError, match="build: x has no .tflite yet"):
        deployment.build(Artifact("x"), board="host")


def test_cpp_sources_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "arena", lambda model: 2048)
    monkeypatch.delenv("TFLM_DIR", raising=False)
    with pytest.raises(UnsupportedError, match="host: backend tflm: no pinned TFLite Micro"):
        deployment.build(Artifact("net", tflite=NET), board="host", backend="tflm")
    assert not Path("build").exists()


def test_samples_are_spread_over_the_data(capfd: pytest.CaptureFixture[str]) -> None:
    x = np.arange(720 * 10, dtype=np.float32).reshape(100, 6, 6, 2) / 7200
    np.savez("net.npz", x=x, y=np.arange(100) % 3)
    data, net = "net.npz", Artifact("net", tflite=NET)
    assert deployment.samples("net.tflite", net, data=None, count=None) is None
    whole = deployment.samples("net.tflite", net, data=data, count=None)
    some = deployment.samples("net.tflite", net, data=data, count=8)
    assert whole is not None and some is not None
    rows = len(whole.split)
    assert len(some.split) == 8
    picked = [
        int(np.flatnonzero((whole.split.x == x).all(axis=(1, 2, 3)))[0]) for x in some.split.x
    ]
    assert picked == [i * rows // 8 for i in range(8)]
    perfect = np.eye(3)[some.split.y]
    assert str(some.judge(perfect)) == "top1 on the board: 100.00% (8 samples)"
    with pytest.raises(ConfigError, match="samples: 0; judge at least 1"):
        deployment.samples("net.tflite", net, data=data, count=0)
    with pytest.raises(ConfigError, match="net.tflite: no data to judge it on"):
        deployment.samples("net.tflite", net, data=None, count=3)


def test_rows_that_a_run_trained_on_are_not_judged() -> None:
    """They are drawn as in that run, with its seed; beside a `.tflite` lie its steps."""
    x = np.arange(720 * 10, dtype=np.float32).reshape(100, 6, 6, 2) / 7200
    np.savez("net.npz", x=x, y=np.arange(100) % 3)
    plain = Artifact("net", tflite=NET)
    tuned = plain.after(Step("finetune", {"seed": 5}, {"training": {}}))
    wanted = load_npz(Path("net.npz"), seed=5, training=True).test.x
    tuned.save(Path("run"))
    other = plain.after(Step("prune_structured", {"seed": 4}, {}))
    for given, name, rows in (
        (tuned, "run", wanted),
        (plain, "run/model.tflite", wanted),
        (other, "net", load_npz(Path("net.npz"), seed=4).test.x),
        (Artifact("net", tflite=NET + b" "), "run/model.tflite", load_npz(Path("net.npz")).test.x),
    ):
        judged = deployment.samples(name, given, data="net.npz", count=None)
        assert judged is not None and np.array_equal(judged.split.x, rows)
    assert len(wanted) == 20


def test_rows_to_judge_on_may_come_from_a_function() -> None:
    Path("rows.py").write_text(
        "import tensorflow as tf\n"
        "def make():\n"
        "    rows = tf.zeros((9, 6, 6, 2)), tf.range(9) % 3\n"
        "    return {'test': tf.data.Dataset.from_tensor_slices(rows)}\n"
    )
    net = Artifact("net", tflite=NET)
    judged = deployment.samples("net.tflite", net, data="rows.py:make", count=None)
    assert judged is not None and len(judged.split) == 8  # one calibrates
    np.savez("wrong.npz", x=np.zeros((9, 6, 6)))
    with pytest.raises(ConfigError, match=r"rows are \(6, 6\) but net takes \(6, 6, 2\)"):
        deployment.samples("net.tflite", net, data="wrong.npz", count=None)


def test_build_flash_and_measure_on_this_computer(capfd: pytest.CaptureFixture[str]) -> None:
    need("cc")
    assert cli.main(["build", "net.tflite", "--board", "host"]) == 0
    assert "net, backend aot, on host: build/net/host-aot/firmware.elf" in capfd.readouterr().out
    assert Path("build/net/host-aot/firmware.elf").is_file()

    assert cli.main(["flash", "net.tflite", "--board", "host", "--json"]) == 0
    flashed = json.loads(capfd.readouterr().out)
    assert (flashed["name"], flashed["accuracy"], len(flashed["each_run"])) == ("net", None, 1)
    assert [op["place"] for op in flashed["ops"]] == list(range(len(read(NET).ops)))

    generator = np.random.default_rng(0)
    x = generator.uniform(-6, 6, (40, 6, 6, 2)).astype(np.float32)
    np.savez("net.npz", x=x, y=generator.integers(0, 3, 40))
    options = ["--out", "elsewhere", "--runs", "2", "--samples", "5", "--data", "net.npz"]
    assert cli.main(["measure", "net.tflite", "--board", "host", *options]) == 0
    out = capfd.readouterr().out
    assert "CONV_2D" in out and "2 runs" in out
    assert "15 of 15 equal" in out or "not compared" in out
    assert "top1 on the board: " in out and "(5 samples)" in out
    assert Path("elsewhere/host-aot/measurement.json").is_file()


def test_wrong_outputs_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("cc")
    if not runtimes.available("tflm"):
        pytest.skip("tflite-micro is not installed")

    generate = aot.generate

    def wrong(*args: Any, **options: Any) -> dict[str, str]:
        files = generate(*args, **options)
        end = "    return EC_MODEL_OK;\n}\n"
        assert files["model.c"].endswith(end)
        spoil = "    for (uint32_t i = 0; i < 3; i++) ((uint8_t *)ec_model_output(0))[i] ^= 3;\n"
        return {**files, "model.c": files["model.c"][: -len(end)] + spoil + end}

    monkeypatch.setattr(aot, "generate", wrong)
    assert cli.main(["flash", "net.tflite", "--board", "host", "--json"]) == 1
    out, err = capfd.readouterr()
    table = json.loads(out)
    assert table["outputs"]["exact"] == 0
    assert re.fullmatch(
        "edgecompress: host: 48 of 48 outputs of net differ from the TFLM interpreter's, by up"
        " to [123]; do not use this image, and report the model\n",
        err,
    )
    stored = json.loads(Path("build/net/host-aot/measurement.json").read_text())
    assert table == {**stored, "accuracy": None}


def test_a_report_of_another_model_stops_it_before_the_build(
    capfd: pytest.CaptureFixture[str],
) -> None:
    dataclasses.replace(REPORT, sha256="cd" * 32).save(Path("build/net"))
    assert cli.main(["measure", "net.tflite", "--board", "host"]) == 1
    assert "report.json: it is of another model than the one measured" in capfd.readouterr().err
    assert not Path("build/net/host-aot").exists()


def test_the_footprint_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    need("arm-gcc")
    assert cli.main(["build", "net.tflite", "--board", "qemu_m4"]) == 0
    printed = capfd.readouterr().out
    assert cli.main(["build", "net.tflite", "--board", "qemu_m4", "--json"]) == 0
    table = json.loads(capfd.readouterr().out)
    flash = table["footprint"]["flash"]
    assert f"{flash:,}" in printed and "cost of the model" in printed
    assert table["cost"]["flash"] == flash - table["empty"]["flash"]
    assert table["cost"]["built_for"] == "qemu_m4" and "gcc" in table["compiler"]
    stored = json.loads(Path("build/net/qemu_m4-aot/image.json").read_text())
    assert (table["elf"], stored["elf"]) == ("build/net/qemu_m4-aot/firmware.elf", "firmware.elf")
    assert {**table, "elf": ""} == {**stored, "elf": ""}
