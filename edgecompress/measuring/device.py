"""A conversation with the firmware on a board: greet it, send inputs, read the measurement back.

The line may lose, damage or repeat what goes over it, and the board may start afresh at any time:
what is missing is asked for again, what is damaged or late is dropped, and where the board forgot
what it was told, the stage is done again (docs/protocol.md). Nothing waits for ever.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from edgecompress.errors import DeviceError, MeasurementError
from edgecompress.measuring import protocol
from edgecompress.measuring.protocol import (
    Bye,
    Damaged,
    End,
    Fail,
    Hello,
    Memory,
    Message,
    Ok,
    OpTimed,
    Out,
    Timed,
)
from edgecompress.progress import Progress, silent

RETRY = 1.0
"""Seconds until a line is asked for again, the first time; then twice as long, and so on."""
ASKS = 30
"""How often one line is sent before it is given up."""
STARTS = 5
"""How often a stage starts from its greeting before it is given up."""


class Link(Protocol):
    """A serial port; both methods raise DeviceError where the board is gone for good."""

    @property
    def board(self) -> str:
        """Board, and port if any, for messages."""

    @property
    def timeout(self) -> float:
        """The longest wait for an answer in seconds."""

    def send(self, data: bytes) -> None:
        """All of `data` to the board, which may lose it; DeviceError after `timeout`."""

    def receive(self, wait: float) -> bytes | None:
        """The next line from the board with its end, None where there is none in `wait` seconds."""


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
    of each row, and bytes of stack (None: the board cannot tell) and arena. `damaged` lines came
    and were asked for again."""

    hello: Hello
    ticks: tuple[int, ...]
    ops: tuple[OpTimed, ...]
    outputs: tuple[tuple[bytes, ...], ...]
    stack: int | None
    arena: int
    damaged: int


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
    retry: float = RETRY,
) -> Session:
    """Time the first row `runs` times, once more by operator with `profile`, then run every row.

    A row is the bytes of each input. The model starts afresh for each of the three stages, so that
    a model with a state gives the outputs of `rows` in order. `retry` is the time in seconds until
    a line is sent again for the first time. Raises MeasurementError where another board, backend or
    model (SHA-256, hex) answers than the one named, and for an answer that contradicts itself or
    has no ticks; DeviceError where the board fails, is silent, or the line is too bad.
    """
    talk = _Talk(link, (board, backend, sha), retry)
    timed = talk.stage("timed runs", [rows[0]] * runs, progress=progress)
    profiled = talk.stage("profile", rows[:1], profile=True) if profile else []
    answers = talk.stage("inputs on the board", rows, progress=progress)
    talk.leave()
    memory = answers[-1].memory
    return Session(
        hello=talk.hello,
        ticks=tuple(one.ticks for one in timed if one.ticks is not None),
        ops=profiled[0].ops if profiled else (),
        outputs=tuple(one.outputs for one in answers),
        stack=memory.stack,
        arena=memory.arena,
        damaged=talk.damaged,
    )


class _Step(enum.Enum):
    """What a message means to whoever waits for an answer."""

    LATE = enum.auto()
    """Nothing: it answers an earlier line, or repeats what is known."""
    NEWS = enum.auto()
    """A part of the answer; more is due."""
    GAP = enum.auto()
    """The end of an answer of which lines are missing."""
    DONE = enum.auto()
    """The last part that was missing."""


class _Lost(Exception):
    """What the board was told, or what it timed, is lost: the stage starts again."""


class _Talk:
    """Asks and answers over `link`, to a firmware that is for `who`: board, backend, SHA-256."""

    def __init__(self, link: Link, who: tuple[str, str, str], retry: float) -> None:
        self.damaged = 0
        self._link = link
        self._who = who
        self._retry = retry
        self._hello: Hello | None = None

    @property
    def hello(self) -> Hello:
        """Who answered the greeting."""
        assert self._hello is not None, "a stage greets first"
        return self._hello

    def stage(
        self,
        name: str,
        rows: Sequence[Sequence[bytes]],
        *,
        profile: bool = False,
        progress: Progress = silent,
    ) -> list[Answer]:
        """Greet the board and run all `rows`, as often as it takes to get through."""
        with self._during(name):
            for _ in range(STARTS):
                try:
                    self._greet()
                    answers = []
                    for run, row in enumerate(rows):
                        progress(name, run, len(rows))
                        answers.append(self._infer(run, row, profile))
                    progress(name, len(rows), len(rows))
                    return answers
                except _Lost as lost:
                    why = lost
            raise DeviceError(
                f"{self._link.board}: given up after {STARTS} starts: {why}; is its power, is its"
                " cable sound?"
            )

    def leave(self) -> None:
        """Say goodbye; an emulated board ends, perhaps before its answer is through.

        All is measured by now: whoever started the board has to see how it ends.
        """
        deadline = time.monotonic() + self._retry
        with contextlib.suppress(DeviceError):
            self._link.send(b"\n" + protocol.bye())
            while (left := deadline - time.monotonic()) > 0:
                received = self._link.receive(left)
                if received is not None and isinstance(protocol.parse(received), Bye):
                    return

    def _greet(self) -> None:
        """Start afresh and check who answers."""

        def take(message: Message) -> _Step:
            if not isinstance(message, Hello):
                return _Step.LATE
            self._check(message)
            self._hello = message
            return _Step.DONE

        self._ask(protocol.hi(), take)

    def _check(self, hello: Hello) -> None:
        for what, want, found in zip(
            ("board", "backend", "model SHA-256"),
            self._who,
            (hello.board, hello.backend, hello.sha),
            strict=True,
        ):
            if want != found:
                raise MeasurementError(
                    f"{self._link.board}: the firmware there says {what} {found}, expected is"
                    f" {want}; build and flash it again"
                )
        if self._hello not in (None, hello):
            raise MeasurementError(
                f"{self._link.board}: in the middle another firmware answers: {hello!r} after"
                f" {self._hello!r}; measure again"
            )

    def _infer(self, run: int, inputs: Sequence[bytes], profile: bool) -> Answer:
        """Send the inputs, run inference `run` since the greeting, and read all of its answer."""
        sizes = tuple(len(data) for data in inputs)
        if sizes != self.hello.inputs:
            raise MeasurementError(
                f"{self._link.board}: its model takes inputs of {list(self.hello.inputs)} bytes,"
                f" not {list(sizes)}"
            )
        for index, data in enumerate(inputs):
            for number, line in enumerate(protocol.inputs(index, data), 1):
                there = Ok(index, min(number * protocol.DATA, len(data)))
                self._ask(line, partial(_taken, there))
        answer = _Collected(self._link.board, self.hello, run, profile)
        self._ask(protocol.go(run, profile=profile), answer.take)
        return answer.whole()

    def _ask(self, line: bytes, take: Callable[[Message], _Step]) -> None:
        """Send `line`, again and again if need be, until `take` has all of the answer to it."""
        wait, asks = self._retry, 0
        until = time.monotonic() + self._link.timeout
        step = _Step.GAP
        while step is not _Step.DONE:
            if step is _Step.GAP:
                if asks == ASKS:
                    raise self._silent(line, f"though it was sent {ASKS} times")
                # The board may have the start of a line already: it ends here.
                self._link.send(b"\n" + line)
                asks += 1
                due = time.monotonic() + wait
            received = self._link.receive(max(0.0, min(due, until) - time.monotonic()))
            message = None if received is None else protocol.parse(received)
            if message is None or isinstance(message, Damaged):
                self.damaged += message is not None
                step = _Step.LATE
                if time.monotonic() >= due:
                    step = _Step.GAP
                    wait *= 2
            else:
                step = self._step(message, take)
                due = time.monotonic() + wait
            if step is _Step.NEWS:
                until = time.monotonic() + self._link.timeout
            elif step is not _Step.DONE and time.monotonic() >= until:
                raise self._silent(line, f"in {self._link.timeout:g} s")

    def _step(self, message: Message, take: Callable[[Message], _Step]) -> _Step:
        if not isinstance(message, Fail):
            return take(message)
        if message.where == "line":
            self.damaged += 1
            return _Step.GAP
        if message.where == "input" or message == Fail("command", protocol.EARLY):
            return take(message)
        raise protocol.failure(message, board=self._link.board)

    def _silent(self, line: bytes, how: str) -> DeviceError:
        text = line.partition(b" *")[0].partition(b" hex=")[0].decode()
        hint = (
            "is the cable sound, is the speed the firmware's?"
            if self.damaged
            else "if the model is large, allow more time, else the firmware hangs or is not ours"
        )
        noise = "noise on the line, " if self.damaged else ""
        return DeviceError(f"{self._link.board}: {noise}no answer to {text} {how}; {hint}")

    @contextlib.contextmanager
    def _during(self, stage: str) -> Iterator[None]:
        """A DeviceError from within says when it was, and how the line is."""
        try:
            yield
        except DeviceError as error:
            seen = f"; damaged lines: {self.damaged}" if self.damaged else ""
            raise DeviceError(f"{error} (during {stage}{seen})") from error


def _taken(there: Ok, message: Message) -> _Step:
    """Whether `message` says that the input is `there`."""
    if isinstance(message, Fail):
        raise _forgotten(message)
    return _Step.DONE if isinstance(message, Ok) and message == there else _Step.LATE


def _forgotten(fail: Fail) -> _Lost:
    return _Lost(
        f"it forgot what it was told (phase {fail.where}, code {fail.code}), as after a reset"
    )


_Part = Timed | OpTimed | Out | Memory | End
_Key = tuple[type[_Part], int, int]


class _Collected:
    """The answer about inference `run` of a model that `hello` describes.

    Its lines may come in any order, more than once, and from several copies of the answer.
    """

    def __init__(self, board: str, hello: Hello, run: int, profile: bool) -> None:
        self._board = board
        self._hello = hello
        self._run = run
        self._profile = profile
        self._lines: dict[_Key, _Part] = {}
        self._ops: dict[int, OpTimed] = {}
        self._sizes: dict[_Key, int] = {
            (Out, output, start): min(protocol.DATA, size - start)
            for output, size in enumerate(hello.outputs)
            for start in range(0, size, protocol.DATA)
        }
        kinds: list[type[_Part]] = [Memory, End] if profile else [Timed, Memory, End]
        self._missing = {*self._sizes, *((kind, 0, 0) for kind in kinds)}

    def take(self, message: Message) -> _Step:
        """Add `message`; raises _Lost where the answer cannot become whole any more."""
        if isinstance(message, Fail):
            raise _forgotten(message)
        if not isinstance(message, _Part) or message.run != self._run:
            return _Step.LATE
        news = self._add(message)
        if not self._missing and self._end.turns == len(self._ops):
            return _Step.DONE
        if isinstance(message, End):
            if self._profile:
                raise _Lost("lines of a profile were lost, and it cannot be sent again")
            return _Step.GAP
        return _Step.NEWS if news else _Step.LATE

    def whole(self) -> Answer:
        """The complete answer; MeasurementError for one that cannot be trusted."""
        timed, memory = self._lines.get((Timed, 0, 0)), self._lines[Memory, 0, 0]
        assert isinstance(timed, Timed | None) and isinstance(memory, Memory)
        if timed is not None and timed.ticks == 0:
            raise self._wrong(
                "an inference took 0 ticks; its timer does not run, or the model is shorter than"
                f" one tick of {self._hello.scale} {self._hello.unit}, or takes 2^32 ticks or more"
            )
        ops = tuple(self._ops[turn] for turn in sorted(self._ops))
        if self._profile and {one.op for one in ops} != set(range(self._hello.ops)):
            raise self._wrong(f"it timed {len(ops)} turns, not of all {self._hello.ops} operators")
        outputs = [bytearray() for _ in self._hello.outputs]
        for key in self._sizes:
            part = self._lines[key]
            assert isinstance(part, Out)
            outputs[part.output] += part.data
        return Answer(
            None if timed is None else timed.ticks, ops, tuple(map(bytes, outputs)), memory
        )

    @property
    def _end(self) -> End:
        end = self._lines[End, 0, 0]
        assert isinstance(end, End)
        return end

    def _add(self, message: _Part) -> bool:
        """Whether `message` was not there yet; it has to be one that is due, and to stay so."""
        key = _key(message)
        if key in self._lines:
            known = self._lines[key]
            # The stack may have gone deeper since.
            if known != message and not isinstance(message, Memory):
                raise self._wrong(f"it sent {message!r} after {known!r}")
            return False
        if isinstance(message, OpTimed):
            if not self._profile or message.op >= self._hello.ops:
                raise self._wrong(f"it sent {message!r}, which is none of its operators")
            self._ops[message.turn] = message
        elif key not in self._missing or (
            isinstance(message, Out) and len(message.data) != self._sizes[key]
        ):
            raise self._wrong(f"it sent {message!r}, which is not due")
        self._missing.discard(key)
        self._lines[key] = message
        return True

    def _wrong(self, why: str) -> MeasurementError:
        return MeasurementError(f"{self._board}: inference {self._run}: {why}")


def _key(message: _Part) -> _Key:
    """What tells the lines of one answer apart."""
    if isinstance(message, OpTimed):
        return OpTimed, message.turn, 0
    if isinstance(message, Out):
        return Out, message.output, message.offset
    return type(message), 0, 0
