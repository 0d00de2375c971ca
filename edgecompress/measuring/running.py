"""Where an image runs: in a child process, or on a board that PlatformIO put it on.

Each of these is a context manager that gives a `device.Link` and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import platformio
from edgecompress.errors import ConfigError, DeviceError
from edgecompress.measuring import emulator, link
from edgecompress.measuring.device import Link
from edgecompress.progress import Progress, silent

if TYPE_CHECKING:
    from edgecompress.building.firmware import Image

UPLOAD = 300.0
"""Seconds that an upload may take."""
APPEAR = 20.0
"""Seconds for a board to come back after it, and for an emulated one to end when asked to."""

_BAUD = 115200
"""Of an emulated board, whose serial port takes any."""
_POLL = 0.05


@contextlib.contextmanager
def child(image: Image, options: Sequence[str] = (), *, timeout: float) -> Iterator[Link]:
    """The image as a child process: under QEMU with its further `options`, or by itself.

    `timeout` is the longest wait for an answer in seconds. Raises like `emulator.start`, and
    DeviceError where the child does not end well.
    """
    command = emulator.command(image.board, image.elf, options)
    with emulator.start(command, board=image.board.id, timeout=timeout) as running:
        yield running
        running.finish()


@contextlib.contextmanager
def flashed(
    image: Image,
    options: Sequence[str] = (),
    *,
    port: str | None = None,
    timeout: float,
    progress: Progress = silent,
) -> Iterator[Link]:
    """The image on its board, put there by PlatformIO, and the serial line to it.

    `port` is where a real board is (None: found by its USB ids); an emulated board makes its own,
    and takes QEMU's further `options`. Raises ToolError where PlatformIO fails, DeviceError where
    the board is not there, or cannot be told from another.
    """
    board = image.board
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as name:
        work = Path(name)
        settings = {
            "EC_IMAGE": str(image.elf.parent.resolve()),
            "PLATFORMIO_BUILD_DIR": str(work / "built"),
            "PLATFORMIO_WORKSPACE_DIR": str(work),
        }
        if board.kind == "emulator":
            settings["EC_EMULATOR_OPTIONS"] = json.dumps([*options])
            terminal = work / f"{board.id}.port"
            with _emulated(board, terminal, settings, timeout, progress) as line:
                yield line
        else:
            with _plugged_in(board, port, settings, timeout, progress) as line:
                yield line


def check_port(board: Board, port: str | None) -> None:
    """Raise ConfigError for a port where the board has none, DeviceError where it is not there."""
    if port is None:
        return
    if board.kind != "serial":
        raise ConfigError(f"--port {port}: {board.id} is on no serial port of this computer")
    link.find(board=board.id, usb=board.usb_ids, port=port, wait=0)


@contextlib.contextmanager
def _emulated(
    board: Board, terminal: Path, settings: dict[str, str], timeout: float, progress: Progress
) -> Iterator[Link]:
    try:
        _upload(board, settings, progress)
        path = str(terminal)
        with link.connect(path, board=board.id, baud=_BAUD, timeout=timeout, returns=False) as line:
            try:
                yield line
            except DeviceError as error:
                raise DeviceError(f"{error}{_said(terminal)}") from error
            _ended(board, terminal)
    finally:
        _stop(terminal)


@contextlib.contextmanager
def _plugged_in(
    board: Board,
    port: str | None,
    settings: dict[str, str],
    timeout: float,
    progress: Progress,
) -> Iterator[Link]:
    before = _place(board, port)
    usb = None if before is None else link.identify(before)
    alone = usb is not None and len(link.ports(board.usb_ids, usb.number)) == 1
    if before is not None:
        settings["PLATFORMIO_UPLOAD_PORT"] = before
    _upload(board, settings, progress)
    if port is not None and not alone:
        after = link.find(board=board.id, usb=(), port=port, wait=APPEAR)
    else:
        known = usb is not None and usb.id in board.running_ids
        after = link.find(
            board=board.id,
            usb=board.running_ids,
            port=None,
            serial_number=usb.number if usb is not None and known else None,
            wait=APPEAR,
        )
    baud = board.baud or _BAUD
    with link.connect(after, board=board.id, baud=baud, timeout=timeout) as line:
        yield line


def _upload(board: Board, settings: dict[str, str], progress: Progress) -> None:
    lines = 0

    def heard(line: str) -> None:
        nonlocal lines
        lines += 1
        progress("uploading", lines, lines + 1)

    progress("uploading", 0, 1)
    platformio.run(
        firmware_folder(),
        board.id,
        targets=("nobuild", "upload"),
        settings=settings,
        timeout=UPLOAD,
        heard=heard,
    )
    progress("uploading", lines, lines)


def _place(board: Board, port: str | None) -> str | None:
    """The port that the board is on before the upload, None where its loader needs none.

    It has to be there: PlatformIO by itself would take any other board for it.
    """
    if port is None and board.loader == "usb" and not link.ports(board.usb_ids):
        return None
    found = link.find(board=board.id, usb=board.usb_ids, port=port, wait=0)
    usb = link.identify(found)
    others = () if usb is None or usb.id in board.usb_ids else _boards_of(usb.id)
    if others:
        raise DeviceError(f"{board.id}: on {found} is another board: {' or '.join(others)}")
    means = platformio.option(firmware_folder(), board.id, "upload_protocol")
    same = link.ports(board.usb_ids)
    if means is not None and len(same) > 1:
        raise DeviceError(
            f"{board.id}: {' and '.join(same)} are boards of one kind, and the upload ({means})"
            " goes to any of them; leave one connected"
        )
    return found


def _boards_of(usb: str) -> tuple[str, ...]:
    """The boards with the USB id `usb`."""
    return tuple(name for name in boards.names() if usb in boards.load(name).usb_ids)


def _process(terminal: Path) -> int | None:
    """The process of the emulated board behind `terminal`, None where it has ended."""
    note = terminal.with_name(f"{terminal.name}.pid")
    with contextlib.suppress(OSError, ValueError):
        process = int(note.read_text())
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        ended = state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z"
        return None if ended else process
    return None


def _said(terminal: Path) -> str:
    """That the emulated board has ended, and what QEMU said of it; empty where it runs."""
    if _process(terminal) is not None:
        return ""
    log = terminal.with_name(f"{terminal.name}.log")
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    said = " | ".join(line.strip() for line in lines if line.strip())
    return f"; the emulator has ended, `edgecompress measure` says more: {said}"


def _ended(board: Board, terminal: Path) -> None:
    """Wait for the emulated board to end."""
    deadline = time.monotonic() + APPEAR
    while _process(terminal) is not None:
        if time.monotonic() > deadline:
            raise DeviceError(f"{board.id}: still running {APPEAR:g} s after it was asked to end")
        time.sleep(_POLL)


def _stop(terminal: Path) -> None:
    """End the emulated board, however it stands."""
    process = _process(terminal)
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
