"""A history of figures as a page: lines over commits, and the same as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgecompress.report.figures import ordered, words
from edgecompress.report.history import Entry, shown
from edgecompress.report.html.page import Cell, Chart, Table, page, text

SHORT = 10
"""Characters of a commit that are shown."""


class Trend(NamedTuple):
    """One figure: by commit (rows, the newest first) and model."""

    name: str
    table: Table


def trend(entries: Sequence[Entry]) -> str:
    """The page of `entries`, the oldest first, one self-contained file."""
    keys = ordered(key for entry in entries for key in entry.figures)
    models = sorted({entry.model for entry in entries})
    return page(
        "trend.html",
        models=models,
        commits=len(_commits(entries)),
        chart=_chart(entries, keys),
        trends=[Trend(words(key), _table(entries, key)) for key in keys],
    )


def _commits(entries: Sequence[Entry]) -> dict[str, str]:
    """Commit -> date, in the order of the entries."""
    return {entry.commit: entry.date for entry in entries}


def _series(entries: Sequence[Entry], key: str) -> dict[str, dict[str, float]]:
    """Model -> commit -> the figure `key`, for the models that have it."""
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        if key in entry.figures:
            found.setdefault(entry.model, {})[entry.commit] = entry.figures[key]
    return found


def _chart(entries: Sequence[Entry], keys: Sequence[str]) -> Chart | None:
    if not keys:
        return None
    commits = _commits(entries)
    said = "Lines of the chosen figure over commits; the table below has the same figures"
    title = "Over commits; several models in per cent of the first measurement of each"
    views = [_view(key, commits, _series(entries, key)) for key in keys]
    return Chart(title, said, views, "Figure")


def _view(key: str, commits: dict[str, str], series: dict[str, dict[str, float]]) -> dict[str, Any]:
    first = {model: next(iter(values.values())) for model, values in series.items()}
    relative = len(series) > 1 and all(first.values())
    return {
        "kind": "lines",
        "label": words(key),
        "names": [commit[:SHORT] for commit in commits],
        "details": list(commits.values()),
        "unit": "%" if relative else "",
        "series": [
            {
                "name": model,
                "values": [
                    None
                    if (value := values.get(commit)) is None
                    else round(100 * value / first[model], 3)
                    if relative
                    else value
                    for commit in commits
                ],
            }
            for model, values in sorted(series.items())
        ],
    }


def _table(entries: Sequence[Entry], key: str) -> Table:
    series = sorted(_series(entries, key).items())
    rows = []
    before: dict[str, float] = {}
    for commit, date in _commits(entries).items():
        cells = [text(commit[:SHORT]), text(date)]
        for model, values in series:
            value = values.get(commit)
            cells += [_figure(key, value), _change(before.get(model), value)]
            if value is not None:
                before[model] = value
        rows.append(tuple(cells))
    headings = [heading for model, _ in series for heading in (model, f"{model}, change")]
    return Table(words(key), ("commit", "date", *headings), rows[::-1], left=range(2))


def _figure(key: str, value: float | None) -> Cell:
    if value is None:
        return text(None)
    return Cell(shown(value, key), value)


def _change(before: float | None, value: float | None) -> Cell:
    if not before or value is None:
        return text("")
    share = value / before - 1
    return Cell("same" if value == before else f"{share:+.2%}", share)
