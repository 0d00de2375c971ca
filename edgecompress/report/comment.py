"""A Diff as a comment on a pull request: Markdown that fits, whatever the models hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgecompress.report import figures
from edgecompress.report.diff import Diff, Growth, Model, Row
from edgecompress.report.markdown import grid, unchecked_lines
from edgecompress.report.report import Verdict
from edgecompress.report.text import LONG, escaped, tagless

MARKER = "<!-- edgecompress-footprint -->"
"""The first line, by which the comment of an earlier run is found and replaced."""
LIMIT = 60_000
"""Characters of a comment; GitHub takes 65,536."""
FIRST = 20
"""Rows shown of each table of symbols, and broken limits where little else is shown."""

NONE = "-"
FIGURES = ("figure", "base", "head", "change", "allowed", "")
SEVERAL = ("model", "budget", "flash", "RAM", "per inference", ".tflite", "accuracy")


class Shown(NamedTuple):
    """What a comment has room for."""

    symbols: bool
    layers: bool
    tables: bool


_STEPS = (
    (Shown(True, True, True), ""),
    (Shown(False, True, True), "Symbols are left out, as they would be too long."),
    (Shown(False, False, True), "Layers and symbols are left out, as they would be too long."),
    (Shown(False, False, False), "Tables are left out, as they would be too long."),
)


def render(diff: Diff) -> str:
    """The comment, of LIMIT characters at most: what is too long goes, symbols first, then layers,
    then all tables."""
    return next(text for text in map(_render, [diff] * len(_STEPS), _STEPS) if len(text) <= LIMIT)


def failed(reason: str) -> str:
    """The comment where there is nothing to show, so that none of an earlier run stays."""
    return _joined(
        [MARKER, "### Footprint: not measured", f"Comparison skipped because {_said(reason)}"]
    )


def _render(diff: Diff, step: tuple[Shown, str]) -> str:
    shown, left_out = step
    blocks = [MARKER, f"### Footprint: {_headline(diff)}"]
    broken = [(model, verdict) for model in diff.models for verdict in model.broken]
    count = len(broken) if shown.tables else FIRST
    alone = len(diff.models) == 1
    lines = [
        f"- {'' if alone else f'{_name(model)}: '}{_told(verdict, why=shown.tables)}"
        for model, verdict in broken[:count]
    ]
    if len(broken) > count:
        lines.append(f"- and {len(broken) - count:,} more")
    blocks += ["\n".join(lines)] if lines else []
    if shown.tables:
        blocks += _skipped(diff)
        blocks += _single(diff.models[0]) if alone else _several(diff.models)
        for model in diff.models:
            blocks += _details(model, shown, alone=alone)
    blocks += [left_out] if left_out else []
    notes = diff.notes if shown.tables else ()
    blocks += ["\n".join(f"- {_said(note)}" for note in notes)] if notes else []
    return _joined(blocks)


def _joined(blocks: Sequence[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _headline(diff: Diff) -> str:
    """The verdict in one sentence."""
    models, limits = len(diff.models), sum(len(model.budget) for model in diff.models)
    broken = sum(len(model.broken) for model in diff.models)
    whose = _name(diff.models[0]) if models == 1 else f"{models:,} models"
    if broken:
        return f"over budget, {whose}: {broken:,} of {_counted(limits, 'limit')} broken"
    kept = f"within budget, {_counted(limits, 'limit')} kept" if limits else "no budget"
    return f"{kept}, {whose}{_moved(diff.models[0]) if models == 1 else ''}"


def _moved(model: Model) -> str:
    """How the figures of one model went, where that can be said in a few words."""
    if model.skipped:
        return ""
    moved = [row for row in model.rows if row.delta and not row.part]
    if not moved:
        return "; nothing changed"
    sized = [row for row in moved if not row.figure.startswith("accuracy.")]
    if not sized:
        return "; accuracies alone changed"
    most = max(sized, key=lambda row: abs(row.share or 0))
    return f"; largest change: {_label(most.figure)} {_share(most) or _delta(most)}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _skipped(diff: Diff) -> list[str]:
    """Why there is no base, once for all that have the same reason."""
    reasons: dict[str, list[str]] = {}
    for model in diff.models:
        if model.skipped:
            reasons.setdefault(model.skipped, []).append(_name(model))
    return [
        f"Comparison skipped because {_said(reason)} ({', '.join(names)})"
        for reason, names in reasons.items()
    ]


def _single(model: Model) -> list[str]:
    """The figures that changed or have a limit; how many further ones there are."""
    rows = [row for row in model.rows if not row.part]
    wanted = [row for row in rows if row.delta != 0 or row.verdict is not None]
    blocks = [grid(FIGURES, [_row(row) for row in wanted])] if wanted else []
    same = len(rows) - len(wanted)
    return [*blocks, f"{_counted(same, 'further figure')} did not change."] if same else blocks


def _several(models: Sequence[Model]) -> list[str]:
    """A row for each model, under the least and the largest change of all."""
    columns: list[list[Row]] = [[], [], [], [], []]
    table = []
    for model in models:
        cells = []
        for column, rows in zip(columns, _columns(model), strict=True):
            column += rows
            cells.append("<br>".join(_brief(row, many=len(rows) > 1) for row in rows) or NONE)
        verdict = f"{len(model.broken)} broken" if model.broken else "ok" if model.budget else NONE
        table.append((_name(model), verdict, *cells))
    span = ("least to most", "", *(_span(column) for column in columns))
    return [grid(SEVERAL, [span, *table])]


def _columns(model: Model) -> tuple[list[Row], ...]:
    """The rows under SEVERAL: flash, RAM and pace of every board, `.tflite`, the first accuracy."""
    last = [(row.figure.rpartition(".")[2], row) for row in model.rows if not row.part]
    on_boards = [(name, row) for name, row in last if row.figure.startswith("board.")]
    return (
        [row for name, row in on_boards if name == "flash"],
        [row for name, row in on_boards if name == "ram"],
        [row for name, row in on_boards if name in figures.PACE],
        [row for row in model.rows if row.figure == "size.tflite"],
        [row for row in model.rows if row.figure.startswith("accuracy.")][:1],
    )


def _brief(row: Row, *, many: bool) -> str:
    """The head's figure and its change, with board and unit where several stand together."""
    before = f"{escaped(row.figure.split('.')[1])}: " if many else ""
    if row.head is None:
        return f"{before}not measured"
    unit = f" {row.unit}" if row.unit in figures.PACE else ""
    change = f" ({_share(row) or _delta(row)})" if row.delta else ""
    if row.note:
        change = " (new)" if row.base is None else " (not comparable)"
    return f"{before}{_value(row.head, row.unit)}{unit}{change}"


def _span(rows: Sequence[Row]) -> str:
    """The least and the largest change: points of one metric, or shares."""
    changed = [row for row in rows if row.delta is not None]
    units = {row.unit for row in changed}
    if units & {"top1", "auc"}:
        told = [(row.delta or 0.0, _delta(row)) for row in changed if len(units) == 1]
    else:
        told = [(row.share, f"{100 * row.share:+.1f}%") for row in changed if row.share is not None]
    if not told:
        return NONE
    least, most = min(told)[1], max(told)[1]
    return least if least == most else f"{least} to {most}"


def _details(model: Model, shown: Shown, *, alone: bool) -> Iterator[str]:
    """The folded tables of one model."""
    name = tagless(model.name)
    if not alone:
        yield from _folded(f"{name}: all figures", *_single(model))
    parts = [row for row in model.rows if row.part and (row.base or row.head)]
    moved = {_whole(row) for row in parts if row.delta != 0 and not row.note}
    table = [_row(row)[:4] for row in parts if _whole(row) in moved]
    if table:
        yield from _folded(f"{name}: flash by part", grid(FIGURES[:4], table))
    if shown.layers and model.layers:
        yield from _folded(f"{name}: by layer", _growths("layer", model.layers))
    if shown.symbols and model.symbols:
        tables = _by_figure(model.symbols)
        more = sum(len(table[FIRST:]) for table in tables)
        listed = _growths("symbol", [row for table in tables for row in table[:FIRST]])
        rest = [f"{_counted(more, 'further symbol')} changed by less."] if more else []
        yield from _folded(f"{name}: by symbol", listed, *rest)
    notes = [f"- {_said(note)}" for note in model.notes]
    notes += [f"- {_said(line)}" for line in unchecked_lines(model.unchecked)]
    if notes:
        yield from _folded(f"{name}: what else to know", "\n".join(notes))


def _whole(part: Row) -> str:
    """The figure that `part` is a part of."""
    return part.figure.rpartition(".")[0]


def _folded(title: str, *blocks: str) -> list[str]:
    return [f"<details>\n<summary>{title}</summary>", *blocks, "</details>"]


def _by_figure(growths: Sequence[Growth]) -> list[list[Growth]]:
    found: dict[str, list[Growth]] = {}
    for growth in growths:
        found.setdefault(growth.figure, []).append(growth)
    return list(found.values())


def _growths(what: str, growths: Sequence[Growth]) -> str:
    """What grew, as a table."""
    rows = [
        (
            escaped(growth.name),
            _label(growth.figure),
            f"{growth.base:,.0f}",
            f"{growth.head:,.0f}",
            f"{growth.delta:+,.0f}",
        )
        for growth in growths
    ]
    return grid((what, *FIGURES[:4]), rows)


def _row(row: Row) -> tuple[str, ...]:
    """One figure under FIGURES."""
    change = _said(row.note) if row.note else _delta(row)
    verdict = row.verdict
    return (
        _label(row.figure, row.unit),
        _value(row.base, row.unit),
        _value(row.head, row.unit),
        change,
        "" if verdict is None else _allowed(verdict, row.unit),
        "" if verdict is None else "ok" if verdict.ok else f"**{verdict.word}**",
    )


def _allowed(verdict: Verdict, unit: str) -> str:
    """What a limit allows, as the figure beside it is written."""
    bounds = (("≤", verdict.most), ("≥", verdict.least))
    wanted = " and ".join(f"{sign} {_value(n, unit)}" for sign, n in bounds if n is not None)
    return wanted + (f" (tolerance {100 * verdict.tolerance:.3g}%)" if verdict.tolerance else "")


def _label(figure: str, unit: str = "") -> str:
    """A figure in words; `unit` is the metric of an accuracy."""
    return escaped(figures.words(figure, unit))


def _value(value: float | None, unit: str) -> str:
    return NONE if value is None else figures.shown(value, unit)


def _delta(row: Row) -> str:
    delta = row.delta
    if delta is None:
        return NONE
    if not delta:
        return "0"
    if row.unit == "top1":
        return f"{100 * delta:+.2f} points"
    if row.unit == "auc":
        return f"{delta:+.4f}"
    amount = f"{delta:+.6g}" if row.unit == "mse" else f"{delta:+,.0f}"
    return f"{amount} ({_share(row)})" if row.share is not None else amount


def _share(row: Row) -> str:
    return "" if row.share is None or row.unit in ("top1", "auc") else f"{100 * row.share:+.1f}%"


def _told(verdict: Verdict, *, why: bool) -> str:
    """A broken limit, by how much, and why."""
    told = _said(str(verdict))
    if not verdict.causes or not why:
        return told
    what = "Alive at the peak" if verdict.limit.endswith("arena") else "Causes"
    return f"{told}. {what}: {', '.join(map(_said, verdict.causes))}"


def _name(model: Model) -> str:
    return f"**{escaped(model.name)}**"


def _said(text: str) -> str:
    """A sentence that may have names in it."""
    return escaped(text, 4 * LONG).replace("<=", "≤").replace(">=", "≥")
