"""The conversation with a board, and the child process it runs in: a board played by Python."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence

import pytest

from edgecompress.errors import DeviceError, MeasurementError, ToolError
from edgecompress.measuring import device, emulator, protocol

SHA = "ab" * 32
HELLO = (
    f"@hello proto=1 board=toy model=m sha={SHA} backend=aot inputs=70 outputs=65 ops=2"
    " arena=128 unit=instructions scale=40 hz=0"
)
OPS = ["@op i=# t=0 n=0 kind=CONV_2D ticks=4", "@op i=# t=1 n=1 kind=RESHAPE ticks=0"]
OUTPUT = [f"@out i=# n=0 o=0 hex={'01' * 64}", "@out i=# n=0 o=64 hex=02"]
MEMORY = "@mem i=# stack=300 arena=128"
PLAIN = ["@run i=# ticks=5", *OUTPUT, MEMORY, "@end i=# turns=0"]
PROFILE = [*OPS, *OUTPUT, MEMORY, "@end i=# turns=2"]
ROW = b"\x07" * 70


class Board:
    """Answers each command with the lines of `script` under its word, "#" being the number of the
    run; a line of log before them. `told` is all that it was asked for but input."""

    board = "toy"
    timeout = 20.0

    def __init__(self, **script: Sequence[str]) -> None:
        self.script: dict[str, Sequence[str]] = {
            "hi": [HELLO],
            "profile=0": PLAIN,
            "profile=1": PROFILE,
            "bye": ["@bye"],
        }
        self.script.update({key.replace("_", "="): lines for key, lines in script.items()})
        self.got = b""
        self.told: list[str] = []
        self.lines: list[bytes] = []

    def send(self, data: bytes) -> None:
        for line in filter(None, data.split(b"\n")):
            text = line.decode().rpartition(" *")[0][1:]
            assert crc(f"@{text}") == line + b"\n"
            self.lines += [b"log\n", *map(crc, self.answer(text))]

    def answer(self, text: str) -> Sequence[str]:
        word, *given = text.split()
        if word == "in":
            fields = dict(item.split("=") for item in given)
            self.got += bytes.fromhex(fields["hex"])
            return [f"@ok n={fields['n']} o={int(fields['o']) + len(fields['hex']) // 2}"]
        self.told.append(text)
        lines = self.script[given[-1] if word == "go" else word]
        return [line.replace("#", given[0][2:]) if word == "go" else line for line in lines]

    def receive(self, wait: float) -> bytes | None:
        if self.lines:
            return self.lines.pop(0)
        time.sleep(wait)
        return None


def crc(text: str) -> bytes:
    return f"{text} *{zlib.crc32(text.encode()):08x}\n".encode()


def run(board: Board, *, profile: bool = True) -> device.Session:
    return device.measure(
        board,
        board="toy",
        backend="aot",
        sha=SHA,
        rows=[(ROW,), (ROW,)],
        runs=3,
        profile=profile,
        retry=0.01,
    )


def whole(found: device.Session) -> bool:
    """Whether `found` is what the board has to say, every number of it."""
    return (
        found.ticks == (5, 5, 5)
        and [(op.kind, op.ticks) for op in found.ops] == [("CONV_2D", 4), ("RESHAPE", 0)]
        and found.outputs == ((b"\x01" * 64 + b"\x02",),) * 2
        and (found.stack, found.arena) == (300, 128)
    )


TIMED = [f"go i={i} profile=0" for i in range(3)]
ORDER = ["hi", *TIMED, "hi", "go i=0 profile=1", "hi", *TIMED[:2], "bye"]


def test_a_whole_measurement() -> None:
    board = Board()
    found = run(board)
    assert whole(found) and found.damaged == 0
    assert board.got == ROW * 6
    # The model starts afresh for each part: a state left by one would change the next outputs.
    assert board.told == ORDER
    assert run(Board(), profile=False).ops == ()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"hi": [HELLO.replace(SHA, "cd" * 32)]}, "says model SHA-256 cdcd.*, expected is abab"),
        ({"hi": [HELLO.replace("board=toy", "board=other")]}, "says board other, expected is toy"),
        ({"hi": [HELLO.replace("=aot", "=tflm")]}, "says backend tflm, expected is aot"),
        ({"hi": [HELLO.replace("inputs=70", "inputs=71")]}, "takes inputs of \\[71\\] bytes"),
        (
            {"profile_0": ["@run i=# ticks=0", *PLAIN[1:]]},
            "took 0 ticks; .* shorter than one tick of 40 instructions",
        ),
        ({"profile_0": [*OPS, *PLAIN]}, "sent OpTimed.* none of its operators"),
        ({"profile_1": [PLAIN[0], *PROFILE]}, "sent Timed.* not due"),
        ({"profile_0": [PLAIN[0], "@run i=# ticks=6", *PLAIN[1:]]}, "ticks=6.* after .*ticks=5"),
        ({"profile_0": ["@out i=# n=0 o=64 hex=03", *PLAIN]}, "data=b'.x02'.* after .*x03"),
        ({"profile_0": ["@out i=# n=0 o=64 hex=0203", *PLAIN]}, "sent Out.* not due"),
        ({"profile_0": ["@out i=# n=0 o=0 hex=01", *PLAIN]}, "sent Out.* not due"),
        ({"profile_0": ["@out i=# n=0 o=1 hex=01", *PLAIN]}, "sent Out.* not due"),
        ({"profile_0": ["@out i=# n=1 o=0 hex=01", *PLAIN]}, "sent Out.* not due"),
        ({"profile_1": [OPS[0].replace("n=0", "n=2"), *PROFILE[1:]]}, "none of its operators"),
        (
            {"profile_1": [OPS[0], OPS[0].replace("t=0", "t=1"), *PROFILE[2:]]},
            "it timed 2 turns, not of all 2 operators",
        ),
    ],
)
def test_what_cannot_be_trusted_is_refused(script: dict[str, Sequence[str]], why: str) -> None:
    with pytest.raises(MeasurementError, match=f"toy: .*{why}"):
        run(Board(**script))


def test_a_failure_of_the_board_is_passed_on() -> None:
    with pytest.raises(DeviceError, match=r"toy: .*phase invoke, code 6.*\(during timed runs\)"):
        run(Board(profile_0=["@fail where=invoke code=6"]))
    with pytest.raises(DeviceError, match=r"phase command, code 1 .*is the firmware of this vers"):
        run(Board(profile_0=["@fail where=command code=1"]))


class Spoilt(Board):
    """Puts what `spoil` makes of a line of an answer in its place."""

    def __init__(self, spoil: Callable[[bytes], list[bytes]]) -> None:
        super().__init__()
        self.spoil = spoil

    def receive(self, wait: float) -> bytes | None:
        if self.lines and self.lines[0].startswith(b"@"):
            line = self.lines.pop(0)
            self.lines = self.spoil(line) + self.lines
            return self.lines.pop(0) if self.lines else None
        return super().receive(wait)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: [],
        lambda line: [line[:-5] + b"\n"],
        lambda line: [b"@\xff\x00" + line],
        lambda line: [b"@noise\n", b"@ noise *00000000\n"],
        lambda line: [line, line],
        lambda line: [crc("@fail where=line code=2"), line],
    ],
)
def test_a_line_that_is_damaged_lost_or_repeated_changes_nothing(
    seed: int, spoil: Callable[[bytes], list[bytes]]
) -> None:
    draw = random.Random(seed)
    spoilt = 0

    def sometimes(line: bytes) -> list[bytes]:
        nonlocal spoilt
        if draw.random() > 0.08:
            return [line]
        spoilt += 1
        return spoil(line)

    found = run(Spoilt(sometimes))
    assert whole(found)
    assert spoilt > 0
    seen = spoil(b"@") not in ([], [b"@", b"@"])
    assert (found.damaged >= spoilt) if seen else found.damaged == 0


def test_lines_of_another_inference_or_of_none_are_dropped() -> None:
    late = ["@ok n=0 o=64", HELLO, "@bye", "@run i=7 ticks=1", "@end i=7 turns=0"]
    found = run(Board(profile_0=[*late, *PLAIN], profile_1=[*late, *PROFILE], bye=[*late, "@bye"]))
    assert whole(found)
    assert found.damaged == 0


class Forgetful(Board):
    """Resets itself in place of the answers that `when` numbers."""

    def __init__(self, *when: int, after: str = HELLO) -> None:
        super().__init__()
        self.when = when
        self.after = after
        self.asked = 0
        self.greeted = False

    def answer(self, text: str) -> Sequence[str]:
        self.asked += 1
        if self.asked in self.when:
            self.greeted = False
            self.script["hi"] = [self.after]
            return []
        self.greeted = self.greeted or text == "hi"
        return super().answer(text) if self.greeted else ["@fail where=command code=2"]


@pytest.mark.parametrize("when", range(1, 21))
def test_a_stage_is_done_again_after_a_reset(when: int) -> None:
    board = Forgetful(when)
    assert whole(run(board))
    assert board.told[-4:] == ORDER[-4:]


def test_a_board_that_always_resets_is_given_up() -> None:
    with pytest.raises(
        DeviceError, match="given up after 5 starts: .*phase command, code 2.*during timed runs"
    ):
        run(Forgetful(*range(4, 1000, 4)))


def test_another_firmware_after_a_reset_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="toy: in the middle another firmware answers"):
        run(Forgetful(6, after=HELLO.replace("scale=40", "scale=41")))


def test_a_profile_that_lost_a_line_is_done_again() -> None:
    lost = iter([1])

    def spoil(line: bytes) -> list[bytes]:
        return [] if line.startswith(b"@op") and next(lost, 0) else [line]

    board = Spoilt(spoil)
    assert whole(run(board))
    assert board.told.count("go i=0 profile=1") == 2


@pytest.mark.parametrize(
    ("noise", "why"),
    [
        ([], "no answer to @hi in 0.3 s; if the model is large.*during timed runs"),
        ([b"log\n"], "no answer to @hi in 0.3 s; if"),
        ([b"x" * 5000], "no answer to @hi in 0.3 s; if"),
        ([crc("@ok n=0 o=1")], "no answer to @hi in 0.3 s; if"),
        ([b"@\xff\n"], "noise on the line, no answer to @hi in 0.3 s; .*damaged lines: [1-9]"),
        (
            [crc("@fail where=line code=2")],
            "noise on the line, no answer to @hi though it was sent 30 times",
        ),
    ],
)
def test_silence_and_noise_without_end_are_errors(noise: list[bytes], why: str) -> None:
    class Noisy(Board):
        timeout = 0.3

        def receive(self, wait: float) -> bytes | None:
            self.lines = list(noise)
            return super().receive(wait)

    begun = time.monotonic()
    with pytest.raises(DeviceError, match=f"toy: {why}"):
        run(Noisy())
    assert time.monotonic() - begun < 5


def test_a_silent_board_is_asked_again_at_growing_intervals() -> None:
    class Deaf(Board):
        timeout = 0.3

        def send(self, data: bytes) -> None:
            assert data == b"\n" + crc("@hi")
            self.told.append("hi")

    board = Deaf()
    with pytest.raises(DeviceError):
        run(board)
    assert 3 <= len(board.told) <= 6


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time\n{code}"]


def test_a_child_is_talked_to_and_ends() -> None:
    echo = "for line in sys.stdin: print(line[::-1].strip(), flush=True)"
    with emulator.start(python(echo), board="toy", timeout=20) as board:
        for text in ("abc", "x" * 4000):
            board.send(f"{text}\n".encode())
            assert board.receive(20) == f"{text[::-1]}\n".encode()


def test_many_lines_in_one_piece_are_taken_apart() -> None:
    with emulator.start(python("print('a\\nb\\nc')"), board="toy", timeout=20) as board:
        assert [board.receive(20) for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
        board.finish()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.stderr.write('no such\\nmachine\\n'); sys.exit(3)", "status 3: no such . machine"),
        ("sys.exit(99)", "status 99: a fault of the processor, perhaps of a stack"),
        ("sys.exit(0)", "status 0: it said nothing"),
    ],
)
def test_a_child_that_leaves_is_an_error(code: str, why: str) -> None:
    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(DeviceError, match=f"^toy: .*{why}"):
        with emulator.start(python(code), board="toy", timeout=20) as board:
            started.append(board._process)
            board.receive(20)
    assert started[0].returncode is not None


@pytest.mark.parametrize("said", ["", "half a line"])
def test_a_child_that_says_nothing_has_no_line(said: str) -> None:
    code = f"sys.stdout.write({said!r}); sys.stdout.flush(); time.sleep(100)"
    with emulator.start(python(code), board="toy", timeout=0.5) as board:
        assert board.receive(0.3) is None
        with pytest.raises(DeviceError, match="toy: it takes no byte for 0.5 s"):
            board.send(b"x" * (1 << 20))


def test_a_child_that_is_gone_cannot_be_sent_to() -> None:
    with emulator.start(python("pass"), board="toy", timeout=20) as board:
        board._process.wait(20)
        with pytest.raises(DeviceError, match="toy: it ended in the middle with status 0"):
            board.send(b"x" * (1 << 20))


def test_a_child_that_does_not_end_or_ends_badly_is_an_error() -> None:
    with emulator.start(python("time.sleep(100)"), board="toy", timeout=0.5) as board:
        with pytest.raises(DeviceError, match="toy: still running 0.5 s after"):
            board.finish()
    with emulator.start(python("sys.exit(4)"), board="toy", timeout=20) as board:
        with pytest.raises(DeviceError, match="toy: it ended in the middle with status 4"):
            board.finish()


def test_a_line_without_end_comes_in_pieces() -> None:
    code = "sys.stdout.write('x' * 200000); sys.stdout.flush(); time.sleep(100)"
    with emulator.start(python(code), board="toy", timeout=20) as board:
        pieces = [board.receive(20) or b"" for _ in range(3)]
    assert all(set(piece) == {ord("x")} and len(piece) > protocol.LINE for piece in pieces)


def test_a_missing_emulator_is_an_error() -> None:
    with pytest.raises(ToolError, match="no-such-emulator: No such file .*doctor"):
        with emulator.start(["no-such-emulator"], board="toy"):
            pass
