"""What a run measured, and whether it fits boards: report."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.commands.options import BACKEND, BUDGET, JSON, OPTIMIZED, Commands
from edgecompress.errors import ConfigError
from edgecompress.terminal import Terminal

if TYPE_CHECKING:
    from edgecompress.report import BoardRow, Report
    from edgecompress.survey import Answer

FITS = (
    "board",
    "fits",
    "flash",
    "of",
    "RAM + stack",
    "of",
    "model's flash",
    "its RAM",
    "inference",
)
LAYERS = ("layer", "operator", "weights", "constants", "kernels", "all")


def report(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import budget, zoo
    from edgecompress.commands.board import compressed
    from edgecompress.measuring import measurement
    from edgecompress.report import Report, runs

    names = _names(args.board)
    limits = None if args.budget is None else budget.Budget.read(args.budget)
    path = runs.locate(args.model)
    if not path.is_file() and args.model in zoo.names():
        compressed(args.model, terminal)
    found, folder = Report.read(path), path.parent
    answers: Sequence[Answer] = ()
    if names:
        if path.name != runs.FILE:
            raise ConfigError(f"{path}: --board needs the model; give its run directory")
        answers = _asked(args, terminal, names, folder)
        for answer in answers:
            if answer.run is not None:
                measurement.write(answer.run, folder)
        found = measurement.put(found, *(one.row for one in answers if one.row is not None))
    if limits is None and (found.budget or found.unchecked):
        own = budget.of_zoo(found.name)
        limits = None if own is None else budget.Budget.read(own)
    found = found if limits is None else budget.judge(found, limits)
    if path.name == runs.FILE:
        found.save(folder)
        if not args.json:
            terminal.note(f"in a browser: {folder / 'report.html'}")
    _tell(found, answers, args, terminal)
    found.check()


def _names(text: str | None) -> list[str]:
    """The names in `a,b,c`, each of them a board's."""
    from edgecompress import boards

    return [] if text is None else [boards.load(name.strip()).id for name in text.split(",")]


def _asked(
    args: argparse.Namespace, terminal: Terminal, names: Sequence[str], folder: Path
) -> list[Answer]:
    """What the model in the run directory takes on the boards."""
    from edgecompress import survey
    from edgecompress.building import deployment
    from edgecompress.measuring import measurement

    artifact, _ = deployment.find(str(folder))
    measurement.report_in(folder, sha=str(artifact.sha256))
    with terminal.bars() as progress:
        return survey.ask(
            survey.Question(artifact, folder, args.backend, args.optimize, progress), names
        )


def _tell(
    report: Report, answers: Sequence[Answer], args: argparse.Namespace, terminal: Terminal
) -> None:
    """The report, then the boards that were asked for; errors of what was asked are raised."""
    from edgecompress.report import parts

    told = dict.fromkeys(one.row.key for one in answers if one.row is not None)
    order = list(told)
    rows = sorted(
        (row for row in report.boards if row.key in told), key=lambda row: order.index(row.key)
    )
    lost = [str(one.error) for one in answers if one.row is None]
    if args.json:
        show(report, args, terminal)
        for line in lost:
            terminal.note(line)
    else:
        rest = [row for row in report.boards if row.key not in told]
        show(dataclasses.replace(report, boards=tuple(rest)), args, terminal)
        fits(report, rows, terminal)
        for line in [*(line for row in rows for line in parts.remarks(row)), *lost]:
            terminal.say(line)
    for answer in answers:
        if answer.error is not None:
            raise answer.error
        if answer.run is not None:
            answer.run.check()


def show(report: Report, args: argparse.Namespace, terminal: Terminal) -> None:
    """The report as it is: its tables and sentences, or as JSON."""
    from edgecompress.report import markdown

    if args.json:
        terminal.say(report.to_json().rstrip())
        return
    terminal.table((report.name, *markdown.HEADINGS[1:]), markdown.rows(report))
    terminal.say()
    terminal.say(markdown.proof_line(report))
    terminal.say(markdown.aot_line(report))
    lines = (markdown.notes, markdown.board_lines, markdown.budget_lines)
    for line in (line for part in lines for line in part(report)):
        terminal.say(line)


def fits(report: Report, rows: Sequence[BoardRow], terminal: Terminal) -> None:
    """Boards side by side, what their flash is for, and the layers on the first one built."""
    if rows:
        terminal.say()
        terminal.table(FITS, [_fit(row) for row in rows], words=2)
    images = [(row, row.image) for row in rows if row.image is not None]
    if not images:
        return
    parts = [dataclasses.asdict(image.flash) for _, image in images]
    terminal.say()
    terminal.table(
        ("flash", *(row.key for row, _ in images)),
        [(part, *(f"{sizes[part]:,}" for sizes in parts)) for part in parts[0]],
    )
    terminal.say()
    terminal.table(*_layers(report, images[0][0]), words=2)


def _fit(row: BoardRow) -> tuple[str, ...]:
    """One board under FITS."""
    from edgecompress import boards

    board, image, cost, timing = boards.load(row.board), row.image, row.cost, row.timing
    ram = None if image is None else image.ram.total + image.ram.stack
    adds = (None, None) if cost is None else (cost.flash, cost.ram)
    pace = "not measured"
    if timing is not None:
        pace = f"{timing.per_inference:,} {timing.unit}"
        pace += "" if timing.seconds is None else f", {timing.seconds * 1e3:,.3f} ms"
    return (
        row.key,
        _answer(row),
        *(
            "" if size is None else f"{size:,}"
            for size in (row.flash, board.flash_bytes, ram, board.ram_bytes, *adds)
        ),
        pace,
    )


def _answer(row: BoardRow) -> str:
    """Whether the model fits, in a word."""
    if row.fits is None:
        return "perhaps" if row.estimated else ""
    return "yes" if row.fits else "no"


def _layers(report: Report, row: BoardRow) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The bytes of flash by operator on one board, and what each took where that was measured."""
    image, timing = row.image, row.timing
    assert image is not None
    found = image.operators(len(report.operators))
    unit = () if timing is None or not row.profile else (timing.unit,)
    table = []
    for number, (operator, size) in enumerate(zip(report.operators, found, strict=True)):
        sizes = [size.weights, size.constants, size.kernels, size.total]
        sizes += [row.profile[number].amount] if unit else []
        table.append((operator.layer, operator.kind, *(f"{each:,}" for each in sizes)))
    rest = [
        whole - sum(getattr(size, part) for size in found)
        for part, whole in dataclasses.asdict(image.flash).items()
        if part in ("weights", "constants", "kernels")
    ]
    last = (f"{each:,}" for each in (*rest, sum(rest)))
    table.append(("(no one layer)", "", *last, *("" for _ in unit)))
    return (f"layer on {row.key}", *LAYERS[1:], *unit), table


COMMANDS: Commands = {
    "report": (
        report,
        "print the report of a run and check its budget; would it fit these boards?",
        (
            (
                "model",
                {"metavar": "MODEL", "help": "a model's name, a run directory or a report.json"},
            ),
            ("--board", {"metavar": "A,B,C", "help": "boards to build it for and, emulated, run"}),
            BACKEND,
            OPTIMIZED,
            BUDGET,
            JSON,
        ),
    ),
}
