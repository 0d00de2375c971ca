"""How the figures of models went over the commits: history."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.commands.options import Commands
from edgecompress.errors import ConfigError
from edgecompress.terminal import Terminal

if TYPE_CHECKING:
    from edgecompress.report.history import Entry


def history(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.files import write_text
    from edgecompress.report import history

    if args.add:
        old = history.read(args.file) if args.file.exists() else ()
        entries = history.added(old, _fresh(args))
        history.write(args.file, entries)
    elif args.date or args.commit:
        raise ConfigError("--date and --commit: they go with --add RUN")
    else:
        entries = history.read(args.file)
    if args.html is not None:
        from edgecompress.report import html

        write_text(args.html, html.trend(entries))
        terminal.note(f"written to {args.html}")
    for headings, rows in history.tables(entries):
        terminal.table(headings, rows)
        terminal.say()


def _fresh(args: argparse.Namespace) -> list[Entry]:
    """The entries of the runs to add, at the commit that is checked out unless it is given."""
    from edgecompress import checkout
    from edgecompress.report import Report, history, runs

    head = None if args.date and args.commit else checkout.head()
    date = args.date or (head and head.date)
    commit = args.commit or (head and head.commit)
    if not date or not commit:
        raise ConfigError("--add: no git checkout here to take them from; give --date and --commit")
    reports = [Report.read(runs.locate(run)) for run in args.add]
    return [history.entry(report, date=date, commit=commit) for report in reports]


COMMANDS: Commands = {
    "history": (
        history,
        "keep the figures of models commit by commit, show how they went",
        (
            ("file", {"metavar": "FILE", "type": Path, "help": "JSON lines; --add makes it"}),
            (
                "--add",
                {
                    "nargs": "+",
                    "metavar": "RUN",
                    "help": "add what was measured: names, run directories or report.json files",
                },
            ),
            ("--commit", {"help": "that the runs are of (default: the one checked out)"}),
            ("--date", {"help": "of the commit, ISO 8601 (default: its committer's date)"}),
            ("--html", {"type": Path, "metavar": "FILE", "help": "write a page with the trends"}),
        ),
    ),
}
