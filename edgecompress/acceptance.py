"""Limits raised or lowered knowingly: budget.toml with new numbers, and a line that says why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgecompress.budget import UNIT, Budget, judge, parse_size
from edgecompress.errors import ConfigError
from edgecompress.files import write_text
from edgecompress.report.checks import ReportError
from edgecompress.report.report import Report, Verdict

SUFFIX = ".history.jsonl"
"""What takes the place of .toml in the name of the file with a line for each acceptance."""
DIGITS = 4
"""Decimals of an accuracy in budget.toml."""


@dataclass(frozen=True)
class Accepted:
    """A limit that was moved: its bound in budget.toml, `old` and `new`."""

    limit: str
    old: float
    new: float


def accept(
    report: Report, path: Path, *, limits: Sequence[str], why: str | None, commit: str | None
) -> tuple[Accepted, ...]:
    """Move each of `limits` (none: every broken one) in the budget at `path` to what `report` has.

    Comments, layout and the form of each value stay (a table keeps its tolerance, `"48K"` stays a
    size, rounded to a tenth so that it holds). The limits, the date, `commit` and `why` become a
    line of the history beside it. Nothing is written where nothing moves. Raises ConfigError for
    an unknown limit, ReportError for one that was not measured.
    """
    import tomlkit

    judged = judge(report, Budget.read(path))
    document = tomlkit.parse(path.read_bytes().decode())  # line ends as they are
    moved = []
    for verdict in _chosen(judged, limits, where=path):
        change = _moved(document, verdict)
        if change.old != change.new:
            moved.append(change)
    if moved:
        write_text(path, tomlkit.dumps(document))
        _append(path.with_suffix(SUFFIX), report, moved, why=why, commit=commit)
    return tuple(moved)


def _chosen(report: Report, limits: Sequence[str], *, where: Path) -> list[Verdict]:
    """The verdicts of `limits`, or all broken ones; each with a measurement."""
    known = {verdict.limit: verdict for verdict in (*report.budget, *report.unchecked)}
    for name in limits:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(f"{where}: no limit {name}; it has {listed}")
    broken = [verdict for verdict in report.budget if not verdict.ok]
    chosen = [known[name] for name in dict.fromkeys(limits)] if limits else broken
    for verdict in chosen:
        if verdict.measured is None:
            raise ReportError(
                f"{verdict.limit}: not measured in this run, so there is nothing to accept; measure"
                f" it first, or take the limit out of {where}"
            )
    return chosen


def _moved(document: Any, verdict: Verdict) -> Accepted:
    """Put the bound that `verdict` looks at to what was measured, in the TOML `document`."""
    measured = verdict.measured or 0.0
    up = verdict.excess > 0 or (verdict.excess == 0 and verdict.most is not None)
    side, old = ("most", verdict.most) if up else ("least", verdict.least)
    *sections, name = verdict.limit.split(".")
    table = document
    for section in sections:
        table = table[section]
    if isinstance(table[name], dict):
        table, name = table[name], side
    new = _form(table[name].unwrap(), measured, up=up, share=sections == ["accuracy"])
    table[name] = new
    return Accepted(verdict.limit, _plain(old), _plain(new))


def _plain(bound: float | str | None) -> float:
    """A bound as a number, whole where it is."""
    number = parse_size(bound) if isinstance(bound, str) else bound or 0
    return int(number) if number % 1 == 0 else number


def _form(given: int | float | str, measured: float, *, up: bool, share: bool) -> int | float | str:
    """`measured` in the form of `given`, rounded no further than the limit needs to be kept."""
    unit = next((one for one in given.upper() if one in "KM"), "") if isinstance(given, str) else ""
    scale = 10**DIGITS if share else 10 / UNIT[unit.lower()] if unit else 1
    near = round(measured * scale)
    for count in (near, near + (1 if up else -1)):
        value: int | float | str = count
        if share:
            value = count / scale
        elif isinstance(given, str):
            tenths = f"{count / 10:.1f}".removesuffix(".0")
            value = f"{tenths}{unit}" if unit else str(count)
        size = parse_size(value) if isinstance(value, str) else value
        if size >= measured if up else size <= measured:
            break
    return value


def _append(
    path: Path, report: Report, moved: Iterable[Accepted], *, why: str | None, commit: str | None
) -> None:
    line = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": report.name,
        "commit": commit,
        "why": why,
        "limits": {each.limit: [each.old, each.new] for each in moved},
    }
    earlier = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, earlier + json.dumps(line) + "\n")
