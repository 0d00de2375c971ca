"""The ports to real boards: they compile for their cores, and run on a simulated Arduino core."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import TypeAlias

import pytest

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import platformio
from edgecompress.errors import MeasurementError
from edgecompress.measuring import device, emulator
from edgecompress.measuring.device import Session
from tests import small_firmware
from tests.conftest import need

SHIM = Path(__file__).parents[1] / "arduino_shim"
REAL = tuple(name for name in boards.names() if boards.load(name).kind == "serial")
ARM = {
    "nano33": ("-mcpu=cortex-m4", "-mfloat-abi=softfp", "-mfpu=fpv4-sp-d16"),
    "nucleo_f446re": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "nucleo_h743zi": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
    "nucleo_l4r5zi": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "pico": ("-mcpu=cortex-m0plus",),
    "portenta_h7_m7": ("-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-d16"),
    "teensy41": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
}
"""The flags of each board's platform; the ESP32-S3 has no such core."""
PLATFORMIO = {
    "esp32s3": ("espressif32", "esp32-s3-devkitc-1"),
    "nano33": ("nordicnrf52", "nano33ble"),
    "nucleo_f446re": ("ststm32", "nucleo_f446re"),
    "nucleo_h743zi": ("ststm32", "nucleo_h743zi"),
    "nucleo_l4r5zi": ("ststm32", "nucleo_l4r5zi"),
    "pico": ("raspberrypi", "pico"),
    "portenta_h7_m7": ("ststm32", "portenta_h7_m7"),
    "teensy41": ("teensy", "teensy41"),
}
"""What PlatformIO calls each board and its platform, as published there."""
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Os")
LANGUAGES = {
    ".c": ("gcc", "-std=c11"),
    ".cpp": ("g++", "-std=gnu++14", "-fno-exceptions", "-fno-rtti"),
}
FIRST, SECOND = bytes([1, 2, 3, 4]), bytes(range(100))
SUMS = bytes(2 * i for i in range(100))
CALL = "ec_small_add(&p_0, (const int8_t *)ec_arena, (int8_t *)ec_arena);"
DELAY = 100
STEP = 1_500_000
"""Cycles between two looks at a simulated clock."""

Built: TypeAlias = Callable[[str], Path]


def compile_port(folder: Path, board: Board, *, prefix: str = "", flags: tuple[str, ...]) -> None:
    """Compile application, family, board, and the model in `folder`, whose objects go there."""
    home = firmware_folder()
    words = {"ID": board.id, "UNIT": board.unit}
    numbers = {"SCALE": board.scale, "HZ": board.hz, "BAUD": board.baud, "CLOCK_HZ": board.clock_hz}
    defines = [f'-DEC_BOARD_{key}="{text}"' for key, text in words.items()]
    defines += [f"-DEC_BOARD_{key}={number}" for key, number in numbers.items()]
    family = str(board.family)
    include = [f"-I{path}" for path in (home / "include", home / family, folder, SHIM)]
    sources = [*(home / "app").glob("*.c"), *folder.glob("*.c")]
    sources += [*(home / family).glob("*.cpp"), *(home / "boards" / board.id).glob("*.cpp")]
    sources += [] if prefix else SHIM.glob("*.cpp")
    for number, source in enumerate(sources):
        tool, *language = LANGUAGES[source.suffix]
        command = [f"{prefix}{tool}", *language, *STRICT, *flags, *defines, *include]
        target = folder / f"{number}-{source.name}.o"
        subprocess.run([*command, "-c", source, "-o", target], check=True)


def model(folder: Path, **changes: str) -> Path:
    """`folder` with the sources of the model in it."""
    folder.mkdir()
    for name, text in small_firmware.sources(**changes).items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The program of a board's port on the simulated core; its model takes DELAY milliseconds."""
    need("cc")

    @functools.cache
    def get(name: str) -> Path:
        slow = f"void delay(unsigned long); delay({DELAY}); {CALL}"
        folder = model(tmp_path_factory.mktemp(name) / "model", **{CALL: slow})
        compile_port(folder, boards.load(name), flags=())
        program = folder / "program"
        subprocess.run(["g++", *folder.glob("*.o"), "-o", program], check=True)
        return program

    return get


def measured(
    program: Path, name: str, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> Session:
    """A whole session with `program`; `settings` are those of the simulated core."""
    for key in [key for key in os.environ if key.startswith("SHIM_")]:
        monkeypatch.delenv(key)
    for key, value in settings.items():
        monkeypatch.setenv(key, str(value))
    with emulator.start([str(program)], board=name, timeout=20) as child:
        return device.measure(
            child,
            board=name,
            backend="aot",
            sha="0123456789abcdef" * 4,
            rows=[(FIRST, SECOND)],
            runs=2,
            profile=True,
        )


@pytest.mark.parametrize("name", REAL)
def test_a_port_carries_a_whole_session(
    name: str, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = boards.load(name)
    found = measured(built(name), name, monkeypatch)
    assert found.outputs == ((SUMS, FIRST[::-1]),)
    assert (found.hello.unit, found.hello.hz) == (board.unit, board.hz)
    assert str(found.hello.scale) == board.scale
    assert [op.kind for op in found.ops] == ["ADD", "odd %kind"]
    assert found.stack is None and board.clock_hz is not None
    one_look = STEP * board.hz / board.clock_hz
    for ticks in found.ticks:
        assert ticks == pytest.approx(DELAY / 1000 * board.hz + one_look, abs=2)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    "settings",
    [{"SHIM_PASS": 0}, {"SHIM_PASS": 0.9}, {"SHIM_PASS": 13}],
    ids=["stands still", "too few cycles", "too many cycles"],
)
def test_a_loop_of_known_length_takes_possible_cycles(
    name: str, settings: dict[str, float], built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MeasurementError, match=f"{name}.*phase board, code 1"):
        measured(built(name), name, monkeypatch, **settings)


@pytest.mark.parametrize("settings", [{"SHIM_PASS": 1.01}, {"SHIM_PASS": 11.9}])
def test_slow_and_fast_memories_are_possible(
    settings: dict[str, float], built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nano33", "pico"):
        assert measured(built(name), name, monkeypatch, **settings).outputs


@pytest.mark.parametrize(
    "settings",
    [{"SHIM_RATE": 0}, {"SHIM_RATE": 0.97}, {"SHIM_RATE": 1.03}, {"SHIM_NO_TRACE": 1}],
)
def test_a_cycle_counter_that_is_not_the_clock_is_refused(
    settings: dict[str, float], built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nano33", "teensy41"):
        with pytest.raises(MeasurementError, match=f"{name}.*phase board, code 1"):
            measured(built(name), name, monkeypatch, **settings)
    assert measured(built("nano33"), "nano33", monkeypatch, SHIM_RATE=1.01).ticks


@pytest.mark.parametrize("name", ["nano33", "teensy41", "esp32s3"])
def test_a_counter_that_wraps_gives_no_number(
    name: str, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 2**32 / boards.load(name).hz / (DELAY / 1000)
    longest = measured(built(name), name, monkeypatch, SHIM_SLOW=0.95 * whole)
    assert longest.ticks[0] == pytest.approx(2**32 * 0.95, rel=0.01)
    for times in (1, 1.05, 2, 10):
        with pytest.raises(MeasurementError, match="took 0 ticks"):
            measured(built(name), name, monkeypatch, SHIM_SLOW=times * whole)


@pytest.mark.parametrize("most", [1, 7, 64])
def test_a_port_that_takes_a_part_of_a_line_gets_the_rest(
    most: int, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(built("teensy41"), "teensy41", monkeypatch, SHIM_TAKES=most)
    assert found.outputs == ((SUMS, FIRST[::-1]),)


def test_a_host_that_takes_nothing_does_not_hold_the_board(built: Built) -> None:
    done = subprocess.run(
        [built("nano33")],
        input=small_firmware.line("@hi"),
        env={"SHIM_TAKES": "0"},
        capture_output=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("name", sorted(ARM))
def test_a_port_compiles_for_its_core(name: str, tmp_path: Path) -> None:
    need("arm-gcc")
    folder = model(tmp_path / "model")
    flags = ("-mthumb", *ARM[name], "-ffunction-sections")
    compile_port(folder, boards.load(name), prefix="arm-none-eabi-", flags=flags)
    code = subprocess.run(
        ["arm-none-eabi-objdump", "-d", *folder.glob("*-board.cpp.o")],
        capture_output=True,
        check=True,
        text=True,
    )
    short = r"\tsubs\tr(\d), #1\n(.*\tcmp\tr\1, #0\n)?.*\tbne\.n\t"
    assert re.search(short, code.stdout), "a pass at the start is two instructions, or three"


def config() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string((firmware_folder() / "platformio.ini").read_text())
    return parser


def test_every_board_is_an_environment_and_pinned() -> None:
    found = config()
    assert {name[4:] for name in found.sections() if name.startswith("env:")} == set(boards.names())
    assert set(PLATFORMIO) == set(REAL) and set(ARM) == set(REAL) - {"esp32s3"}
    for name, (platform, board) in PLATFORMIO.items():
        section = found[f"env:{name}"]
        assert (section["board"], section["framework"]) == (board, "arduino")
        package, _, version = section["platform"].partition("@")
        assert package == platform
        assert [part.isdecimal() for part in version.split(".")] == [True] * 3, version
        library = section.get("custom_tflm", "x@1.2.3")
        if library.startswith("https:"):
            assert len(bytes.fromhex(library.partition("#")[2])) == 20, library
        else:
            pin = library.partition("@")[2].split(".")
            assert [part.isdecimal() for part in pin] == [True] * 3, library


def test_platformio_reads_the_project() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platformio", "project", "config", "--json-output"],
        cwd=firmware_folder(),
        capture_output=True,
        check=True,
    )
    sections = {name: dict(options) for name, options in json.loads(done.stdout)}
    assert {f"env:{name}" for name in boards.names()} <= set(sections)
    for name in REAL:
        assert sections[f"env:{name}"]["framework"] == ["arduino"]
        assert sections[f"env:{name}"]["extra_scripts"] == ["pre:project.py"]


def test_a_port_goes_through_the_projects_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the project builds it, with this computer's compiler and the simulated core in the place
    of what PlatformIO would fetch."""
    need("cc")
    home = tmp_path / "firmware"
    shutil.copytree(firmware_folder(), home, ignore=shutil.ignore_patterns(".pio", "generated"))
    model(home / "generated")
    board = home / "boards" / "nano33"
    shutil.copytree(SHIM, board, dirs_exist_ok=True)
    with (board / "board.toml").open("a") as file:
        file.write('compiler = "cc"\n')
    project = config()
    project["env:nano33"] = {"extends": "local", "build_flags": f"-I{board}"}
    with (home / "platformio.ini").open("w") as file:
        project.write(file)
    (tmp_path / "pyproject.toml").touch()  # its packages stay in it
    platformio.run(home, "nano33", settings={}, timeout=120)
    program = home / ".pio" / "build" / "nano33" / "firmware.elf"
    assert measured(program, "nano33", monkeypatch).outputs == ((SUMS, FIRST[::-1]),)
