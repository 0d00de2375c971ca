"""The frozen tables of a report, their JSON form (schema 3) and the budget check.

What was not measured is None, never 0.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgecompress.artifact import Json, Step
from edgecompress.backends.aot.density import Row
from edgecompress.errors import BudgetExceeded
from edgecompress.files import write_text
from edgecompress.report.boards import BoardRow
from edgecompress.report.checks import ReportError, at_least
from edgecompress.report.memory_map import MemoryMap
from edgecompress.report.operators import OperatorRow
from edgecompress.strict import TOO_DEEP, build
from edgecompress.vocabulary import Metric

Number = float
_LIMIT = re.compile(
    r"accuracy\.(max_drop|min)|size\.(aot_arena|arena|macs|params|tflite)"
    r"|board\.[0-9a-z_-]+\.(flash|ram|arena|stack|instructions|cycles|microseconds)"
)
SCHEMA, OLDER = 3, (1, 2)
"""The schema of report.json that is read and written, and those before it."""


@dataclass(frozen=True)
class Change:
    """A figure before (the model as given, float32) and after the run."""

    before: int | None
    after: int | None

    def __post_init__(self) -> None:
        at_least(0, before=self.before, after=self.after)

    @property
    def ratio(self) -> float | None:
        """after / before, None where either was not measured or before is 0."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return self.after / self.before


@dataclass(frozen=True)
class Size:
    """Parameters, multiply-accumulates per inference, `.tflite` bytes, arena bytes.

    The arena is the exact minimum of the TFLM interpreter on a 64-bit host: activations are the
    device's, the bookkeeping behind them is smaller on a 32-bit core. `aot_arena` is the whole
    arena of the ahead-of-time C. `before` of the last three is the plain float32 conversion of the
    model as given.
    """

    params: Change
    macs: Change
    tflite: Change
    arena: Change
    aot_arena: Change


@dataclass(frozen=True)
class AccuracyRow:
    """One split: the metric of the float model, of the pruned one, of the one that was trained on
    after that, and of the flatbuffer.

    top1 and auc are fractions (more is better), mse is in the output's own unit (less is better).
    `tflm` is the metric under the TFLM interpreter on its first `tflm_samples` rows. `confusion`
    counts the flatbuffer's answers: a row for each true class, a column for each that was
    answered; None where the metric is not top1.
    """

    split: str
    source: str
    metric: Metric
    samples: int
    float: Number | None
    pruned: Number | None
    compressed: Number | None
    tflm: Number | None
    tflm_samples: int | None
    confusion: tuple[tuple[int, ...], ...] | None = None
    trained: Number | None = None

    def __post_init__(self) -> None:
        self._check_confusion()
        at_least(1, samples=self.samples, tflm_samples=self.tflm_samples)
        if (self.tflm is None) != (self.tflm_samples is None):
            raise ReportError("tflm and tflm_samples: one is given without the other")
        if self.tflm_samples is not None and self.tflm_samples > self.samples:
            raise ReportError(f"tflm_samples = {self.tflm_samples}: more than {self.samples} rows")
        for name in ("float", "pruned", "trained", "compressed", "tflm"):
            value = getattr(self, name)
            most = math.inf if self.metric == "mse" else 1
            if value is not None and not 0 <= value <= most:
                raise ReportError(f"{name} = {value}: {self.metric} is from 0 to {most}")

    def _check_confusion(self) -> None:
        table = self.confusion
        if table is None:
            return
        at_least(0, confusion=min((count for row in table for count in row), default=0))
        if any(len(row) != len(table) for row in table) or sum(map(sum, table)) != self.samples:
            raise ReportError(f"confusion: a square table of {self.samples} samples is wanted")

    @property
    def drop(self) -> Number | None:
        """How much the metric worsened from float to compressed, in its own unit."""
        if self.float is None or self.compressed is None:
            return None
        worse = self.compressed - self.float
        return worse if self.metric == "mse" else -worse


@dataclass(frozen=True)
class Difference:
    """The first operator whose outputs differ between two runtimes.

    `mismatch` of its `elements` output elements differ, the worst by `max_diff` (LSB; in the
    output's own unit for a float operator).
    """

    operator: str
    layer: str
    mismatch: int
    elements: int
    max_diff: float

    def __post_init__(self) -> None:
        at_least(1, mismatch=self.mismatch)
        if self.mismatch > self.elements:
            raise ReportError(f"mismatch = {self.mismatch}: more than {self.elements} elements")


@dataclass(frozen=True)
class Proof:
    """Bit comparison of the TFLM interpreter (`subject`) with the reference kernels.

    Counts are output elements over `samples` inferences; `max_diff` is in LSB.
    """

    reference: str
    subject: str
    samples: int
    elements: int
    exact: int
    off_by_one: int
    mismatch: int
    max_diff: int
    differs_at: Difference | None = None

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples, elements=self.elements)
        counts = {"exact": self.exact, "off_by_one": self.off_by_one, "mismatch": self.mismatch}
        at_least(0, **counts, max_diff=self.max_diff)
        if sum(counts.values()) != self.elements:
            added = " + ".join(counts)
            raise ReportError(f"elements = {self.elements}: {added} is {sum(counts.values())}")
        if (self.max_diff == 0) != self.holds:
            raise ReportError(
                f"max_diff = {self.max_diff}: {self.exact} of {self.elements} elements are equal"
            )

    @property
    def holds(self) -> bool:
        """Whether every output element is equal to the last bit."""
        return self.exact == self.elements


@dataclass(frozen=True)
class Verdict:
    """One limit of the budget and what was measured against it.

    `limit` is its key in budget.toml (`size.tflite`, `board.qemu_m4.flash`), `least` and `most`
    what it allows, `tolerance` the share by which both may be missed. `measured` is None where
    there was no measurement, which breaks the limit. `causes` are the largest contributions to
    what was measured, a few words each.
    """

    limit: str
    least: float | None
    most: float | None
    tolerance: float
    measured: float | None
    causes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _LIMIT.fullmatch(self.limit):
            raise ReportError(f"limit = {self.limit!r}: no limit of a budget has that name")
        if not 0 <= self.tolerance < 1:
            raise ReportError(f"tolerance = {self.tolerance}: it is from 0 to less than 1")

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        value = self.measured
        if value is None:
            return False
        over = self.most is not None and value > self.most + abs(self.most) * self.tolerance
        under = self.least is not None and value < self.least - abs(self.least) * self.tolerance
        return not (over or under)

    @property
    def excess(self) -> float:
        """By how much what was measured is above `most` (more than 0) or below `least` (less than
        0), the tolerance not counted; 0 in between, and where nothing was measured."""
        if self.measured is None:
            return 0.0
        above = 0.0 if self.most is None else max(self.measured - self.most, 0.0)
        below = 0.0 if self.least is None else min(self.measured - self.least, 0.0)
        return above + below

    @property
    def allowed(self) -> str:
        """What the limit allows, in words."""
        bounds = (("<=", self.most), (">=", self.least))
        wanted = " and ".join(f"{sign} {self.said(b)}" for sign, b in bounds if b is not None)
        return wanted + (f" (tolerance {100 * self.tolerance:.3g}%)" if self.tolerance else "")

    @property
    def told(self) -> str:
        """The whole of it in words, with the causes."""
        return f"{self} (largest: {', '.join(self.causes)})" if self.causes else str(self)

    @property
    def word(self) -> str:
        """The limit in a word: ok, OVER, UNDER, LOST (not measured)."""
        if self.measured is None:
            return "LOST"
        return "ok" if self.ok else "UNDER" if self.excess < 0 else "OVER"

    @property
    def room(self) -> float | None:
        """What is left to the nearest bound, the tolerance not counted; less than 0 beyond it."""
        if self.measured is None:
            return None
        above = math.inf if self.most is None else self.most - self.measured
        below = math.inf if self.least is None else self.measured - self.least
        return min(above, below)

    def said(self, figure: float | None) -> str:
        """`figure`, in the unit of this limit, in words."""
        if figure is None:
            return "not measured"
        if self.limit.startswith("accuracy."):
            return f"{round(figure, 9):.4g}"  # a difference of two is not exact
        return f"{figure:,.0f}"

    def __str__(self) -> str:
        told = f"{self.limit} is {self.said(self.measured)}, must be {self.allowed}"
        return told if self.ok or self.measured is None else f"{told}: {self._missed()}"

    def _missed(self) -> str:
        bound = self.most if self.excess > 0 else self.least
        share = f" ({abs(self.excess / bound):,.1%})" if bound else ""
        return f"{'over' if self.excess > 0 else 'under'} by {self.said(abs(self.excess))}{share}"


def exceeded(model: str, broken: Iterable[Verdict]) -> str:
    """The limits that `model` broke, by how much, and their largest causes."""
    return f"{model}: over budget: {'; '.join(verdict.told for verdict in broken)}"


@dataclass(frozen=True)
class Report:
    """Everything a run of the pipeline found out.

    `budget` are the limits that were checked, `unchecked` those of boards that were not measured.
    `density` has the operators of a model with many zeros, or few distinct weights, as the
    ahead-of-time C runs them and as it would run dense ones; `gzip` are the bytes of its weights
    as a compressed file, which no microcontroller runs from.
    """

    name: str
    sha256: str
    tools: Mapping[str, Json]
    commit: str | None
    steps: tuple[Step, ...]
    size: Size
    accuracy: tuple[AccuracyRow, ...]
    proof: Proof | None
    operators: tuple[OperatorRow, ...]
    unsupported: tuple[str, ...]
    aot_unsupported: tuple[str, ...]
    budget: tuple[Verdict, ...] = ()
    boards: tuple[BoardRow, ...] = ()
    memory: MemoryMap | None = None
    labels: tuple[str, ...] = ()
    unchecked: tuple[Verdict, ...] = ()
    density: tuple[Row, ...] = ()
    gzip: int | None = None
    schema: Literal[3] = 3

    def __post_init__(self) -> None:
        count = len(self.operators)
        if any(not 0 <= row.op < count for row in self.density):
            raise ReportError(f"density: a row is of none of {count} operators")
        at_least(0, gzip=self.gzip)
        for row in self.boards:
            if row.profile and len(row.profile) != count:
                raise ReportError(f"boards: {row.key}: a profile of {count} operators is wanted")
            symbols = () if row.image is None else row.image.symbols
            if any(not 0 <= place < count for each in symbols for place in each.operators):
                raise ReportError(f"boards: {row.key}: a symbol is for none of {count} operators")

    def check(self) -> None:
        """Raise BudgetExceeded naming every broken limit, by how much, and its largest causes."""
        broken = [verdict for verdict in self.budget if not verdict.ok]
        if broken:
            raise BudgetExceeded(exceeded(self.name, broken))

    def to_json(self) -> str:
        """The report as JSON text, keys in a fixed order; ValueError for a NaN or an infinity."""
        table = dataclasses.asdict(self)
        whole = {"schema": table.pop("schema"), **table}
        return json.dumps(whole, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "report.json") -> Report:
        """The report in JSON `text`, every key of it; ReportError names `where` and what is
        wrong."""
        try:
            table = json.loads(text, parse_constant=_figure, parse_float=_figure)
        except RecursionError:
            raise ReportError(f"{where}: {TOO_DEEP}; run compress again") from None
        except ValueError as error:
            raise ReportError(f"{where}: not JSON ({error}); run compress again") from error
        schema = table.get("schema") if isinstance(table, dict) else None
        if type(schema) is int and schema in OLDER:
            raise ReportError(
                f"{where}: written by an older edgecompress (schema {schema}, this one reads"
                f" {SCHEMA}); run compress again"
            )
        return build(cls, table, where=where, error=ReportError, complete=True)

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report at `path`, a run directory or a report.json; ReportError where there is no
        good one."""
        if path.is_dir() or path.suffix != ".json":
            path = path / "report.json"
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise ReportError(f"{path}: no such report; run edgecompress compress first") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ReportError(f"{path}: cannot be read ({error}); run compress again") from error
        return cls.from_json(text, where=str(path))

    def save(self, folder: Path) -> None:
        """Write report.json, report.md and report.html into `folder`, each by renaming a finished
        file."""
        from edgecompress.report import html, markdown

        files = {
            "report.json": self.to_json(),
            "report.md": markdown.render(self),
            "report.html": html.render(self),
        }
        for name, text in files.items():
            write_text(folder / name, text)


def _figure(text: str) -> float:
    """A JSON number, without NaN, Infinity and what rounds to it."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
