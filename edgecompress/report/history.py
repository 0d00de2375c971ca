"""How the figures of models went: a file of JSON lines, one for each commit and model."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgecompress.files import write_text
from edgecompress.report.checks import ReportError
from edgecompress.report.figures import figures
from edgecompress.report.report import Report
from edgecompress.report.text import plain
from edgecompress.strict import TOO_DEEP, build

_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]*")


@dataclass(frozen=True)
class Entry:
    """The figures of `model` at `commit`, which is of `date` (ISO 8601).

    `figures` are by the keys of `figures.figures`, bytes or counts or fractions as there; what was
    not measured is not among them. `sha256` is that of the flatbuffer.
    """

    date: str
    commit: str
    model: str
    sha256: str
    figures: Mapping[str, int | float]

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.date)
        except ValueError:
            raise ReportError(f"date = {self.date!r}: write it as 2026-03-01T12:00:00") from None
        if not _COMMIT.fullmatch(self.commit):
            raise ReportError(f"commit = {self.commit!r}: write a commit's hash or tag")


def entry(report: Report, *, date: str, commit: str) -> Entry:
    """What `report` adds to a history: every figure that was measured, parts left out.

    A whole number is kept as one. Raises ReportError for a bad date or commit.
    """
    found = {
        key: figure.value
        for key, figure in figures(report).items()
        if figure.value is not None and not figure.part
    }
    whole = {key: int(value) if value % 1 == 0 else value for key, value in found.items()}
    return Entry(date, commit, report.name, report.sha256, whole)


def added(entries: Iterable[Entry], fresh: Iterable[Entry]) -> tuple[Entry, ...]:
    """`entries` with `fresh` among them by date; one of the same commit and model takes its
    place."""
    table = {(each.commit, each.model): each for each in (*entries, *fresh)}
    return _dated(table.values())


def _dated(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """`entries`, the oldest first; a date without a zone is UTC's."""

    def when(each: Entry) -> datetime:
        date = datetime.fromisoformat(each.date)
        return date if date.tzinfo else date.replace(tzinfo=timezone.utc)

    return tuple(sorted(entries, key=when))


def tables(
    entries: Iterable[Entry], *, last: int = 5
) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """For each model, headings and rows: a figure a row, its `last` commits from left to right,
    each with its change since the one before."""
    models: dict[str, list[Entry]] = {}
    for each in entries:
        models.setdefault(plain(each.model), []).append(each)
    return [_columns(name, [None, *own][-last - 1 :]) for name, own in sorted(models.items())]


def _columns(
    name: str, entries: Sequence[Entry | None]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of `entries` but the first, which is there to compare the second with."""
    tables = [{} if each is None else each.figures for each in entries]
    shown = [each for each in entries[1:] if each is not None]
    keys = {key: None for table in tables[1:] for key in table}
    rows = [
        (plain(key), *(_cell(*pair, key) for pair in zip(tables, tables[1:], strict=False)))
        for key in keys
    ]
    return (name, *(f"{each.commit[:10]} {each.date[:10]}" for each in shown)), rows


def _cell(before: Mapping[str, float], after: Mapping[str, float], key: str) -> str:
    if key not in after:
        return "not measured"
    value, old = after[key], before.get(key)
    text = shown(value, key)
    if old is None or value == old:
        return text
    return f"{text} ({(value - old) / old:+.1%})" if old else f"{text} (was 0)"


def shown(value: float, key: str) -> str:
    """`value` of the figure `key` for people; of an accuracy no metric is on record."""
    return f"{value:.4g}" if key.startswith("accuracy.") else f"{value:,.0f}"


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of the file `path`, strictly, the oldest first, as lines of two branches may have
    come together in any order; ReportError names the line and what is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ReportError(f"{path}: no such history; --add makes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({error})") from error
    return _dated(_entry(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))


def _entry(line: str, where: str) -> Entry:
    try:
        table = json.loads(line)
    except RecursionError:
        raise ReportError(f"{where}: {TOO_DEEP}") from None
    except ValueError as error:
        raise ReportError(f"{where}: not JSON ({error}); mend the line or delete it") from error
    return build(Entry, table, where=where, error=ReportError, complete=True)


def write(path: Path, entries: Iterable[Entry]) -> None:
    """`entries` at `path`, a line each."""
    lines = (json.dumps(dataclasses.asdict(each), allow_nan=False) for each in entries)
    write_text(path, "".join(f"{line}\n" for line in lines))
