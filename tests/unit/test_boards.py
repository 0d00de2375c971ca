"""board.toml files, the doctor, and the build's refusals."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from edgecompress import boards, cli, doctor, firmware
from edgecompress.errors import ConfigError, DeviceError, ToolError, UnsupportedError
from tests import small_firmware
from tests.conftest import need

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


def test_every_board_is_described_and_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert boards.names() == ("host", "qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55")
    assert cli.main(["boards"]) == 0
    table = capfd.readouterr().out
    for name in boards.names():
        board = boards.load(name)
        assert board.id == name
        assert f"{name} " in table and board.title in table
    assert boards.load("qemu_m55").units_per_tick == Fraction(125, 4)


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
        ('"emulator"', '"program"', "machine: not for a board of kind program"),
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
    with pytest.raises(ConfigError, match="board 'm4': no such board; there is host, qemu_m0"):
        boards.load("m4")
    with pytest.raises(ConfigError, match="no such board"):
        doctor.examine("../host")


def test_the_doctor_finds_what_is_there_and_what_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    need("arm-gcc")
    need("qemu")
    assert all(finding.found for finding in doctor.examine())
    assert cli.main(["doctor", "--board", "qemu_m4"]) == 0
    assert "mps2-an386" in capfd.readouterr().out

    make = shutil.which("make")
    (tmp_path / "make").symlink_to(str(make))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.examine("qemu_m4")
    assert [(one.tool, one.found) for one in found] == [
        ("make", True),
        ("arm-none-eabi-gcc", False),
        ("newlib", False),
        ("qemu-system-arm", False),
    ]
    command = "sudo apt-get install --no-install-recommends"
    all_of_it = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    assert doctor.remedy(found) == f"{command} {all_of_it}"
    assert cli.main(["doctor", "--board", "qemu_m4"]) == 1
    assert capfd.readouterr().err.endswith(f"this gets them: {command} {all_of_it}\n")
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
    found = {one.tool: one.found for one in doctor.examine("qemu_m55")}
    assert found == {
        "make": False,
        "arm-none-eabi-gcc": True,
        "newlib": False,
        "qemu-system-arm": False,
    }


def test_what_does_not_build_leaves_the_earlier_image(tmp_path: Path) -> None:
    need("cc")
    out = tmp_path / "a folder's name"
    image = small_firmware.build(out, "host")
    folder = image.elf.parent
    before = sorted(path.name for path in folder.iterdir())
    assert before == ["firmware.elf", "firmware.map", "generated", "image.json", "log.txt"]
    broken = small_firmware.sources(**{"return EC_MODEL_OK;": "return oops;"})
    with pytest.raises(ToolError, match=r"make .*BOARD=host .*: exit status 2: .*oops"):
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


def test_the_build_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    good = small_firmware.sources()
    with pytest.raises(UnsupportedError, match="model.cc: the tflm backend makes C.. for the"):
        firmware.build({"model.cc": ""}, board="host", backend="tflm", out=tmp_path, name="x")
    for path in ("/etc/x.c", "../x.c", "a/../../x.c"):
        with pytest.raises(ConfigError, match="give a path within the folder"):
            small_firmware.build(tmp_path, "host", {**good, path: ""})
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_the_board_is_told_by_how_much(tmp_path: Path) -> None:
    need("arm-gcc")
    large = small_firmware.sources(**{"ec_arena[208]": "ec_arena[512 * 1024]"})
    reason = r"two words does not fit: it is larger than RAM by 4,3\d\d bytes \(512 KB flash, 512"
    with pytest.raises(DeviceError, match=f"qemu_m55: {reason}"):
        small_firmware.build(tmp_path, "qemu_m55", large)
