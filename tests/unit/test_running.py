"""Which port an upload goes to, and which one the board is on after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecompress import boards
from edgecompress.building import platformio
from edgecompress.building.firmware import Image
from edgecompress.errors import ConfigError, DeviceError
from edgecompress.measuring import link, running

APP, LOADER, PROBE, BRIDGE = "2341:805a", "2341:005a", "0483:374b", "1a86:7523"


class Desk:
    """What is plugged in, and what is done with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: list[SimpleNamespace] = []
        self.uploads: list[str | None] = []
        self.after: Callable[[], object] = lambda: None

    def plug(self, name: str, usb: str, number: str | None) -> str:
        """A port in the folder; its path."""
        path = self.folder / name
        path.touch()
        vendor, product = (int(part, 16) for part in usb.split(":"))
        self.ports.append(
            SimpleNamespace(device=str(path), vid=vendor, pid=product, serial_number=number)
        )
        return str(path)

    def pull(self, path: str) -> None:
        Path(path).unlink()
        self.ports = [port for port in self.ports if port.device != path]

    def upload(self, *_: object, settings: dict[str, str], **__: object) -> str:
        self.uploads.append(settings.get("PLATFORMIO_UPLOAD_PORT"))
        self.after()
        return ""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    found = Desk(tmp_path)

    @contextlib.contextmanager
    def connect(port: str, **_: object) -> Iterator[str]:
        yield port

    monkeypatch.setattr(link.list_ports, "comports", lambda: found.ports)
    monkeypatch.setattr(link, "connect", connect)
    monkeypatch.setattr(platformio, "run", found.upload)
    monkeypatch.setattr(running, "APPEAR", 0.3)
    return found


def flashed(board: str, port: str | None = None) -> Any:
    """The port that the board is on after the upload."""
    image = Image(Path("firmware.elf"), boards.load(board), "aot", "net", None, None, None)
    with running.flashed(image, port=port, timeout=1) as line:
        return line


def test_the_board_is_followed_by_its_serial_number(desk: Desk) -> None:
    first = desk.plug("ACM0", APP, "A")

    def moves() -> None:
        desk.pull(first)
        desk.plug("ACM1", APP, "B")
        desk.plug("ACM2", APP, "A")

    desk.after = moves
    assert flashed("nano33") == str(desk.folder / "ACM2")
    assert desk.uploads == [first]


def test_a_board_in_its_bootloader_may_tell_another_number(desk: Desk) -> None:
    loader = desk.plug("ACM0", LOADER, "BOOT")

    def starts() -> None:
        desk.pull(loader)
        desk.plug("ACM0", APP, "APP")

    desk.after = starts
    assert flashed("nano33") == loader
    assert desk.uploads == [loader]


@pytest.mark.parametrize("number", [None, "0001"])
def test_a_given_port_tells_boards_apart_that_nothing_else_does(
    number: str | None, desk: Desk
) -> None:
    desk.plug("USB0", APP, number)
    second = desk.plug("USB1", APP, number)
    with pytest.raises(DeviceError, match="2 boards of its kind .*say which one with --port"):
        flashed("nano33")
    assert flashed("nano33", second) == second
    assert desk.uploads == [second]


def test_a_given_port_may_be_a_bridge_that_nobody_lists(desk: Desk) -> None:
    bridge = desk.plug("USB0", BRIDGE, None)
    with pytest.raises(DeviceError, match="esp32s3: no serial port has the USB id .*--port"):
        flashed("esp32s3")
    assert flashed("esp32s3", bridge) == bridge
    assert desk.uploads == [bridge]


def test_nothing_is_uploaded_to_another_board(desk: Desk) -> None:
    other = desk.plug("ACM0", "2e8a:00c0", "P")
    for port in (None, other):
        why = f"on {other} is another board: pico" if port else "no serial port has the USB id"
        with pytest.raises(DeviceError, match=f"nano33: {why}"):
            flashed("nano33", port)
    assert not desk.uploads


def test_probes_cannot_be_told_apart(desk: Desk) -> None:
    first = desk.plug("ACM0", PROBE, "A")
    assert flashed("nucleo_f446re") == first
    desk.plug("ACM1", PROBE, "B")
    with pytest.raises(DeviceError, match=r"boards of one kind, .*\(stlink\).* leave one connect"):
        flashed("nucleo_f446re", first)
    assert desk.uploads == [first]


def test_a_loader_without_a_port_is_left_to_platformio(desk: Desk) -> None:
    usb = boards.load("teensy41").running_ids[0]
    desk.after = lambda: desk.plug("ACM0", usb, "T")
    assert flashed("teensy41") == str(desk.folder / "ACM0")
    assert desk.uploads == [None]


def test_a_port_is_looked_at_before_anything_is_built(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="--port /dev/x: host is on no serial port"):
        running.check_port(boards.load("host"), "/dev/x")
    with pytest.raises(DeviceError, match="nano33: there is no port /dev/nowhere"):
        running.check_port(boards.load("nano33"), "/dev/nowhere")
    running.check_port(boards.load("nano33"), None)
    running.check_port(boards.load("nano33"), desk.plug("USB0", BRIDGE, None))
