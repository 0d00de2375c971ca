"""A bad serial line: a pseudo-terminal with a board behind it, and faults on the way.

The line keeps the order of what goes over it; everything else may happen to it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

REMEMBERED = 400
"""Bytes that can be repeated, at most."""


class Fault(NamedTuple):
    """What happens once `gap` bytes went by since the last fault of the same direction.

    `size` is in bytes, or in milliseconds of a delay; `noise` is what is put in.
    """

    kind: str
    gap: int
    size: int = 1
    noise: bytes = b""


def _noise(stream: Stream, fault: Fault) -> bytes:
    return fault.noise


def _repeat(stream: Stream, fault: Fault) -> bytes:
    return stream.past[-fault.size :]


def _repeat_line(stream: Stream, fault: Fault) -> bytes:
    """The last whole line, between two newlines, so that it comes whole."""
    return b"\n" + stream.past.rpartition(b"\n")[0].rpartition(b"\n")[2] + b"\n"


INSERTED: dict[str, Callable[[Stream, Fault], bytes]] = {
    "noise": _noise,
    "repeat": _repeat,
    "repeat line": _repeat_line,
}
"""Faults that put bytes in."""
TAKEN = ("drop", "flip", "cut", "drop line")
"""Faults that take the next bytes away: `size` of them, or those to the end of the line; `flip`
damages one byte instead."""
EVENTS = ("delay", "reset")
"""Faults of the whole board: it is silent for a while, or starts afresh."""


class Stream:
    """One direction of the line with its `faults`; `past` is what came last, before any fault."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.past = b""
        self.injected: Counter[str] = Counter()
        self._faults = list(faults)
        self._gap = 0
        self._taking: Fault | None = None
        self._taken = 0

    def through(self, data: bytes) -> Iterator[bytes | Fault]:
        """What becomes of `data`: bytes, and the faults among EVENTS where they happen."""
        for byte in data:
            while self._taking is None and self._faults and self._gap >= self._faults[0].gap:
                yield from self._begin(self._faults.pop(0))
            self.past = (self.past + bytes([byte]))[-REMEMBERED:]
            self._gap += 1
            yield self._left_of(byte)

    def _begin(self, fault: Fault) -> Iterator[bytes | Fault]:
        self._gap = 0
        self.injected[fault.kind] += 1
        if fault.kind in INSERTED:
            yield INSERTED[fault.kind](self, fault)
        elif fault.kind in EVENTS:
            yield fault
        else:
            assert fault.kind in TAKEN, fault
            self._taking, self._taken = fault, 0

    def _left_of(self, byte: int) -> bytes:
        fault, end = self._taking, byte == ord("\n")
        if fault is None:
            return bytes([byte])
        self._taken += 1
        if fault.kind == "flip":
            self._taking = None
            return bytes([byte ^ 1 << fault.size % 8])
        if fault.kind == "drop":
            if self._taken >= fault.size:
                self._taking = None
        elif end:
            self._taking = None
            return b"\n" if fault.kind == "cut" else b""
        return b""


class Proxy:
    """The board that `command` starts, behind the pseudo-terminal `path`.

    A board that ends is started again, as one that was reset. `said` is all that it sent, before
    any fault; `injected` counts the faults.
    """

    def __init__(
        self, command: Sequence[str], to: Sequence[Fault] = (), back: Sequence[Fault] = ()
    ) -> None:
        self.said = b""
        self._command = command
        self._to, self._back = Stream(to), Stream(back)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._plugged = True
        self._board = self._started()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pump)
        self._thread.start()

    @property
    def injected(self) -> Counter[str]:
        """How many faults of each kind there were."""
        return self._to.injected + self._back.injected

    def kill(self) -> None:
        """End the board for good; the pseudo-terminal stays."""
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the proxy hangs"
        _end(self._board)

    def unplug(self) -> None:
        """End the board and the pseudo-terminal."""
        self.kill()
        if self._plugged:
            self._plugged = False
            os.close(self._master)
            os.close(self._slave)

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    def _pump(self) -> None:
        while not self._stop.is_set():
            assert self._board.stdout is not None
            board = self._board.stdout.fileno()
            for file in _ready([self._master, board], selectors.EVENT_READ):
                data = os.read(file, 1 << 12)
                if file == self._master:
                    self._pass(self._to.through(data), self._to_board)
                elif data:
                    self.said += data
                    self._pass(self._back.through(data), self._to_host)
                else:
                    self._reset()
                if self._board.stdout.fileno() != board:
                    break

    def _pass(self, parts: Iterator[bytes | Fault], on: Callable[[bytes], None]) -> None:
        together = b""
        for part in parts:
            if isinstance(part, bytes):
                together += part
                continue
            on(together)
            together = b""
            if part.kind == "delay":
                time.sleep(part.size / 1000)
            else:
                self._reset()
        on(together)

    def _to_board(self, data: bytes) -> None:
        assert self._board.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it left: what it is told is lost
            self._board.stdin.write(data)

    def _to_host(self, data: bytes) -> None:
        while data and not self._stop.is_set():
            if _ready([self._master], selectors.EVENT_WRITE):
                data = data[os.write(self._master, data) :]

    def _reset(self) -> None:
        _end(self._board)
        self.said += b"\n"
        self._board = self._started()


@contextlib.contextmanager
def between(
    command: Sequence[str], to: Sequence[Fault] = (), back: Sequence[Fault] = ()
) -> Iterator[Proxy]:
    """A proxy with faults on the way `to` the board and `back` from it, ended with the block."""
    proxy = Proxy(command, to, back)
    try:
        yield proxy
    finally:
        proxy.unplug()


def plans(faults: int) -> st.SearchStrategy[list[Fault]]:
    """Up to `faults` faults of one direction."""
    noise = st.one_of(
        st.binary(min_size=1, max_size=40),
        st.sampled_from(
            [b"\n", b"@", b"\n@", b"@\n", b"\0" * 9, b"@" * 300, b"\n@hi\n", b" *00\n"]
        ),
    )
    fault = st.builds(
        Fault,
        st.sampled_from([*INSERTED, *TAKEN, *EVENTS]),
        st.integers(0, 700),
        st.integers(1, 60),
        noise,
    )
    return st.lists(fault, min_size=1, max_size=faults)


def _end(board: subprocess.Popen[bytes]) -> None:
    board.kill()
    for pipe in (board.stdin, board.stdout):
        if pipe is not None:
            pipe.close()
    board.wait()


def _ready(files: Sequence[int], event: int) -> list[int]:
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, event)
        return [key.fd for key, _ in selector.select(0.05)]
