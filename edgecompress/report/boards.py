"""What was measured on boards, as a report carries it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecompress.report.checks import ReportError, at_least
from edgecompress.report.image import Attribution
from edgecompress.vocabulary import Optimize

TOO_LARGE = "does not fit"
"""How the note of a board begins that the model is too large for."""


@dataclass(frozen=True)
class Timing:
    """What an inference takes: `per_inference` `unit`s, the median of `runs`, as `source` counted.

    `spread` is from the least to the most of them. `clock_hz` is the clock of real hardware and
    `conditions` what else its time depends on (memories, compiler flags), None on an emulator.
    `cycles_lo` and `cycles_hi` are the ends of the estimated range of Cortex-M4 cycles (a model,
    zero wait states), None where it was not estimated.
    """

    unit: str
    source: str
    per_inference: int
    spread: int
    runs: int
    clock_hz: int | None
    conditions: str | None
    cycles_lo: int | None
    cycles_hi: int | None

    @property
    def seconds(self) -> float | None:
        """The latency of one inference, None where it was not measured: on no real hardware."""
        if self.clock_hz is None:
            return None
        return self.per_inference / (1e9 if self.unit == "nanoseconds" else self.clock_hz)

    def __post_init__(self) -> None:
        at_least(1, per_inference=self.per_inference, runs=self.runs, clock_hz=self.clock_hz)
        at_least(0, spread=self.spread)
        if (self.clock_hz is None) != (self.conditions is None):
            raise ReportError("clock_hz and conditions: one is given without the other")
        if (self.cycles_lo is None) != (self.cycles_hi is None):
            raise ReportError("cycles_lo and cycles_hi: one is given without the other")
        if (self.cycles_lo or 0) > (self.cycles_hi or 0):
            raise ReportError(f"cycles_lo = {self.cycles_lo}: more than {self.cycles_hi}")


@dataclass(frozen=True)
class Outputs:
    """Output elements against the TFLM interpreter's: equal, 1 LSB away, further."""

    exact: int
    off_by_one: int
    mismatch: int

    def __post_init__(self) -> None:
        at_least(0, exact=self.exact, off_by_one=self.off_by_one, mismatch=self.mismatch)
        at_least(1, elements=self.elements)

    @property
    def elements(self) -> int:
        """How many elements were compared."""
        return self.exact + self.off_by_one + self.mismatch


@dataclass(frozen=True)
class OpCost:
    """What one operator took, in the unit of the board's timing, and the kernel that ran ("" where
    the backend has no names for them)."""

    kernel: str
    amount: int

    def __post_init__(self) -> None:
        at_least(0, amount=self.amount)


@dataclass(frozen=True)
class Cost:
    """Bytes of flash and RAM that the model adds to an image without one, as built for the board
    `built_for`: another board of the same core, where this one's tools are not here."""

    flash: int
    ram: int
    built_for: str


@dataclass(frozen=True)
class BoardRow:
    """One board and backend: bytes of flash and RAM of the whole image (RAM without the stack),
    of the arena, and of the stack at its deepest; what an inference takes; whether the bits are
    right. None is what was not measured.

    `cost` is what the model adds, `image` what all bytes are for, `profile` what each operator of
    the report took (empty: not profiled), `note` what else there is to know, `compiler` what the
    image was built with, `optimize` what the kernels of the ahead-of-time C were chosen for.
    """

    board: str
    backend: str
    flash: int | None
    ram: int | None
    arena: int | None
    stack: int | None
    timing: Timing | None
    outputs: Outputs | None
    cost: Cost | None = None
    image: Attribution | None = None
    profile: tuple[OpCost, ...] = ()
    note: str | None = None
    compiler: str | None = None
    optimize: Optimize | None = None

    def __post_init__(self) -> None:
        at_least(0, flash=self.flash, ram=self.ram, arena=self.arena, stack=self.stack)
        if self.profile and self.timing is None:
            raise ReportError("profile: it is given without a timing, which has its unit")
        image = self.image
        if image is not None and (image.flash.total, image.ram.total) != (self.flash, self.ram):
            raise ReportError(
                f"image: its parts are {image.flash.total} bytes of flash and {image.ram.total} of"
                f" RAM, the row says {self.flash} and {self.ram}"
            )

    @property
    def key(self) -> str:
        """The board and, where it is not the ahead-of-time C, the backend: qemu_m4-tflm."""
        return self.board if self.backend == "aot" else f"{self.board}-{self.backend}"

    @property
    def found(self) -> bool:
        """Whether there is an image behind the row: built, or at least run."""
        return self.flash is not None or self.timing is not None

    @property
    def fits(self) -> bool | None:
        """Whether the board has room for the image; None where that is not known."""
        if self.note is not None and self.note.startswith(TOO_LARGE):
            return False
        return None if self.image is None else self.image.over == (0, 0)

    @property
    def estimated(self) -> bool:
        """Whether all that is known was found out on another board."""
        return not self.found and self.cost is not None


def merged(rows: tuple[BoardRow, ...], row: BoardRow) -> tuple[BoardRow, ...]:
    """`rows` with `row` in the place of the one for its board and backend, sorted by both.

    What was measured before stays where the new row is of the same image, which was only built; a
    row that is an estimate takes the place of none that is not, chosen for the same.
    """
    old = next((each for each in rows if each.key == row.key), None)
    if old is not None and old.optimize == row.optimize:
        if old.found and row.estimated:
            return rows
        built = row.image is not None and row.timing is None
        if built and old.timing is not None and old.image == row.image:
            row = replace(old, compiler=row.compiler)
    others = [each for each in rows if each.key != row.key]
    return tuple(sorted([*others, row], key=lambda each: (each.board, each.backend)))
