"""Firmware in a child process: under QEMU, or as a program of this computer.

The child's serial port is its standard input and output. Every wait has a limit, and no child
outlives the `with` block that started it.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.errors import DeviceError, ToolError
from edgecompress.measuring.protocol import Lines

QEMU = "qemu-system-arm"
TIMEOUT = 120.0
"""Seconds to wait for an answer, unless told otherwise."""
FAULT = 99
"""The status that emulated boards end with after a fault of the processor."""

_GRACE = 10.0
"""Seconds for a child that closed its output to end."""
_SAID = 4


class Child:
    """A running board: `send` bytes to its serial port, `receive` lines from it."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: IO[bytes], board: str, timeout: float
    ) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.board = board
        self.timeout = timeout
        self._process = process
        self._log = log
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        self._lines = Lines()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    def send(self, data: bytes) -> None:
        """All of `data` to the board; DeviceError where it takes no more, or is gone."""
        deadline = time.monotonic() + self.timeout
        while data:
            if not _ready(self._to, selectors.EVENT_WRITE, deadline):
                raise DeviceError(
                    f"{self.board}: it takes no byte for {self.timeout:g} s; the firmware hangs"
                )
            try:
                data = data[os.write(self._to, data) :]
            except BrokenPipeError:
                raise self._ended() from None

    def receive(self, wait: float) -> bytes | None:
        """The next line with its end, None where there is none in `wait` seconds.

        Raises DeviceError where the board is gone.
        """
        deadline = time.monotonic() + wait
        while (line := self._lines.take()) is None:
            if not _ready(self._from, selectors.EVENT_READ, deadline):
                return None
            data = os.read(self._from, 1 << 16)
            if not data:
                raise self._ended()
            self._lines.add(data)
        return line

    def finish(self) -> None:
        """Wait for the board to end; DeviceError unless it does so in time and with status 0."""
        try:
            status = self._process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.board}: still running {self.timeout:g} s after it was asked to end"
            ) from None
        if status:
            raise self._ended()

    def _ended(self) -> DeviceError:
        """The error for a board that left in the middle."""
        try:
            status: int | str = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            status = "none: it closed its serial port"
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines()]
        said = " | ".join([line for line in lines if line][-_SAID:])
        why = said or "it said nothing"
        if status == FAULT:
            why = "a fault of the processor, perhaps of a stack that is too small"
        return DeviceError(f"{self.board}: it ended in the middle with status {status}: {why}")


def command(board: Board, elf: Path, options: Sequence[str] = ()) -> list[str]:
    """The command that runs `elf` on `board`, QEMU's further `options` included.

    An emulated board's is the one that PlatformIO starts it by, its serial port apart.
    """
    if board.kind == "program":
        return [str(elf.resolve()), *options]
    upload = runpy.run_path(str(firmware_folder() / "platform" / "upload.py"))
    return [*upload["command"](board.machine, str(elf), "stdio"), *options]


@contextlib.contextmanager
def start(command: Sequence[str], *, board: str, timeout: float = TIMEOUT) -> Iterator[Child]:
    """The child that `command` starts; it is ended with the block, however that is left.

    `board` is named in messages, `timeout` is the longest wait for an answer in seconds. Raises
    ToolError where the command cannot be started.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        except OSError as error:
            raise ToolError(
                f"{command[0]}: {error.strerror or error}; edgecompress doctor says how to get it"
            ) from error
        stack.callback(_end, process)
        yield Child(process, log, board, timeout)


def _ready(file: int, event: int, deadline: float) -> bool:
    """Whether `file` can be read or written before `deadline`."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, event)
        return bool(selector.select(max(0.0, deadline - time.monotonic())))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
