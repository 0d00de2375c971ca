"""The limits of a model, and how they are moved: budget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.commands.options import BUDGET, Commands
from edgecompress.errors import ConfigError
from edgecompress.terminal import Terminal

if TYPE_CHECKING:
    from edgecompress.report import Report

HEADINGS = ("limit", "allowed", "measured", "room", "")


def budget(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.budget import Budget, judge, of_zoo
    from edgecompress.report import Report, runs

    if args.why and args.accept is None:
        raise ConfigError("--why: it goes with --accept")
    file = runs.locate(args.model)
    report = Report.read(file)
    path = args.budget or of_zoo(report.name)
    if path is None:
        raise ConfigError(
            f"{report.name}: no model of the zoo with a budget.toml; give --budget FILE"
        )
    judged = judge(report, Budget.read(path))
    if args.accept is None:
        _show(judged, terminal)
        judged.check()
    else:
        _accept(args, judged, path, file, terminal)


def _accept(
    args: argparse.Namespace, report: Report, path: Path, file: Path, terminal: Terminal
) -> None:
    from edgecompress import acceptance, checkout
    from edgecompress.budget import Budget, judge
    from edgecompress.files import write_text
    from edgecompress.report import runs

    head = checkout.head()
    commit = None if head is None else head.commit
    moved = acceptance.accept(report, path, limits=args.accept, why=args.why, commit=commit)
    judged = judge(report, Budget.read(path))
    _show(judged, terminal)
    for change in moved:
        terminal.note(f"{path}: {change.limit} {change.old:,.10g} -> {change.new:,.10g}")
    if not moved:
        terminal.note(
            "nothing to accept" if args.accept else "nothing to accept: no limit is broken"
        )
    elif not args.why:
        terminal.note('no reason is on record; --why "TEXT" gives one')
    if file.name == runs.FILE:
        judged.save(file.parent)
    else:
        write_text(file, judged.to_json())
    judged.check()


def _show(report: Report, terminal: Terminal) -> None:
    """The limits as a table."""
    rows = [
        (each.limit, each.allowed, each.said(each.measured), each.said(each.room), word)
        for verdicts, open_ in ((report.budget, ""), (report.unchecked, "not checked"))
        for each in verdicts
        for word in (open_ or each.word,)
    ]
    terminal.table(HEADINGS, rows, words=2)


COMMANDS: Commands = {
    "budget": (
        budget,
        "the limits of a model and how much room is left; move them knowingly",
        (
            ("model", {"metavar": "MODEL", "help": "a name, a run directory or a report.json"}),
            BUDGET,
            (
                "--accept",
                {
                    "nargs": "*",
                    "metavar": "LIMIT",
                    "help": "move these to what was measured (default: all broken ones)",
                },
            ),
            ("--why", {"metavar": "TEXT", "help": "the reason, for budget.history.jsonl"}),
        ),
    ),
}
