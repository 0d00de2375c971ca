"""What changed from one report of a model to another: figures, layers, symbols, limits."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgecompress.budget import judged, value
from edgecompress.errors import BudgetExceeded
from edgecompress.report import causes, parts
from edgecompress.report.boards import BoardRow
from edgecompress.report.causes import Amounts
from edgecompress.report.figures import Figure, figures
from edgecompress.report.report import Report, Verdict, exceeded

COLUMNS = (
    "model", "figure", "unit", "base", "head", "delta", "percent", "note",
    "least", "most", "tolerance", "ok",
)  # fmt: skip
"""The columns of the CSV."""

MANY = 3
"""Layers above which those that share a constant are counted, not named."""

_NONE = Figure(None, "")


@dataclass(frozen=True)
class Row:
    """One figure in both reports: `base` and `head` in `unit`, None where it was not measured.

    `note` says why the two cannot be compared ("": they can). `verdict` is that of the head's
    budget, None where there is no limit. A `part` is one of those that a further figure is the sum
    of.
    """

    figure: str
    unit: str
    base: float | None
    head: float | None
    note: str
    verdict: Verdict | None
    part: bool

    @property
    def delta(self) -> float | None:
        """head - base; None where they cannot be compared."""
        if self.note or self.base is None or self.head is None:
            return None
        return self.head - self.base

    @property
    def share(self) -> float | None:
        """The delta as a share of the base's size; None without one, or where that is about 0."""
        share = self.delta / abs(self.base) if self.delta is not None and self.base else math.inf
        return share if math.isfinite(100 * share) else None


@dataclass(frozen=True)
class Growth:
    """What one layer or symbol takes of `figure`, in both reports; 0 where it is not there."""

    figure: str
    name: str
    base: float
    head: float

    @property
    def delta(self) -> float:
        """head - base."""
        return self.head - self.base


@dataclass(frozen=True)
class Model:
    """One model in both reports.

    `skipped` says why there is no base to compare it with ("": there is one); then the base's
    figures are None and `layers` and `symbols` are empty. `budget` and `unchecked` are the head's
    limits as in a Report, the causes being what grew. `notes` are what else differs.
    """

    name: str
    skipped: str
    rows: tuple[Row, ...]
    layers: tuple[Growth, ...]
    symbols: tuple[Growth, ...]
    budget: tuple[Verdict, ...]
    unchecked: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The limits that are not kept."""
        return tuple(verdict for verdict in self.budget if not verdict.ok)


@dataclass(frozen=True)
class Diff:
    """The models of the head, each against the base; `notes` are about the whole."""

    models: tuple[Model, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every limit is kept."""
        return not any(model.broken for model in self.models)

    def check(self) -> None:
        """Raise BudgetExceeded naming every broken limit of every model."""
        broken = [exceeded(each.name, each.broken) for each in self.models if each.broken]
        if broken:
            raise BudgetExceeded("; ".join(broken))

    def to_json(self) -> str:
        """All of it as JSON text, with `delta` and `percent` of each row and `ok` of each limit."""
        models = []
        for model in self.models:
            table = dataclasses.asdict(model)
            table["rows"] = [_table(row) for row in model.rows]
            table["budget"] = [_judged(verdict) for verdict in model.budget]
            models.append(table)
        whole = {"ok": self.ok, "models": models, "notes": list(self.notes)}
        return json.dumps(whole, indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """The rows of all models as CSV under COLUMNS."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for model in self.models:
            for row in model.rows:
                limit = row.verdict
                bounds = (
                    (None,) * 4
                    if limit is None
                    else (limit.least, limit.most, limit.tolerance, limit.ok)
                )
                head = (_cell(model.name), _cell(row.figure), row.unit, row.base, row.head)
                writer.writerow((*head, row.delta, _percent(row), _cell(row.note), *bounds))
        return text.getvalue()


def diff(
    base: Mapping[str, Report],
    head: Mapping[str, Report],
    *,
    limits: Callable[[Report], Iterable[Verdict]],
    unread: Iterable[str] = (),
) -> Diff:
    """The models of `head` against those of the same name in `base`.

    `limits` gives those of a model's head (`Budget.limits`). `unread` says why reports of the base
    could not be read, which is then why a model has none to be compared with.
    """
    reasons = tuple(unread)
    missing = "; ".join(reasons) or "the base has no report of this model"
    models = tuple(
        model(base.get(name), report, limits=limits(report), skipped=missing)
        for name, report in sorted(head.items())
    )
    gone = (name for name in sorted(base) if name not in head)
    notes = [f"{name}: the base has a report of it, the head has none" for name in gone]
    told = all(each.skipped for each in models)
    return Diff(models, (*notes, *(() if told else reasons)))


def model(
    base: Report | None, head: Report, *, limits: Iterable[Verdict], skipped: str = ""
) -> Model:
    """One model: `head` against `base`, judged by `limits`; `skipped` is why `base` is None.

    A limit on a board that the base has a measurement of and the head has not is broken.
    """
    found = judged(head, limits)
    if base is None:
        rows = _rows({}, head, found.budget, None)
        return Model(head.name, skipped, rows, (), (), found.budget, found.unchecked, _about(head))
    lost = [limit for limit in found.unchecked if value(base, limit.limit) is not None]
    budget = tuple(_caused(base, head, verdict) for verdict in (*found.budget, *lost))
    return Model(
        name=head.name,
        skipped="",
        rows=_rows(figures(base), head, budget, base),
        layers=_growths(_layers(base), _layers(head)),
        symbols=_growths(_symbols(base), _symbols(head)),
        budget=budget,
        unchecked=tuple(limit for limit in found.unchecked if limit not in lost),
        notes=(*_about(head), *_differences(base, head)),
    )


def _caused(base: Report, head: Report, verdict: Verdict) -> Verdict:
    """`verdict` with what grew as its causes, or what shrank where too little is left; where the
    figure did not move that way, with the largest contributions."""
    before, now, less = value(base, verdict.limit), verdict.measured, verdict.excess < 0
    if before is None or now is None or (now < before if less else now > before):
        found = causes.growths(base, head, verdict.limit, less=less)
        return dataclasses.replace(verdict, causes=found or verdict.causes)
    return verdict


def _rows(
    before: Mapping[str, Figure], head: Report, budget: Iterable[Verdict], base: Report | None
) -> tuple[Row, ...]:
    """A row for each figure that either has, and for each limit on something else."""
    after = figures(head)
    first = f"accuracy.{head.accuracy[0].split}" if head.accuracy else ""
    verdicts = {
        first if verdict.limit == "accuracy.min" and first else verdict.limit: verdict
        for verdict in budget
    }
    found = []
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key, _NONE), after.get(key, _NONE)
        verdict = verdicts.pop(key, None)
        if (old.value, new.value, verdict) != (None, None, None):
            note = "" if base is None else _incomparable(old, new)
            unit, part = (new if key in after else old).unit, old.part or new.part
            found.append(Row(key, unit, old.value, new.value, note, verdict, part))
    for key, verdict in verdicts.items():
        old, new = _NONE if base is None else _looked_at(base, key), _looked_at(head, key)
        note = "" if base is None else _incomparable(old, new)
        found.append(Row(key, new.unit, old.value, verdict.measured, note, verdict, False))
    return tuple(found)


def _looked_at(report: Report, limit: str) -> Figure:
    """What `limit` looks at, where it is no figure of its own; of the first split if of any."""
    found = value(report, limit)
    if not limit.startswith("accuracy.") or not report.accuracy:
        return Figure(found, "")
    split = report.accuracy[0].split
    figure = figures(report)[f"accuracy.{split}"]
    return Figure(found, figure.unit, f"{split}: {figure.basis}")


def _incomparable(old: Figure, new: Figure) -> str:
    if old.value is None:
        return "not measured in the base"
    if new.value is None:
        return "not measured in the head"
    if (old.unit, old.basis) != (new.unit, new.basis):
        return f"not comparable: {old.basis or old.unit} in the base, {new.basis or new.unit} here"
    return ""


def _layers(report: Report) -> dict[str, Amounts]:
    """What each layer takes, by figure."""
    count = len(report.operators)
    found: dict[str, dict[str, float]] = {}

    def add(figure: str, amounts: Iterable[float]) -> None:
        table = found.setdefault(figure, {})
        for place, amount in enumerate(amounts):
            name = causes.layer(report, place)
            table[name] = table.get(name, 0) + amount

    add("size.tflite", (row.weight_bytes for row in report.operators))
    add("size.macs", (row.macs for row in report.operators))
    for row in report.boards:
        if row.image is not None and any(symbol.operators for symbol in row.image.symbols):
            add(f"board.{row.key}.flash", (each.total for each in row.image.operators(count)))
        if row.profile and row.timing is not None:
            add(f"board.{row.key}.{row.timing.unit}", (each.amount for each in row.profile))
    return dict(found)


def _symbols(report: Report) -> dict[str, Amounts]:
    """The bytes of flash of each symbol, by board; weights and constants of layers by those, as
    their own names are numbers."""
    found: dict[str, dict[str, float]] = {}
    layers = causes.layers(report)
    for row in report.boards:
        if row.image is None:
            continue
        table = found.setdefault(f"board.{row.key}.flash", {})
        for symbol in row.image.symbols:
            where = f"{symbol.part}, {symbol.file}" if symbol.file else symbol.part
            name = f"{symbol.name} ({where})"
            if symbol.operators and symbol.part in ("weights", "constants"):
                of = sorted({layers[place] for place in symbol.operators})
                named = ", ".join(of) if len(of) <= MANY else f"{len(of)} layers"
                name = f"{symbol.part} of {named}"
            table[name] = table.get(name, 0) + symbol.flash
    return dict(found)


def _growths(before: Mapping[str, Amounts], after: Mapping[str, Amounts]) -> tuple[Growth, ...]:
    """What changed in the figures that both have, the largest changes of each first."""
    found = []
    for figure, new in after.items():
        old = before.get(figure)
        if old is None:
            continue
        each = [Growth(figure, name, old.get(name, 0), new.get(name, 0)) for name in {**old, **new}]
        changed = [growth for growth in each if growth.delta]
        found += sorted(changed, key=lambda growth: (-abs(growth.delta), growth.name))
    return tuple(found)


def _about(head: Report) -> tuple[str, ...]:
    """What a reader must know of the head alone."""
    found = []
    for row in head.boards:
        bits = row.outputs
        if bits is not None and bits.exact != bits.elements:
            wrong = bits.elements - bits.exact
            found.append(
                f"{row.key}: {wrong:,} of {bits.elements:,} outputs differ from the TFLM"
                " interpreter's"
            )
        found += parts.remarks(row)
    return tuple(found)


def _differences(base: Report, head: Report) -> tuple[str, ...]:
    """What else is not the same: tools, and what a board's time depends on."""
    found = ["model.tflite is the same file"] if base.sha256 == head.sha256 else []
    for tool in sorted({**base.tools, **head.tools}):
        old, new = base.tools.get(tool, "not there"), head.tools.get(tool, "not there")
        if old != new:
            found.append(f"{tool} {old} in the base, {new} here")
    found += _steps(base, head)
    before = {row.key: row for row in base.boards}
    for row in head.boards:
        was = before.get(row.key)
        for old, new in zip(_conditions(was), _conditions(row), strict=True) if was else ():
            if old and new and old != new:
                found.append(f"{row.key}: {old} in the base, {new} here")
    return tuple(found)


def _steps(base: Report, head: Report) -> Iterator[str]:
    """What was done otherwise."""
    old, new = ([step.stage for step in report.steps] for report in (base, head))
    if old != new:
        yield f"{', '.join(old) or 'no steps'} in the base, {', '.join(new) or 'no steps'} here"
        return
    for was, now in zip(base.steps, head.steps, strict=True):
        for key in sorted({**was.params, **now.params}):
            values = [json.dumps(params.get(key)) for params in (was.params, now.params)]
            if values[0] != values[1]:
                yield f"{was.stage}: {key} {values[0]} in the base, {values[1]} here"


def _conditions(row: BoardRow) -> tuple[str, ...]:
    """What a board's figures depend on beside the model: the compiler, what the kernels were chosen
    for, and the real hardware."""
    timing = row.timing
    clock = None if timing is None else timing.clock_hz
    real = "" if timing is None or clock is None else f"{clock / 1e6:g} MHz, {timing.conditions}"
    chosen = "" if row.optimize is None else f"kernels chosen for {row.optimize}"
    return row.compiler or "", chosen, real


def _percent(row: Row) -> float | None:
    return None if row.share is None else round(100 * row.share, 4)


def _table(row: Row) -> dict[str, object]:
    limit = None if row.verdict is None else row.verdict.limit
    return {
        **dataclasses.asdict(row),
        "verdict": limit,
        "delta": row.delta,
        "percent": _percent(row),
    }


def _judged(verdict: Verdict) -> dict[str, object]:
    return {**dataclasses.asdict(verdict), "ok": verdict.ok}


def _cell(text: str) -> str:
    """`text` for a spreadsheet, which would take one that begins so for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
