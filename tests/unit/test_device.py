"""The conversation with a board, and the child process it runs in: a board played by Python."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Sequence

import pytest

from edgecompress import device, emulator
from edgecompress.errors import DeviceError, MeasurementError, ToolError

SHA = "ab" * 32
HELLO = (
    f"@hello proto=1 board=toy model=m sha={SHA} backend=aot inputs=70 outputs=65 ops=2"
    " arena=128 unit=instructions scale=40 hz=0"
)
ANSWER = [
    "@run i=0 ticks=5",
    f"@out i=0 n=0 o=0 hex={'01' * 64}",
    "@out i=0 n=0 o=64 hex=02",
    "@mem stack=300 arena=128",
    "@end code=0",
]
OPS = ["@op i=0 n=0 kind=CONV_2D ticks=4", "@op i=0 n=1 kind=RESHAPE ticks=0"]
ROW = b"\x07" * 70


class Board:
    """Answers each command with the lines of `script` under its word; log lines between them."""

    board = "toy"

    def __init__(self, **script: Sequence[str]) -> None:
        self.script = {
            "hi": [HELLO],
            "go profile=0": ANSWER,
            "go profile=1": OPS + ANSWER[1:],
            "bye": ["@end code=0"],
        }
        self.script.update({key.replace("_", " profile="): list(v) for key, v in script.items()})
        self.got = b""
        self.told: list[str] = []
        self.lines: list[bytes] = []

    def send(self, data: bytes) -> None:
        text = data.decode().rpartition(" *")[0][1:]
        if text.startswith("in "):
            fields = dict(item.split("=") for item in text.split()[1:])
            self.got += bytes.fromhex(fields["hex"])
            answer = self.script.get("in") or [
                f"@ok o={int(fields['o']) + len(fields['hex']) // 2}"
            ]
        else:
            answer = self.script[text]
            self.told.append(text)
        self.lines = [b"log\n", *map(crc, answer)]

    def receive(self) -> bytes:
        return self.lines.pop(0)


def crc(text: str) -> bytes:
    return f"{text} *{zlib.crc32(text.encode()):08x}\n".encode()


def run(board: Board, *, profile: bool = True) -> device.Session:
    return device.measure(
        board, board="toy", backend="aot", sha=SHA, rows=[(ROW,), (ROW,)], runs=3, profile=profile
    )


def test_a_whole_measurement() -> None:
    board = Board()
    found = run(board)
    assert found.ticks == (5, 5, 5)
    assert [(op.kind, op.ticks) for op in found.ops] == [("CONV_2D", 4), ("RESHAPE", 0)]
    assert found.outputs == ((b"\x01" * 64 + b"\x02",),) * 2
    assert (found.stack, found.arena) == (300, 128)
    assert board.got == ROW * 6
    # The model starts afresh for each part: a state left by one would change the next outputs.
    timed, profiled, every = ["go profile=0"] * 3, ["go profile=1"], ["go profile=0"] * 2
    assert board.told == ["hi", *timed, "hi", *profiled, "hi", *every, "bye"]
    assert run(Board(), profile=False).ops == ()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"hi": [HELLO.replace(SHA, "cd" * 32)]}, "says model SHA-256 cdcd.*, expected is abab"),
        ({"hi": [HELLO.replace("board=toy", "board=other")]}, "says board other, expected is toy"),
        ({"hi": [HELLO.replace("=aot", "=tflm")]}, "says backend tflm, expected is aot"),
        ({"hi": [HELLO.replace("inputs=70", "inputs=71")]}, "takes inputs of \\[71\\] bytes"),
        ({"hi": ["@end code=0"]}, "it sent End.* where Hello is due"),
        ({"in": ["@ok o=1"]}, "goes on at byte 1, expected is 64"),
        (
            {"go_0": ["@run i=0 ticks=0", *ANSWER[1:]]},
            "took 0 ticks; .* shorter than one tick of 40 instructions",
        ),
        ({"go_0": ANSWER[1:]}, "it sent Out.* where Timed is due"),
        ({"go_0": [ANSWER[0], *ANSWER[2:]]}, "bytes 64 and on of output 0 where byte 0"),
        ({"go_0": [*ANSWER[:2], *ANSWER[1:]]}, "bytes 0 and on of output 0 where byte 64"),
        ({"go_0": [*ANSWER[:2], ANSWER[2] + "03", *ANSWER[3:]]}, "where byte 64 of output 0"),
        ({"go_0": ANSWER[:2] + ANSWER[3:]}, "it sent Memory.* where Out is due"),
        ({"go_0": [*ANSWER[:4], "@ok o=1"]}, "it sent Ok.* where End is due"),
        ({"go_1": [OPS[1], *ANSWER[1:]]}, "it sent Out.* where OpTimed is due"),
        ({"go_1": [*OPS, OPS[1].replace("n=1", "n=2"), *ANSWER[1:]]}, "operator 2 of 2"),
        ({"go_1": [OPS[0], *ANSWER[1:]]}, "it sent Out.* where OpTimed is due"),
    ],
)
def test_what_cannot_be_trusted_is_refused(script: dict[str, Sequence[str]], why: str) -> None:
    with pytest.raises(MeasurementError, match=f"toy: .*{why}"):
        run(Board(**script))


def test_a_failure_of_the_board_is_passed_on() -> None:
    with pytest.raises(DeviceError, match=r"toy: .*phase invoke, code 6"):
        run(Board(go_0=["@fail where=invoke code=6"]))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time\n{code}"]


def test_a_child_is_talked_to_and_ends() -> None:
    echo = "for line in sys.stdin: print(line[::-1].strip(), flush=True)"
    with emulator.start(python(echo), board="toy", timeout=20) as board:
        for text in ("abc", "x" * 50000):
            board.send(f"{text}\n".encode())
            assert board.receive() == f"{text[::-1]}\n".encode()


def test_many_lines_in_one_piece_are_taken_apart() -> None:
    with emulator.start(python("print('a\\nb\\nc')"), board="toy", timeout=20) as board:
        assert [board.receive() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
        board.finish()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.stderr.write('no such\\nmachine\\n'); sys.exit(3)", "status 3: no such . machine"),
        ("sys.exit(99)", "status 99: a fault of the processor, perhaps of a stack"),
        ("sys.exit(0)", "status 0: it said nothing"),
        ("time.sleep(100)", "no answer in 0.5 s"),
        ("sys.stdout.write('half a line'); sys.stdout.flush(); time.sleep(100)", "no answer in"),
    ],
)
def test_a_child_that_says_nothing_is_an_error(code: str, why: str) -> None:
    limit = 0.5 if "sleep" in code else 20
    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(DeviceError, match=f"^toy: .*{why}"):
        with emulator.start(python(code), board="toy", timeout=limit) as board:
            started.append(board._process)
            board.receive()
    assert started[0].returncode is not None


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


def test_an_endless_line_is_an_error() -> None:
    code = "sys.stdout.write('x' * 200000); sys.stdout.flush(); time.sleep(100)"
    with emulator.start(python(code), board="toy", timeout=20) as board:
        with pytest.raises(MeasurementError, match="toy: a line of more than 65536 bytes"):
            board.receive()


def test_a_missing_emulator_is_an_error() -> None:
    with pytest.raises(ToolError, match="no-such-emulator: No such file .*doctor"):
        with emulator.start(["no-such-emulator"], board="toy"):
            pass
