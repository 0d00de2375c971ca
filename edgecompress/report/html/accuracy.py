"""Accuracies -> their table, their bars, the confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.report import markdown
from edgecompress.report.html.page import Cell, Chart, Table, count, short, text
from edgecompress.report.report import AccuracyRow

STAGES = {
    "float": "float",
    "pruned": "pruned",
    "trained": "trained",
    "compressed": "compressed",
    "tflm": "under TFLM",
}
BARS = ("float", "pruned", "trained", "compressed")
"""Stages of all samples, which bars may compare."""
CLASSES = 40
"""Classes above which a confusion matrix is told by its largest mistakes alone."""
MISTAKES = 20


def chart(rows: Sequence[AccuracyRow]) -> Chart | None:
    """A view for each metric; None where none was measured."""
    views = []
    for metric in dict.fromkeys(row.metric for row in rows):
        chosen = [row for row in rows if row.metric == metric]
        scale, unit = (1, "") if metric == "mse" else (100, "%")
        series = []
        for stage in BARS:
            values = [getattr(row, stage) for row in chosen]
            if any(value is not None for value in values):
                series.append(
                    {
                        "name": STAGES[stage],
                        "values": [None if v is None else v * scale for v in values],
                        "texts": [markdown.formatted(value, metric) for value in values],
                    }
                )
        if series:
            names = [short(row.split) for row in chosen]
            what = {"label": metric, "names": names, "series": series, "unit": unit}
            views.append({"kind": "bars", **what})
    said = "Bars of the metric by split and stage; the table beside them has the same figures"
    return Chart("The metric by split and stage", said, views, "Metric") if views else None


def table(rows: Sequence[AccuracyRow]) -> Table:
    """Splits in rows, the stages that were measured in columns."""
    known = [stage for stage in STAGES if any(getattr(row, stage) is not None for row in rows)]
    body = []
    for row in rows:
        values = (getattr(row, stage) for stage in known)
        cells = [
            text(None) if value is None else Cell(markdown.formatted(value, row.metric), value)
            for value in values
        ]
        shown = [] if "tflm" not in known else [count(row.tflm_samples)]
        body.append(
            (
                text(row.split),
                text(row.source),
                text(row.metric),
                count(row.samples),
                *cells,
                *shown,
            )
        )
    headings = [STAGES[stage] for stage in known]
    headings += ["samples under TFLM"] if "tflm" in known else []
    return Table(
        "Accuracy by split and stage",
        ("split", "source", "metric", "samples", *headings),
        body,
        left=range(3),
    )


def confusion(row: AccuracyRow, labels: Sequence[str]) -> tuple[Chart | None, Table]:
    """The answers of one split: all of them, or the largest mistakes where classes are many."""
    counts = row.confusion or ()
    size = len(counts)
    names = list(labels) if len(labels) == size else [str(i) for i in range(size)]
    if size > CLASSES:
        mistakes = sorted(
            ((counts[i][j], i, j) for i in range(size) for j in range(size) if i != j),
            key=lambda one: (-one[0], one[1:]),
        )
        listed = [
            (text(names[i]), text(names[j]), count(number))
            for number, i, j in mistakes[:MISTAKES]
            if number
        ]
        caption = f"The most frequent mistakes of {size} classes, {row.split}"
        return None, Table(caption, ("is", "answered", "samples"), listed, left=range(2))
    body = [
        (
            text(names[i]),
            *(
                Cell(f"{number:,}" if number else "", number, state="ok" if i == j else "")
                for j, number in enumerate(line)
            ),
            text(f"{line[i] / sum(line):.1%}" if sum(line) else "no samples"),
        )
        for i, line in enumerate(counts)
    ]
    view = {"kind": "heat", "label": row.split, "names": [short(name) for name in names]}
    said = f"Confusion matrix of {size} classes, {row.split}; the table beside it has the counts"
    chart = Chart(
        f"{row.split}: true classes in rows, answers in columns", said, [{**view, "counts": counts}]
    )
    headings = ("is / answered", *names, "right")
    return chart, Table(f"Confusion matrix, {row.split}", headings, body)
