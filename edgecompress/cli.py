"""The command line: the only module that exits, and with terminal.py the only one that prints.

Exit codes: 0 done, 1 an error of the input or a tool, 2 wrong usage or configuration, 3 over
budget, 70 a bug of ours, 130 interrupted (SIGTERM included).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import edgecompress
from edgecompress.errors import EdgeCompressError, ToolError
from edgecompress.terminal import Terminal, streams
from edgecompress.vocabulary import (
    BACKENDS,
    CALIBRATIONS,
    METRICS,
    MODES,
    OPTIMIZE,
    REPAIRS,
    SCORE_NAMES,
    Core,
    Scope,
)

if TYPE_CHECKING:
    from edgecompress.artifact import Artifact
    from edgecompress.data import Float
    from edgecompress.firmware import Image
    from edgecompress.report import Report
    from edgecompress.results import Run

BUG, INTERRUPTED = 70, 130
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""What ends a command as Ctrl-C does: nothing that it started is left."""
Command: TypeAlias = Callable[[argparse.Namespace, "Terminal"], None]


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
        args.backend, args.runs, args.out, args.port = "aot", 1, folder, None
        run = _taken(args, terminal, result.artifact, folder, inputs=None)
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
    image = _image(args, terminal, *_model(args, terminal))
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
    _measure(args, terminal, flash=True)


def measure(args: argparse.Namespace, terminal: Terminal) -> None:
    _measure(args, terminal, profile=True)


def _model(args: argparse.Namespace, terminal: Terminal) -> tuple[Artifact, Path]:
    """The compressed model and its run directory; what the board lacks here is told first."""
    from edgecompress import boards, firmware, running

    board = boards.load(args.board)
    running.check_port(board, getattr(args, "port", None))
    firmware.need(board)
    artifact, folder = _compressed(args.model, terminal)
    return artifact, args.out or folder


def _compressed(model: str, terminal: Terminal) -> tuple[Artifact, Path]:
    """The model and its run directory; one of the zoo is compressed now, if it was not yet."""
    from edgecompress import deployment, pipeline, zoo

    if model in zoo.names() and not deployment.compressed(model):
        with terminal.bars() as progress:
            result = pipeline.run(pipeline.plan(model, progress=progress), progress=progress)
        result.save(deployment.RUNS / model)
    return deployment.find(model)


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
    profile: bool = False,
    flash: bool = False,
) -> Run:
    """What the model takes on the board: built, run, and put into the report in `folder`.

    `flash`: also on an emulated board, PlatformIO starts it.
    """
    from edgecompress import firmware, measurement

    measurement.report_in(folder, sha=str(artifact.sha256))
    image = _image(args, terminal, artifact, folder)
    with terminal.bars() as progress:
        run = measurement.measure(
            image,
            inputs=inputs,
            runs=args.runs,
            profile=profile,
            flash=flash,
            port=args.port,
            progress=progress,
        )
    if flash:
        firmware.keep(image)
    measurement.save(run, folder)
    return run


def _measure(
    args: argparse.Namespace, terminal: Terminal, *, profile: bool = False, flash: bool = False
) -> None:
    from edgecompress import deployment
    from edgecompress.report import markdown

    samples = deployment.samples(args.model, data=args.data, count=args.samples)
    artifact, folder = _model(args, terminal)
    inputs = None if samples is None else samples.split.x
    run = _taken(args, terminal, artifact, folder, inputs=inputs, profile=profile, flash=flash)
    judged = None if samples is None else samples.judge(run.values[0])
    if args.json:
        accuracy = None if judged is None else asdict(judged)
        terminal.say(json.dumps({**run.table(), "accuracy": accuracy}, indent=1))
    else:
        terminal.say(f"{run.name}, backend {run.backend}, on {run.board}")
        if run.ops:
            terminal.table(run.headings, run.rows(), words=3)
        else:
            rows = zip(markdown.BOARD_HEADINGS, markdown.board(run.row()), strict=True)
            terminal.table(("measured", ""), list(rows), words=2)
        told = run.lines() if run.ops else run.notes
        for line in [*(run.choices() if args.profile else ()), *told]:
            terminal.say(line)
        if judged is not None:
            terminal.say(str(judged))
    run.check()


def export(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards, export
    from edgecompress.errors import ConfigError

    if args.arduino is None and args.platformio is None:
        raise ConfigError("export: nothing to write; give --arduino FILE.zip or --platformio DIR")
    if args.arduino is not None and args.backend != "aot":
        raise ConfigError("--arduino: a library has the ahead-of-time C; take --backend aot")
    core = args.core or boards.load(args.board).core
    artifact, _ = _compressed(args.model, terminal)
    if args.arduino is not None:
        library, count = export.arduino(artifact, args.arduino, core=core, optimize=args.optimize)
        terminal.say(f"{args.arduino}: the Arduino library {library}, {count} files")
    if args.platformio is not None:
        export.project(
            artifact,
            args.platformio,
            board=args.board,
            backend=args.backend,
            core=core,
            optimize=args.optimize,
        )
        terminal.say(f"{args.platformio}: a PlatformIO project; there: pio run -e {args.board}")


def boards(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards

    if args.markdown:
        from edgecompress import boardpages

        terminal.say(boardpages.page().rstrip())
        return
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
        raise ToolError(f"not all is there; this helps: {doctor.remedy(found)}")


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
BACKEND = ("--backend", {"choices": BACKENDS, "default": "aot", "help": "default: aot"})
BOARD = (
    COMPRESSED,
    ("--board", {"required": True, "help": "the board's name (see boards)"}),
    BACKEND,
    OPTIMIZED,
    ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
)
PORT = ("--port", {"help": "the board's serial port (default: found by its USB ids)"})
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
    "flash": (
        flash,
        "put a model on a board, run it, read the measurement back",
        (*BOARD, PORT, JSON),
    ),
    "measure": (
        measure,
        "what an inference takes on a board, by operator; accuracy on the board",
        (
            *BOARD,
            PORT,
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
    "export": (
        export,
        "the model as an Arduino library, or as a PlatformIO project",
        (
            COMPRESSED,
            (
                "--arduino",
                {"type": Path, "metavar": "FILE.zip", "help": "write a library with a sketch"},
            ),
            (
                "--platformio",
                {"type": Path, "metavar": "DIR", "help": "write a project for every board"},
            ),
            (
                "--board",
                {"default": "qemu_m4", "help": "that it is for first (default qemu_m4)"},
            ),
            ("--core", {"choices": get_args(Core), "help": "default: the board's; runs on any"}),
            BACKEND,
            OPTIMIZED,
        ),
    ),
    "boards": (
        boards,
        "list the boards",
        (("--markdown", {"action": "store_true", "help": "docs/boards.md on stdout"}), JSON),
    ),
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see the top of this module)."""
    args = parser().parse_args(argv)
    heeded = [each for each in ENDS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    earlier = {each: signal.signal(each, signal.default_int_handler) for each in heeded}
    try:
        with streams(args.verbose, talk=not getattr(args, "json", False)) as terminal:
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
        for each, handler in earlier.items():
            signal.signal(each, handler)
    return 0


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"edgecompress: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
