"""Measure a model on a board: how much an inference takes, by operator and function, and its bits.

What is measured carries its unit and its source. An emulator counts instructions, exactly; cycles
are an estimate on top of them (see `edgecompress.cycles`). Neither is a latency: that comes from
real hardware alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress import counting, cycles, device, emulator, runtimes
from edgecompress.backends import aot
from edgecompress.boards import Board
from edgecompress.counting import Part
from edgecompress.cycles import Cycles
from edgecompress.device import Session
from edgecompress.errors import ConfigError, MeasurementError, UnsupportedError
from edgecompress.evaluation import BitComparison, compare
from edgecompress.files import write_text
from edgecompress.progress import Progress, silent
from edgecompress.report import Report
from edgecompress.report.boards import BoardRow, Outputs, Timing, merged
from edgecompress.tflite import DTYPES, Program, Tensor, read

if TYPE_CHECKING:
    from edgecompress.firmware import Image

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]

CORE = "-mcpu=cortex-m4"
"""The compiler flag of the boards whose cycles are estimated."""
FILE = "measurement.json"

_SHOWN = 5
_SLACK = 4
"""Ticks that the counter may be away from the exact count: its step, its start, its reading."""


@dataclass(frozen=True)
class OpRow:
    """What operator number `op` took, in the unit of its Run.

    `layer` is the Keras layer it comes from ("" where unknown), `cycles` the estimated Cortex-M4
    cycles, None where they were not estimated.
    """

    op: int
    kind: str
    layer: str
    macs: int
    amount: int
    cycles: Cycles | None

    @property
    def per_mac(self) -> float | None:
        """Units per multiply-accumulate, None for an operator without any."""
        return self.amount / self.macs if self.macs else None


@dataclass(frozen=True, eq=False)
class Run:
    """A measurement of one image.

    `runs` is what each timed inference took, in `unit`s as `source` counted them; all are of the
    same input. `ops` is one further inference, operator by operator, and `functions` the
    instructions by C function, the largest first. `flash` and `ram` (None on this computer),
    `arena` and `stack` (None: the board cannot tell) are bytes, as in BoardRow. `outputs` is
    (N, *output_shape) in the model's own type, for the N inputs, `values` the float32 behind them;
    `bits` compares them with the TFLM interpreter's (None: not compared, the `notes` say why).
    """

    board: str
    backend: str
    name: str
    sha: str
    unit: str
    source: str
    runs: tuple[int, ...]
    ops: tuple[OpRow, ...]
    functions: tuple[tuple[str, int], ...]
    cycles: Cycles | None
    flash: int | None
    ram: int | None
    stack: int | None
    arena: int
    outputs: Array
    values: Float
    bits: BitComparison | None
    notes: tuple[str, ...]

    @property
    def per_inference(self) -> int:
        """Units of one inference: the median of the runs."""
        return statistics.median_low(self.runs)

    @property
    def spread(self) -> int:
        """Units between the least and the most of the runs."""
        return max(self.runs) - min(self.runs)

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
        return ("op", "kind", "layer", "MACs", self.unit, "per MAC", "est. cycles")

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
            )
            for row in self.ops
        ]

    def lines(self) -> list[str]:
        """What an inference took and whether its bits are right, one sentence a line."""
        told = [
            f"{self.per_inference:,} {self.unit} per inference ({self.source}; {len(self.runs)}"
            f" runs, spread {self.spread:,})"
        ]
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
                f" {self.bits.mismatch:,} further"
            )
        return told + list(self.notes)

    def table(self) -> dict[str, Any]:
        """Everything but the outputs, as JSON values."""
        row = dataclasses.asdict(self.row())
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
            timing=Timing(
                unit=self.unit,
                source=self.source,
                per_inference=self.per_inference,
                spread=self.spread,
                runs=len(self.runs),
                clock_hz=None,
                cycles_lo=None if self.cycles is None else self.cycles.lo,
                cycles_hi=None if self.cycles is None else self.cycles.hi,
            ),
            outputs=None if bits is None else Outputs(bits.exact, bits.off_by_one, bits.mismatch),
        )


def measure(
    image: Image,
    *,
    model: bytes,
    inputs: npt.ArrayLike | None = None,
    runs: int = 3,
    profile: bool = True,
    timeout: float = emulator.TIMEOUT,
    progress: Progress = silent,
) -> Run:
    """Run `image` on its board and measure it.

    `model` is the `.tflite` behind the image; `inputs` are rows (N, *input_shape) in the float
    domain of the model (None: one row, drawn with a fixed seed). The first row is timed `runs`
    times, with `profile` once more operator by operator; then every other row runs once. The
    outputs of all of them are compared with the TFLM interpreter's. `timeout` is the longest
    wait for a line in seconds.

    Raises MeasurementError where the image holds another model or the answer cannot be trusted,
    DeviceError where the board fails, UnsupportedError for a model with several inputs or outputs,
    ConfigError for rows that do not fit, ToolError for a tool that is missing or fails.
    """
    if runs < 1:
        raise ConfigError(f"runs = {runs}: measure at least 1")
    program = read(model)
    source, target = _ends(program)
    rows = _random(source) if inputs is None else np.asarray(inputs, np.float32)
    if rows.shape[1:] != source.shape[1:] or not len(rows):
        raise ConfigError(
            f"{len(rows)} rows of {list(rows.shape[1:])}: the model takes at least 1, each of"
            f" {list(source.shape[1:])}"
        )
    sha = hashlib.sha256(model).hexdigest()
    available = runtimes.available("tflm")
    job = runtimes.submit(model, rows, runtime="tflm") if available else None
    try:
        stored = [source.quantize(row).tobytes() for row in rows]
        found = _found(image, sha, stored, runs, profile, timeout, progress)
        expected, why = _expected(job)
    finally:
        if job is not None:
            job.cancel()
    kind = np.dtype(DTYPES[target.dtype].numpy)
    outputs = np.frombuffer(b"".join(found.session.outputs), kind).reshape(
        len(rows), *target.shape[1:]
    )
    if expected is not None and kind.kind not in "iu":
        expected, why = None, "they are not integers"
    bits = None if expected is None else compare(expected.reshape(outputs.shape), outputs)
    notes = found.notes if why is None else (*found.notes, f"outputs not compared: {why}")
    return Run(
        board=image.board.id,
        backend=image.backend,
        name=image.name,
        sha=sha,
        unit=image.board.unit,
        source=found.source,
        runs=found.runs,
        ops=_op_rows(image, program, found),
        functions=found.functions,
        cycles=found.cycles,
        flash=None if image.footprint is None else image.footprint.flash,
        ram=None if image.footprint is None else image.footprint.ram,
        stack=found.session.stack,
        arena=found.session.arena,
        outputs=outputs,
        values=target.dequantize(outputs),
        bits=bits,
        notes=notes,
    )


def save(run: Run, folder: Path) -> None:
    """Write <board>-<backend>/measurement.json into the run directory `folder`.

    A report.json there gets the row of this board and backend. Raises MeasurementError where that
    report is of another model.
    """
    if (folder / "report.json").is_file():
        report = Report.read(folder)
        if report.sha256 != run.sha:
            raise MeasurementError(
                f"{folder / 'report.json'}: it is of another model than the one measured; run"
                " compress again"
            )
        dataclasses.replace(report, boards=merged(report.boards, run.row())).save(folder)
    text = json.dumps(run.table(), indent=1, allow_nan=False) + "\n"
    write_text(folder / f"{run.board}-{run.backend}" / FILE, text)


def _found(
    image: Image,
    sha: str,
    rows: Sequence[bytes],
    runs: int,
    profile: bool,
    timeout: float,
    progress: Progress,
) -> _Found:
    """Run the firmware once, from its start to its end, counted as exactly as can be here."""
    board = image.board

    def talk(options: Sequence[str]) -> Session:
        command = emulator.command(board, image.elf, options)
        with emulator.start(command, board=board.id, timeout=timeout) as child:
            session = device.measure(
                child,
                board=board.id,
                backend=image.backend,
                sha=sha,
                rows=rows,
                runs=runs,
                profile=profile,
                progress=progress,
            )
            child.finish()
        return session

    if board.kind == "program":
        return _ticked(board, talk(()), None)
    why = counting.obstacle(emulator.QEMU)
    if why is not None:
        return _ticked(board, talk(()), why)
    return _counted(image, talk, runs + profile)


@dataclass(frozen=True)
class _Found:
    """What one run of the firmware gave, in the board's unit; `ops` has one entry an operator."""

    session: Session
    source: str
    runs: tuple[int, ...]
    ops: tuple[tuple[int, Cycles | None], ...]
    functions: tuple[tuple[str, int], ...] = ()
    cycles: Cycles | None = None
    notes: tuple[str, ...] = ()


def _counted(image: Image, talk: Callable[[Sequence[str]], Session], calls: int) -> _Found:
    """Measured by the counting plugin, exact to the instruction."""
    board = image.board
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as name:
        folder = Path(name)
        code = counting.disassembly(image.elf, objdump=board.compiler.replace("gcc", "objdump"))
        options = counting.option(folder, image.elf, code, qemu=emulator.QEMU, calls=calls)
        session = talk(options)
        counts = counting.counts(folder)
    if len(counts) != calls:
        raise MeasurementError(f"{board.id}: {len(counts)} inferences counted, {calls} were run")
    runs = counts[: len(session.ticks)]
    for run, ticks in zip(runs, session.ticks, strict=True):
        amount = sum(map(cycles.instructions, run))
        if abs(amount - ticks * board.units_per_tick) > _SLACK * board.units_per_tick:
            raise MeasurementError(
                f"{board.id}: the plugin counted {amount:,} instructions, the tick counter"
                f" {ticks:,} ticks of {board.scale}; they contradict each other"
            )
    parts = counts[-1] if session.ops else ()
    if parts and len(parts) != len(session.ops) + 1:
        raise MeasurementError(
            f"{board.id}: {len(parts) - 1} operators counted, the model has {len(session.ops)}"
        )
    modelled = CORE in board.flags

    def estimated(part: Part) -> Cycles | None:
        return cycles.estimate(part, code) if modelled else None

    first = runs[0][0]
    return _Found(
        session,
        source="counting plugin of QEMU, exact",
        runs=tuple(sum(map(cycles.instructions, run)) for run in runs),
        ops=tuple((cycles.instructions(part), estimated(part)) for part in parts[:-1]),
        functions=tuple(cycles.by_function(first, code).items()),
        cycles=estimated(first),
    )


def _ticked(board: Board, session: Session, why: str | None) -> _Found:
    """Measured by the board's own tick counter, in whole ticks; `why` nothing better could be."""
    scale = board.units_per_tick
    amounts = tuple(int(one.ticks * scale) for one in session.ops)
    return _Found(
        session,
        source=f"the board's tick counter, in steps of {board.scale} {board.unit}",
        runs=tuple(int(ticks * scale) for ticks in session.ticks),
        ops=tuple((amount, None) for amount in amounts),
        notes=() if why is None else (f"counted in ticks: {why}; no estimate of cycles",),
    )


def _op_rows(image: Image, program: Program, found: _Found) -> tuple[OpRow, ...]:
    """One row for each operator that the image runs."""
    if not found.ops:
        return ()
    hooked = aot.schedule(program).program if image.backend == aot.NAME else program
    kinds = [op.title for op in hooked.ops]
    told = [one.kind for one in found.session.ops]
    if kinds != told:
        raise MeasurementError(f"{image.board.id}: it ran {told}, the model has {kinds}")
    return tuple(
        OpRow(number, op.title, hooked.layer_of(op), hooked.macs_of(op), amount, estimated)
        for number, (op, (amount, estimated)) in enumerate(zip(hooked.ops, found.ops, strict=True))
    )


def _expected(job: runtimes.Job | None) -> tuple[Array | None, str | None]:
    """The outputs of the TFLM interpreter, or why there are none."""
    if job is None:
        return None, "tflite-micro is not installed (wheels: Linux, x86-64)"
    try:
        return job.result().raw, None
    except UnsupportedError as error:
        return None, str(error)


def _ends(program: Program) -> tuple[Tensor, Tensor]:
    """Input and output of a model that has one of each and a batch of 1."""
    ends = [*program.inputs, *program.outputs]
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise UnsupportedError(
            f"the model has {len(program.inputs)} inputs and {len(program.outputs)} outputs; those"
            " with one of each can be measured"
        )
    source, target = (program.tensors[index] for index in ends)
    if source.shape[:1] != (1,) or target.shape[:1] != (1,):
        raise UnsupportedError(
            f"input {list(source.shape)} and output {list(target.shape)}: models with a batch of 1"
            " can be measured; convert it so"
        )
    return source, target


def _random(source: Tensor) -> Float:
    """One row over the whole range of `source`, the same every time."""
    generator = np.random.default_rng(0)
    shape = (1, *source.shape[1:])
    if not source.scales:
        return generator.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(np.dtype(DTYPES[source.dtype].numpy))
    return source.dequantize(generator.integers(limits.min, limits.max + 1, shape))
