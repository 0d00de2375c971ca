"""What a figure of a report is made of, and why it grew: the largest contributions, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from edgecompress.report.boards import BoardRow
from edgecompress.report.figures import PACE
from edgecompress.report.report import AccuracyRow, Report

COUNT = 3
"""How many causes are told."""
STACK = "the stack"
"""What is set aside for the stack, which does not count as RAM."""

Amounts: TypeAlias = Mapping[str, float]
"""What a figure is the sum of, in its unit, by what it is there for."""

_UNITS = {"params": "parameters", "macs": "MACs"}


def of(report: Report, limit: str) -> tuple[str, ...]:
    """The largest contributions to what `limit` (a key of a budget) looks at, largest first."""
    if limit.startswith("accuracy."):
        return _accuracy(report)
    largest = _largest(amounts(report, limit))
    return tuple(f"{label} {amount:,.0f} {_unit(limit)}" for label, amount in largest)


def growths(base: Report, head: Report, limit: str, *, less: bool = False) -> tuple[str, ...]:
    """What grew the most from `base` to `head` of what `limit` looks at; `less`: what shrank.

    Of an arena it is what lies in it at its peak, which may be another step than in the base.
    """
    if limit.startswith("accuracy."):
        return _worse(base, head)
    if limit.endswith("arena"):
        return of(head, limit)
    return tuple(
        f"{label} {amount:+,.0f} {_unit(limit)}"
        for label, amount in changes(amounts(base, limit), amounts(head, limit), less=less)
    )


def changes(before: Amounts, after: Amounts, *, less: bool = False) -> list[tuple[str, float]]:
    """The largest growths from `before` to `after`, largest first; `less`: the largest savings."""
    labels = {**after, **before}
    grown = {label: after.get(label, 0) - before.get(label, 0) for label in labels}
    if less:
        return [(label, -saved) for label, saved in _largest({k: -v for k, v in grown.items()})]
    return _largest(grown)


def amounts(report: Report, limit: str) -> Amounts:
    """What the figure under `limit` is the sum of; empty where nothing is known of it.

    Of an arena these are the buffers alive at its peak, which may share bytes.
    """
    kind, _, name = limit.partition(".")
    if kind == "size":
        return _SIZES[name](report)
    key, _, figure = name.rpartition(".")
    row = next((row for row in report.boards if row.key == key), None)
    if row is None:
        return {}
    if figure in PACE:
        return _pace(report, row, figure)
    if figure == "arena":
        return _board_arena(report, row)
    if row.image is None or figure == "stack":
        return {}
    symbols = row.image.largest(layers(report), ram=figure == "ram", count=len(row.image.symbols))
    return {name: size for name, size in symbols if name != STACK}


def layers(report: Report) -> list[str]:
    """The names of all operators, by place."""
    return [layer(report, place) for place in range(len(report.operators))]


def layer(report: Report, place: int) -> str:
    """The layer of the operator at `place`, or what it is where it has none."""
    row = report.operators[place]
    return row.layer or f"{row.kind} {place}"


def _tflite(report: Report) -> Amounts:
    weights = _by_layer(report, "weight_bytes", "weights of ")
    whole = report.size.tflite.after
    rest = 0 if whole is None else whole - sum(weights.values())
    return {**weights, "the rest of the file": rest}


def _by_layer(report: Report, field: str, before: str = "") -> Amounts:
    found: dict[str, float] = {}
    for place, row in enumerate(report.operators):
        label = before + layer(report, place)
        found[label] = found.get(label, 0) + getattr(row, field)
    return found


def _arena(report: Report) -> Amounts:
    """The TFLM interpreter's: activations at their most, and its own bookkeeping."""
    whole = report.size.arena.after
    return {} if whole is None else _interpreter(report, whole)


def _interpreter(report: Report, whole: int) -> Amounts:
    rows = report.operators
    if not rows:
        return {}
    peak = max(range(len(rows)), key=lambda place: rows[place].live_bytes)
    live = rows[peak].live_bytes
    alive = f"activations alive at {layer(report, peak)}"
    return {alive: live, "the interpreter's own": whole - live}


def _aot_arena(report: Report) -> Amounts:
    memory = report.memory
    if memory is None or not memory.steps:
        return {}
    peak = [step.live for step in memory.steps].index(memory.peak)
    found: dict[str, float] = {}
    for block in memory.blocks:
        if block.first <= peak <= block.last:
            over = "" if block.over is None else f" in place over {block.over}"
            label = f"{block.label}{over}"
            found[label] = found.get(label, 0) + block.size
    return found


def _board_arena(report: Report, row: BoardRow) -> Amounts:
    if row.arena is None:
        return {}
    if row.backend != "aot":
        return _interpreter(report, row.arena)
    planned = report.memory is not None and report.memory.arena == row.arena
    return _aot_arena(report) if planned else {}  # kernels for another core have another plan


def _pace(report: Report, row: BoardRow, figure: str) -> Amounts:
    timing = row.timing
    if timing is None or not row.profile:
        return {}
    scale = 1.0
    if figure == "microseconds":
        if timing.seconds is None:
            return {}
        scale = timing.seconds * 1e6 / timing.per_inference
    elif figure != timing.unit:
        return {}
    found: dict[str, float] = {}
    for place, cost in enumerate(row.profile):
        label = layer(report, place)
        found[label] = found.get(label, 0) + cost.amount * scale
    rest = timing.per_inference - sum(cost.amount for cost in row.profile)
    return {**found, "outside of the operators": rest * scale}


def _largest(found: Amounts) -> list[tuple[str, float]]:
    """The COUNT largest that are above 0; the first come first among equals."""
    above = [(label, amount) for label, amount in found.items() if amount > 0]
    return sorted(above, key=lambda each: -each[1])[:COUNT]


def _unit(limit: str) -> str:
    name = limit.rpartition(".")[2]
    return name if name in PACE else _UNITS.get(name, "bytes")


def _losses(row: AccuracyRow) -> dict[str, float]:
    """What each stage lost of the metric, as far as it was measured."""
    sign = 1 if row.metric == "mse" else -1
    stages = [
        ("pruning", row.pruned),
        ("training", row.trained),
        ("quantising", row.compressed),
    ]
    found, before = {}, row.float
    for name, after in stages:
        if after is not None and before is not None:
            found[name] = sign * (after - before)
        before = before if after is None else after
    return found


def _accuracy(report: Report) -> tuple[str, ...]:
    if not report.accuracy:
        return ()
    lost = [f"{name} lost {n:.4g}" for name, n in _largest(_losses(report.accuracy[0]))]
    noisiest = sorted(_sqnr(report).items(), key=lambda each: each[1])[:COUNT]
    worst = ", ".join(f"{name} {sqnr:.1f} dB" for name, sqnr in noisiest)
    return (*lost, *([f"least SQNR: {worst}"] if worst else []))


def _worse(base: Report, head: Report) -> tuple[str, ...]:
    if not base.accuracy or not head.accuracy:
        return _accuracy(head)
    before, after = (_losses(report.accuracy[0]) for report in (base, head))
    lost = [f"{name} lost {amount:.4g} more" for name, amount in changes(before, after)]
    fell = changes(_sqnr(base), {**_sqnr(base), **_sqnr(head)}, less=True)
    return (*lost, *(f"SQNR of {name} fell by {-amount:.1f} dB" for name, amount in fell))[:COUNT]


def _sqnr(report: Report) -> dict[str, float]:
    """The SQNR (dB) of each layer where it is known, the least of its operators."""
    found: dict[str, float] = {}
    for place, row in enumerate(report.operators):
        if row.sqnr_db is not None:
            name = layer(report, place)
            found[name] = min(found.get(name, row.sqnr_db), row.sqnr_db)
    return found


_SIZES: Mapping[str, Callable[[Report], Amounts]] = {
    "tflite": _tflite,
    "arena": _arena,
    "aot_arena": _aot_arena,
    "params": lambda report: _by_layer(report, "params"),
    "macs": lambda report: _by_layer(report, "macs"),
}
