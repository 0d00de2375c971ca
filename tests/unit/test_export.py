"""Exports: the Arduino library compiled and run on this computer, what goes into a project."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import boards, cli, runtimes
from edgecompress.artifact import Artifact
from edgecompress.building import export
from edgecompress.errors import ConfigError, StageOrderError
from edgecompress.tflite import Op, Program, read
from tests.conftest import need
from tests.tflite_builder import activation, build, constant, conv_net, options

SHIM = Path(__file__).resolve().parents[1] / "sketch_shim"
NET = build(conv_net())
PRODUCT = build(
    Program(
        (
            activation("x", 1, 2, 8),
            constant("matrix", np.arange(64).reshape(1, 8, 8), "int8", scales=(0.1,)),
            activation("y", 1, 2, 8),
        ),
        (Op("BATCH_MATMUL", (0, 1), (2,), options("BATCH_MATMUL")),),
        (0,),
        (2,),
    )
)
SUM = build(
    Program(
        tuple(activation(name, 1, 4) for name in "aby"),
        (Op("ADD", (0, 1), (2,), options("ADD")),),
        (0, 1),
        (2,),
    )
)


def library(folder: Path, model: bytes, name: str = "net") -> Path:
    """The unpacked Arduino library of `model`."""
    found, count = export.arduino(Artifact(name, tflite=model), folder / "net.zip")
    with zipfile.ZipFile(folder / "net.zip") as archive:
        assert len(archive.namelist()) == count
        archive.extractall(folder)
    return folder / found


def sketch(root: Path) -> Path:
    """The program that the library's example becomes, compiled as Arduino compiles it."""
    (example,) = root.glob("examples/*/*.ino")
    assert example.parent.name == example.stem
    warnings = ["-Wall", "-Wextra", "-Werror", f"-I{root / 'src'}"]
    objects = []
    for source in sorted(root.glob("src/*.c")):
        objects.append(str(source.with_suffix(".o")))
        command = ["cc", "-std=gnu11", "-Os", *warnings, "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    program = root / "program"
    command = ["c++", "-std=gnu++14", "-DARDUINO=10819", *warnings, f"-I{SHIM}"]
    command += ["-include", "Arduino.h", "-x", "c++", str(example), str(SHIM / "core.cpp")]
    subprocess.run([*command, "-x", "none", *objects, "-lm", "-o", str(program)], check=True)
    return program


def answers(program: Path, *samples: Any) -> list[str]:
    """What the sketch prints after its first lines, without the times."""
    text = "\n".join(", ".join(f"{float(x)!r}" for x in sample) for sample in samples) + "\n"
    return said(program, text)[2:]


def said(program: Path, text: str) -> list[str]:
    """All that the sketch prints when `text` comes, without the times, which must be there."""
    run = subprocess.run([program], input=text, capture_output=True, text=True, timeout=20)
    lines = run.stdout.splitlines()
    times = [line for line in lines if re.fullmatch(r"took \d+ us", line)]
    assert times and len(times) == sum(line.startswith(("class", "output 0")) for line in lines)
    return [line for line in lines if line not in times]


@pytest.mark.parametrize(("dtype", "reach"), [("int8", 0.6), ("int16", 0.6), ("float32", 6)])
def test_the_sketch_prints_the_class_that_the_interpreter_finds(
    dtype: str, reach: float, tmp_path: Path
) -> None:
    need("cc")
    weights = "float32" if dtype == "float32" else "int8"
    model = build(conv_net(dtype=dtype, weights=weights))
    x = np.random.default_rng(0).uniform(-reach, reach, (12, 6, 6, 2)).astype(np.float32)
    values = runtimes.run(model, np.concatenate([np.zeros_like(x[:1]), x])).values
    expected = [
        f"class {row.argmax()}, score {row.max():.4f}" for row in values.reshape(len(values), -1)
    ]
    program = sketch(library(tmp_path, model))
    head, first, *found = said(program, "\n".join(" ".join(map(str, row.ravel())) for row in x))
    assert (head, first) == ("net: a sample is 72 numbers", expected[0])
    assert found == expected[1:-1]  # no blank behind the last number
    assert answers(program, *(row.ravel() for row in x)) == expected[1:]
    assert len(set(expected)) > (1 if dtype == "float32" else 5)  # whose scores are 1.0000


@pytest.mark.parametrize("model", [PRODUCT, SUM], ids=["one input", "two inputs"])
def test_a_model_without_classes_prints_its_outputs(model: bytes, tmp_path: Path) -> None:
    need("cc")
    program = read(model)
    generator = np.random.default_rng(1)
    shapes = [program.tensors[index].shape for index in program.inputs]
    x = tuple(generator.uniform(-4, 4, (5, *shape[1:])).astype(np.float32) for shape in shapes)
    values = runtimes.submit(model, x).result().values
    rows = [np.concatenate([one[i].ravel() for one in x]) for i in range(5)]
    found = answers(sketch(library(tmp_path, model)), *rows)
    assert found == [
        "output 0: " + " ".join(f"{value:.6f}" for value in row.ravel()) for row in values
    ]


def test_what_is_no_number_starts_the_sample_again(tmp_path: Path) -> None:
    need("cc")
    program = sketch(library(tmp_path, SUM))
    first, *rest = answers(program, [1] * 8)
    assert not rest
    for bad in ("one", "nan", "1e999", "-", "1.5.5", "9" * 40):
        lines = said(program, f"1 2 3 {bad} {'1 ' * 8}")[2:]
        assert re.fullmatch(r"not a number: .+; the sample starts again", lines[0]), bad
        assert lines[1:] == [first]


def test_the_library_is_one_by_arduinos_specification(tmp_path: Path) -> None:
    root = library(tmp_path, NET, name="my modèle, 2\nurl=evil")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", root.name)
    assert not root.name.lower().startswith("arduino")
    lines = (root / "library.properties").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    assert len(fields) == len(lines)
    required = "name version author maintainer sentence paragraph category url architectures"
    assert set(fields) == {*required.split(), "includes"}
    assert all(fields.values())
    assert fields["name"] == root.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"] == "Data Processing"
    assert (root / "src" / fields["includes"]).is_file()
    includes = {
        name
        for file in root.glob("src/*")
        for name in re.findall(r'#include "(.+)"', file.read_text(encoding="utf-8"))
    }
    assert includes <= {file.name for file in root.glob("src/*")}
    assert {file.name for file in root.iterdir()} == {"examples", "library.properties", "src"}


def test_long_names_are_cut_to_what_arduino_takes(tmp_path: Path) -> None:
    (example,) = library(tmp_path, SUM, name="n" * 100).glob("examples/*/*.ino")
    assert len(example.stem) == 63 and example.stem == example.parent.name


def test_the_zip_is_the_same_every_time_and_written_whole(tmp_path: Path) -> None:
    file, artifact = tmp_path / "net.zip", Artifact("net", tflite=NET)
    export.arduino(artifact, file)
    first = file.read_bytes()
    os.utime(file, (0, 0))
    export.arduino(artifact, file)
    assert file.read_bytes() == first
    export.arduino(artifact, file, core="plain")
    assert file.read_bytes() != first
    with pytest.raises(StageOrderError, match="x has no .tflite yet"):
        export.arduino(Artifact("x"), file)
    with pytest.raises(ConfigError, match=r"net.tar: an Arduino library is a .zip"):
        export.arduino(artifact, tmp_path / "net.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["net.zip"]
    (tmp_path / "dir.zip").mkdir()
    with pytest.raises(ConfigError, match=r"dir.zip: it is a folder; give the name of a new .zip"):
        export.arduino(artifact, tmp_path / "dir.zip")


def test_a_project_has_every_board(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    export.project(Artifact("net", tflite=NET), folder, board="nano33")
    config = configparser.ConfigParser(interpolation=None)
    config.read(folder / "platformio.ini")
    assert config["platformio"]["default_envs"] == "nano33"
    environments = {name.removeprefix("env:") for name in config if name.startswith("env:")}
    assert environments == set(boards.names())
    assert environments == {file.parent.name for file in folder.glob("boards/*/board.toml")}
    for name in environments:
        family = boards.load(name).family
        assert family is None or (folder / family).is_dir()
    assert "pio run -e nano33 -t upload" in (folder / "README.md").read_text()
    assert not list(folder.rglob("__pycache__"))
    assert not (folder / "generated" / "example").exists()


def test_a_tflm_project_takes_the_pinned_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "arena", lambda model: 2048)
    export.project(Artifact("net", tflite=NET), tmp_path / "project", backend="tflm")
    config = configparser.ConfigParser(interpolation=None)
    config.read(tmp_path / "project" / "platformio.ini")
    assert "TensorFLow" in config["env:nano33"]["lib_deps"]
    assert "TFLM_DIR=FOLDER" in (tmp_path / "project" / "README.md").read_text()
    assert "kArenaBytes = 2048" in (tmp_path / "project" / "generated" / "model.cc").read_text()


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    artifact, folder = Artifact("net", tflite=NET), tmp_path / "project"
    folder.mkdir()
    export.project(artifact, folder)
    assert json.loads((folder / export.MARK).read_text())["sha256"] == artifact.sha256
    (folder / ".pio" / "kept").touch()
    (folder / "README.md").unlink()
    export.project(Artifact("net", tflite=SUM), folder, board="host")
    assert json.loads((folder / export.MARK).read_text())["board"] == "host"
    assert (folder / ".pio" / "kept").is_file() and (folder / "README.md").is_file()
    assert not (folder / "generated" / "ec_conv_pairs.c").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["project"]
    (folder / export.MARK).unlink()
    with pytest.raises(ConfigError, match="project: it is not empty, and no earlier export; give"):
        export.project(artifact, folder)
    with pytest.raises(ConfigError, match="export.json: it is a file"):
        (tmp_path / export.MARK).touch()
        export.project(artifact, tmp_path / export.MARK)
    with pytest.raises(ConfigError, match="board 'nano34': no such board"):
        export.project(artifact, tmp_path / "new", board="nano34")
    assert not (tmp_path / "new").exists()


def write(file: Path) -> None:
    """The user writes into a file."""
    with file.open("a") as stream:
        stream.write("/* mine */\n")


WORK: dict[str, Callable[[Path], object]] = {
    "src/main.c is no part of the earlier export in it": (
        lambda folder: (folder / "src").mkdir() or write(folder / "src" / "main.c")
    ),
    "app/app.c was changed since the earlier export in it": (
        lambda folder: write(folder / "app" / "app.c")
    ),
    "generated/model.c was changed since": lambda folder: (
        (folder / "generated" / "model.c").rename(folder / ".pio" / "model.c"),
        (folder / "generated" / "model.c").symlink_to(folder / ".pio" / "model.c"),
    ),
    "lib is no part of": lambda folder: (folder / "lib").symlink_to(folder.parent),
    "export.json in it does not list the files": lambda folder: (folder / export.MARK).write_text(
        '{"name": "net"}'
    ),
    "export.json in it does not list": lambda folder: (folder / export.MARK).write_text("no JSON"),
}


@pytest.mark.parametrize("told", WORK)
def test_nobodys_work_is_replaced(told: str, tmp_path: Path) -> None:
    artifact, folder = Artifact("net", tflite=NET), tmp_path / "project"
    export.project(artifact, folder)
    WORK[told](folder)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ConfigError, match=f"project: {told}.*; give the name of a new folder"):
        export.project(artifact, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_export_that_fails_leaves_the_earlier_one(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename, calls = tmp_path / "project", Path.rename, 0
    export.project(Artifact("net", tflite=NET), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError("no rename")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no rename"):
        export.project(Artifact("net", tflite=SUM), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert any(".pio" in path.parts for path in before)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.tflite").write_bytes(NET)
    both = ["--arduino", "net.zip", "--platformio", "project", "--board", "pico"]
    assert cli.main(["export", "net.tflite", *both]) == 0
    assert "net.zip: the Arduino library edgecompress_net, 30 files" in capfd.readouterr().out
    first = Path("net.zip").read_bytes()
    assert cli.main(["export", "net.tflite", "--arduino", "net.zip", "--core", "plain"]) == 0
    assert Path("net.zip").read_bytes() == first  # a pico has no SIMD
    assert cli.main(["export", "net.tflite"]) == 2
    assert "give --arduino FILE.zip or --platformio DIR" in capfd.readouterr().err
    assert cli.main(["export", "net.tflite", "--arduino", "a.zip", "--backend", "tflm"]) == 2
    assert not Path("a.zip").exists()
