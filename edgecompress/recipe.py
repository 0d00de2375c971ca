"""recipe.toml -> Recipe, budget.toml -> Budget; an unknown key or a wrong type is an error."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgecompress.errors import ConfigError
from edgecompress.strict import TOO_DEEP, build
from edgecompress.vocabulary import IoType, Kernels, Mode, Scope, ScoreName, Unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kKmM]?)(?:i?[bB])?")
UNIT = {"": 1, "k": 1024, "m": 1024 * 1024}


@dataclass(frozen=True)
class Prune:
    """Structured pruning: at most one target (`ratio`, `macs` or `params`); none means no pruning.

    `ratio` is the fraction of the prunable channels to remove, `macs` and `params` the fraction
    of the model's multiply-accumulates or parameters to keep. The rest are the arguments of
    `edgecompress.prune_structured` of the same name.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    score: ScoreName = "l2"
    scope: Scope = "global"
    round_to: int = 1
    min_channels: int = 1
    protect: tuple[str, ...] = ()
    unknown: Unknown = "error"

    def __post_init__(self) -> None:
        targets = {"ratio": self.ratio, "macs": self.macs, "params": self.params}
        given = [name for name, value in targets.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"prune: {' and '.join(given)} are both set; keep one target")
        for name, value in targets.items():
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"prune.{name} = {value}: use a fraction from 0 to 1")

    @property
    def active(self) -> bool:
        """Whether there is anything to prune."""
        return bool(self.ratio) or self.macs is not None or self.params is not None


@dataclass(frozen=True)
class Quantize:
    """Conversion to a flatbuffer: the arguments of `edgecompress.quantize` of the same name."""

    mode: Mode = "int8"
    calibration_samples: int = 200
    input_type: IoType | None = None
    output_type: IoType | None = None
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.calibration_samples < 1:
            raise ConfigError(
                f"quantize.calibration_samples = {self.calibration_samples}: use at least 1"
            )


@dataclass(frozen=True)
class Evaluate:
    """How much is judged, and by which kernels.

    `tflm_samples` rows are run through the TFLM interpreter and compared bit for bit,
    `error_samples` rows are traced for the quantisation error of each layer. The accuracy of the
    flatbuffer is that of the `exact` reference kernels, or, many times quicker and not to the
    last bit, of the `fast` default ones.
    """

    kernels: Kernels = "exact"
    tflm_samples: int = 64
    error_samples: int = 16

    def __post_init__(self) -> None:
        for name in ("tflm_samples", "error_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name} = {getattr(self, name)}: use at least 1")


@dataclass(frozen=True)
class Recipe:
    """What `edgecompress.compress` does to a model."""

    prune: Prune = field(default_factory=Prune)
    quantize: Quantize = field(default_factory=Quantize)
    evaluate: Evaluate = field(default_factory=Evaluate)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: use a whole number from 0")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in the TOML file `path`; ConfigError names the file, the key and what is
        allowed."""
        return build(cls, _toml(path), where=str(path), error=ConfigError)

    def merged(self, changes: Mapping[str, Mapping[str, Any]], *, seed: int | None) -> Recipe:
        """This recipe with options of the command line on top: `changes[section][key]`.

        A new pruning target takes the place of the recipe's.
        """
        sections: dict[str, Any] = {}
        for section, values in changes.items():
            values = dict(values)
            if section == "prune" and values.keys() & {"ratio", "macs", "params"}:
                values = {"ratio": None, "macs": None, "params": None, **values}
            sections[section] = replace(getattr(self, section), **values)
        return replace(self, **sections, seed=self.seed if seed is None else seed)


@dataclass(frozen=True)
class AccuracyLimit:
    """`max_drop`: how much the metric may worsen, in the metric's own unit (0.02: two points)."""

    max_drop: float | None = None
    min: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"accuracy.{item.name} = {value}: use a finite number")


@dataclass(frozen=True)
class SizeLimit:
    """Upper limits in bytes; in the file `48K` or `1.5M` may stand for them (K = 1024)."""

    tflite: int | str | None = None
    arena: int | str | None = None
    aot_arena: int | str | None = None
    params: int | str | None = None
    macs: int | str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) is not None:
                self.limit(item.name)

    def limit(self, name: str) -> int | None:
        """The limit `name` in bytes (or counts); None where there is none."""
        value = getattr(self, name)
        try:
            return None if value is None else parse_size(value)
        except ConfigError as error:
            raise ConfigError(f"size.{name}: {error}") from None


@dataclass(frozen=True)
class Budget:
    """The limits a report is checked against; a missing limit is no limit."""

    accuracy: AccuracyLimit = field(default_factory=AccuracyLimit)
    size: SizeLimit = field(default_factory=SizeLimit)

    @classmethod
    def read(cls, path: Path) -> Budget:
        """The budget in the TOML file `path`; ConfigError names the file, the key and what is
        allowed."""
        return build(cls, _toml(path), where=str(path), error=ConfigError)


def parse_size(text: str | int) -> int:
    """Bytes from `49152`, `"48K"` or `"1.5M"` (K = 1024 bytes); ConfigError otherwise."""
    match = SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ConfigError(f"size {text!r}: write bytes, or a number with K or M, such as 48K")
    return int(float(match[1]) * UNIT[match[2].lower()])


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except RecursionError:
        raise ConfigError(f"{path}: {TOO_DEEP}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}") from error
