"""Exports for boards: the Arduino library by the cross compiler, the project by PlatformIO."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from edgecompress import boards, deployment, device, emulator, export, platformio, runtimes
from edgecompress.artifact import Artifact
from edgecompress.tflite import read
from tests.conftest import need
from tests.tflite_builder import build, conv_net

SHIM = Path(__file__).resolve().parents[1] / "sketch_shim"
NET = build(conv_net())
ARTIFACT = Artifact("net", tflite=NET)
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


def test_the_project_builds_by_itself_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("arm-gcc")
    need("qemu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project, board = tmp_path / "my project", boards.load("qemu_m4")
    export.project(ARTIFACT, project)
    log = platformio.run(project, board.id, settings={}, timeout=300)
    elf = project / ".pio" / "build" / board.id / "firmware.elf"
    assert "SUCCESS" in log and elf.is_file()
    built = deployment.build(ARTIFACT, board=board, out=tmp_path / "build")
    assert code(elf) == code(built.elf)

    x = np.random.default_rng(3).uniform(-0.6, 0.6, (6, 6, 6, 2)).astype(np.float32)
    rows = [(row.tobytes(),) for row in read(NET).tensors[0].quantize(x)]
    with emulator.start(emulator.command(board, elf), board=board.id, timeout=60) as child:
        found = device.measure(
            child,
            board=board.id,
            backend="aot",
            sha=str(ARTIFACT.sha256),
            rows=rows,
            runs=1,
            profile=False,
        )
    expected = runtimes.run(NET, x).raw
    assert found.outputs == tuple((row.tobytes(),) for row in expected)
    assert len({row.tobytes() for row in expected}) > 1
