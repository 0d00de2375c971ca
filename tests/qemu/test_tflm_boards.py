"""The tflm backend built for boards and run there, against a stub of TFLite Micro.

tests/tflm_stub is that library's public interface, written by hand, in the places in which its own
makefile leaves it; it computes no model. So these tests show that sources, build, image and session
fit together; what the library computes is compared with the interpreter's elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.backends import firmware_folder, tflm
from edgecompress.boards import load
from edgecompress.building import deployment, export, firmware, footprint, microlite, platformio
from edgecompress.building.firmware import Image
from edgecompress.errors import DeviceError, ToolError, UnsupportedError
from edgecompress.measuring import device, emulator
from edgecompress.tflite import read
from tests.conftest import need
from tests.tflite_builder import build as tflite
from tests.tflite_builder import conv_net

STUB = Path(__file__).resolve().parents[1] / "tflm_stub"
LIBRARY = "libtensorflow-microlite.a"
NET = tflite(conv_net())
SHA = hashlib.sha256(NET).hexdigest()
ARENA = 2048
FIRST, SECOND = bytes(range(72)), bytes(range(100, 172))


def archive(file: Path, *, tools: str = "", flags: tuple[str, ...] = ()) -> None:
    """Compile the stub as `file`, with the flags of the library's makefile that matter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    code = STUB / "tensorflow" / "lite" / "micro" / "micro_interpreter.cc"
    made = file.with_suffix(".o")
    command = [f"{tools}g++", *flags, "-std=c++17", "-Os", "-fno-exceptions", "-fno-rtti"]
    command += ["-ffunction-sections", "-fdata-sections", "-DTF_LITE_STATIC_MEMORY", f"-I{STUB}"]
    subprocess.run([*command, "-c", str(code), "-o", str(made)], check=True)
    subprocess.run([f"{tools}ar", "rc", str(file), str(made)], check=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as the library's makefile leaves it, built for this computer and a Cortex-M4F."""
    need("cc")
    need("arm-gcc")
    root = tmp_path_factory.mktemp("a tree")
    shutil.copytree(STUB, root, dirs_exist_ok=True)
    archive(root / "gen" / f"linux_{platform.machine()}_default_gcc" / "lib" / LIBRARY)
    m4 = load("qemu_m4")
    archive(
        root / "gen" / "cortex_m_generic_cortex-m4+fp_default_gcc" / "lib" / LIBRARY,
        tools="arm-none-eabi-",
        flags=tuple(m4.flags.split()),
    )
    return root


@pytest.fixture
def named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree, named to builds."""
    monkeypatch.setenv("TFLM_DIR", str(tree))
    return tree


def image(folder: Path, board: str, *, arena: int = ARENA) -> Image:
    """The net built for `board`."""
    sources = tflm.generate(read(NET), name="net", arena=arena)
    return firmware.build(sources, board=board, backend="tflm", out=folder, name="net", tflite=NET)


def session(built: Image, *rows: bytes) -> device.Session:
    """What the board answers to `rows`, the first of them timed and profiled."""
    command = emulator.command(built.board, built.elf)
    with emulator.start(command, board=built.board.id, timeout=60) as child:
        return device.measure(
            child,
            board=built.board.id,
            backend="tflm",
            sha=SHA,
            rows=[(row,) for row in rows],
            runs=2,
            profile=True,
        )


@pytest.mark.parametrize("board", ["host", "qemu_m4"])
def test_a_session_with_the_library_of_the_boards_core(
    board: str, named: Path, tmp_path: Path
) -> None:
    need("qemu")
    found = session(image(tmp_path, board), FIRST, SECOND)
    assert (found.hello.backend, found.hello.model, found.hello.sha) == ("tflm", "net", SHA)
    assert (found.hello.arena, found.arena) == (ARENA, 200)
    assert found.outputs == ((bytes([1, 2, 3]),), (bytes([101, 102, 103]),))
    assert [op.kind for op in found.ops] == [op.title for op in read(NET).ops]
    assert len(found.ticks) == 2 and min(found.ticks) > 0


def test_the_footprint_knows_the_library(named: Path, tmp_path: Path) -> None:
    first = image(tmp_path, "qemu_m4")
    found = first.footprint
    assert found is not None and first.empty is not None
    assert (found.flash.weights, found.ram.arena) == (len(NET), ARENA)
    assert found.flash.kernels > 300 and found.flash.constants > 100
    assert abs(found.flash.runtime - first.empty.flash.runtime) < 64
    text = first.elf.with_name("firmware.map").read_text()
    assert not [piece for piece in footprint.pieces(text) if "stdc++" in piece.file]
    assert text.count(f"{LIBRARY}(") > 1
    other = tmp_path / "other.map"
    other.write_text(text.replace(LIBRARY, "lib3f2/libChirale_TensorFLowLite.a"))
    assert footprint.read(first.elf, other, first.board).flash == found.flash
    other.write_text(text.replace(LIBRARY, "libc.a"))
    assert footprint.read(first.elf, other, first.board).flash.kernels < found.flash.kernels
    assert first.cost is not None and first.cost.flash > len(NET)
    command = ["arm-none-eabi-size", str(first.elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text_, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    assert found.flash.total == text_ + data
    assert found.ram.total + found.ram.stack == data + bss
    assert not any(one.operators for one in found.symbols)


def test_what_fails_is_told(named: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="phase model, code 3"):
        session(image(tmp_path, "host", arena=128), FIRST)
    with pytest.raises(DeviceError, match="phase invoke, code 6"):
        session(image(tmp_path, "host"), b"\x80\x7f" + FIRST[2:])


def test_the_arena_is_what_the_interpreter_needs(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "arena", lambda model: 1234 if model == NET else 0)
    artifact = Artifact("net", tflite=NET)
    built = deployment.build(artifact, board="qemu_m4", backend="tflm", out=tmp_path)
    assert built.backend == "tflm" and built.elf.parent.name == "qemu_m4-tflm"
    assert built.footprint is not None and built.footprint.ram.arena == 1234
    assert "-std=gnu++17" in built.flags and str(named) not in str(built.table())


def test_an_exported_project_takes_the_tree_too(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "arena", lambda model: ARENA)
    project = tmp_path / "project"
    export.project(Artifact("net", tflite=NET), project, backend="tflm")
    platformio.run(project, "qemu_m4", settings={}, timeout=300)
    assert (project / ".pio" / "build" / "qemu_m4" / "firmware.elf").is_file()
    monkeypatch.delenv("TFLM_DIR")
    with pytest.raises(platformio.Failed, match="qemu_m4: the model is for TFLite Micro; set TFLM"):
        platformio.run(project, "qemu_m4", settings={}, timeout=300)


def test_exactly_one_library_must_fit(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ToolError, match="no library fits qemu_m3: gen/ has cortex_m_generic_"):
        image(tmp_path, "qemu_m3")
    m4 = "gen/cortex_m_generic_cortex-m4+fp_default"
    tree = tmp_path / "tree"
    shutil.copytree(named, tree)
    shutil.copytree(tree / f"{m4}_gcc", tree / f"{m4}_cmsis_nn_gcc")
    monkeypatch.setenv("TFLM_DIR", str(tree))
    with pytest.raises(ToolError, match="several libraries fit qemu_m4: gen/ has .*_cmsis_nn_gcc,"):
        image(tmp_path, "qemu_m4")
    shutil.copyfile(tree / f"{m4}_gcc" / "lib" / LIBRARY, tree / LIBRARY)
    assert image(tmp_path, "qemu_m4").elf.is_file()


@pytest.mark.parametrize(
    ("board", "cpu", "told"),
    [
        ("nano33", "cortex-m4", "which library fits nano33 is not known (its framework chooses"),
        ("esp32s3", None, "which library fits esp32s3 is not known (its framework chooses"),
        ("pico", "cortex-m0plus", "no library fits pico: gen/ has cortex_m_generic_cortex-m4+fp_"),
    ],
)
def test_no_library_is_guessed_for_a_real_board(
    board: str,
    cpu: str | None,
    told: str,
    named: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The platform is the local one, with as much of the board as a stock platform says of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "arena", lambda model: ARENA)
    project, tree = tmp_path / "project", tmp_path / "tree"
    export.project(Artifact("net", tflite=NET), project, backend="tflm")
    ini = "[platformio]\nsrc_dir = .\n[env]\nextra_scripts = pre:project.py\n"
    ini += f"[env:{board}]\nplatform = symlink://${{PROJECT_DIR}}/platform\nboard = some\n"
    (project / platformio.CONFIG).write_text(ini)
    (project / "platform" / "boards").mkdir()
    build = {"mcu": "some", **({"cpu": cpu} if cpu else {})}
    about = {"name": "some", "url": "", "vendor": "", "build": build, "upload": {}}
    (project / "platform" / "boards" / "some.json").write_text(json.dumps(about))
    shutil.copytree(named, tree)
    monkeypatch.setenv("TFLM_DIR", str(tree))
    with pytest.raises(platformio.Failed, match=re.escape(told)):
        platformio.run(project, board, settings={}, timeout=300)
    shutil.copyfile(next(tree.glob(f"gen/cortex*/lib/{LIBRARY}")), tree / LIBRARY)
    with pytest.raises(platformio.Failed, match="KeyError: 'compiler'"):  # the platform's turn
        platformio.run(project, board, settings={}, timeout=300)


def test_without_a_library_both_ways_to_one_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TFLM_DIR", raising=False)
    with pytest.raises(UnsupportedError, match="set TFLM_DIR to a build of it .* --backend aot"):
        image(tmp_path, "qemu_m4")
    monkeypatch.setenv("TFLM_DIR", str(tmp_path))
    with pytest.raises(ToolError, match="micro_interpreter.h in it; name the folder in which"):
        image(tmp_path, "qemu_m4")
    assert not (tmp_path / "qemu_m4-tflm").exists()


def test_a_library_of_the_registry_is_taken_where_one_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TFLM_DIR", raising=False)
    (pinned,) = microlite.settings(firmware_folder(), load("nano33")).values()
    assert "@" in pinned or "#" in pinned
