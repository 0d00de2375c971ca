"""What a run measured: report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.commands.options import BUDGET, JSON, Commands
from edgecompress.terminal import Terminal

if TYPE_CHECKING:
    from edgecompress.report import Report


def report(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.recipe import Budget
    from edgecompress.report import Report

    folder = Path(args.model)
    if not (folder / "report.json").is_file():
        folder = Path("build") / args.model
    found = Report.read(folder)
    if args.budget:
        found = found.judged(Budget.read(args.budget))
    show(found, args, terminal)


def show(report: Report, args: argparse.Namespace, terminal: Terminal) -> None:
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


COMMANDS: Commands = {
    "report": (
        report,
        "print the report of a run and check its budget",
        (
            ("model", {"metavar": "MODEL", "help": "the model's name, or a run directory"}),
            BUDGET,
            JSON,
        ),
    ),
}
