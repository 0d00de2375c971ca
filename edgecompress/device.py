"""A conversation with the firmware on a board: greet it, send inputs, read the measurement back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgecompress import protocol
from edgecompress.errors import MeasurementError
from edgecompress.progress import Progress, silent
from edgecompress.protocol import End, Fail, Hello, Memory, Message, Ok, OpTimed, Out, Timed

M = TypeVar("M", bound=Message)


class Link(Protocol):
    """A serial port: `board` names it in messages; both methods raise DeviceError in the end."""

    board: str

    def send(self, data: bytes) -> None:
        """All of `data` to the board."""

    def receive(self) -> bytes:
        """The next line from the board, with its end."""


@dataclass(frozen=True)
class Answer:
    """One inference: its ticks as a whole or per operator, its outputs, the memory it used.

    `ops` are in order of time: an operator that runs in bands of rows comes more than once.
    """

    ticks: int | None
    ops: tuple[OpTimed, ...]
    outputs: tuple[bytes, ...]
    memory: Memory


@dataclass(frozen=True)
class Session:
    """All that `measure` read back: ticks of each timed inference, of each operator, the outputs
    of each row, and bytes of stack (None: the board cannot tell) and arena."""

    hello: Hello
    ticks: tuple[int, ...]
    ops: tuple[OpTimed, ...]
    outputs: tuple[tuple[bytes, ...], ...]
    stack: int | None
    arena: int


def measure(
    link: Link,
    *,
    board: str,
    backend: str,
    sha: str,
    rows: Sequence[Sequence[bytes]],
    runs: int,
    profile: bool,
    progress: Progress = silent,
) -> Session:
    """Time the first row `runs` times, once more by operator with `profile`, then run every row.

    A row is the bytes of each input. The model starts afresh for each of the three parts, so that
    a model with a state gives the outputs of `rows` in order. Raises like `greet` and `infer`.
    """

    def fresh() -> Hello:
        return greet(link, board=board, backend=backend, sha=sha)

    hello = fresh()
    timed = []
    for run in range(runs):
        progress("timed runs", run, runs)
        timed.append(infer(link, hello, rows[0]))
    progress("timed runs", runs, runs)
    ops: tuple[OpTimed, ...] = ()
    if profile:
        fresh()
        ops = infer(link, hello, rows[0], profile=True).ops
    fresh()
    outputs = []
    for done, row in enumerate(rows):
        progress("inputs on the board", done, len(rows))
        answer = infer(link, hello, row)
        outputs.append(answer.outputs)
    progress("inputs on the board", len(rows), len(rows))
    leave(link)
    ticks = tuple(one.ticks for one in timed if one.ticks is not None)
    return Session(hello, ticks, ops, tuple(outputs), answer.memory.stack, answer.memory.arena)


def greet(link: Link, *, board: str, backend: str, sha: str) -> Hello:
    """Start afresh and check who answers: this board, this backend, this model (SHA-256, hex).

    Raises MeasurementError where anything else answers, DeviceError where the board fails.
    """
    hello = _ask(link, protocol.hi(), Hello)
    for what, want, found in (
        ("board", board, hello.board),
        ("backend", backend, hello.backend),
        ("model SHA-256", sha, hello.sha),
    ):
        if want != found:
            raise MeasurementError(
                f"{link.board}: the firmware there says {what} {found}, expected is {want}; build"
                " and flash it again"
            )
    return hello


def infer(link: Link, hello: Hello, inputs: Sequence[bytes], *, profile: bool = False) -> Answer:
    """Send the inputs, run one inference and read all of its answer.

    With `profile` the operators are timed one by one and `ticks` is None. Raises MeasurementError
    for an answer that is not complete and in order or that has no ticks, DeviceError where the
    board fails.
    """
    sizes = tuple(len(data) for data in inputs)
    if sizes != hello.inputs:
        raise MeasurementError(
            f"{link.board}: its model takes inputs of {list(hello.inputs)} bytes, not {list(sizes)}"
        )
    for index, data in enumerate(inputs):
        for number, line in enumerate(protocol.inputs(index, data), 1):
            taken = _ask(link, line, Ok).offset
            want = min(number * protocol.DATA, len(data))
            if taken != want:
                raise MeasurementError(
                    f"{link.board}: input {index} goes on at byte {taken}, expected is {want}"
                )
    link.send(protocol.go(profile=profile))
    ops, first = _ops(link, hello) if profile else ((), None)
    ticks = None if profile else _next(link, Timed).ticks
    if ticks == 0:
        raise MeasurementError(
            f"{link.board}: an inference took 0 ticks; its timer does not run, or the model is"
            f" shorter than one tick of {hello.scale} {hello.unit}"
        )
    ahead = [] if first is None else [first]
    outputs = tuple(_output(link, index, size, ahead) for index, size in enumerate(hello.outputs))
    memory = _expected(link, ahead.pop() if ahead else _any(link), Memory)
    _next(link, End)
    return Answer(ticks, ops, outputs, memory)


def leave(link: Link) -> None:
    """Say goodbye; an emulated board ends."""
    _ask(link, protocol.bye(), End)


def _ops(link: Link, hello: Hello) -> tuple[tuple[OpTimed, ...], Message]:
    """All operators as they run, each of them once or more, and the message behind them."""
    found: list[OpTimed] = []
    while isinstance(message := _any(link), OpTimed):
        if message.op >= hello.ops:
            raise MeasurementError(f"{link.board}: operator {message.op} of {hello.ops}")
        found.append(message)
    if len({one.op for one in found}) < hello.ops:
        _expected(link, message, OpTimed)
    return tuple(found), message


def _output(link: Link, index: int, size: int, ahead: list[Message]) -> bytes:
    """All bytes of output `index`, which come in order; `ahead` is what was received already."""
    data = b""
    while len(data) < size:
        part = _expected(link, ahead.pop() if ahead else _any(link), Out)
        if (part.output, part.offset) != (index, len(data)) or len(data + part.data) > size:
            raise MeasurementError(
                f"{link.board}: bytes {part.offset} and on of output {part.output} where byte"
                f" {len(data)} of output {index} ({size} bytes) is due"
            )
        data += part.data
    return data


def _ask(link: Link, line: bytes, kind: type[M]) -> M:
    link.send(line)
    return _next(link, kind)


def _next(link: Link, kind: type[M]) -> M:
    """The next message, log left out; MeasurementError unless it is a `kind`."""
    return _expected(link, _any(link), kind)


def _any(link: Link) -> Message:
    while (message := protocol.parse(link.receive())) is None:
        pass
    return message


def _expected(link: Link, message: Message, kind: type[M]) -> M:
    if isinstance(message, Fail):
        raise protocol.failure(message, board=link.board)
    if not isinstance(message, kind):
        raise MeasurementError(
            f"{link.board}: it sent {message!r} where {kind.__name__} is due; run it again"
        )
    return message
