"""Put a model on a board: build, flash, measure, export, boards, doctor."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edgecompress.commands.options import (
    BACKEND,
    BOARD,
    CODE,
    COMPRESSED,
    DATA,
    FEATURES,
    JSON,
    OPTIMIZED,
    PORT,
    Commands,
    at_least_one,
)
from edgecompress.errors import ToolError
from edgecompress.terminal import Terminal
from edgecompress.vocabulary import Core

if TYPE_CHECKING:
    from edgecompress.artifact import Artifact
    from edgecompress.building.firmware import Image
    from edgecompress.data import Float
    from edgecompress.measuring.results import Run


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
    args.runs, args.profile = 1, False
    args.samples = args.data = args.features = None
    _measure(args, terminal, flash=True)


def measure(args: argparse.Namespace, terminal: Terminal) -> None:
    _measure(args, terminal)


def _model(args: argparse.Namespace, terminal: Terminal) -> tuple[Artifact, Path]:
    """The compressed model and its run directory; what the board lacks here is told first."""
    from edgecompress import boards
    from edgecompress.building import firmware
    from edgecompress.measuring import running

    board = boards.load(args.board)
    running.check_port(board, getattr(args, "port", None))
    firmware.need(board)
    artifact, folder = compressed(args.model, terminal)
    return artifact, args.out or folder


def compressed(model: str, terminal: Terminal) -> tuple[Artifact, Path]:
    """The model and its run directory; one of the zoo is compressed now, if it was not yet."""
    from edgecompress import pipeline, zoo
    from edgecompress.building import deployment

    if model in zoo.names() and not deployment.compressed(model):
        with terminal.bars() as progress:
            result = pipeline.run(pipeline.plan(model, progress=progress), progress=progress)
        result.save(deployment.RUNS / model)
    return deployment.find(model)


def _image(args: argparse.Namespace, terminal: Terminal, artifact: Artifact, folder: Path) -> Image:
    """The image built of the model, in its run directory."""
    from edgecompress.building import deployment

    with terminal.bars() as progress:
        return deployment.build(
            artifact,
            board=args.board,
            backend=args.backend,
            optimize=args.optimize,
            out=folder,
            progress=progress,
        )


def taken(
    args: argparse.Namespace,
    terminal: Terminal,
    artifact: Artifact,
    folder: Path,
    *,
    inputs: Float | None,
    flash: bool = False,
) -> Run:
    """What the model takes on the board: built, run, and put into the report in `folder`.

    `flash`: also on an emulated board, PlatformIO starts it.
    """
    from edgecompress.building import firmware
    from edgecompress.measuring import measurement

    measurement.report_in(folder, sha=str(artifact.sha256))
    image = _image(args, terminal, artifact, folder)
    with terminal.bars() as progress:
        run = measurement.measure(
            image,
            inputs=inputs,
            runs=args.runs,
            flash=flash,
            port=args.port,
            progress=progress,
        )
    if flash:
        firmware.keep(image)
    measurement.save(run, folder)
    return run


def _measure(args: argparse.Namespace, terminal: Terminal, *, flash: bool = False) -> None:
    """With `flash` the terminal gets the figures of the board, else those of each operator."""
    from edgecompress.building import deployment
    from edgecompress.report import markdown

    artifact, folder = _model(args, terminal)
    samples = deployment.samples(
        args.model, artifact, data=args.data, features=args.features, count=args.samples
    )
    inputs = None if samples is None else samples.split.x
    run = taken(args, terminal, artifact, folder, inputs=inputs, flash=flash)
    judged = None if samples is None else samples.judge(run.values[0])
    if args.json:
        accuracy = None if judged is None else asdict(judged)
        terminal.say(json.dumps({**run.table(), "accuracy": accuracy}, indent=1))
    else:
        terminal.say(f"{run.name}, backend {run.backend}, on {run.board}")
        if flash:
            rows = zip(markdown.BOARD_HEADINGS, markdown.board(run.row()), strict=True)
            terminal.table(("measured", ""), list(rows), words=2)
        else:
            terminal.table(run.headings, run.rows(), words=3)
        told = run.notes if flash else run.lines()
        for line in [*(run.choices() if args.profile else ()), *told]:
            terminal.say(line)
        if judged is not None:
            terminal.say(str(judged))
    run.check()


def export(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards
    from edgecompress.building import export
    from edgecompress.errors import ConfigError

    if args.arduino is None and args.platformio is None:
        raise ConfigError("export: nothing to write; give --arduino FILE.zip or --platformio DIR")
    if args.arduino is not None and args.backend != "aot":
        raise ConfigError("--arduino: a library has the ahead-of-time C; take --backend aot")
    core = args.core or boards.load(args.board).core
    artifact, _ = compressed(args.model, terminal)
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


COMMANDS: Commands = {
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
                {"type": at_least_one, "default": 3, "help": "timed inferences (default 3)"},
            ),
            ("--samples", {"type": at_least_one, "help": "samples to judge the accuracy on"}),
            ("--profile", {"action": "store_true", "help": "say why each kernel was chosen"}),
            ("--data", {"help": f"{DATA} (default: the zoo model's)"}),
            ("--features", {"metavar": CODE, "help": FEATURES}),
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
