"""Serial ports: which one a board is on, and what happens to the bytes: pseudo-terminals."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial

from edgecompress.errors import DeviceError
from edgecompress.measuring import link
from edgecompress.measuring.link import Usb

NANO, BOOT = "2341:805a", "2341:005a"


class Ports:
    """The USB serial ports of a computer, as pyserial lists them: path, id, serial number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.there: list[SimpleNamespace] = []

    def __call__(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(device="/dev/ttyS0", vid=None, pid=None), *self.there]

    def plug(self, name: str, usb: str, number: str | None, target: str | None = None) -> str:
        """A port `name`, a link to `target` if any."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        if target is None:
            path.touch()
        else:
            path.symlink_to(target)
        vid, pid = (int(part, 16) for part in usb.split(":"))
        self.there.append(SimpleNamespace(device=str(path), vid=vid, pid=pid, serial_number=number))
        return str(path)

    def unplug(self) -> None:
        for one in self.there:
            Path(one.device).unlink()
        self.there = []


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ports:
    found = Ports(tmp_path)
    monkeypatch.setattr(link.list_ports, "comports", found)
    monkeypatch.setattr(link, "_POLL", 0.01)
    return found


def find(port: str | None = None, number: str | None = None, wait: float = 0) -> str:
    return link.find(board="nano33", usb=[NANO], port=port, serial_number=number, wait=wait)


def test_the_one_board_with_the_id_is_found(ports: Ports) -> None:
    ports.plug("ttyACM0", BOOT, "A")
    ports.plug("ttyUSB0", "0403:6001", None)
    path = ports.plug("ttyACM1", NANO, "B")
    assert find() == path
    assert link.identify(path) == Usb(NANO, "B")
    assert link.ports([NANO, BOOT], "A") == [f"{ports.folder}/ttyACM0"]


def test_no_board_is_an_error_that_says_what_is_there(ports: Ports) -> None:
    with pytest.raises(
        DeviceError,
        match=f"nano33: no serial port has the USB id {NANO}; connect.*ports here: none",
    ):
        find()
    ports.plug("ttyACM0", BOOT, "A")
    ports.plug("ttyACM1", NANO, "B")
    with pytest.raises(
        DeviceError, match=f"id {NANO} and the serial number C; .*ACM0 .{BOOT}, serial number A., "
    ):
        find(number="C")


def test_of_two_boards_the_user_says_which(ports: Ports) -> None:
    first, second = (ports.plug(name, NANO, name[-1]) for name in ("ttyACM0", "ttyACM1"))
    with pytest.raises(
        DeviceError, match="nano33: 2 boards .*ACM0 .*number 0.*ACM1 .*number 1.*; say .* --port"
    ):
        find()
    assert find(port=second) == second
    assert find(number="0") == first


def test_a_port_by_name_wins_and_has_to_be_there(ports: Ports) -> None:
    ports.plug("ttyACM0", NANO, "A")
    with pytest.raises(DeviceError, match="nano33: there is no port /dev/none; .*ACM0 .2341:805a"):
        find(port="/dev/none")
    other = ports.plug("ttyUSB0", "0403:6001", None)
    assert find(port=other) == other


def test_a_board_that_comes_back_under_another_name_is_waited_for(ports: Ports) -> None:
    ports.plug("ttyACM0", BOOT, "A")
    ports.plug("ttyACM1", NANO, "other")

    def come() -> None:
        ports.plug("ttyACM2", NANO, "A")

    later = threading.Timer(0.2, come)
    later.start()
    try:
        assert find(number="A", wait=20) == f"{ports.folder}/ttyACM2"
    finally:
        later.join()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.ENOENT, "there is none; .*list_ports"),
        (errno.EBUSY, "another program has it open"),
        (errno.EAGAIN, "another program has it open"),
        (errno.EACCES, 'no permission; .*dialout.*ATTRS{idVendor}=="2341", .*idProduct}=="805a"'),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_port_that_cannot_be_opened_says_why(
    code: int, why: str, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise serial.SerialException(code, os.strerror(code))

    monkeypatch.setattr(link.serial, "Serial", refuse)
    path = ports.plug("ttyACM0", NANO, "A")
    with pytest.raises(DeviceError, match=f"^nano33: port .*/ttyACM0: .*{why}"):
        with link.connect(path, board="nano33", baud=115200, timeout=1):
            pass


def test_what_is_no_serial_port_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="x: port .*/file: Could not configure port"):
        with link.connect(str(tmp_path / "file"), board="x", baud=115200, timeout=1):
            pass
    assert "dialout" in link.permission("/dev/ttyS0")


class Terminal:
    """A pseudo-terminal: what is written to `end` arrives at the port `path`, and back."""

    def __init__(self) -> None:
        self.end, slave = os.openpty()
        self.path = os.ttyname(slave)
        self._slave = slave

    def hang_up(self) -> None:
        if self.end >= 0:
            os.close(self._slave)
            os.close(self.end)
            self.end = -1


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    try:
        yield made
    finally:
        made.hang_up()


def test_lines_go_both_ways_unchanged_and_without_echo() -> None:
    with terminal() as far:
        os.write(far.end, b"from before\n")
        assert os.read(far.end, 100) == b"from before\r\n"  # nobody has opened it yet: an echo
        with link.connect(far.path, board="toy", baud=115200, timeout=5) as port:
            assert port.board == f"toy on {far.path}"
            assert port.receive(0.05) is None
            os.write(far.end, b"\x03\x04one\r\n\x11two\nthr")
            assert [port.receive(5), port.receive(5)] == [b"\x03\x04one\r\n", b"\x11two\n"]
            assert port.receive(0.05) is None
            os.write(far.end, b"ee\n")
            assert port.receive(5) == b"three\n"
            port.send(b"\x03@hi\r\n")
            assert os.read(far.end, 100) == b"\x03@hi\r\n"
            assert port.receive(0.05) is None


def test_a_port_is_for_one_program_alone() -> None:
    with terminal() as far, link.connect(far.path, board="toy", baud=115200, timeout=5):
        with pytest.raises(DeviceError, match="toy: port .*: another program has it open"):
            with link.connect(far.path, board="toy", baud=115200, timeout=5):
                pass


def test_a_board_that_takes_nothing_is_an_error() -> None:
    with terminal() as far:
        tty.setraw(far.end)
        with link.connect(far.path, board="toy", baud=115200, timeout=0.3) as port:
            with pytest.raises(DeviceError, match="toy on .*: it takes no byte for 0.3 s"):
                port.send(b"x" * (1 << 20))


@pytest.mark.parametrize("timeout", [0.3, 60])
def test_a_cable_that_stays_unplugged_is_an_error(
    timeout: float, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "GONE", 0.4)
    with terminal() as far:
        with link.connect(far.path, board="toy", baud=115200, timeout=timeout) as port:
            far.hang_up()
            assert port.receive(0.05) is None
            port.send(b"lost\n")
            begun = time.monotonic()
            with pytest.raises(DeviceError, match="toy on .*: it is gone .* in 0.[34] s; is the"):
                port.receive(30)
            assert time.monotonic() - begun < 10


def test_a_board_that_moved_to_another_port_is_found_by_its_number(ports: Ports) -> None:
    with terminal() as first, terminal() as second, terminal() as third:
        path = ports.plug("ttyACM0", NANO, "A", first.path)
        with link.connect(path, board="toy", baud=115200, timeout=20) as port:
            os.write(first.end, b"a half li")
            assert port.receive(0.05) is None
            ports.unplug()
            first.hang_up()
            assert port.receive(0.1) is None
            ports.plug("ttyACM0", NANO, "another", second.path)
            ports.plug("ttyACM1", BOOT, "A", second.path)
            moved = ports.plug("ttyACM2", NANO, "A", third.path)
            port.receive(1)
            assert port.board == f"toy on {moved}"
            os.write(third.end, b"whole\n")
            assert port.receive(5) == b"whole\n"
