"""docs/boards.md: every board, from its board.toml and its environment in platformio.ini."""

from __future__ import annotations

import re

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import platformio
from edgecompress.measuring.measurement import CORE
from edgecompress.report import markdown
from edgecompress.report.boards import BoardRow, Outputs, Timing

HEADINGS = ("board", "what it is", "core clock", "memory", "measures")
MODEL = "kws"

_HEAD = """\
# Boards

Made by `edgecompress boards --markdown` from `firmware/boards/*/board.toml` and
`firmware/platformio.ini`.
"""
_REAL = """\
## Real boards

`edgecompress flash MODEL --board BOARD` builds the firmware through PlatformIO, uploads it, runs it
and reads the measurement back; `edgecompress doctor --board BOARD` says what this machine lacks for
it. The board is found by its USB ids, before anything is uploaded; where two of a kind are
connected, `--port` says which.

Ticks are counted with interrupts on, because the line to the computer needs them: what they take is
part of the figure, and several runs (`edgecompress measure`) show how much it varies. At start the
counter is held against a loop of known length and against the core's microseconds; where it is not
what board.toml says, nothing is measured. A wrong crystal goes unseen where counter and
microseconds come from one clock, as on STM32 and Teensy boards. An inference of more than 2^32
ticks is refused too.
"""
_EMULATED = """\
## Without a board

QEMU and this computer need nothing connected and nothing pressed. Instructions are counted exactly;
they are no latency.
"""
_SOURCES = {
    "dwt": "the core's cycle counter (DWT)",
    "micros": "the Arduino core's microseconds, which are coarse: time several runs",
}
_CORES = {
    "plain": "a core without SIMD instructions",
    "dsp": "the DSP instructions of the Armv7E-M",
    "mve": "Helium (MVE)",
}
_GAP = "..."
_ANY = 1234567
"""A number that stands for any in what is printed."""
_MEASURED = re.compile(rf"{_ANY:,}|[\d.,]+(?= ms )")


def page() -> str:
    """docs/boards.md as a whole."""
    every = [boards.load(name) for name in boards.names()]
    real = [board for board in every if board.kind == "serial"]
    others = [board for board in every if board.kind != "serial"]
    parts = [
        _HEAD,
        f"{markdown.grid(HEADINGS, [_row(board) for board in [*real, *others]])}\n",
        _REAL,
    ]
    parts += [_section(board) for board in real]
    parts += [_EMULATED, *(_section(board) for board in others)]
    return "\n".join(parts)


def _row(board: Board) -> tuple[str, ...]:
    link = f"[{board.id}](#{board.id})"
    return link, board.title, _clock(board), board.memory, board.unit


def _clock(board: Board) -> str:
    return "" if board.clock_hz is None else f"{board.clock_hz / 1e6:g} MHz"


def _section(board: Board) -> str:
    facts = _facts(board)
    shape = "\n".join(("```", f"$ edgecompress flash {MODEL} --board {board.id}", *_shape(board)))
    return f"### {board.id}\n\n{board.title}.\n\n{markdown.grid(('', ''), facts)}\n\n{shape}\n```\n"


def _facts(board: Board) -> list[tuple[str, str]]:
    platform, known_as, tflm = (
        platformio.option(firmware_folder(), board.id, key)
        for key in ("platform", "board", "custom_tflm")
    )
    library = f"`{tflm}`, or " if tflm else ""
    facts = {
        "connect": board.connect,
        "press": board.press,
        "note": board.note,
        "USB ids": " or ".join(f"`{one}`" for one in board.running_ids),
        "in the bootloader": board.bootloader and f"`{board.bootloader}`",
        "upload": board.loader and "also where the board has no port: its loader needs none",
        "memory": board.memory and f"{board.memory} for the program",
        "core clock": _clock(board),
        "memory speed": board.memory_speed,
        "ticks": board.ticks and _SOURCES[board.ticks],
        "machine": board.machine and f"QEMU's {board.machine}",
        "kernels": board.kind != "program" and f"for {_CORES[board.core]}",
        "backends": f"`aot`; `tflm` with {library}the TFLite Micro that `TFLM_DIR` names",
        "PlatformIO": known_as and f"{platform}, board {known_as}",
    }
    return [(name, text) for name, text in facts.items() if text]


def _shape(board: Board) -> list[str]:
    """What flashing prints at its end, numbers left out."""
    emulated, real = board.kind == "emulator", board.clock_hz is not None
    timing = Timing(
        unit=board.unit,
        source=_GAP,
        per_inference=_ANY,
        spread=_ANY,
        runs=1,
        clock_hz=board.clock_hz,
        conditions=f"{board.memory_speed}; {_GAP}" if real else None,
        cycles_lo=_ANY if CORE in board.flags else None,
        cycles_hi=_ANY if CORE in board.flags else None,
    )
    size = None if board.kind == "program" else _ANY
    row = BoardRow(
        board=board.id,
        backend="aot",
        flash=size,
        ram=size,
        arena=_ANY,
        stack=_ANY if emulated else None,
        timing=timing,
        outputs=Outputs(_ANY, _ANY, _ANY),
    )
    width = max(map(len, markdown.BOARD_HEADINGS)) + 2
    lines = [f"{MODEL}, backend aot, on {board.id}", "measured"]
    for heading, cell in zip(markdown.BOARD_HEADINGS, markdown.board(row), strict=True):
        lines.append(f"{heading:<{width}}{_MEASURED.sub(_GAP, cell)}".rstrip())
    return lines
