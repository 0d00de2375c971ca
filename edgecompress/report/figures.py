"""Every figure of a report under one name, as budgets, comparisons and histories know it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgecompress.report.boards import BoardRow
from edgecompress.report.report import Report

SIZES = {"tflite": "bytes", "arena": "bytes", "aot_arena": "bytes", "params": "", "macs": ""}
"""The figures of a model's size and their units."""
MEMORY = ("flash", "ram", "arena", "stack")
PACE = ("instructions", "cycles", "microseconds")
"""The figures of a board: bytes, and what an inference takes in their own unit."""


@dataclass(frozen=True)
class Figure:
    """A figure: `value` in `unit` ("" for counts, a metric's name for accuracies), None where it
    was not measured.

    Figures of another `basis` (samples, source) say nothing about each other. A `part` is one of
    those that a further figure is the sum of.
    """

    value: float | None
    unit: str
    basis: str = ""
    part: bool = False


def figures(report: Report) -> dict[str, Figure]:
    """All figures by key: `size.tflite`, `accuracy.<split>`, `board.<key>.flash` and its parts
    `board.<key>.flash.weights`.

    Of the figures of PACE a board has those that its timing was counted in, microseconds on real
    hardware alone.
    """
    found = {
        f"size.{name}": Figure(getattr(report.size, name).after, unit)
        for name, unit in SIZES.items()
    }
    for row in report.accuracy:
        basis = f"{row.metric} of {row.samples:,} samples" + (f", {row.source}" * bool(row.source))
        found[f"accuracy.{row.split}"] = Figure(row.compressed, row.metric, basis)
    for board in report.boards:
        own = _board(board)
        found |= {f"board.{board.key}.{name}": figure for name, figure in own.items()}
    return found


def _board(row: BoardRow) -> dict[str, Figure]:
    found = {name: Figure(getattr(row, name), "bytes") for name in MEMORY}
    if row.image is not None:
        parts = dataclasses.asdict(row.image.flash)
        found |= {f"flash.{name}": Figure(n, "bytes", "", True) for name, n in parts.items()}
    timing = row.timing
    if timing is not None:
        if timing.unit in PACE:
            found[timing.unit] = Figure(timing.per_inference, timing.unit, timing.source)
        if timing.seconds is not None:
            found["microseconds"] = Figure(timing.seconds * 1e6, "microseconds", timing.source)
    return found
