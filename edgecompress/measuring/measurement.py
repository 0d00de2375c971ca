"""Measure a model on a board: how much an inference takes, by operator and function, and its bits.

What is measured carries its unit and its source. An emulator counts instructions, exactly; cycles
are an estimate on top of them (see `edgecompress.measuring.cycles`). Neither is a latency: that
comes from real hardware alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from edgecompress import budget, runtimes
from edgecompress.backends import aot
from edgecompress.boards import Board
from edgecompress.errors import ConfigError, MeasurementError, StageOrderError, UnsupportedError
from edgecompress.evaluation import BitComparison, compare
from edgecompress.files import write_text
from edgecompress.measuring import counting, cycles, device, emulator, running
from edgecompress.measuring.counting import Part
from edgecompress.measuring.cycles import Cycles
from edgecompress.measuring.device import Link, Session
from edgecompress.measuring.results import Array, Float, OpRow, Run
from edgecompress.progress import Progress, silent
from edgecompress.report import Report
from edgecompress.report.boards import BoardRow, merged
from edgecompress.tflite import DTYPES, Program, Tensor, read

if TYPE_CHECKING:
    from edgecompress.building.firmware import Image

T = TypeVar("T")

CORE = "-mcpu=cortex-m4"
"""The compiler flag of the boards whose cycles are estimated."""
FILE = "measurement.json"
DRAWN = 14
"""Rows that are drawn where none are given."""

_SLACK = 4
"""Ticks that the counter may be away from the exact count: its step, its start, its reading."""


def measure(
    image: Image,
    *,
    inputs: npt.ArrayLike | tuple[npt.ArrayLike, ...] | None = None,
    runs: int = 3,
    profile: bool = True,
    flash: bool = False,
    port: str | None = None,
    timeout: float = emulator.TIMEOUT,
    progress: Progress = silent,
) -> Run:
    """Run `image` on its board and measure it.

    With `flash`, and always on a real board, PlatformIO puts the image there and the line to it is
    a serial port: `port`, or the one with the board's USB ids. Without, an emulated board is a
    child process.

    `inputs` are rows (N, *input_shape) in the float domain of the model, a tuple with such an
    array for each input where it has several (None: a few rows, drawn with a fixed seed, and those
    of all lowest and all highest values). The first row is timed `runs` times, with `profile` once
    more operator by operator; then every row runs once. The outputs of all of them are compared
    with the TFLM interpreter's. `timeout` is the longest wait for an answer in
    seconds.

    Raises MeasurementError where the image holds another model or the answer cannot be trusted,
    DeviceError where the board fails, StageOrderError for an image without its `.tflite`,
    UnsupportedError for a model whose batch is not 1, ConfigError for rows that do not fit,
    ToolError for a tool that is missing or fails.
    """
    if runs < 1:
        raise ConfigError(f"runs = {runs}: measure at least 1")
    if image.tflite is None:
        raise StageOrderError(
            f"measure: {image.name} comes without the .tflite to judge it by; give it to"
            " firmware.build"
        )
    program = read(image.tflite)
    sources, targets = _ends(program)
    rows = _rows(sources, inputs)
    stored = [source.quantize(given) for source, given in zip(sources, rows, strict=True)]
    sent = [tuple(array.tobytes() for array in row) for row in zip(*stored, strict=True)]
    sha = hashlib.sha256(image.tflite).hexdigest()
    with _oracle(image.tflite, rows) as expected:
        with_board = _start(image, flash=flash, port=port, timeout=timeout, progress=progress)
        found = _found(image, with_board, sha, sent, runs, profile, progress)
        outputs = _outputs(targets, found.session)
        bits, notes = _compared(outputs, expected())
    return Run(
        board=image.board.id,
        backend=image.backend,
        name=image.name,
        sha=sha,
        unit=image.board.unit,
        source=found.source,
        clock_hz=image.board.clock_hz,
        conditions=image.conditions,
        runs=found.runs,
        ops=_op_rows(image, program, found),
        functions=found.functions,
        cycles=found.cycles,
        image=image.footprint,
        cost=image.cost,
        compiler=image.compiler,
        optimize=image.chosen_for,
        stack=found.session.stack,
        arena=found.session.arena,
        outputs=outputs,
        values=tuple(
            target.dequantize(output) for target, output in zip(targets, outputs, strict=True)
        ),
        bits=bits,
        notes=(*found.notes, *_line_notes(found.session), *notes),
    )


def report_in(folder: Path, *, sha: str) -> Report | None:
    """The report in the run directory `folder`, None where there is none.

    Raises MeasurementError where it is of another model than the one whose SHA-256 is `sha` (hex).
    """
    if not (folder / "report.json").is_file():
        return None
    report = Report.read(folder)
    if report.sha256 != sha:
        raise MeasurementError(
            f"{folder / 'report.json'}: it is of another model than the one measured; run"
            " compress again"
        )
    return report


def put(report: Report, *rows: BoardRow) -> Report:
    """`report` with `rows` among its boards (see `merged`), judged anew."""
    boards = report.boards
    for row in rows:
        boards = merged(boards, row)
    return budget.again(dataclasses.replace(report, boards=boards))


def save(run: Run, folder: Path) -> None:
    """Write <board>-<backend>/measurement.json into the run directory `folder`.

    A report.json there gets the row of this board and backend, and is judged with it. Raises like
    `report_in`.
    """
    report = report_in(folder, sha=run.sha)
    if report is not None:
        put(report, run.row()).save(folder)
    write(run, folder)


def write(run: Run, folder: Path) -> None:
    """Write <board>-<backend>/measurement.json into the run directory `folder`."""
    text = json.dumps(run.table(), indent=1, allow_nan=False) + "\n"
    write_text(folder / f"{run.board}-{run.backend}" / FILE, text)


Start: TypeAlias = Callable[[Sequence[str]], AbstractContextManager[Link]]
"""Starts the image, under QEMU with these further options; the line to it."""


def _start(
    image: Image, *, flash: bool, port: str | None, timeout: float, progress: Progress
) -> Start:
    kind = image.board.kind
    running.check_port(image.board, port)
    if kind == "program" or (kind == "emulator" and not flash):
        return functools.partial(running.child, image, timeout=timeout)
    return functools.partial(running.flashed, image, port=port, timeout=timeout, progress=progress)


def _found(
    image: Image,
    start: Start,
    sha: str,
    rows: Sequence[Sequence[bytes]],
    runs: int,
    profile: bool,
    progress: Progress,
) -> _Found:
    """Run the firmware once, from its start to its end, counted as exactly as can be here."""
    board = image.board

    def talk(options: Sequence[str]) -> Session:
        with start(options) as link:
            session = device.measure(
                link,
                board=board.id,
                backend=image.backend,
                sha=sha,
                rows=rows,
                runs=runs,
                profile=profile,
                progress=progress,
            )
        _check_clock(board, session)
        return session

    if board.kind != "emulator":
        return _ticked(board, talk(()), None)
    why = counting.obstacle(emulator.QEMU)
    if why is not None:
        return _ticked(board, talk(()), why)
    return _counted(image, talk, runs + profile)


def _check_clock(board: Board, session: Session) -> None:
    """Ticks of a firmware built for another clock would be taken for something else."""
    hello = session.hello
    if (hello.unit, hello.scale, hello.hz) != (board.unit, board.units_per_tick, board.hz):
        raise MeasurementError(
            f"{board.id}: the firmware there counts ticks of {hello.scale} {hello.unit}"
            f" ({hello.hz} Hz), board.toml says {board.scale} {board.unit} ({board.hz} Hz); build"
            " and flash it again"
        )


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
        ops=tuple(
            (cycles.instructions(part), estimated(part))
            for part in _by_op(session, parts[: len(session.ops)], ())
        ),
        functions=tuple(cycles.by_function(first, code).items()),
        cycles=estimated(first),
    )


def _by_op(session: Session, pieces: Sequence[T], none: T) -> list[T]:
    """What each operator took: the sum of its `pieces`, which are as `session.ops`."""
    found = [none] * (max((one.op for one in session.ops), default=-1) + 1)
    for one, piece in zip(session.ops, pieces, strict=True):
        found[one.op] = found[one.op] + piece  # type: ignore[operator]
    return found


def _ticked(board: Board, session: Session, why: str | None) -> _Found:
    """Measured by the board's own tick counter, in whole ticks; `why` nothing better could be."""
    scale = board.units_per_tick
    ticks = _by_op(session, [one.ticks for one in session.ops], 0)
    amounts = tuple(int(each * scale) for each in ticks)
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
    hooked, places, kernels = _hooked(image, program)
    kinds = [op.title for op in hooked.ops]
    told = [kind for _, kind in sorted({(one.op, one.kind) for one in found.session.ops})]
    if kinds != told:
        raise MeasurementError(f"{image.board.id}: it ran {told}, the model has {kinds}")
    return tuple(
        OpRow(
            number,
            places[number],
            op.title,
            hooked.layer_of(op),
            hooked.macs_of(op),
            amount,
            estimated,
            *kernels.get(number, ("", "")),
        )
        for number, (op, (amount, estimated)) in enumerate(zip(hooked.ops, found.ops, strict=True))
    )


def _hooked(
    image: Image, program: Program
) -> tuple[Program, Sequence[int], dict[int, tuple[str, str]]]:
    """The program whose operators call the hook, and their places in the file; operator -> its
    kernel, and why that one."""
    if image.backend != aot.NAME:
        return program, range(len(program.ops)), {}
    planned = aot.schedule(program, core=image.board.core, optimize=image.optimize)
    kernels = {step.op: (step.call.function, step.why) for step in planned.steps}
    return planned.program, aot.places(program, planned), kernels


def _line_notes(session: Session) -> tuple[str, ...]:
    if not session.damaged:
        return ()
    return (f"{session.damaged} lines came damaged and were asked for again; is the cable sound?",)


Expected: TypeAlias = tuple[Array, ...] | str
"""The outputs of the TFLM interpreter, or why there are none."""


@contextlib.contextmanager
def _oracle(model: bytes, rows: tuple[Float, ...]) -> Iterator[Callable[[], Expected]]:
    """The TFLM interpreter at work on `rows`; to be asked for what is expected, once."""
    if not runtimes.available("tflm"):
        yield lambda: "tflite-micro is not installed (wheels: Linux, x86-64)"
        return
    try:
        job = runtimes.submit(model, rows, runtime="tflm")
    except UnsupportedError as error:
        why = str(error)
        yield lambda: why
        return

    def wait() -> Expected:
        try:
            return job.result().outputs
        except UnsupportedError as error:
            return str(error)

    try:
        yield wait
    finally:
        job.cancel()


def _compared(
    outputs: tuple[Array, ...], expected: Expected
) -> tuple[BitComparison | None, tuple[str, ...]]:
    """The integers among the outputs bit by bit, and in words what else there is to say."""
    if isinstance(expected, str):
        return None, (f"outputs not compared: {expected}",)
    flat = (map(np.ravel, side) for side in (expected, outputs))
    pairs = list(zip(*flat, strict=True))
    whole = [pair for pair in pairs if pair[1].dtype.kind != "f"]
    floats = [pair for pair in pairs if pair[1].dtype.kind == "f"]
    bits = None
    if whole:
        want, got = (np.concatenate(side).astype(np.int64) for side in zip(*whole, strict=True))
        bits = compare(want, got)
    if not floats:
        return bits, ()
    want, got = (np.concatenate(side) for side in zip(*floats, strict=True))
    same = np.isclose(got, want, rtol=0, atol=0, equal_nan=True)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(got - want)).max()
    return bits, (
        f"float outputs against the TFLM interpreter: {same.sum():,} of {same.size:,} equal"
        + ("" if same.all() else f", the others at most {apart:.2g} away"),
    )


def _outputs(targets: Sequence[Tensor], session: Session) -> tuple[Array, ...]:
    """Each output of the model, (N, *output_shape) in its own type."""
    return tuple(
        np.frombuffer(b"".join(parts), DTYPES[target.dtype].numpy).reshape(-1, *target.shape[1:])
        for target, parts in zip(targets, zip(*session.outputs, strict=True), strict=True)
    )


def _ends(program: Program) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a model with a batch of 1."""
    sources, targets = (
        [program.tensors[index] for index in side] for side in (program.inputs, program.outputs)
    )
    for tensor in (*sources, *targets):
        if tensor.shape[:1] != (1,):
            raise UnsupportedError(
                f"{tensor.name} {list(tensor.shape)}: models whose inputs and outputs have a batch"
                " of 1 can be measured; convert it so"
            )
    return sources, targets


def _rows(
    sources: Sequence[Tensor], inputs: npt.ArrayLike | tuple[npt.ArrayLike, ...] | None
) -> tuple[Float, ...]:
    """The rows of each input, (N, *input_shape)."""
    if inputs is None:
        generator = np.random.default_rng(0)
        return tuple(_drawn(source, generator) for source in sources)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(given) != len(sources):
        raise ConfigError(f"rows for {len(given)} inputs: the model has {len(sources)}")
    rows = tuple(np.atleast_1d(np.asarray(each, np.float32)) for each in given)
    for source, each in zip(sources, rows, strict=True):
        if each.shape[1:] != source.shape[1:] or not 0 < len(each) == len(rows[0]):
            raise ConfigError(
                f"{len(each)} rows of {list(each.shape[1:])}: the model takes at least 1, each of"
                f" {list(source.shape[1:])}, and as many for each input"
            )
    return rows


def _drawn(source: Tensor, generator: np.random.Generator) -> Float:
    """DRAWN rows over the whole range of `source`, one at its lowest and one at its highest."""
    shape = (DRAWN, *source.shape[1:])
    if not source.scales:
        drawn = generator.standard_normal(shape)
        ends = [np.full(shape[1:], end) for end in (drawn.min(), drawn.max())]
        return np.asarray(np.stack([*drawn, *ends]), np.float32)
    limits = np.iinfo(np.dtype(DTYPES[source.dtype].numpy))
    whole = generator.integers(limits.min, limits.max + 1, shape)
    ends = [np.full(shape[1:], end) for end in (limits.min, limits.max)]
    return source.dequantize(np.stack([*whole, *ends]))
