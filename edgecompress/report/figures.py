"""Every figure of a report under one name, as budgets, comparisons and histories know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgecompress.report.boards import BoardRow
from edgecompress.report.report import Report

SIZES = {"tflite": "bytes", "arena": "bytes", "aot_arena": "bytes", "params": "", "macs": ""}
"""The figures of a model's size and their units."""
MEMORY = ("flash", "ram", "arena", "stack")
PACE = ("instructions", "cycles", "microseconds")
"""The figures of a board: bytes, and what an inference takes in their own unit."""

_WORDS: Mapping[str, str] = {
    "size.tflite": ".tflite bytes",
    "size.arena": "arena bytes (TFLM)",
    "size.aot_arena": "arena bytes (C)",
    "size.params": "parameters",
    "size.macs": "MACs per inference",
    "accuracy.max_drop": "lost since float32",
    "flash": "flash bytes",
    "ram": "RAM bytes",
    "arena": "arena bytes",
    "stack": "stack bytes",
    "flash.constants": "flash: metadata (other constants)",
    "flash.data": "flash: initial values of RAM",
}
"""What figures are called for people, those of a board without its name; others by their keys."""


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


def words(key: str, metric: str = "accuracy") -> str:
    """What the figure `key` is called for people; `metric` is that of an accuracy."""
    if key in _WORDS:
        return _WORDS[key]
    kind, _, name = key.partition(".")
    if kind != "board":
        return f"{metric} {name}"
    board, _, last = name.partition(".")
    return f"{board} {_WORDS.get(last, last.replace('.', ': '))}"


def shown(value: float, unit: str) -> str:
    """`value`, in the `unit` of a Figure, for people."""
    metrics = {"top1": ".2%", "auc": ".4f", "mse": ".6g"}
    return format(value, metrics.get(unit, ",.0f"))


def ordered(keys: Iterable[str]) -> list[str]:
    """Each of `keys` once: sizes, accuracies, boards, otherwise as they come."""
    places = {"size": 0, "accuracy": 1}
    return sorted(dict.fromkeys(keys), key=lambda key: places.get(key.partition(".")[0], 2))
