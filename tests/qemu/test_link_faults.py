"""A measurement over a bad serial line: the right numbers or a clear error, and never a hang."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings

from edgecompress import boards
from edgecompress.building.firmware import Image
from edgecompress.errors import DeviceError
from edgecompress.measuring import device, emulator, link
from edgecompress.measuring.device import Session
from tests import small_firmware
from tests.conftest import need, nightly
from tests.faulty import EVENTS, INSERTED, TAKEN, Fault, Proxy, between, plans

SHA = "0123456789abcdef" * 4
RUNS = 2
ROWS = [
    (random.Random(row).randbytes(4), random.Random(-1 - row).randbytes(100)) for row in range(3)
]
LIMIT = 60
"""Seconds for one measurement, at the very most."""
SLOW = [Fault("delay", 300, 30)] * 30
"""On the way to the board: time to do something to a measurement that runs."""

# The model counts its runs since ec_model_init: one run too many or too few changes an output.
STATE = {
    "ec_model_status_t ec_model_init(void) {": "static uint8_t calls;\n\n"
    "ec_model_status_t ec_model_init(void) {\n    calls = 0;",
    "    for (uint32_t i = 100;": "    ec_arena[104] = (uint8_t)(ec_arena[104] + ++calls);\n"
    "    for (uint32_t i = 100;",
}


def expected(row: int) -> tuple[bytes, bytes]:
    """The outputs of ROWS[row], the run number `row` since the greeting."""
    four, hundred = ROWS[row]
    turned = bytearray(four[::-1])
    turned[0] = (turned[0] + row + 1) % 256
    return bytes((value + i) % 256 for i, value in enumerate(hundred)), bytes(turned)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    """The model's image for a board, built once."""
    folder, built = tmp_path_factory.mktemp("images"), {}

    def get(board: str) -> Image:
        for what in ("cc",) if board == "host" else ("arm-gcc", "qemu"):
            need(what)
        if board not in built:
            built[board] = small_firmware.build(folder, board, small_firmware.sources(**STATE))
        return built[board]

    return get


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Fails the test where the block takes more than LIMIT seconds."""

    def bark(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at it after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(path: str, board: str, *, timeout: float = 3, retry: float = 0.02) -> Session:
    """What the host reads from the port `path`."""
    with watchdog(), link.connect(path, board=board, baud=115200, timeout=timeout) as port:
        return device.measure(
            port,
            board=board,
            backend="aot",
            sha=SHA,
            rows=ROWS,
            runs=RUNS,
            profile=True,
            retry=retry,
        )


def measured(proxy: Proxy, image: Image, *, timeout: float = 3, retry: float = 0.02) -> Session:
    """What the host reads over the line; the numbers in it are those that the board sent."""
    session = read(proxy.path, image.board.id, timeout=timeout, retry=retry)
    check(session, proxy.said, image)
    return session


def check(session: Session, said: bytes, image: Image) -> None:
    """All numbers of `session` are right: the board `said` them, in one start of a stage."""
    known = boards.load(image.board.id)
    assert session.outputs == tuple(expected(row) for row in range(len(ROWS)))
    assert (session.hello.inputs, session.hello.outputs) == ((4, 100), (100, 4))
    assert (session.hello.scale, session.hello.hz) == (known.units_per_tick, known.hz)
    assert session.arena == 208
    lines = [line.rpartition(b" *")[0].decode("ascii", "replace") for line in said.split(b"\n")]
    starts = "\n".join(lines).split("@hello ")
    timed = [f"@run i={run} ticks={ticks}" for run, ticks in enumerate(session.ticks)]
    assert len(timed) == RUNS
    assert any(set(timed) <= set(start.split("\n")) for start in starts)
    ops = [
        f"@op i=0 t={turn} n={turn} kind={kind} ticks={op.ticks}"
        for turn, (kind, op) in enumerate(zip(("ADD", "odd%20%25kind"), session.ops, strict=True))
    ]
    assert any("\n".join(ops) in start for start in starts)


@pytest.mark.parametrize("board", ["host", "qemu_m4"])
def test_a_sound_line(board: str, images: Callable[[str], Image]) -> None:
    image = images(board)
    with between(emulator.command(image.board, image.elf)) as proxy:
        session = measured(proxy, image, retry=5)
    assert session.damaged == 0
    assert proxy.said.count(b"@run") == RUNS + len(ROWS)


@pytest.mark.parametrize(
    ("board", "examples", "wanted"),
    [("host", nightly(16, 260), nightly(60, 1200)), ("qemu_m4", nightly(3, 40), nightly(8, 150))],
)
def test_faults_of_all_kinds(
    board: str, examples: int, wanted: int, images: Callable[[str], Image]
) -> None:
    image = images(board)
    injected: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(plans(6), plans(6))
    def law(to: list[Fault], back: list[Fault]) -> None:
        with between(emulator.command(image.board, image.elf), to, back) as proxy:
            try:
                measured(proxy, image)
            except DeviceError as error:
                ends[str(error)] += 1
            else:
                ends["right"] += 1
            injected.update(proxy.injected)

    law()
    assert injected.total() >= wanted
    assert board != "host" or set(injected) == {*INSERTED, *TAKEN, *EVENTS}
    assert ends["right"] >= 0.8 * examples, ends


def after(proxy: Proxy, text: bytes, act: Callable[[], None]) -> threading.Thread:
    """Does `act`, in a thread of its own, once the board has said `text`."""

    def watch() -> None:
        deadline = time.monotonic() + LIMIT
        while text not in proxy.said and time.monotonic() < deadline:
            time.sleep(0.001)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("board", ["host", "qemu_m4"])
@pytest.mark.parametrize("when", [b"@hello", b"@run i=1", b"@op", b"@ok n=1 o=64"])
def test_a_board_that_dies_in_mid_run_is_an_error(
    board: str, when: bytes, images: Callable[[str], Image]
) -> None:
    image = images(board)
    with between(emulator.command(image.board, image.elf), SLOW) as proxy:
        thread = after(proxy, when, proxy.kill)
        with pytest.raises(
            DeviceError, match=f"{board} on /dev/.*no answer to @.* in 0.5 s; .*dur"
        ):
            measured(proxy, image, timeout=0.5)
        thread.join()


def test_an_unplugged_cable_is_an_error(
    images: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images("host")
    monkeypatch.setattr(link, "GONE", 0.3)
    with between(emulator.command(image.board, image.elf), SLOW) as proxy:
        thread = after(proxy, b"@run i=1", proxy.unplug)
        with pytest.raises(DeviceError, match="host on .*: it is gone .* in 0.3 s; is the cable"):
            measured(proxy, image)
        thread.join()


@pytest.mark.parametrize("when", [b"@hello", b"@run i=1", b"@op", b"@ok n=1 o=64"])
def test_a_cable_that_is_plugged_in_again_changes_nothing(
    when: bytes, images: Callable[[str], Image], tmp_path: Path
) -> None:
    image, place = images("host"), tmp_path / "port"
    command = emulator.command(image.board, image.elf)
    with between(command, SLOW) as first, between(command) as second:
        place.symlink_to(first.path)

        def replug() -> None:
            place.unlink()
            place.symlink_to(second.path)
            first.unplug()

        thread = after(first, when, replug)
        session = read(str(place), "host", timeout=20)
        thread.join()
        check(session, first.said + second.said, image)
        assert b"@hello" in second.said


@pytest.mark.parametrize(
    ("noise", "why"),
    [
        (
            "@" + "\xff" * 20 + "\n",
            "noise on the line, no answer to @hi in 0.5 s; .*damaged lines: ",
        ),
        ("x" * 50, "no answer to @hi in 0.5 s"),
        ("@hello proto=1 *00000000\n", "noise on the line, no answer to @hi in 0.5 s"),
    ],
)
def test_a_line_full_of_noise_is_an_error(noise: str, why: str) -> None:
    code = f"import sys\nwhile True: sys.stdout.buffer.write({noise.encode('latin-1')!r})"
    with between([sys.executable, "-c", code]) as proxy:
        with pytest.raises(DeviceError, match=f"toy on /dev/.*: {why}"):
            read(proxy.path, "toy", timeout=0.5)


class _Late:
    """A line that repeats the inputs and the start of an inference behind it, once, and damages the
    refusal that would tell of it."""

    def __init__(self, child: emulator.Child) -> None:
        self.board, self.timeout = child.board, child.timeout
        self.refused = 0
        self._child = child
        self._piece = b""
        self._greetings = 0

    def send(self, data: bytes) -> None:
        self._greetings += b"@hi" in data
        self._piece = b"" if b"@hi" in data else self._piece + data
        self._child.send(data)
        if b"@go i=0" in data and self._greetings == 3 and not self.refused:
            self._child.send(self._piece)
            self.refused = -1

    def receive(self, wait: float) -> bytes | None:
        line = self._child.receive(wait)
        if line is not None and line.startswith(b"@fail") and self.refused == -1:
            self.refused = 1
            return line.replace(b"where", b"when!")
        return line


def test_a_late_piece_is_not_taken_for_the_next_input(images: Callable[[str], Image]) -> None:
    image = images("host")
    command = emulator.command(image.board, image.elf)
    with watchdog(), emulator.start(command, board="host", timeout=5) as child:
        line = _Late(child)
        session = device.measure(
            line,
            board="host",
            backend="aot",
            sha=SHA,
            rows=ROWS,
            runs=RUNS,
            profile=True,
            retry=0.2,
        )
    assert line.refused == 1
    assert session.outputs == tuple(expected(row) for row in range(len(ROWS)))
