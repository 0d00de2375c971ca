"""Report -> the tables and charts of report.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgecompress.artifact import Step
from edgecompress.report import markdown, parts, stages
from edgecompress.report.boards import Timing
from edgecompress.report.figures import words
from edgecompress.report.html import accuracy, arena, boards, trade
from edgecompress.report.html.page import Cell, Chart, Table, count, page, text, with_bars
from edgecompress.report.operators import OperatorRow
from edgecompress.report.report import Change, Report, Verdict

SECTIONS = {
    "budget": "Budget",
    "figures": "Before and after",
    "boards": "Boards",
    "flash": "Flash",
    "arena": "Arena",
    "layers": "Layers",
    "accuracy": "Accuracy",
    "steps": "Steps",
    "environment": "Environment",
}
BARRED = ("MACs", "weight bytes", "activation bytes")
"""Columns of the layers that show the share of their largest, as do those of boards."""
BROKEN = {"OVER": "over budget", "UNDER": "under its least", "LOST": "not measured"}
"""The words for limits that are not kept."""
TIMED = 4
"""Boards whose inferences stand at the top; the table has all."""


class Fact(NamedTuple):
    """A figure that stands at the top, and a few words on it."""

    name: str
    figure: str
    detail: str


def render(report: Report) -> str:
    """report.html: everything in `report`, one self-contained file."""
    return page(
        "report.html",
        report=report,
        broken=sum(not verdict.ok for verdict in report.budget),
        highlights=list(_facts(report)),
        sections=SECTIONS.items(),
        budget=_budget(report.budget),
        unchecked=markdown.unchecked_lines(report.unchecked),
        figures=_figures(report),
        before_after=_before_after(report),
        proof=markdown.proof_line(report),
        notes=markdown.notes(report),
        boards=boards.table(report.boards),
        remarks=[line for row in report.boards for line in parts.remarks(row)],
        flash=boards.flash(report),
        treemap=boards.treemap(report),
        arena=arena.plan(report.memory),
        aot=markdown.aot_line(report),
        buffers=None if report.memory is None else arena.tables(report.memory),
        layers=_layers(report),
        accuracy=accuracy.chart(report.accuracy),
        stages=accuracy.table(report.accuracy),
        trade=trade.chart([("before", report, "before"), ("after", report, "after")]),
        confusion=[
            accuracy.confusion(row, report.labels) for row in report.accuracy if row.confusion
        ],
        steps=[_step(step) for step in report.steps],
        effects=[
            Table(
                section.title,
                section.headings,
                [_words(row) for row in section.rows],
                left=range(9),
            )
            for section in stages.sections(report)
        ],
        effect_notes={section.title: section.note for section in stages.sections(report)},
        tools=_tools(report.tools),
    )


def _words(row: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(map(text, row))


def _facts(report: Report) -> Iterator[Fact]:
    for name, change in ((".tflite", report.size.tflite), ("arena (C)", report.size.aot_arena)):
        if change.after is not None:
            yield Fact(name, f"{change.after:,} bytes", _against(change))
    if report.size.macs.after is not None:
        yield Fact("MACs", f"{report.size.macs.after:,}", _against(report.size.macs))
    for row in report.accuracy[:1]:
        if row.compressed is not None:
            was = f"float {markdown.formatted(row.float, row.metric)}" if row.float else row.split
            figure = markdown.formatted(row.compressed, row.metric)
            yield Fact(f"{row.metric}, {row.split}", figure, was)
    timed = [(board.key, board.timing) for board in report.boards if board.timing is not None]
    for key, timing in timed[:TIMED]:
        yield _pace(key, timing)


def _pace(board: str, timing: Timing) -> Fact:
    """What an inference takes: the time where it was measured, else what was counted."""
    amount = f"{timing.per_inference:,}"
    if timing.seconds is None:
        return Fact(words(f"board.{board}.{timing.unit}"), amount, timing.source)
    return Fact(f"{board} inference", f"{timing.seconds * 1e3:,.3f} ms", f"{amount} {timing.unit}")


def _against(change: Change) -> str:
    ratio = change.ratio
    return "" if ratio is None else f"{ratio - 1:+.1%} of {change.before:,}"


def _budget(verdicts: Sequence[Verdict]) -> Table:
    """Every limit, the broken ones first."""
    rows = [
        (
            text(verdict.limit),
            text("ok", "ok") if verdict.ok else text(BROKEN[verdict.word], "bad"),
            _said(verdict, verdict.measured),
            text(verdict.allowed),
            _said(verdict, verdict.room),
            text("; ".join(verdict.causes)),
        )
        for verdict in sorted(verdicts, key=lambda one: one.ok)
    ]
    headings = ("limit", "verdict", "measured", "allowed", "room", "largest causes")
    return Table("Limits of the budget", headings, rows, left=(0, 1, 5))


def _said(verdict: Verdict, figure: float | None) -> Cell:
    return text(None) if figure is None else Cell(verdict.said(figure), figure)


def _figures(report: Report) -> Table:
    rows = [_words(row) for row in markdown.rows(report)]
    return Table("Before and after", ("figure", *markdown.HEADINGS[1:]), rows)


def _before_after(report: Report) -> Chart | None:
    """Each size as a share of what it was."""
    sizes = markdown.sizes(report)
    known = {name: change for name, change in sizes.items() if change.ratio is not None}
    if not known:
        return None
    shares = [round(100 * (change.ratio or 0), 2) for change in known.values()]
    series = [
        {
            "name": when,
            "values": values,
            "texts": [f"{getattr(change, when):,}" for change in known.values()],
        }
        for when, values in (("before", [100.0] * len(known)), ("after", shares))
    ]
    said = ", ".join(f"{name} {_against(change)}" for name, change in known.items())
    view = {"kind": "bars", "label": "", "names": list(known), "series": series, "unit": "%"}
    return Chart("Sizes after the run, in per cent of before", f"Bars: {said}", [view])


def _layers(report: Report) -> Table:
    """The operators; what they cost on the boards comes first, as pages are narrow."""
    own = _columns(report.operators)
    names = ("layer", "operator")
    columns = {name: own.pop(name) for name in names} | _on_boards(report) | own
    barred = [i for i, name in enumerate(columns) if name in BARRED or name not in (*names, *own)]
    rows = list(zip(*columns.values(), strict=True))
    left = [i for i, name in enumerate(columns) if name in (*names, "output")]
    return Table("Layers", tuple(columns), with_bars(rows, barred), left=left, tools=True)


def _on_boards(report: Report) -> dict[str, list[Cell]]:
    """What each operator takes on each board, by heading."""
    columns = {}
    for row in report.boards:
        image, timing = row.image, row.timing
        if image is not None and any(symbol.operators for symbol in image.symbols):
            owned = image.operators(len(report.operators))
            columns[words(f"board.{row.key}.flash")] = [count(one.total, zero="") for one in owned]
        if row.profile and timing is not None:
            columns[words(f"board.{row.key}.{timing.unit}")] = [
                count(one.amount) for one in row.profile
            ]
    return columns


def _columns(rows: Sequence[OperatorRow]) -> dict[str, list[Cell]]:
    """What each operator holds and computes, by heading."""
    return {
        "layer": [text(row.layer) for row in rows],
        "operator": [text(row.kind) for row in rows],
        "MACs": [count(row.macs, zero="") for row in rows],
        "weight bytes": [count(row.weight_bytes, zero="") for row in rows],
        "bits": [text("") if row.bits is None else count(row.bits) for row in rows],
        "zeros": [_share(row.sparsity) for row in rows],
        "SQNR dB": [_sqnr(row) for row in rows],
        "largest error": [_error(row.max_abs) for row in rows],
        "activation bytes": [count(row.activation_bytes) for row in rows],
        "live bytes": [count(row.live_bytes) for row in rows],
        "parameters": [count(row.params, zero="") for row in rows],
        "output": [text(" × ".join(map(str, row.shape))) for row in rows],
        "place": [count(place) for place in range(len(rows))],
    }


def _share(value: float | None) -> Cell:
    return text("") if value is None else Cell(f"{value:.1%}", value)


def _error(value: float | None) -> Cell:
    return text("") if value is None else Cell(f"{value:.4g}", value)


def _sqnr(row: OperatorRow) -> Cell:
    if row.sqnr_db is None:
        return text("exact" if row.max_abs == 0 else "not matched", "none")
    return Cell(f"{row.sqnr_db:.1f}", row.sqnr_db)


def _step(step: Step) -> tuple[str, str, str]:
    """A stage, its settings, and what it changed, each on one line."""
    return step.stage, _listed(step.params), _listed(step.effect)


def _listed(values: Mapping[str, Any]) -> str:
    said = []
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and set(value) == {"before", "after"}:
            said.append(f"{name} {_value(value['before'])} → {_value(value['after'])}")
        elif value is None or isinstance(value, (str, int, float)):
            said.append(f"{name} {_value(value)}")
    return ", ".join(said)


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tools(tools: Mapping[str, Any]) -> Table:
    rows = [(text(tool), text(version)) for tool, version in tools.items()]
    return Table("Tools", ("tool", "version"), rows, left=range(2))
