"""board.toml files, the doctor, and the build's refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from edgecompress import boards, cli, doctor
from edgecompress.backends import firmware_folder
from edgecompress.boards import Kind
from edgecompress.building import firmware
from edgecompress.errors import ConfigError, DeviceError, ToolError, UnsupportedError
from tests import small_firmware
from tests.conftest import need

KINDS: tuple[Kind, ...] = get_args(Kind)
EMULATED = """\
id = "mine"
title = "a board"
kind = "emulator"
compiler = "arm-none-eabi-gcc"
family = "mps"
machine = "mps2-an386"
flash_origin = 0
flash_bytes = 65536
ram_origin = 0x20000000
ram_bytes = 32768
stack_bytes = 4096
unit = "instructions"
scale = "125/4"
hz = 0
"""


SERIAL = """\
id = "mine"
title = "a board"
kind = "serial"
family = "arduino"
flash_bytes = 65536
ram_bytes = 32768
ram_at = "0x0+0x4000 0x20000000+0x4000"
clock_hz = 64000000
memory_speed = "no wait states"
ticks = "dwt"
unit = "cycles"
scale = "1"
hz = 64000000
usb = "2341:805a 2341:015a"
bootloader = "2341:005a"
baud = 115200
connect = "the cable"
press = "nothing"
"""


def test_every_board_is_described_and_listed(capfd: pytest.CaptureFixture[str]) -> None:
    emulated = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55")
    found = [boards.load(name) for name in boards.names()]
    kinds = {kind: tuple(one.id for one in found if one.kind == kind) for kind in KINDS}
    assert kinds == {
        "program": ("host",),
        "emulator": emulated,
        "serial": (
            "esp32s3",
            "nano33",
            "nucleo_f446re",
            "nucleo_h743zi",
            "nucleo_l4r5zi",
            "pico",
            "portenta_h7_m7",
            "teensy41",
        ),
    }
    assert cli.main(["boards"]) == 0
    table = capfd.readouterr().out
    for board in found:
        assert f"{board.id} " in table and board.title in table
    assert boards.load("qemu_m55").units_per_tick == Fraction(125, 4)
    for name in kinds["serial"]:
        folder = firmware_folder() / "boards" / name
        assert [file.name for file in sorted(folder.iterdir())] == ["board.cpp", "board.toml"]
        counter = f"arduino_{boards.load(name).ticks};"
        assert counter in (folder / "board.cpp").read_text()


def test_the_page_of_the_boards_is_made_of_their_files(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["boards", "--markdown"]) == 0
    page = capfd.readouterr().out
    assert page == (firmware_folder().parent / "docs" / "boards.md").read_text()
    for board in map(boards.load, boards.names()):
        section = page.partition(f"\n### {board.id}\n")[2].partition("\n### ")[0]
        assert f"$ edgecompress flash kws --board {board.id}\n" in section
        assert f"... {board.unit}" in section and "`aot`" in section
        assert ("its loader needs none" in section) == (board.id == "teensy41")
        assert ("| kernels |" in section) == (board.kind != "program")
        known = (board.connect, board.press, board.memory_speed, board.note, *board.usb_ids)
        assert all(text in section for text in known if text is not None)


def write(folder: Path, text: str) -> Path:
    file = folder / "mine" / "board.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_a_board_of_ones_own(tmp_path: Path) -> None:
    board = boards.read(write(tmp_path, EMULATED))
    assert (board.ram_origin, board.flags, board.memory) == (
        0x20000000,
        "",
        "64 KB flash, 32 KB RAM",
    )


def test_a_real_board_of_ones_own(tmp_path: Path) -> None:
    board = boards.read(write(tmp_path, SERIAL))
    assert board.running_ids == ("2341:805a", "2341:015a")
    assert board.usb_ids == ("2341:805a", "2341:015a", "2341:005a")
    assert (board.compiler, board.memory) == ("", "64 KB flash, 32 KB RAM")
    assert board.ram == (range(0x4000), range(0x20000000, 0x20004000))
    assert boards.load("host").usb_ids == boards.load("qemu_m4").ram == ()
    alone = SERIAL.replace('bootloader = "2341:005a"\n', "")
    assert boards.read(write(tmp_path, alone)).usb_ids == ("2341:805a", "2341:015a")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('usb = "2341:805a 2341:015a"\n', "", "usb: missing a board of kind serial"),
        ("ram_at =", "note =", "ram_at: missing a board of kind serial"),
        ('"0x0+0x4000 0x', '"0x0+0x4000,0x', "ram_at = '0x0.0x4000,0x20000000.0x4000': write 0x2"),
        ("0x0+0x4000", "0x0+0x3fff", "ram_at = .*: less than ram_bytes = 32768"),
        (
            'press = "nothing"',
            'press = "nothing"\nloader = "hid"',
            "loader = 'hid': write one of usb",
        ),
        ('press = "nothing"\n', "", "press: missing a board of kind serial"),
        ("ram_bytes = 32768\n", "", "ram_bytes: missing a board of kind serial"),
        ("baud = 115200", "baud = 0", "baud = 0: write 1 or more"),
        ("flash_bytes = 65536", "flash_bytes = -1", "flash_bytes = -1: write 1 or more"),
        (" 2341:015a", ",2341:015a", "usb = '2341:805a,2341:015a': write ids as 2341:805a, bl"),
        ('"2341:005a"', '"2341:005A"', "bootloader = '2341:005A': write ids as 2341:805a"),
        ("\nhz = 64000000", "\nhz = 1000000", "hz = 1000000: with ticks = 'dwt' it is 64000000"),
        ('"cycles"', '"nanoseconds"', "unit = nanoseconds: with ticks = 'dwt' it is cycles"),
        ('ticks = "dwt"', 'ticks = "micros"', "unit = cycles: with ticks = 'micros' it is nano"),
        ('ticks = "dwt"', 'ticks = "clock"', "ticks = 'clock': write one of dwt, micros"),
        ('family = "arduino"', 'flags = "-O2"\nfamily = "arduino"', "flags: not for a board of"),
        ('family = "arduino"', 'compiler = "cc"\nfamily = "arduino"', "compiler: not for a board"),
        ('family = "arduino"', 'machine = "m"\nfamily = "arduino"', "machine: not for a board of"),
    ],
)
def test_a_wrong_file_of_a_real_board_names_the_key(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in SERIAL
    file = write(tmp_path, SERIAL.replace(old, new))
    with pytest.raises(ConfigError, match=f"board.toml: {message}"):
        boards.read(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "mine"', 'id = "other"', "id = 'other': write the folder's name, mine"),
        ("hz = 0", "hz = -1", "hz = -1: write ticks per second"),
        ("hz = 0", 'hz = "0"', "hz = '0': write a whole number"),
        ("hz = 0", "hertz = 0", "unknown key hertz; allowed: .*, hz,"),
        ('"125/4"', '"31.25"', "scale = '31.25': write units per tick, as 40 or 125/4"),
        ('"125/4"', '"4/0"', "scale = '4/0'"),
        ('"instructions"', '"time"', "unit = 'time': write one of instructions, cycles"),
        ('machine = "mps2-an386"\n', "", "machine: missing a board of kind emulator"),
        ("flash_bytes = 65536\n", "", "flash_bytes: missing a board of kind emulator"),
        ('"emulator"', '"program"', "family: not for a board of kind program"),
        ('"emulator"', '"serial"', "compiler: not for a board of kind serial"),
        ("hz = 0", 'hz = 0\nbootloader = "2341:005a"', "bootloader: not for a board of kind emul"),
        ("hz = 0", 'hz = 0\nloader = "usb"', "loader: not for a board of kind emulator"),
        ("hz = 0", 'hz = 0\nnote = "so"', "note: not for a board of kind emulator"),
        ("hz = 0", 'hz = 0\nram_at = "0x0+0x9000"', "ram_at: not for a board of kind emulator"),
        ("65536", "65_536", "flash_bytes: write `key = value` alone on its line"),
        ('"mps"', "'mps'", "family: write `key = value` alone on its line"),
        ("stack_bytes = 4096", "stack_bytes = 32769", "stack_bytes = 32769: more than"),
        ("hz = 0", "hz = 0 # none", "hz: write `key = value` alone on its line"),
        ("hz = 0", "hz=0", "hz: write `key = value` alone on its line"),
        ("hz = 0", "hz = ", "no TOML"),
    ],
)
def test_a_wrong_board_file_names_the_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, EMULATED.replace(old, new))
    with pytest.raises(ConfigError, match=f"board.toml: {message}"):
        boards.read(file)


def test_an_unknown_board_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="board 'm4': no such board; there is esp32s3, host"):
        boards.load("m4")
    with pytest.raises(ConfigError, match="no such board"):
        doctor.examine("../host")


def test_the_doctor_finds_what_is_there_and_what_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    need("arm-gcc")
    need("qemu")
    everything = doctor.examine()
    assert {one.board for one in everything} == {
        name for name in boards.names() if boards.load(name).kind != "serial"
    }
    assert all(finding.found for finding in everything)
    assert cli.main(["doctor", "--board", "qemu_m4"]) == 0
    assert "mps2-an386" in capfd.readouterr().out

    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.examine("qemu_m4")
    assert [(one.tool, one.found) for one in found] == [
        ("platformio", True),
        ("scons", True),
        ("arm-none-eabi-gcc", False),
        ("newlib", False),
        ("qemu-system-arm", False),
    ]
    command = "sudo apt-get install --no-install-recommends"
    all_of_it = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    assert doctor.remedy(found) == f"{command} {all_of_it}"
    assert cli.main(["doctor", "--board", "qemu_m4"]) == 1
    assert capfd.readouterr().err.endswith(f"this helps: {command} {all_of_it}\n")
    with pytest.raises(ToolError, match="arm-none-eabi-gcc: not found on PATH; `edgecompress doc"):
        small_firmware.build(tmp_path, "qemu_m4")


def test_the_doctor_tells_a_compiler_without_its_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool, says in {
        "arm-none-eabi-gcc": "nano.specs",
        "qemu-system-arm": "old machines",
    }.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(doctor._MODULES, "scons", "not_there_at_all")
    findings = doctor.examine("qemu_m55")
    assert {one.tool: one.found for one in findings} == {
        "platformio": True,
        "scons": False,
        "arm-none-eabi-gcc": True,
        "newlib": False,
        "qemu-system-arm": False,
    }
    assert doctor.remedy(findings).endswith(
        f"-arm-none-eabi qemu-system-arm; {sys.executable} -m pip install scons"
    )


def test_the_doctor_looks_at_a_real_board(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    there: list[str] = []
    monkeypatch.setattr(doctor.link, "ports", lambda usb: there if "2341:005a" in usb else [])
    monkeypatch.setattr(doctor.platformio, "installed", lambda firmware, board: False)
    monkeypatch.setattr(doctor.platformio, "registry", lambda: "no answer in 8 s")
    assert cli.main(["doctor", "--board", "nano33"]) == 1
    told = capfd.readouterr()
    assert "2341:805a or 2341:005a" in told.out
    assert "registry cannot be reached (no answer in 8 s): connect to the Internet" in told.err
    assert "connect the micro USB connector to the computer" in told.err

    monkeypatch.setattr(doctor.platformio, "registry", lambda: None)
    port = tmp_path / "ttyACM0"
    port.touch()
    there.append(str(port))
    assert cli.main(["doctor", "--board", "nano33"]) == 0
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (closed,) = (one for one in doctor.examine("nano33") if not one.found)
    assert (closed.tool, closed.purpose) == (str(port), "may be opened")
    assert "sudo usermod -aG dialout $USER" in closed.fix
    assert doctor.remedy((closed,)) == closed.fix


def test_what_does_not_build_leaves_the_earlier_image(tmp_path: Path) -> None:
    need("cc")
    out = tmp_path / "a folder's name"
    image = small_firmware.build(out, "host")
    folder = image.elf.parent
    before = sorted(path.name for path in folder.iterdir())
    assert before == ["firmware.elf", "firmware.map", "generated", "image.json", "log.txt"]
    broken = small_firmware.sources(**{"return EC_MODEL_OK;": "return oops;"})
    with pytest.raises(ToolError, match="pio run -e host: exit status 1: .*'oops' undeclared"):
        small_firmware.build(out, "host", broken)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert "oops" not in (folder / "generated" / "model.c").read_text()
    assert [path.name for path in out.iterdir()] == ["host-aot"]
    again = small_firmware.build(out, "host", small_firmware.sources(two="three"))
    assert "three words" in (again.elf.parent / "generated" / "model.c").read_text()


def test_the_tools_speak_english_and_take_no_orders_from_an_outer_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need("cc")
    (tmp_path / "cc").write_text('#!/bin/sh\necho "speaks $LC_ALL" >&2\nexit 1\n')
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    for variable in ("MAKEFLAGS", "GNUMAKEFLAGS"):
        monkeypatch.setenv(variable, "-n")
    with pytest.raises(ToolError, match="speaks C;"):
        small_firmware.build(tmp_path / "out", "host")


def test_the_build_refuses_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TFLM_DIR", raising=False)
    good = small_firmware.sources()
    with pytest.raises(UnsupportedError, match="host: backend tflm: no pinned TFLite Micro"):
        firmware.build({"model.cc": ""}, board="host", backend="tflm", out=tmp_path, name="x")
    for path in ("/etc/x.c", "../x.c", "a/../../x.c"):
        with pytest.raises(ConfigError, match="give a path within the folder"):
            small_firmware.build(tmp_path, "host", {**good, path: ""})
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_the_board_is_told_by_how_much(tmp_path: Path) -> None:
    need("arm-gcc")
    large = small_firmware.sources(**{"ec_arena[208]": "ec_arena[512 * 1024]"})
    reason = (
        r"two words does not fit: it is larger than RAM by 4,3\d\d bytes \(512 KB flash,"
        r" 512 KB RAM\); most of it: the arena 524,288 bytes, the stack 4,096 bytes, line \d+ "
    )
    with pytest.raises(DeviceError, match=f"qemu_m55: {reason}"):
        small_firmware.build(tmp_path, "qemu_m55", large)
    assert not list(tmp_path.iterdir())


HEAP_UP_TO_THE_STACK = """\
MEMORY { RAM : ORIGIN = 0x20000000, LENGTH = 64K }
SECTIONS {
  .text : { *(.text*) }
  .bss : { *(.bss*) } > RAM
  .heap (NOLOAD) : { . = ORIGIN(RAM) + LENGTH(RAM) - 0x800; } > RAM
}
"""
REGION = """\
MEMORY { RAM : ORIGIN = 0x20000000, LENGTH = 64K }
SECTIONS { .text : { *(.text*) } .bss : { *(.bss*) } > RAM }
"""
ASSERTED = """\
SECTIONS { .text : { *(.text*) } .bss 0x20000000 : { *(.bss*) } }
ASSERT(SIZEOF(.bss) <= 62K, "%s")
"""


@pytest.mark.parametrize(
    ("script", "why", "linked"),
    [
        (HEAP_UP_TO_THE_STACK, "it is larger than RAM by 6,464 bytes", False),
        (REGION, "it is larger than RAM by 4,416 bytes", True),
        (ASSERTED % "heap region overflowed into stack", "it leaves no RAM for the stack", True),
        (ASSERTED % "region RAM overflowed with stack", "it leaves no RAM for the stack", True),
    ],
)
def test_what_a_linker_says_of_an_image_too_large_is_understood(
    script: str, why: str, linked: bool, tmp_path: Path
) -> None:
    need("arm-gcc")
    (tmp_path / "script.ld").write_text(script)
    (tmp_path / "a.c").write_text("char big[69952]; void _start(void) { big[1]++; }\n")
    command = ["arm-none-eabi-gcc", "-mthumb", "-nostdlib", "-fno-common", "-T", "script.ld", "a.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert firmware._overflow(done.stderr) == why
    assert firmware._overflow(done.stderr + "a.c: undefined reference to `f'") == ""
    # As firmware/project.py links it then, to see what is in it.
    again = subprocess.run([*command, "-Wl,--noinhibit-exec"], cwd=tmp_path, capture_output=True)
    assert (again.returncode == 0, (tmp_path / "a.out").is_file()) == (linked, linked)


def test_what_platformio_says_of_an_image_too_large_is_understood() -> None:
    said = "Error: The program size (1100 bytes) is greater than maximum allowed (1000 bytes)\n"
    assert firmware._overflow(said) == "it is larger than flash by 100 bytes"
    assert firmware._overflow("Error: something else") == ""
