"""The host's side of the serial protocol, version 1: lines to messages and back (docs/protocol.md).

Pure: nothing is sent or received here. The rules are strict: what is not understood is an error.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from edgecompress.errors import DeviceError, MeasurementError

VERSION = 1
DATA = 64
"""Bytes of data on a line, at most; only the last line of an input or output has fewer."""
LINE = 1 << 12
"""Bytes of a line from the board, at most."""
EARLY = 2
"""The code of Fail where phase is `command`: the board waits for a greeting."""


class Hello(NamedTuple):
    """Who answers: the board, the model in it and what its ticks are.

    `inputs` and `outputs` are the bytes of each, `arena` is in bytes; a tick is `scale` `unit`s,
    and there are `hz` of them in a second (0: they say nothing about time).
    """

    board: str
    model: str
    sha: str
    backend: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ops: int
    arena: int
    unit: str
    scale: Fraction
    hz: int


class Ok(NamedTuple):
    """The bytes of input `input` before `offset` are there."""

    input: int
    offset: int


class Timed(NamedTuple):
    """Inference `run` took `ticks`."""

    run: int
    ticks: int


class OpTimed(NamedTuple):
    """Operator `op` of kind `kind` took `ticks` in inference `run`, in turn `turn` of its lines."""

    run: int
    turn: int
    op: int
    kind: str
    ticks: int


class Out(NamedTuple):
    """Bytes `offset` and on of output `output`."""

    run: int
    output: int
    offset: int
    data: bytes


class Memory(NamedTuple):
    """Bytes: the deepest the stack has been (None: the board cannot tell), the arena in use."""

    run: int
    stack: int | None
    arena: int


class End(NamedTuple):
    """The answer about inference `run` is complete, `turns` lines of operators included."""

    run: int
    turns: int


class Bye(NamedTuple):
    """The board leaves."""


class Fail(NamedTuple):
    """The board refused or failed: in which phase, with which code."""

    where: str
    code: int


class Damaged(NamedTuple):
    """What is left of a line that started with `@`: its CRC-32 is missing or wrong."""


Message = Hello | Ok | Timed | OpTimed | Out | Memory | End | Bye | Fail | Damaged


class Lines:
    """Bytes as they arrive, taken apart into lines."""

    def __init__(self) -> None:
        self._pending = b""

    def add(self, data: bytes) -> None:
        """Take the bytes that arrived next."""
        self._pending += data

    def take(self) -> bytes | None:
        """The next line with its end, None where there is no whole one yet.

        More than LINE bytes without an end are noise: they come as if they were a line.
        """
        line, end, rest = self._pending.partition(b"\n")
        if not end and len(line) <= LINE:
            return None
        self._pending = rest
        return line + end

    def clear(self) -> None:
        """Forget what is no whole line yet, and what was not taken."""
        self._pending = b""


def command(text: str) -> bytes:
    """The line of `text` (@go i=0 profile=1) with its CRC."""
    return f"{text} *{zlib.crc32(text.encode()):08x}\n".encode()


def hi() -> bytes:
    """Asks for Hello; the board starts afresh."""
    return command("@hi")


def go(run: int, *, profile: bool) -> bytes:
    """Asks for inference `run`, timed as a whole or operator by operator."""
    return command(f"@go i={run} profile={int(profile)}")


def bye() -> bytes:
    """Asks for Bye; an emulated board leaves."""
    return command("@bye")


def inputs(index: int, data: bytes) -> list[bytes]:
    """The lines that carry input `index`; each is answered by Ok with the offset behind it."""
    starts = range(0, len(data), DATA)
    return [
        command(f"@in n={index} o={start} hex={data[start : start + DATA].hex()}")
        for start in starts
    ]


def parse(line: bytes) -> Message | None:
    """The message on `line` (its end already cut off or not), None for a line of log.

    Raises MeasurementError for a line that came undamaged and is unknown.
    """
    if not line.startswith(b"@"):
        return None
    body, star, crc = line.rstrip(b"\r\n").rpartition(b" *")
    if not star or crc != b"%08x" % zlib.crc32(body):
        return Damaged()
    word, *given = body[1:].decode("ascii", "replace").split(" ")
    if word not in _WORDS:
        raise _bad(line, f"no message is called {word!r}")
    make, fields = _WORDS[word]
    keys = [item.partition("=")[0] for item in given]
    if keys != list(fields):
        raise _bad(line, f"{word} has the keys {', '.join(fields)}, in this order")
    try:
        values = [
            read(item.partition("=")[2]) for read, item in zip(fields.values(), given, strict=True)
        ]
    except ValueError as error:
        raise _bad(line, str(error)) from None
    return make(*values)


def failure(fail: Fail, *, board: str) -> DeviceError | MeasurementError:
    """The error that `fail` of `board` amounts to; a MeasurementError for a counter of ticks that
    cannot be trusted."""
    text = f"{board}: the board reports a failure: phase {fail.where}, code {fail.code}"
    meaning = _FAILURES.get((fail.where, fail.code)) or _FAILURES.get((fail.where, None))
    kind = MeasurementError if fail.where == "board" else DeviceError
    return kind(f"{text} ({meaning})" if meaning else text)


def _bad(line: bytes, why: str) -> MeasurementError:
    shown = line[:100].decode("ascii", "backslashreplace").strip()
    return MeasurementError(
        f"line {shown!r} from the board: {why}; is the firmware there of this version?"
    )


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 1 << 32:
        raise ValueError(f"{text!r} is no number from 0 to 4294967295")
    return int(text)


def _maybe(text: str) -> int | None:
    return None if text == "-" else _number(text)


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(_number(part) for part in text.split(","))


def _text(text: str) -> str:
    if not re.fullmatch("([!-$&-~]|%[0-9a-f]{2})*", text):
        raise ValueError(f"{text!r} is no text")
    raw = re.sub(b"%(..)", lambda code: bytes.fromhex(code[1].decode()), text.encode())
    return raw.decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    if not re.fullmatch(f"([0-9a-f]{{2}}){{1,{DATA}}}", text):
        raise ValueError(f"hex={text[:20]!r} is not 1 to {DATA} bytes in lower-case hex")
    return bytes.fromhex(text)


def _fraction(text: str) -> Fraction:
    parts = [_number(part) for part in text.split("/", 1)]
    if not all(parts):
        raise ValueError(f"scale={text!r} is not above 0")
    return Fraction(*parts)


def _version(text: str) -> int:
    if text != str(VERSION):
        raise ValueError(f"protocol {text!r}; this version speaks {VERSION}")
    return VERSION


Read = Callable[[str], Any]
_HELLO: dict[str, Read] = {
    "proto": _version,
    "board": _text,
    "model": _text,
    "sha": _text,
    "backend": _text,
    "inputs": _numbers,
    "outputs": _numbers,
    "ops": _number,
    "arena": _number,
    "unit": _text,
    "scale": _fraction,
    "hz": _number,
}
_WORDS: dict[str, tuple[Callable[..., Message], dict[str, Read]]] = {
    "hello": (lambda proto, *rest: Hello(*rest), _HELLO),
    "ok": (Ok, {"n": _number, "o": _number}),
    "run": (Timed, {"i": _number, "ticks": _number}),
    "op": (OpTimed, {"i": _number, "t": _number, "n": _number, "kind": _text, "ticks": _number}),
    "out": (Out, {"i": _number, "n": _number, "o": _number, "hex": _bytes}),
    "mem": (Memory, {"i": _number, "stack": _maybe, "arena": _number}),
    "end": (End, {"i": _number, "turns": _number}),
    "bye": (Bye, {}),
    "fail": (Fail, {"where": _text, "code": _number}),
}
_FAILURES: dict[tuple[str, int | None], str] = {
    ("board", 1): "its tick counter does not count what the board says; an emulator needs -icount",
    ("model", None): "ec_model_init failed with this status, without its sign",
    ("command", 1): "it does not know the command; is the firmware of this version?",
    ("invoke", None): "ec_model_invoke failed with this status, without its sign",
}
