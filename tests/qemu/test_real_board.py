"""A real board from the command line to the report, without one.

Its firmware is built by PlatformIO for the simulated Arduino core (tests/arduino_shim), and the
upload runs it behind a pseudo-terminal (tests/board_rig) that pretends to be a USB port. All else
is the code that a board on a cable goes through.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgecompress import backends, boards, cli
from edgecompress.backends import firmware_folder
from edgecompress.building import firmware, platformio
from edgecompress.building.firmware import Image
from edgecompress.errors import DeviceError, ToolError
from edgecompress.measuring import link, measurement, running
from tests.conftest import need
from tests.qemu.test_measurement import KINDS, MODEL, ROWS, built

TESTS = Path(__file__).parents[1]
BOARD = "nano33"


class Rig:
    """The folder of the board's own files, and what is plugged in."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.port = folder / "port"
        self.others: list[SimpleNamespace] = []

    def comports(self) -> list[SimpleNamespace]:
        """As pyserial lists ports."""
        here = [usb(str(self.port), "A1")] if self.port.exists() else []
        return here + self.others

    def stop(self) -> None:
        """Pull the plug."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "process").read_text()), signal.SIGKILL)
        self.port.unlink(missing_ok=True)


def usb(device: str, number: str) -> SimpleNamespace:
    """A port with the board's USB id."""
    vendor, product = boards.load(BOARD).usb_ids[0].split(":")
    return SimpleNamespace(
        device=device, vid=int(vendor, 16), pid=int(product, 16), serial_number=number
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """firmware/ with the board's environment on the rig's platform."""
    need("cc")
    folder = tmp_path_factory.mktemp("rig") / "firmware"
    shutil.copytree(firmware_folder(), folder, ignore=shutil.ignore_patterns(".pio", "generated"))
    config = ConfigParser(interpolation=None)
    config.read(folder / platformio.CONFIG)
    config[f"env:{BOARD}"] = {"platform": f"symlink://{TESTS / 'board_rig'}"}
    with (folder / platformio.CONFIG).open("w") as file:
        config.write(file)
    (folder.parent / "pyproject.toml").touch()  # its packages stay in it
    return folder


def at_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Everything finds its sources in `home`."""
    for module in (backends, boards, firmware, running):
        patch.setattr(module, "firmware_folder", lambda: home)


@pytest.fixture(scope="module")
def image(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, home)
        return built(BOARD, tmp_path_factory.mktemp("image"))


@pytest.fixture
def rig(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    folder = tmp_path / "rig"
    folder.mkdir()
    found = Rig(folder, home)
    found.port.touch()
    at_home(monkeypatch, home)
    monkeypatch.setattr(link.list_ports, "comports", found.comports)
    monkeypatch.setenv("RIG", str(folder))
    yield found
    found.stop()


def test_flash_measures_and_reports(
    rig: Rig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "small.tflite"
    model.write_bytes(MODEL)
    command = ["flash", str(model), "--board", BOARD, "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    out = capfd.readouterr().out
    assert f"small, backend aot, on {BOARD}" in out
    assert " cycles: " in out and " ms at 64 MHz (flash with " in out
    table = json.loads((tmp_path / "out" / f"{BOARD}-aot" / measurement.FILE).read_text())
    timing = table["timing"]
    assert (timing["unit"], timing["clock_hz"]) == ("cycles", 64_000_000)
    assert table["seconds"] == timing["per_inference"] / 64e6 > 0
    assert timing["source"] == "the board's tick counter, in steps of 1 cycles"
    assert "-O2" in timing["conditions"] and "wait states" in timing["conditions"]
    assert table["flash"] > 1000 and table["ram"] > 500 and table["stack"] is None
    assert table["outputs"]["mismatch"] == table["outputs"]["off_by_one"] == 0
    assert (rig.folder / "upload_port").read_text() == str(rig.port)
    assert (rig.home / "generated" / "model.c").is_file()


def test_inputs_and_operators_go_over_the_line(rig: Rig, image: Image, tmp_path: Path) -> None:
    run = measurement.measure(image, inputs=ROWS, runs=3)
    assert run.bits is not None and run.bits.exact == run.bits.elements == 5 * len(ROWS)
    assert [op.kind for op in run.ops] == KINDS
    assert len(run.runs) == 3 and run.cycles is None
    on_host = measurement.measure(built("host", tmp_path), inputs=ROWS)
    np.testing.assert_array_equal(run.outputs[0], on_host.outputs[0])

    again = measurement.measure(image, inputs=ROWS[:1], runs=1, profile=False)
    np.testing.assert_array_equal(again.outputs[0], run.outputs[0][:1])


def test_two_boards_of_a_kind_are_told_apart_by_their_port(rig: Rig, image: Image) -> None:
    rig.port.unlink()
    rig.others = [usb("/dev/null", "B1"), usb("/dev/zero", "B2")]
    with pytest.raises(DeviceError, match="2 boards of its kind .*/dev/null .*B2.* with --port"):
        measurement.measure(image, inputs=ROWS)
    assert not (rig.folder / "upload_port").exists()
    with pytest.raises(DeviceError, match="there is no port /dev/nowhere; .*/dev/null"):
        measurement.measure(image, inputs=ROWS, port="/dev/nowhere")


def test_a_board_that_does_not_come_back_is_told(
    rig: Rig, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "APPEAR", 0.3)
    uploaded = rig.folder / "upload_port"
    monkeypatch.setattr(
        link.list_ports, "comports", lambda: [] if uploaded.exists() else rig.comports()
    )
    with pytest.raises(DeviceError, match="nano33: no serial port has the USB id 2341:805a"):
        measurement.measure(image, inputs=ROWS)
    assert uploaded.exists()


def test_nothing_is_uploaded_where_the_board_is_not_there(rig: Rig, image: Image) -> None:
    rig.port.unlink()
    other = usb("/dev/null", "A1")
    other.pid += 1
    rig.others = [other]
    with pytest.raises(DeviceError, match="no serial port has the USB id .*: /dev/null"):
        measurement.measure(image, inputs=ROWS)
    assert not (rig.folder / "upload_port").exists()


def test_a_loader_that_needs_no_port_is_given_none(rig: Rig, image: Image) -> None:
    rig.port.unlink()
    board = dataclasses.replace(image.board, loader="usb")
    run = measurement.measure(dataclasses.replace(image, board=board), inputs=ROWS[:1], runs=1)
    assert run.bits is not None and run.bits.exact == run.bits.elements
    assert (rig.folder / "upload_port").read_text() == ""


def test_an_upload_that_fails_is_explained(rig: Rig, image: Image) -> None:
    (rig.folder / "refuse").write_text("No device found on /dev/ttyACM0")
    with pytest.raises(ToolError, match="exit status 1: the bootloader did not answer: .*No dev"):
        measurement.measure(image, inputs=ROWS)


def test_an_image_too_large_is_caught_before_the_upload(rig: Rig, tmp_path: Path) -> None:
    board = rig.home / "boards" / BOARD / "board.toml"
    text = board.read_text()
    try:
        for key, memory, part in (
            ("flash_bytes", "flash", "ec_fully_connected_s8 [0-9]"),
            ("ram_bytes", "RAM", "the arena [5-9]"),
        ):
            lines = text.splitlines()
            place = next(i for i, line in enumerate(lines) if line.startswith(key))
            lines[place] = f"{key} = 1000"
            board.write_text("\n".join(lines))
            reason = (
                rf"nano33: small does not fit: it is larger than {memory} by [\d,]+ bytes \(.*"
                rf" most of it: .*{part}"
            )
            with pytest.raises(DeviceError, match=reason):
                built(BOARD, tmp_path)
            assert not list(tmp_path.glob(f"{BOARD}-*"))
    finally:
        board.write_text(text)
