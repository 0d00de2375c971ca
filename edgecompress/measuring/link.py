"""A board on a serial port: which port it is, and the bytes that go over it.

A board may go away and come back in the middle, under the same name or another: its port is opened
again, and what was lost meanwhile is left to whoever asks (`device`). Every wait has a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import termios
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import serial
from serial.tools import list_ports

from edgecompress.errors import DeviceError
from edgecompress.measuring.protocol import Lines

WAIT = 10.0
"""Seconds for a port to show up: a board that was reset needs a few."""
GONE = 15.0
"""Seconds for the port of a running session to come back."""

_POLL = 0.1
_BUSY = (errno.EBUSY, errno.EAGAIN)
_DENIED = (errno.EACCES, errno.EPERM)
_TROUBLE = (OSError, termios.error)
"""What pyserial raises: SerialException is an OSError."""


class Usb(NamedTuple):
    """What is on a USB port: `id` as vid:pid in hex, lower case, and the serial number it tells."""

    id: str
    number: str | None


def find(
    *,
    board: str,
    usb: Sequence[str],
    port: str | None,
    serial_number: str | None = None,
    wait: float = WAIT,
) -> str:
    """The path of the port that `board` is on, for which it may take `wait` seconds to show up.

    `port` is taken where it is given; else it is the one port with one of the ids `usb` (as
    Usb.id) and with `serial_number`, where that is given. Raises DeviceError where there is no such
    port, or more than one.
    """
    deadline = time.monotonic() + wait
    while True:
        found = [port] if port is not None else ports(usb, serial_number)
        if len(found) > 1:
            several = ", ".join(_described(path) for path in found)
            raise DeviceError(
                f"{board}: {len(found)} boards of its kind are connected: {several}; say which one"
                " with --port"
            )
        if found and os.path.exists(found[0]):
            return found[0]
        if time.monotonic() >= deadline:
            raise _absent(board, usb, port, serial_number)
        time.sleep(_POLL)


def identify(port: str) -> Usb | None:
    """What is on the USB port with the path `port`, None where that is no USB port."""
    path = os.path.realpath(port)
    return next((usb for device, usb in _connected() if os.path.realpath(device) == path), None)


class Port:
    """An open port: `send` bytes to the board, `receive` lines from it."""

    def __init__(self, path: str, board: str, baud: int, timeout: float, returns: bool) -> None:
        self.timeout = timeout
        self._returns = returns
        self._name = board
        self._baud = baud
        self._path = path
        self._usb = identify(path)
        self._lines = Lines()
        self._serial: serial.Serial | None = _open(path, board, baud, timeout)
        self._lost = 0.0
        self._cause: Exception | None = None

    @property
    def board(self) -> str:
        """Board and port, for messages."""
        return f"{self._name} on {self._path}"

    def send(self, data: bytes) -> None:
        """All of `data` to the board, which loses it where it is away.

        Raises DeviceError where the board takes no more.
        """
        if self._serial is None:
            return
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise DeviceError(
                f"{self.board}: it takes no byte for {self.timeout:g} s; press its reset button, or"
                " unplug it and plug it in again"
            ) from None
        except _TROUBLE as error:
            self._lose(error)

    def receive(self, wait: float) -> bytes | None:
        """The next line with its end, None where there is none in `wait` seconds.

        Raises DeviceError where the board went away and does not come back.
        """
        deadline = time.monotonic() + wait
        while (line := self._lines.take()) is None:
            port = self._back(deadline)
            if port is None:
                return None
            try:
                port.timeout = max(0.0, deadline - time.monotonic())
                data = port.read(1)
                if not data:
                    return None
                self._lines.add(data + port.read(port.in_waiting))
            except _TROUBLE as error:
                self._lose(error)
        return line

    def close(self) -> None:
        """Let the port go."""
        if self._serial is not None:
            self._serial.close()

    def _lose(self, cause: Exception) -> None:
        self.close()
        if not self._returns:
            raise DeviceError(f"{self.board}: it is gone ({cause})") from cause
        self._serial, self._cause = None, cause
        self._lost = time.monotonic()
        self._lines.clear()
        time.sleep(_POLL)

    def _back(self, deadline: float) -> serial.Serial | None:
        """The port, opened again where the board was away; None where it is not back by
        `deadline`."""
        while self._serial is None:
            with contextlib.suppress(DeviceError):
                path = self._again()
                self._serial = _open(path, self._name, self._baud, self.timeout)
                self._path = path
                break
            limit = min(GONE, self.timeout)
            if time.monotonic() >= self._lost + limit:
                raise DeviceError(
                    f"{self.board}: it is gone ({self._cause}) and did not come back in"
                    f" {limit:g} s; is the cable plugged in?"
                )
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL)
        return self._serial

    def _again(self) -> str:
        """Where the board is now: a USB device with a serial number may have moved."""
        if self._usb is None or self._usb.number is None:
            return self._path
        moved = [path for path, usb in _connected() if usb == self._usb]
        return moved[0] if len(moved) == 1 else self._path


@contextlib.contextmanager
def connect(
    port: str, *, board: str, baud: int, timeout: float, returns: bool = True
) -> Iterator[Port]:
    """The open port with the path `port`, for this program alone; it is closed with the block.

    `board` is named in messages, `timeout` is the longest wait for an answer in seconds. What the
    board sent before is forgotten. `returns`: a board that goes away may come back, which an
    emulated one does not: the next pseudo-terminal of its name is somebody else's. Raises
    DeviceError where the port cannot be opened.
    """
    opened = Port(port, board, baud, timeout, returns)
    try:
        yield opened
    finally:
        opened.close()


def _open(path: str, board: str, baud: int, timeout: float) -> serial.Serial:
    try:
        return serial.Serial(path, baud, write_timeout=timeout, exclusive=True)
    except _TROUBLE as error:
        raise DeviceError(f"{board}: port {path}: {_why(path, error)}") from error


def _why(path: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "there is none; `python -m serial.tools.list_ports -v` lists those that there are"
    if number in _BUSY:
        return "another program has it open; close that one (a serial monitor?)"
    if number in _DENIED:
        return f"no permission; {permission(path)}"
    return str(error)


def permission(path: str) -> str:
    """How to get the permission to open the port."""
    group = "run `sudo usermod -aG dialout $USER` and log in again"
    usb = identify(path)
    if usb is None:
        return group
    vendor, product = usb.id.split(":")
    return (
        f'{group}, or put the line SUBSYSTEM=="tty", ATTRS{{idVendor}}=="{vendor}",'
        f' ATTRS{{idProduct}}=="{product}", MODE="0666" into'
        " /etc/udev/rules.d/60-edgecompress.rules and plug the board in again"
    )


def _connected() -> list[tuple[str, Usb]]:
    """Path and device of every USB serial port, sorted by path."""
    return sorted(
        (one.device, Usb(f"{one.vid:04x}:{one.pid:04x}", one.serial_number))
        for one in list_ports.comports()
        if one.vid is not None and one.pid is not None
    )


def ports(usb: Sequence[str], number: str | None = None) -> list[str]:
    """The paths of the USB ports with one of the ids `usb`, and with the serial number `number`
    where that is given."""
    return [
        path
        for path, device in _connected()
        if device.id in usb and number in (None, device.number)
    ]


def _described(path: str) -> str:
    usb = identify(path)
    if usb is None:
        return path
    return f"{path} ({usb.id}{f', serial number {usb.number}' if usb.number else ''})"


def _absent(
    board: str, usb: Sequence[str], port: str | None, serial_number: str | None
) -> DeviceError:
    there = ", ".join(_described(path) for path, _ in _connected()) or "none"
    if port is not None:
        return DeviceError(f"{board}: there is no port {port}; USB serial ports here: {there}")
    number = f" and the serial number {serial_number}" if serial_number else ""
    return DeviceError(
        f"{board}: no serial port has the USB id {' or '.join(usb)}{number}; connect the board by"
        " a cable that carries data, or say where it is with --port; USB serial ports here:"
        f" {there}"
    )
