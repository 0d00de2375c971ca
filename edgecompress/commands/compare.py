"""Several runs side by side: compare."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edgecompress.commands.options import Commands
from edgecompress.errors import ConfigError
from edgecompress.terminal import Terminal

MARK = " *"
"""What stands behind the best of a row."""


def compare(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.files import write_text
    from edgecompress.report import Report, html, runs
    from edgecompress.report.html import compare_page

    if len(args.runs) < 2:
        raise ConfigError(f"compare: {args.runs[0]} alone; give two runs or more")
    paths = [runs.locate(run) for run in args.runs]
    found = list(zip(_names(paths), map(Report.read, paths), strict=True))
    write_text(args.out, html.compare(found))
    table = compare_page.table(found, parts=False)
    marked = [[f"{cell.text}{MARK * (cell.state == 'best')}" for cell in row] for row in table.rows]
    terminal.table(table.headings, marked)
    if any(MARK in cell for row in marked for cell in row[1:]):
        terminal.say("* the best of the row: the least, or the highest accuracy")
    for note in compare_page.notes(found):
        terminal.say(note)
    for name, report in found:
        for verdict in report.budget:
            if not verdict.ok:
                terminal.say(f"{verdict.word} {name}: {verdict}")
    terminal.note(f"in a browser: {args.out}")


def _names(paths: Sequence[Path]) -> list[str]:
    """What the runs are called: their folders or files, the whole path where that is not enough,
    a number behind it where the same one is there twice."""
    short = [path.parent.name if path.name == "report.json" else path.stem for path in paths]
    names: list[str] = []
    for path, name in zip(paths, short, strict=True):
        whole = name if name and short.count(name) == 1 else str(path)
        again = sum(path == other for other in paths[: len(names)])
        names.append(f"{whole} ({again + 1})" if again else whole)
    return names


COMMANDS: Commands = {
    "compare": (
        compare,
        "several runs side by side, in the terminal and as a page",
        (
            (
                "runs",
                {
                    "metavar": "RUN",
                    "nargs": "+",
                    "help": "the model's name, a run directory, or a report.json",
                },
            ),
            (
                "--out",
                {
                    "type": Path,
                    "default": Path("build/compare.html"),
                    "help": "the page (default build/compare.html)",
                },
            ),
        ),
    ),
}
