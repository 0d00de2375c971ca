"""budget.toml -> Budget: what a report's figures may be; an unknown key or board is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeAlias

from edgecompress import boards, zoo
from edgecompress.errors import ConfigError
from edgecompress.report import causes
from edgecompress.report.figures import MEMORY, PACE, figures
from edgecompress.report.report import Report, Verdict
from edgecompress.strict import read_toml
from edgecompress.vocabulary import BACKENDS

FILE = "budget.toml"
"""Its name in a model's folder."""
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kKmM]?)(?:i?[bB])?")
UNIT = {"": 1, "k": 1024, "m": 1024 * 1024}

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,15})?)\s*%")
_DEFAULT_BACKEND = BACKENDS[0]


@dataclass(frozen=True)
class Bounds:
    """A limit with more to it than one number.

    `most` and `least` are numbers, or sizes as `"48K"`; both may be missed by the share
    `tolerance` of them, a number below 1 or a text as `"2%"`.
    """

    most: float | str | None = None
    least: float | str | None = None
    tolerance: float | str = 0.0


Size: TypeAlias = int | str | Bounds | None
"""An upper limit: a whole number, or as `48K` or `1.5M` (K = 1024)."""
Share: TypeAlias = float | Bounds | None


@dataclass(frozen=True)
class AccuracyLimit:
    """`max_drop`: how much the metric may worsen, in the metric's own unit (0.02: two points);
    `min`: the least it may be. Both are of the first split."""

    max_drop: Share = None
    min: Share = None


@dataclass(frozen=True)
class SizeLimit:
    """What the model may take: bytes, and counts of parameters and multiply-accumulates."""

    tflite: Size = None
    arena: Size = None
    aot_arena: Size = None
    params: Size = None
    macs: Size = None


@dataclass(frozen=True)
class BoardLimit:
    """What an image and an inference may take on one board: bytes, and instructions, cycles or
    microseconds, whichever the board counts in."""

    flash: Size = None
    ram: Size = None
    arena: Size = None
    stack: Size = None
    instructions: Size = None
    cycles: Size = None
    microseconds: Size = None


@dataclass(frozen=True)
class Budget:
    """The limits a report is checked against; a missing limit is no limit.

    `board` has a section for each board, by its name; under TFLite Micro by `<name>-tflm`.
    """

    accuracy: AccuracyLimit = field(default_factory=AccuracyLimit)
    size: SizeLimit = field(default_factory=SizeLimit)
    board: Mapping[str, BoardLimit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, section in self.board.items():
            _check_board(key, section)
        self.limits()

    @classmethod
    def read(cls, path: Path) -> Budget:
        """The budget in the TOML file `path`; ConfigError names the file, the key and what is
        allowed."""
        return read_toml(cls, path, error=ConfigError)

    def limits(self) -> tuple[Verdict, ...]:
        """Every limit, as a verdict without a measurement."""
        given = [(f"size.{name}", value) for name, value in sorted(_set(self.size).items())]
        for key, section in sorted(self.board.items()):
            given += [(f"board.{key}.{name}", value) for name, value in _set(section).items()]
        sizes = [_limit(key, value, side="most") for key, value in given]
        drop, least = self.accuracy.max_drop, self.accuracy.min
        shares = [] if drop is None else [_limit("accuracy.max_drop", drop, side="most")]
        shares += [] if least is None else [_limit("accuracy.min", least, side="least")]
        count = sum(key.startswith("size.") for key, _ in given)
        return (*sizes[:count], *shares, *sizes[count:])


def of_zoo(model: str) -> Path | None:
    """The budget.toml of the zoo's `model`; None where there is none, or no such model."""
    if model not in zoo.names():
        return None
    path = zoo.folder(model) / FILE
    return path if path.is_file() else None


def judge(report: Report, budget: Budget) -> Report:
    """`report` with a verdict for each limit of `budget`; see `judged`."""
    return judged(report, budget.limits())


def again(report: Report) -> Report:
    """`report` judged by its own limits once more: a board may have come to it since."""
    return judged(report, (*report.budget, *report.unchecked))


def judged(report: Report, limits: Iterable[Verdict]) -> Report:
    """`report` with a verdict for each of `limits`, with the causes of what was measured.

    A limit on something that was not measured is broken. But of boards that were not measured, not
    built, or built and not run, the limits on what was not found out go to `unchecked`.
    """
    verdicts: dict[bool, list[Verdict]] = {True: [], False: []}
    for limit in limits:
        measured = value(report, limit.limit)
        found = causes.of(report, limit.limit)
        open_ = measured is None and not _answered(report, limit.limit)
        verdicts[open_].append(replace(limit, measured=measured, causes=found))
    return replace(report, budget=tuple(verdicts[False]), unchecked=tuple(verdicts[True]))


def value(report: Report, limit: str) -> float | None:
    """What `limit` looks at in `report`, None where it was not measured."""
    if limit.startswith("accuracy."):
        first = report.accuracy[0] if report.accuracy else None
        drop = limit == "accuracy.max_drop"
        return None if first is None else first.drop if drop else first.compressed
    figure = figures(report).get(limit)
    return None if figure is None or figure.value is None else float(figure.value)


def parse_size(text: str | float) -> int:
    """Bytes from `49152`, `"48K"` or `"1.5M"` (K = 1024 bytes); ConfigError otherwise."""
    match = SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ConfigError(f"size {text!r}: write bytes, or a number with K or M, such as 48K")
    return int(float(match[1]) * UNIT[match[2].lower()])


def _set(section: SizeLimit | BoardLimit) -> dict[str, int | str | Bounds]:
    """The limits of `section` that are given."""
    values = {item.name: getattr(section, item.name) for item in fields(section)}
    return {name: value for name, value in values.items() if value is not None}


def _check_board(key: str, section: BoardLimit) -> None:
    """ConfigError unless `key` is a board, and counts what `section` limits."""
    name, _, backend = key.rpartition("-")
    if backend not in BACKENDS or backend == _DEFAULT_BACKEND:
        name = key
    if name not in boards.names():
        known = ", ".join(boards.names())
        raise ConfigError(f"board.{key}: no such board; allowed: {known}, and these with -tflm")
    board = boards.load(name)
    memory = [item for item in MEMORY if board.kind != "program" or item in ("arena", "stack")]
    pace = [item for item in PACE if item == board.unit]
    allowed = [*memory, *pace, *["microseconds"] * (board.clock_hz is not None)]
    for item in _set(section):
        if item not in allowed:
            raise ConfigError(
                f"board.{key}.{item}: not measured on {name}; allowed: {', '.join(allowed)}"
            )


def _limit(key: str, given: float | str | Bounds, *, side: str) -> Verdict:
    """The limit under `key`; a number alone is its `side`."""
    bounds = given if isinstance(given, Bounds) else Bounds(**{side: given})
    if bounds.least is None and bounds.most is None:
        raise ConfigError(f"{key}: nothing is limited; give most, least or both")
    least, most = (
        None if bound is None else _bound(key, bound) for bound in (bounds.least, bounds.most)
    )
    if least is not None and most is not None and least > most:
        raise ConfigError(f"{key}: least = {bounds.least!r} is above most = {bounds.most!r}")
    return Verdict(key, least, most, _tolerance(key, bounds.tolerance), None)


def _bound(key: str, bound: float | str) -> float:
    if not key.startswith("accuracy."):
        try:
            return float(parse_size(bound))
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
    if isinstance(bound, str) or not math.isfinite(bound):
        raise ConfigError(f"{key} = {bound!r}: use a finite number")
    return bound


def _tolerance(key: str, given: float | str) -> float:
    match = _SHARE.fullmatch(given) if isinstance(given, str) else None
    share = float(match[1]) / 100 if match else given
    if isinstance(share, str) or not 0 <= share < 1:
        raise ConfigError(f"{key}.tolerance = {given!r}: write a share such as 0.02, or 2%")
    return share


def _answered(report: Report, limit: str) -> bool:
    """Whether `limit` is on the model, or on a board that was asked for its figure."""
    if not limit.startswith("board."):
        return True
    _, key, name = limit.split(".")
    row = next((row for row in report.boards if row.key == key), None)
    if row is None or (row.flash is None and row.timing is None):
        return False
    return name in ("flash", "ram", "arena") or row.timing is not None
