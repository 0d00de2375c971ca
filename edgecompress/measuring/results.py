"""What a measurement gave: amounts by operator and function, memory, outputs and their bits."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.errors import MeasurementError
from edgecompress.evaluation import BitComparison
from edgecompress.measuring import cycles
from edgecompress.measuring.cycles import Cycles
from edgecompress.report import markdown
from edgecompress.report.boards import BoardRow, Cost, OpCost, Outputs, Timing
from edgecompress.report.image import Attribution
from edgecompress.vocabulary import Optimize

if TYPE_CHECKING:
    from edgecompress.building.firmware import Image

Array: TypeAlias = npt.NDArray[Any]
Float: TypeAlias = npt.NDArray[np.float32]

_SHOWN = 5


@dataclass(frozen=True)
class OpRow:
    """What operator number `op` of the image took, in the unit of its Run.

    `place` is its place in the flatbuffer, of which the image may lack operators that became part
    of others. `layer` is the Keras layer it comes from ("" where unknown), `cycles` the estimated
    Cortex-M4 cycles, None where they were not estimated. `kernel` is the function that ran (""
    where none did), `why` why this one was chosen ("" where there was no choice).
    """

    op: int
    place: int
    kind: str
    layer: str
    macs: int
    amount: int
    cycles: Cycles | None
    kernel: str
    why: str

    @property
    def per_mac(self) -> float | None:
        """Units per multiply-accumulate, None for an operator without any."""
        return self.amount / self.macs if self.macs else None


@dataclass(frozen=True, eq=False)
class Run:
    """A measurement of one image.

    On real hardware `clock_hz` is the clock of its core and `conditions` what else the time depends
    on: how fast its memories are, the compiler's flags; both are None elsewhere. `runs` is what
    each timed inference took, in `unit`s as `source` counted them; all are of the same input. `ops`
    is one further inference, operator by operator, and `functions` the instructions by C function,
    the largest first. `image` is what its bytes are for and `cost` what the model adds (None on
    this computer), `compiler` what built it, `optimize` what its kernels were chosen for (None:
    the backend knows no choice). `arena` and `stack` (None: the board cannot tell) are
    bytes, as in BoardRow. `outputs` has each output of the model,
    (N, *output_shape) in its own type, for the N rows, `values` the float32 behind them; `bits`
    compares the integers among them with the TFLM interpreter's (None: not compared, the `notes`
    say why).
    """

    board: str
    backend: str
    name: str
    sha: str
    unit: str
    source: str
    clock_hz: int | None
    conditions: str | None
    runs: tuple[int, ...]
    ops: tuple[OpRow, ...]
    functions: tuple[tuple[str, int], ...]
    cycles: Cycles | None
    image: Attribution | None
    cost: Cost | None
    compiler: str | None
    optimize: Optimize | None
    stack: int | None
    arena: int
    outputs: tuple[Array, ...]
    values: tuple[Float, ...]
    bits: BitComparison | None
    notes: tuple[str, ...]

    @property
    def flash(self) -> int | None:
        """Bytes of flash of the whole image, None on this computer."""
        return None if self.image is None else self.image.flash.total

    @property
    def ram(self) -> int | None:
        """Bytes of RAM of the whole image without the stack, None on this computer."""
        return None if self.image is None else self.image.ram.total

    @property
    def profile(self) -> tuple[OpCost, ...]:
        """What each operator of the flatbuffer took; empty without a profile."""
        known = {op.place: OpCost(op.kernel, op.amount) for op in self.ops}
        return tuple(known.get(place, OpCost("", 0)) for place in range(max(known, default=-1) + 1))

    @property
    def per_inference(self) -> int:
        """Units of one inference: the median of the runs."""
        return statistics.median_low(self.runs)

    @property
    def spread(self) -> int:
        """Units between the least and the most of the runs."""
        return max(self.runs) - min(self.runs)

    @property
    def timing(self) -> Timing:
        """What an inference takes, as a report shows it."""
        return Timing(
            unit=self.unit,
            source=self.source,
            per_inference=self.per_inference,
            spread=self.spread,
            runs=len(self.runs),
            clock_hz=self.clock_hz,
            conditions=self.conditions,
            cycles_lo=None if self.cycles is None else self.cycles.lo,
            cycles_hi=None if self.cycles is None else self.cycles.hi,
        )

    @property
    def rest(self) -> int:
        """Units of the first run outside of the operators.

        Less than 0 where the compiler tests for the profile's hook once for several operators
        that move nothing, so that each of them takes an instruction or two only under the hook.
        """
        return self.runs[0] - sum(op.amount for op in self.ops) if self.ops else 0

    @property
    def layers(self) -> dict[str, int]:
        """Keras layer -> units of its operators together, in the order in which they run."""
        found: dict[str, int] = {}
        for op in self.ops:
            found[op.layer] = found.get(op.layer, 0) + op.amount
        return found

    @property
    def headings(self) -> tuple[str, ...]:
        """Of the columns of `rows`."""
        return ("op", "kind", "layer", "MACs", self.unit, "per MAC", "est. cycles", "kernel")

    def rows(self) -> list[tuple[str, ...]]:
        """The profile under `headings`, one row an operator."""
        return [
            (
                str(row.op),
                row.kind,
                row.layer,
                f"{row.macs:,}" if row.macs else "",
                f"{row.amount:,}",
                "" if row.per_mac is None else f"{row.per_mac:.2f}",
                "" if row.cycles is None else f"{row.cycles.lo:,}..{row.cycles.hi:,}",
                row.kernel,
            )
            for row in self.ops
        ]

    def choices(self) -> list[str]:
        """Why each operator has its kernel, where there was a choice, one line an operator."""
        return [f"{row.op} {row.kernel}: {row.why}" for row in self.ops if row.why]

    def lines(self) -> list[str]:
        """What an inference took and whether its bits are right, one sentence a line."""
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        told = [
            f"{self.per_inference:,} {self.unit} per inference ({self.source}; {runs}, spread"
            f" {self.spread:,})"
        ]
        if self.clock_hz is not None:
            told.append(f"latency {markdown.latency(self.timing)}")
        if self.cycles is not None:
            told.append(f"Cortex-M4: {self.cycles.lo:,} to {self.cycles.hi:,} {cycles.NAME}")
        if self.functions:
            largest = (
                f"{name} {amount:,} ({amount / self.runs[0]:.0%})"
                for name, amount in self.functions[:_SHOWN]
            )
            told.append(f"by function: {', '.join(largest)}")
        stack = "not measured" if self.stack is None else f"{self.stack:,} bytes"
        told.append(f"arena {self.arena:,} bytes, stack {stack} (the application's included)")
        if self.bits is not None:
            told.append(
                f"outputs against the TFLM interpreter: {self.bits.exact:,} of"
                f" {self.bits.elements:,} equal, {self.bits.off_by_one:,} off by one,"
                f" {self.bits.mismatch:,} further ({len(self.outputs[0]):,} rows)"
            )
        return told + list(self.notes)

    def check(self) -> None:
        """Raise MeasurementError where bits differ from those of the TFLM interpreter."""
        bits = self.bits
        if bits is not None and bits.exact != bits.elements:
            raise MeasurementError(
                f"{self.board}: {bits.elements - bits.exact:,} of {bits.elements:,} outputs of"
                f" {self.name} differ from the TFLM interpreter's, by up to {bits.max_diff:,}; do"
                " not use this image, and report the model"
            )

    def table(self) -> dict[str, Any]:
        """Everything but the outputs and the image's symbols, as JSON values."""
        row = dataclasses.asdict(dataclasses.replace(self.row(), image=None, profile=()))
        for elsewhere in ("image", "profile", "note"):
            del row[elsewhere]
        ops = [
            {
                **dataclasses.asdict(op),
                "per_mac": op.per_mac,
                "cycles": None if op.cycles is None else list(op.cycles),
            }
            for op in self.ops
        ]
        return {
            "name": self.name,
            "sha256": self.sha,
            **row,
            "each_run": list(self.runs),
            "ops": ops,
            "rest": self.rest,
            "seconds": self.timing.seconds,
            "layers": self.layers,
            "functions": dict(self.functions),
            "notes": list(self.notes),
        }

    def row(self) -> BoardRow:
        """This run as a report shows it."""
        bits = self.bits
        return BoardRow(
            board=self.board,
            backend=self.backend,
            flash=self.flash,
            ram=self.ram,
            arena=self.arena,
            stack=self.stack,
            timing=self.timing,
            outputs=None if bits is None else Outputs(bits.exact, bits.off_by_one, bits.mismatch),
            cost=self.cost,
            image=self.image,
            profile=self.profile,
            compiler=self.compiler,
            optimize=self.optimize,
        )


def built(image: Image, note: str | None = None) -> BoardRow:
    """An image that was built and not run, as a report shows it."""
    found = image.footprint
    return BoardRow(
        board=image.board.id,
        backend=image.backend,
        flash=None if found is None else found.flash.total,
        ram=None if found is None else found.ram.total,
        arena=None if found is None else found.ram.arena,
        stack=None,
        timing=None,
        outputs=None,
        cost=image.cost,
        image=found,
        note=note,
        compiler=image.compiler,
        optimize=image.chosen_for,
    )
