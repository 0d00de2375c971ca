"""Exports for boards: the Arduino library by the cross compiler, the project by PlatformIO."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from edgecompress import boards, runtimes
from edgecompress.artifact import Artifact
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import deployment, export
from edgecompress.measuring import device, emulator
from edgecompress.tflite import Program, read
from tests.conftest import need
from tests.tflite_builder import build, conv_net

SHIM = Path(__file__).resolve().parents[1] / "sketch_shim"
NET = build(conv_net())
ARTIFACT = Artifact("net", tflite=NET)
_FLOAT = conv_net(dtype="float32", weights="float32")
FLOAT = build(Program(_FLOAT.tensors[:-1], _FLOAT.ops[:-1], _FLOAT.inputs, (8,)))  # no softmax
CORES = {
    "cortex-m0plus": "-mfloat-abi=soft",
    "cortex-m4": "-mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "cortex-m7": "-mfloat-abi=hard -mfpu=fpv5-d16",
}


@pytest.mark.parametrize("core", CORES)
def test_the_arduino_library_compiles_for_cores_of_boards(core: str, tmp_path: Path) -> None:
    need("arm-gcc")
    name, _ = export.arduino(ARTIFACT, tmp_path / "net.zip")
    with zipfile.ZipFile(tmp_path / "net.zip") as archive:
        archive.extractall(tmp_path)
    root = tmp_path / name
    flags = [f"-mcpu={core}", "-mthumb", *CORES[core].split(), "-Os", "-Wall", "-Wextra", "-Werror"]
    flags += [f"-I{root / 'src'}", "-c"]
    sources = sorted(map(str, root.glob("src/*.c")))
    subprocess.run(["arm-none-eabi-gcc", "-std=gnu11", *flags, *sources], cwd=tmp_path, check=True)
    (example,) = root.glob("examples/*/*.ino")
    command = ["arm-none-eabi-g++", "-std=gnu++14", "-DARDUINO=10819", *flags, f"-I{SHIM}"]
    command += ["-fno-exceptions", "-include", "Arduino.h", "-x", "c++", str(example)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("*.o"))) == len(sources) + 1


def code(elf: Path) -> bytes:
    """The bytes of the program in flash."""
    with elf.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".text")
        assert section is not None
        return bytes(section.data())


def pio(project: Path, tmp_path: Path) -> str:
    """What `pio run` says in the folder of `project`, by itself: nobody has prepared PlatformIO for
    it, and the Python that runs it has no SCons that works."""
    (tmp_path / "home").mkdir()
    (tmp_path / "python" / "SCons").mkdir(parents=True)
    (tmp_path / "python" / "SCons" / "__init__.py").write_text("raise ImportError\n")
    variables = {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "python")}
    run = subprocess.run(
        [sys.executable, "-m", "platformio", "run"],
        cwd=project,
        env={**variables, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def check_bits(board: Board, elf: Path, model: bytes) -> None:
    """The image `elf` gives the interpreter's bits for random samples of the net `model`."""
    program = read(model)
    source = program.tensors[program.inputs[0]]
    x = np.random.default_rng(3).uniform(-0.6, 0.6, (24, *source.shape[1:])).astype(np.float32)
    rows = [(row.tobytes(),) for row in (source.quantize(x) if source.scales else x)]
    with emulator.start(emulator.command(board, elf), board=board.id, timeout=60) as child:
        found = device.measure(
            child,
            board=board.id,
            backend="aot",
            sha=str(Artifact("net", tflite=model).sha256),
            rows=rows,
            runs=1,
            profile=False,
        )
    expected = runtimes.run(model, x).raw
    assert found.outputs == tuple((row.tobytes(),) for row in expected)
    assert len({row.tobytes() for row in expected}) > 1


def test_the_project_builds_by_itself_and_runs(tmp_path: Path) -> None:
    need("arm-gcc")
    need("qemu")
    project, board = tmp_path / "my project", boards.load("qemu_m4")
    export.project(ARTIFACT, project)
    assert "SUCCESS" in pio(project, tmp_path)
    elf = project / ".pio" / "build" / board.id / "firmware.elf"
    built = deployment.build(ARTIFACT, board=board, out=tmp_path / "build")
    assert code(elf) == code(built.elf)
    check_bits(board, elf, NET)
    export.project(ARTIFACT, project)  # what was built is in nobody's way
    assert elf.is_file()


PRAGMA, FLAG = '#pragma GCC optimize("fp-contract=off")', '"-ffp-contract=off"'


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("generated/ec_exact.h", PRAGMA, ""), ("project.py", FLAG, '"-O2"')],
    ids=["by flag", "by pragma"],
)
def test_floats_have_the_interpreters_bits_in_any_dialect_of_c(
    file: str, old: str, new: str, tmp_path: Path
) -> None:
    need("arm-gcc")
    need("qemu")
    project, board = tmp_path / "project", boards.load("qemu_m4")
    export.project(Artifact("net", tflite=FLOAT), project)
    # What Arduino compiles as, where gcc fuses unless told not to; each of two ways tells it so.
    for path, before, after in (
        ("platform/builder/main.py", '"-std=c11"', '"-std=gnu11"'),
        (file, old, new),
    ):
        text = (project / path).read_text()
        assert text.count(before) == 1
        (project / path).write_text(text.replace(before, after))
    pio(project, tmp_path)
    check_bits(board, project / ".pio" / "build" / board.id / "firmware.elf", FLOAT)


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_no_kernel_fuses_a_product_and_a_sum(core: str, tmp_path: Path) -> None:
    need("arm-gcc")
    folder = firmware_folder() / "kernels"
    sources = [file for file in sorted(folder.glob("*.c")) if "float" in file.read_text()]
    assert len(sources) > 10
    flags = [f"-mcpu={core}", "-mthumb", *CORES[core].split(), "-O2", "-std=gnu11", "-S"]
    command = ["arm-none-eabi-gcc", *flags, *map(str, sources)]
    subprocess.run(command, cwd=tmp_path, check=True)
    codes = {file.stem: (tmp_path / f"{file.stem}.s").read_text() for file in sources}
    assert "vmul.f32" in codes["ec_conv_plain"]
    assert not [name for name, code in codes.items() if re.search(r"\tvfn?m[as]", code)]
