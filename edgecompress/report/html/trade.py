"""The trade between accuracy and size or time, as a chart with the Pareto front of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from edgecompress.report.figures import SIZES, figures, words
from edgecompress.report.html.page import Chart
from edgecompress.report.report import AccuracyRow, Report

When: TypeAlias = Literal["before", "after"]
Run: TypeAlias = tuple[str, Report, When]
"""A point: its name, its report, and whether it is the model as given or the compressed one."""


def chart(runs: Sequence[Run]) -> Chart | None:
    """A view for each split and cost that two runs or more have; None where there is none."""
    splits = dict.fromkeys((row.split, row.metric) for _, run, _ in runs for row in run.accuracy)
    costs = dict.fromkeys(key for run in runs for key in _costs(run))
    views = [
        view
        for split, metric in splits
        for cost in costs
        if (view := _view(runs, split, metric, cost)) is not None
    ]
    said = "Points: accuracy against what the model takes; the tables have the same figures"
    title = "Accuracy against cost; the line joins the runs that no other beats in both"
    return Chart(title, said, views) if views else None


def _costs(run: Run) -> Mapping[str, float]:
    """What the model of `run` takes, by key; less is better."""
    _, report, when = run
    if when == "before":
        sizes = {f"size.{name}": getattr(report.size, name).before for name in SIZES}
        return {key: value for key, value in sizes.items() if value is not None}
    return {
        key: figure.value
        for key, figure in figures(report).items()
        if figure.value is not None and not figure.part and not key.startswith("accuracy.")
    }


def _view(runs: Sequence[Run], split: str, metric: str, cost: str) -> dict[str, Any] | None:
    names: dict[tuple[str, float, float], list[str]] = {}
    for run in runs:
        name, report, when = run
        row, amount = _accuracy(report, split, metric), _costs(run).get(cost)
        value = None if row is None else row.float if when == "before" else row.compressed
        if value is not None and amount is not None:
            names.setdefault((report.name, amount, value), []).append(name)
    if sum(map(len, names.values())) < 2:
        return None
    points = [
        {"name": ", ".join(same), "group": group, "at": at} for (group, *at), same in names.items()
    ]
    return {
        "kind": "scatter",
        "label": f"{metric} {split} against {words(cost)}",
        "x": words(cost),
        "y": f"{metric} {split}",
        "percent": metric == "top1",
        "points": points,
        "front": front(points, less=metric == "mse"),
    }


def _accuracy(report: Report, split: str, metric: str) -> AccuracyRow | None:
    rows = (row for row in report.accuracy if (row.split, row.metric) == (split, metric))
    return next(rows, None)


def front(points: Sequence[Mapping[str, Any]], *, less: bool) -> list[list[list[float]]]:
    """The Pareto front of each group of `points`, from the cheapest on; `less` is whether a small
    value is the better one."""
    fronts = []
    for group in dict.fromkeys(point["group"] for point in points):
        best: list[list[float]] = []
        members = [point["at"] for point in points if point["group"] == group]
        for cost, value in sorted(members, key=lambda at: (at[0], at[1] if less else -at[1])):
            if not best or (value < best[-1][1] if less else value > best[-1][1]):
                best.append([cost, value])
        if len(best) > 1:
            fronts.append(best)
    return fronts
