"""What changed between two sets of reports: diff."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.commands.options import Commands
from edgecompress.errors import EdgeCompressError
from edgecompress.terminal import Terminal

if TYPE_CHECKING:
    from edgecompress.report import Report, Verdict
    from edgecompress.report.diff import Diff

REPORTS = "a report.json, a run directory, or a folder of these"


def diff(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.files import write_text
    from edgecompress.report import comment

    try:
        found = _found(args)
    except EdgeCompressError as error:
        text = comment.failed(str(error))
        if args.markdown is not None:
            write_text(args.markdown, text)
        terminal.say(text.rstrip())
        raise
    text = comment.render(found)
    files = (args.markdown, text), (args.json, found.to_json()), (args.csv, found.to_csv())
    for path, content in files:
        if path is not None:
            write_text(path, content)
    terminal.say(text.rstrip())
    found.check()


def _found(args: argparse.Namespace) -> Diff:
    from edgecompress.errors import ConfigError
    from edgecompress.report import runs
    from edgecompress.report.diff import diff

    head = runs.read_all(args.head)
    if args.budget is not None and len(head) > 1:
        raise ConfigError(
            f"--budget: for one model; {args.head} has {', '.join(sorted(head))}: compare them one"
            " by one, or without it by the zoo's budgets"
        )
    unread: list[str] = []
    base = runs.read_all(args.base, failed=unread.append)
    return diff(base, head, limits=_limits(args.budget), unread=unread)


def _limits(budget: Path | None) -> Callable[[Report], Iterable[Verdict]]:
    """Of a report: the limits of the file `budget`, of the zoo's model, or its own."""
    from edgecompress.budget import Budget, of_zoo

    def limits(report: Report) -> Iterable[Verdict]:
        path = of_zoo(report.name) if budget is None else budget
        return (*report.budget, *report.unchecked) if path is None else Budget.read(path).limits()

    return limits


COMMANDS: Commands = {
    "diff": (
        diff,
        "compare reports with those of a base: Markdown for a pull request",
        (
            ("base", {"metavar": "BASE", "type": Path, "help": f"before: {REPORTS}"}),
            ("head", {"metavar": "HEAD", "type": Path, "help": "after: the same"}),
            (
                "--budget",
                {"type": Path, "help": "budget.toml (default: the zoo model's, else the report's)"},
            ),
            ("--markdown", {"type": Path, "metavar": "FILE", "help": "write the Markdown too"}),
            ("--json", {"type": Path, "metavar": "FILE", "help": "write all of it as JSON"}),
            ("--csv", {"type": Path, "metavar": "FILE", "help": "write the figures as CSV"}),
        ),
    ),
}
