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

from edgecompress import emulator, link, platformio
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.device import Link
from edgecompress.errors import ConfigError, DeviceError
from edgecompress.progress import Progress, silent

if TYPE_CHECKING:
    from edgecompress.firmware import Image

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

    `port` is where the board is (None: found by its USB ids); an emulated board makes its own, and
    takes QEMU's further `options`. Raises ConfigError for a port where there is none to choose,
    ToolError where PlatformIO fails, DeviceError where the board is not there.
    """
    board = image.board
    if board.kind != "serial" and port is not None:
        raise ConfigError(f"--port {port}: {board.id} is on no serial port of this computer")
    with (
        tempfile.TemporaryDirectory(prefix="edgecompress-") as name,
        contextlib.ExitStack() as stack,
    ):
        work = Path(name)
        settings = {
            "EC_IMAGE": str(image.elf.parent.resolve()),
            "PLATFORMIO_BUILD_DIR": str(work / "built"),
            "PLATFORMIO_WORKSPACE_DIR": str(work),
        }
        if board.kind == "emulator":
            terminal = work / f"{board.id}.port"
            stack.callback(_stop, terminal)
            _upload(board, {**settings, "EC_EMULATOR_OPTIONS": json.dumps([*options])}, progress)
            line = link.connect(str(terminal), board=board.id, baud=_BAUD, timeout=timeout)
            yield stack.enter_context(line)
            _ended(board, terminal)
        else:
            before = _place(board, port)
            if before is not None:
                settings["PLATFORMIO_UPLOAD_PORT"] = before
            usb = None if before is None else link.identify(before)
            _upload(board, settings, progress)
            after = link.find(
                board=board.id,
                usb=board.running_ids,
                port=port if usb is None else None,
                serial_number=None if usb is None else usb.number,
                wait=APPEAR,
            )
            baud = board.baud or _BAUD
            line = link.connect(after, board=board.id, baud=baud, timeout=timeout)
            yield stack.enter_context(line)


def _upload(board: Board, settings: dict[str, str], progress: Progress) -> None:
    progress("uploading", 0, 1)
    platformio.run(
        firmware_folder(),
        board.id,
        targets=("nobuild", "upload"),
        settings=settings,
        timeout=UPLOAD,
    )
    progress("uploading", 1, 1)


def _place(board: Board, port: str | None) -> str | None:
    """The port that the board is on before the upload; None where only PlatformIO may find it:
    in its bootloader, some boards are no serial port."""
    if port is None and not link.ports(board.usb_ids):
        return None
    return link.find(board=board.id, usb=board.usb_ids, port=port, wait=0)


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
