"""Several reports side by side: the table of their figures, and compare.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from edgecompress.report import causes
from edgecompress.report.figures import Figure, figures, ordered, shown, words
from edgecompress.report.html import trade
from edgecompress.report.html.page import Cell, Chart, Table, count, page, text, with_bars
from edgecompress.report.report import Report

Runs: TypeAlias = Sequence[tuple[str, Report]]
"""The reports and what each is called, every name once."""


class Layers(NamedTuple):
    """Bytes by layer under one measure."""

    name: str
    table: Table


def compare(runs: Runs) -> str:
    """compare.html: `runs` side by side, one self-contained file."""
    layers = _layers(runs)
    return page(
        "compare.html",
        runs=runs,
        verdicts=_verdicts(runs),
        table=table(runs, parts=True),
        notes=notes(runs),
        bars=_bars(runs),
        trade=trade.chart([(name, report, "after") for name, report in runs]),
        layers=layers,
        layer_bars=_layer_bars(layers),
        broken=_broken(runs),
    )


def notes(runs: Runs) -> list[str]:
    """What of the figures says nothing about each other, a sentence each."""
    found = []
    models = dict.fromkeys(report.name for _, report in runs)
    if len(models) > 1:
        listed = ", ".join(models)
        found.append(f"Different models ({listed}): each is ranked among its own runs alone.")
    columns = [(report.name, figures(report)) for _, report in runs]
    for key in _keys(runs):
        for model in models:
            own = [held[key] for name, held in columns if name == model and key in held]
            bases = dict.fromkeys(
                f"{one.unit} {one.basis}".strip() for one in own if one.value is not None
            )
            if len(bases) > 1:
                told = " against ".join(bases)
                found.append(f"{model}, {words(key)}: not ranked, it is {told}.")
    return found


def table(runs: Runs, *, parts: bool) -> Table:
    """The figures that were measured in rows, `runs` in columns, with the best of each model
    marked; the `parts` that others are the sums of are left out where they are not wanted."""
    columns = [figures(report) for _, report in runs]
    rows = []
    for key in _keys(runs):
        cells = [found.get(key) for found in columns]
        known = [one for one in cells if one is not None and one.value is not None]
        if known and (parts or not known[0].part):
            best = _best([report.name for _, report in runs], cells)
            line = (_cell(one, at in best) for at, one in enumerate(cells))
            rows.append((text(words(key)), *line))
    return Table("Figures", ("figure", *(name for name, _ in runs)), rows)


def _keys(runs: Runs) -> list[str]:
    return ordered(key for _, report in runs for key in figures(report))


def _cell(figure: Figure | None, best: bool) -> Cell:
    if figure is None or figure.value is None:
        return text(None)
    value, state = figure.value, "best" if best else ""
    return Cell(shown(value, figure.unit), value, state=state)


def _best(models: Sequence[str], cells: Sequence[Figure | None]) -> set[int]:
    """The places of the best figures: those of one model and basis, where they are not equal."""
    found: set[int] = set()
    known = [
        (at, model, one, one.value)
        for at, (model, one) in enumerate(zip(models, cells, strict=True))
        if one is not None and one.value is not None and not one.part
    ]
    for group in dict.fromkeys((model, one.unit) for _, model, one, _ in known):
        own = [(at, one, value) for at, model, one, value in known if (model, one.unit) == group]
        values = {value for _, _, value in own}
        if len(values) > 1 and len({one.basis for _, one, _ in own}) == 1:
            best = max(values) if group[1] in ("top1", "auc") else min(values)
            found |= {at for at, _, value in own if value == best}
    return found


def _verdicts(runs: Runs) -> Table:
    rows = []
    for name, report in runs:
        broken = sum(not verdict.ok for verdict in report.budget)
        limits = len(report.budget)
        verdict = text(f"within budget ({limits} limits)", "ok") if limits else text("no budget")
        if broken:
            verdict = text(f"over budget: {broken} of {limits} limits", "bad")
        commit = (report.commit or "not known")[:12]
        sha = text(report.sha256[:12])
        rows.append((text(name), text(report.name), verdict, text(commit), sha))
    headings = ("run", "model", "budget", "commit", "SHA-256 of model.tflite")
    return Table("Runs", headings, rows, left=range(5))


def _bars(runs: Runs) -> Chart | None:
    """A view for the model and for each board: every figure in per cent of the largest."""
    columns = [figures(report) for _, report in runs]
    views: dict[str, list[str]] = {}
    for key in _keys(runs):
        if not key.startswith("accuracy.") and not any(c[key].part for c in columns if key in c):
            place = "model" if key.startswith("size.") else key.split(".")[1]
            views.setdefault(place, []).append(key)
    drawn = []
    for place, keys in views.items():
        values = {
            key: [None if key not in found else found[key].value for found in columns]
            for key in keys
        }
        known = {key: row for key, row in values.items() if any(row)}
        if known:
            drawn.append(_bar_view(place, [name for name, _ in runs], known))
    said = "Bars of each figure in per cent of the largest; the table has the same figures"
    return Chart("Each figure in per cent of the largest", said, drawn, "Of") if drawn else None


def _bar_view(
    label: str, runs: Sequence[str], rows: dict[str, list[float | None]]
) -> dict[str, Any]:
    most = {key: max(value or 0 for value in row) for key, row in rows.items()}
    series = [
        {
            "name": name,
            "values": [
                None if (value := row[at]) is None else round(100 * value / most[key], 2)
                for key, row in rows.items()
            ],
            "texts": [
                "" if (value := row[at]) is None else f"{value:,.0f}" for row in rows.values()
            ],
        }
        for at, name in enumerate(runs)
    ]
    names = [words(key).removeprefix(f"{label} ") for key in rows]
    return {"kind": "bars", "label": label, "names": names, "series": series, "unit": "%"}


def _layers(runs: Runs) -> list[Layers]:
    """Bytes by layer of every run: in the .tflite, and on each board."""
    measures = {words("size.tflite"): [_in_file(report) for _, report in runs]}
    for key in dict.fromkeys(row.key for _, report in runs for row in report.boards if row.image):
        measures[words(f"board.{key}.flash")] = [_on_board(report, key) for _, report in runs]
    found = []
    for measure, columns in measures.items():
        sums = [_summed(column) for column in columns]
        layers = dict.fromkeys(layer for column in sums for layer, size in column.items() if size)
        rows = [(text(layer), *(_bytes(column, layer) for column in sums)) for layer in layers]
        if rows:
            headings = ("layer", *(name for name, _ in runs))
            barred = with_bars(rows, range(1, len(headings)))
            found.append(Layers(measure, Table(f"Layers, {measure}", headings, barred, tools=True)))
    return found


def _bytes(column: Mapping[str, int], layer: str) -> Cell:
    """The bytes of `layer` in a run; nothing where the run has no such layer."""
    return text("") if column and layer not in column else count(column.get(layer))


def _in_file(report: Report) -> list[tuple[str, int]]:
    weights = (row.weight_bytes for row in report.operators)
    return list(zip(causes.layers(report), weights, strict=True))


def _on_board(report: Report, key: str) -> list[tuple[str, int]]:
    for row in report.boards:
        if row.key == key and row.image is not None:
            owned = row.image.operators(len(report.operators))
            return list(zip(causes.layers(report), (one.total for one in owned), strict=True))
    return []


def _summed(rows: Sequence[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for layer, size in rows:
        sums[layer] = sums.get(layer, 0) + size
    return sums


def _layer_bars(layers: Sequence[Layers]) -> Chart | None:
    views = [
        {
            "kind": "bars",
            "label": name,
            "names": [row[0].text for row in one.rows],
            "unit": "",
            "series": [
                {
                    "name": heading,
                    "values": [row[at].value for row in one.rows],
                    "texts": [row[at].text if row[at].value else "" for row in one.rows],
                }
                for at, heading in enumerate(one.headings[1:], start=1)
            ],
        }
        for name, one in layers
    ]
    said = "Bars of bytes by layer and run; the table below has the same bytes"
    return Chart("Bytes by layer", said, views) if views else None


def _broken(runs: Runs) -> Table:
    rows = [
        (text(name), text(verdict.limit), text(str(verdict)), text("; ".join(verdict.causes)))
        for name, report in runs
        for verdict in report.budget
        if not verdict.ok
    ]
    return Table("Broken limits", ("run", "limit", "what", "largest causes"), rows, left=range(4))
