"""The same inputs give the same bytes of every file, wherever and whenever they are made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgecompress.artifact import KERAS_FILE
from tests import small_firmware, small_models
from tests.conftest import need, nightly

PLACES = (
    ("first", "run", {"PYTHONHASHSEED": "1", "TZ": "UTC", "COLUMNS": "80"}),
    ("a second/place", "../my run", {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "COLUMNS": "200"}),
)
"""Where the command runs, --out, and variables of the environment."""


@pytest.mark.parametrize("model", nightly(ci=["small.keras"], full=["small.keras", "kws"]))
def test_two_runs_in_two_places_give_the_same_bytes(model: str, tmp_path: Path) -> None:
    for tool in ("cc", "arm-gcc", "qemu"):
        need(tool)
    given = tmp_path / "small.keras"
    options = ["--board", "qemu_m4"]
    if model == given.name:
        small_models.residual().save(given)
        rows = np.random.default_rng(0).normal(size=(80, 6, 6, 3)).astype("float32")
        np.savez(tmp_path / "small.npz", x=rows, y=np.arange(80) % 3)
        options += ["--data", "small.npz", "--ratio", "0.25"]

    def made(place: tuple[str, str, dict[str, str]]) -> Path:
        folder, out, variables = place
        cwd = tmp_path / folder
        cwd.mkdir(parents=True)
        for file in tmp_path.glob("small.*"):
            shutil.copy(file, cwd)
        temporary = tmp_path / f"tmp-{cwd.name}"
        temporary.mkdir()
        environment = {**os.environ, **variables, "TMPDIR": str(temporary)}

        def run(*command: str) -> None:
            done = subprocess.run(
                [sys.executable, "-m", "edgecompress.cli", *command, "--out", out],
                cwd=cwd,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr

        run("compress", model, *options)
        run("build", out, "--board", "host")
        return cwd / out

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(made, PLACES)
    files = sorted(str(file.relative_to(one)) for file in one.rglob("*") if file.is_file())
    assert files == sorted(
        str(file.relative_to(other)) for file in other.rglob("*") if file.is_file()
    )
    for part in ("qemu_m4-aot/firmware.elf", "host-aot/firmware.elf", "report.json", KERAS_FILE):
        assert part in files
    different = [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]
    assert not different
    for name in files:
        assert os.fsencode(tmp_path) not in (one / name).read_bytes(), name


@pytest.mark.parametrize("board", ["qemu_m3", "host"])
def test_the_places_of_sources_are_not_in_an_image(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("cc" if board == "host" else "arm-gcc")
    files = small_firmware.sources(**{'"two words"': "__FILE__"})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elves = []
    for place in ("one", "another one"):
        elves.append(small_firmware.build(tmp_path / place, board, files).elf)
    one, other = (elf.read_bytes() for elf in elves)
    assert one == other
    assert b"./generated/model.c" in one
    assert os.fsencode(tmp_path) not in one


def test_a_saved_model_is_the_same_model_without_a_date(tmp_path: Path) -> None:
    import keras

    from edgecompress.artifact import Artifact

    model = small_models.residual()
    Artifact("small", keras=model).save(tmp_path)
    rows = small_models.batch(model)
    (expected,) = small_models.outputs(model, rows)
    (found,) = small_models.outputs(keras.models.load_model(tmp_path / KERAS_FILE), rows)
    np.testing.assert_array_equal(found, expected)
    with zipfile.ZipFile(tmp_path / KERAS_FILE) as archive:
        assert {member.date_time[:3] for member in archive.infolist()} == {(1980, 1, 1)}
        assert json.loads(archive.read("metadata.json"))["date_saved"] == "1980-01-01@00:00:00"
