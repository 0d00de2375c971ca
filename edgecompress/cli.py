"""The command line: the only module that prints or exits.

Exit codes: 0 done, 1 an error of the input or a tool, 2 wrong usage or configuration, 3 over
budget, 70 a bug of ours, 130 interrupted (SIGTERM included).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, get_args

import edgecompress
from edgecompress.errors import EdgeCompressError, ToolError
from edgecompress.progress import Progress, silent
from edgecompress.vocabulary import (
    BACKENDS,
    CALIBRATIONS,
    METRICS,
    MODES,
    OPTIMIZE,
    REPAIRS,
    SCORE_NAMES,
    Scope,
)

if TYPE_CHECKING:
    from edgecompress.artifact import Artifact
    from edgecompress.data import Float
    from edgecompress.firmware import Image
    from edgecompress.measurement import Run
    from edgecompress.report import Report

BUG, INTERRUPTED = 70, 130
Command: TypeAlias = Callable[[argparse.Namespace, "Terminal"], None]


class Terminal:
    """Where the answers go (stdout) and where talk and progress go (stderr)."""

    def __init__(self, out: IO[str], err: IO[str], *, talk: bool) -> None:
        self.out, self.err, self.talk = out, err, talk

    def say(self, text: str = "") -> None:
        """One line of the answer."""
        print(text, file=self.out, flush=True)

    def note(self, text: str) -> None:
        """One line beside the answer."""
        print(text, file=self.err, flush=True)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1
    ) -> None:
        """Columns, the first `words` to the left and the numbers behind them to the right."""
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="left" if i < words else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        width = None if self.out.isatty() else 160
        Console(file=self.out, width=width, highlight=False, markup=False).print(table)

    @contextmanager
    def bars(self) -> Iterator[Progress]:
        """Progress bars on a terminal, one line a stage elsewhere."""
        if not self.talk:
            yield silent
        elif not self.err.isatty():
            yield self._lines()
        else:
            with self._rich() as progress:
                yield progress

    def _lines(self) -> Progress:
        seen: set[str] = set()

        def progress(label: str, done: int, total: int) -> None:
            if label not in seen:
                seen.add(label)
                self.note(f"{label} ...")

        return progress

    @contextmanager
    def _rich(self) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
        with Bars(*columns, TimeElapsedColumn(), console=Console(file=self.err)) as bars:
            tasks: dict[str, Any] = {}

            def progress(label: str, done: int, total: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=total)
                bars.update(tasks[label], completed=done, total=total)

            yield progress


def compress(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards, pipeline
    from edgecompress.report import Report

    if args.board:
        boards.load(args.board)
    with terminal.bars() as progress:
        plan = pipeline.plan(
            args.model,
            data=args.data,
            metric=args.metric,
            recipe=args.recipe,
            budget=args.budget,
            changes=_changes(args),
            seed=args.seed,
            name=args.name,
            optimize=args.optimize,
            progress=progress,
        )
        result = pipeline.run(plan, progress=progress)
    folder = args.out or Path("build") / plan.name
    result.save(folder)
    if not args.json:
        terminal.note(f"written to {folder}{os.sep}")
    if args.board:
        args.backend, args.runs, args.out = "aot", 1, folder
        run = _taken(args, terminal, result.artifact, folder, inputs=None, profile=False)
        _show(Report.read(folder), args, terminal)
        run.check()
    else:
        _show(result.report, args, terminal)


def report(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.recipe import Budget
    from edgecompress.report import Report

    folder = Path(args.model)
    if not (folder / "report.json").is_file():
        folder = Path("build") / args.model
    found = Report.read(folder)
    if args.budget:
        found = found.judged(Budget.read(args.budget))
    _show(found, args, terminal)


def inspect(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.summary import summarise

    summary = summarise(args.file, channels=args.channels)
    if args.json:
        terminal.say(json.dumps(asdict(summary), indent=1))
        return
    terminal.say(f"{summary.name}: {summary.format}, input {summary.input}, {summary.size:,} bytes")
    terminal.table(summary.HEADINGS, summary.rows(), words=3)
    for line in summary.notes():
        terminal.say(line)


def models(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    rows = [(name, zoo.describe(name), str(zoo.folder(name))) for name in zoo.names()]
    if args.json:
        terminal.say(
            json.dumps([dict(zip(("name", "what", "folder"), row, strict=True)) for row in rows])
        )
        return
    terminal.table(("model", "what", "folder"), rows, words=3)


def pull(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    with terminal.bars() as progress:
        zoo.pull(args.model, progress=progress)
    terminal.say(f"{args.model}: every file is there and has its pinned SHA-256")


def train(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    with terminal.bars() as progress:
        zoo.train(args.model, seed=args.seed or 0, progress=progress)
    terminal.say(f"{args.model}: trained; the weights are in {zoo.folder(args.model)}")


def build(args: argparse.Namespace, terminal: Terminal) -> None:
    image = _image(args, terminal, *_model(args))
    if args.json:
        terminal.say(json.dumps(image.table(), indent=1))
        return
    terminal.say(f"{image.name}, backend {image.backend}, on {image.board.id}: {image.elf}")
    if image.footprint is None:
        terminal.say("a program of this computer: its size says nothing about a board")
    else:
        terminal.table(image.HEADINGS, image.rows(), words=2)


def flash(args: argparse.Namespace, terminal: Terminal) -> None:
    args.runs, args.samples, args.data, args.profile = 1, None, None, False
    _measure(args, terminal, profile=False)


def measure(args: argparse.Namespace, terminal: Terminal) -> None:
    _measure(args, terminal, profile=True)


def _model(args: argparse.Namespace) -> tuple[Artifact, Path]:
    """The compressed model and its run directory; an unknown board is told first."""
    from edgecompress import boards, deployment

    boards.load(args.board)
    artifact, folder = deployment.find(args.model)
    return artifact, args.out or folder


def _image(args: argparse.Namespace, terminal: Terminal, artifact: Artifact, folder: Path) -> Image:
    """The image built of the model, in its run directory."""
    from edgecompress import deployment

    with terminal.bars() as progress:
        return deployment.build(
            artifact,
            board=args.board,
            backend=args.backend,
            optimize=args.optimize,
            out=folder,
            progress=progress,
        )


def _taken(
    args: argparse.Namespace,
    terminal: Terminal,
    artifact: Artifact,
    folder: Path,
    *,
    inputs: Float | None,
    profile: bool,
) -> Run:
    """What the model takes on the board: built, run, and put into the report in `folder`."""
    from edgecompress import measurement

    measurement.report_in(folder, sha=str(artifact.sha256))
    image = _image(args, terminal, artifact, folder)
    with terminal.bars() as progress:
        run = measurement.measure(
            image, inputs=inputs, runs=args.runs, profile=profile, progress=progress
        )
    measurement.save(run, folder)
    return run


def _measure(args: argparse.Namespace, terminal: Terminal, *, profile: bool) -> None:
    from edgecompress import deployment

    samples = deployment.samples(args.model, data=args.data, count=args.samples)
    artifact, folder = _model(args)
    inputs = None if samples is None else samples.split.x
    run = _taken(args, terminal, artifact, folder, inputs=inputs, profile=profile)
    judged = None if samples is None else samples.judge(run.values[0])
    if args.json:
        accuracy = None if judged is None else asdict(judged)
        terminal.say(json.dumps({**run.table(), "accuracy": accuracy}, indent=1))
    else:
        terminal.say(f"{run.name}, backend {run.backend}, on {run.board}")
        if run.ops:
            terminal.table(run.headings, run.rows(), words=3)
        for line in [*(run.choices() if args.profile else ()), *run.lines()]:
            terminal.say(line)
        if judged is not None:
            terminal.say(str(judged))
    run.check()


def boards(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards

    found = [boards.load(name) for name in boards.names()]
    if args.json:
        terminal.say(json.dumps([asdict(board) for board in found], indent=1))
        return
    rows = [(board.id, board.title, board.unit, board.memory) for board in found]
    terminal.table(("board", "what", "measures", "memory"), rows, words=4)


def doctor(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import doctor

    found = doctor.examine(args.board)
    if args.json:
        terminal.say(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        rows = [
            (one.board, one.tool, one.purpose, "found" if one.found else f"missing: {one.fix}")
            for one in found
        ]
        terminal.table(("board", "tool", "what for", "here"), rows, words=4)
    if not all(one.found for one in found):
        raise ToolError(f"tools are missing; this gets them: {doctor.remedy(found)}")


def _changes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    options = {
        section: {key: getattr(args, key) for key in keys} for section, keys in CHANGES.items()
    }
    return {
        section: {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if value is not None
        }
        for section, values in options.items()
    }


def _show(report: Report, args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.report import markdown

    if args.json:
        terminal.say(report.to_json().rstrip())
    else:
        terminal.table((report.name, *markdown.HEADINGS[1:]), markdown.rows(report))
        terminal.say()
        terminal.say(markdown.proof_line(report))
        terminal.say(markdown.aot_line(report))
        lines = (markdown.notes, markdown.board_lines, markdown.budget_lines)
        for line in (line for part in lines for line in part(report)):
            terminal.say(line)
    report.check()


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


MODEL = ("model", {"metavar": "MODEL", "help": "a name of the zoo"})
FILE = {"help": "a name of the zoo, a .keras, .h5 or .tflite, a SavedModel or a run directory"}
BUDGET = ("--budget", {"type": Path, "help": "budget.toml (default: the zoo model's)"})
SEED = ("--seed", {"type": int, "help": "of every random choice"})
COMPRESSED = (
    "model",
    {"metavar": "MODEL", "help": "a model that was compressed, a run directory or a .tflite"},
)
OPTIMIZED = (
    "--optimize",
    {"choices": OPTIMIZE, "default": "balanced", "help": "what kernels are chosen for"},
)
SHARE = "may remain: a share (0.5) or a count (above 1)"
TARGETED = {
    "macs": "of the multiply-accumulates",
    "params": "of the parameters",
    "flash": "of the flash that the ahead-of-time C takes",
    "ram": "of its arena's bytes",
    "instructions": "of its estimated instructions on a Cortex-M4",
}
CHANGES = {
    "prune": ("ratio", *TARGETED, "score", "scope", "repair"),
    "quantize": ("mode", "calibration", "weight_bits", "input_range"),
}
"""The options of compress that take the place of a recipe's keys, by section."""
BOARD = (
    COMPRESSED,
    ("--board", {"required": True, "help": "the board's name (see boards)"}),
    ("--backend", {"choices": BACKENDS, "default": "aot", "help": "default: aot"}),
    OPTIMIZED,
    ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
)
Options: TypeAlias = tuple[tuple[str, dict[str, Any]], ...]
JSON = ("--json", {"action": "store_true", "help": "the answer as JSON on stdout"})
COMMANDS: dict[str, tuple[Command, str, Options]] = {
    "compress": (
        compress,
        "prune, quantise, convert, prove; print one table",
        (
            ("model", {"metavar": "MODEL", **FILE}),
            (
                "--data",
                {"type": Path, "help": ".npz with x, y and perhaps x_calibration, y_calibration"},
            ),
            ("--name", {"help": "the model's name in the report and in C (default: the file's)"}),
            ("--metric", {"choices": METRICS, "help": "default: from the data"}),
            ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
            (
                "--recipe",
                {"help": "recipe.toml, or data-free, distilled or few-samples"},
            ),
            BUDGET,
            ("--ratio", {"type": float, "help": "fraction of the channels to remove"}),
            *(
                (f"--{name} --target-{name}", {"type": float, "help": f"{what}, {SHARE}"})
                for name, what in TARGETED.items()
            ),
            ("--score", {"choices": SCORE_NAMES, "help": "how channels are ranked"}),
            ("--scope", {"choices": get_args(Scope), "help": "how much of each group goes"}),
            ("--repair", {"choices": REPAIRS, "help": "of the layers that lose channels"}),
            ("--mode", {"choices": MODES, "help": "of the conversion (default int8)"}),
            (
                "--calibration",
                {"choices": CALIBRATIONS, "help": "where activation ranges are from"},
            ),
            ("--weight-bits", {"type": int, "help": "bits of a weight, 2 to 8 (default 8)"}),
            (
                "--input-range",
                {
                    "type": float,
                    "nargs": 2,
                    "metavar": ("LOW", "HIGH"),
                    "help": "of the inputs (default: estimated, where there are no samples)",
                },
            ),
            ("--board", {"help": "build and measure on this board too (see boards)"}),
            OPTIMIZED,
            SEED,
            JSON,
        ),
    ),
    "report": (
        report,
        "print the report of a run and check its budget",
        (
            ("model", {"metavar": "MODEL", "help": "the model's name, or a run directory"}),
            BUDGET,
            JSON,
        ),
    ),
    "inspect": (
        inspect,
        "what is in a model",
        (
            ("file", {"metavar": "FILE", **FILE}),
            ("--channels", {"action": "store_true", "help": "list the coupled channels too"}),
            JSON,
        ),
    ),
    "models": (models, "list the zoo", (JSON,)),
    "pull": (pull, "fetch a zoo model's public files by pinned SHA-256", (MODEL,)),
    "train": (train, "train a zoo model afresh", (MODEL, SEED)),
    "build": (build, "firmware for a board, and what it takes", (*BOARD, JSON)),
    "flash": (flash, "put a model on a board, run it, read the measurement back", (*BOARD, JSON)),
    "measure": (
        measure,
        "what an inference takes on a board, by operator; accuracy on the board",
        (
            *BOARD,
            (
                "--runs",
                {"type": _at_least_one, "default": 3, "help": "timed inferences (default 3)"},
            ),
            ("--samples", {"type": _at_least_one, "help": "samples to judge the accuracy on"}),
            ("--profile", {"action": "store_true", "help": "say why each kernel was chosen"}),
            ("--data", {"type": Path, "help": ".npz with x and y (default: the zoo model's)"}),
            JSON,
        ),
    ),
    "boards": (boards, "list the boards", (JSON,)),
    "doctor": (
        doctor,
        "what this machine lacks for the boards, and how to get it",
        (("--board", {"help": "look at this board alone"}), JSON),
    ),
}


def parser() -> argparse.ArgumentParser:
    """All commands and their options; each command's function is its default `run`."""
    root = argparse.ArgumentParser(prog="edgecompress", description=edgecompress.__doc__)
    root.add_argument(
        "--version", action="version", version=f"edgecompress {edgecompress.__version__}"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        command.add_argument("-v", "--verbose", action="store_true", help="show what the tools say")
        for option, settings in options:
            command.add_argument(*option.split(), **settings)
    return root


@contextmanager
def _streams(verbose: bool, talk: bool) -> Iterator[Terminal]:
    """A Terminal on copies of stdout and stderr, with what native libraries write to the real
    file descriptors kept in a temporary file (unless `verbose`)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    if verbose:
        yield Terminal(sys.stdout, sys.stderr, talk=talk)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with (
        tempfile.TemporaryFile() as sink,
        os.fdopen(os.dup(1), "w") as out,
        os.fdopen(os.dup(2), "w") as err,
    ):
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Terminal(out, err, talk=talk)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see the top of this module)."""
    args = parser().parse_args(argv)
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _streams(args.verbose, talk=not getattr(args, "json", False)) as terminal:
            args.run(args, terminal)
    except EdgeCompressError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; earlier output is untouched", INTERRUPTED)
    except Exception as error:
        if args.verbose:
            raise
        return _fail(f"a bug: {type(error).__name__}: {error}; run again with -v, report it", BUG)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    return 0


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"edgecompress: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
