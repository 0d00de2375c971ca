"""recipe.toml -> Recipe; an unknown key or a wrong type is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecompress.errors import ConfigError
from edgecompress.strict import read_toml
from edgecompress.vocabulary import (
    TARGETS,
    Calibration,
    IoType,
    Kernels,
    Mode,
    Repair,
    Rounding,
    Scope,
    ScoreName,
    Target,
    Unknown,
)

RECIPES = Path(__file__).parent / "recipes"

BY_SAMPLES: tuple[Repair, ...] = ("none", "mean", "activation")
"""Repairs that can go by samples; the others go by filters, which samples do not show."""


@dataclass(frozen=True)
class Choice:
    """What pruning removes: at most one target (one of TARGETS), and how the channels are chosen.

    `ratio` is the fraction of the prunable channels to remove. The others are what may remain of
    multiply-accumulates, parameters, bytes of flash and of RAM, and instructions of one inference:
    up to 1 a share of the original's, above 1 a whole number. The rest are the arguments of
    `edgecompress.prune_structured` of the same name.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    flash: float | None = None
    ram: float | None = None
    instructions: float | None = None
    score: ScoreName = "l2"
    scope: Scope = "global"
    round_to: int = 1
    min_channels: int = 1
    protect: tuple[str, ...] = ()
    unknown: Unknown = "error"
    repair: Repair = "none"

    def __post_init__(self) -> None:
        if len(self.targets) > 1:
            raise ConfigError(f"prune: {' and '.join(self.targets)} are both set; keep one target")
        for name, value in self.targets.items():
            if name == "ratio" and not 0 <= value <= 1:
                raise ConfigError(f"prune.{name} = {value}: use a fraction from 0 to 1")
            if name != "ratio" and not (0 <= value <= 1 or (value > 1 and value % 1 == 0)):
                raise ConfigError(
                    f"prune.{name} = {value}: use a fraction from 0 to 1, or a whole number above 1"
                )

    @property
    def targets(self) -> dict[Target, float]:
        """The targets that are given."""
        values: dict[Target, float | None] = {name: getattr(self, name) for name in TARGETS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def active(self) -> bool:
        """Whether there is anything to prune."""
        return bool(self.targets) and self.ratio != 0

    @property
    def learns(self) -> bool:
        """Whether anything needs to be known of the activations."""
        return self.score == "obs" or self.scope == "predicted" or self.repair != "none"


@dataclass(frozen=True)
class Prune(Choice):
    """Structured pruning; without a target, none.

    `calibration` says what repair, score "obs" and scope "predicted" learn the activations from:
    the weights alone, `samples` rows, or as many distilled ones (at most those that one batch has).
    The repairs of BY_SAMPLES can do either, the others need "data-free".
    """

    calibration: Calibration = "data-free"
    samples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ConfigError(f"prune.samples = {self.samples}: use at least 1")
        if self.calibration != "data-free" and self.repair not in BY_SAMPLES:
            raise ConfigError(
                f'prune.calibration = "{self.calibration}": repair = "{self.repair}" goes by the'
                ' weights alone; use calibration = "data-free", or repair = "activation"'
            )


OWN = ("calibration", "weight_bits", "rounding", "correct_bias", "equalise")
"""Keys of `quantize` that are for mode int8."""


@dataclass(frozen=True)
class Quantize:
    """Conversion to a flatbuffer: the arguments of `edgecompress.quantize` of the same name.

    `calibration = "samples"` takes `calibration_samples` rows of the data. `input_range` is the
    least and the largest value of the inputs, for `calibration = "data-free"`.
    """

    mode: Mode = "int8"
    calibration: Calibration = "samples"
    calibration_samples: int = 200
    weight_bits: int = 8
    rounding: Rounding = "nearest"
    correct_bias: bool = False
    equalise: bool = False
    input_range: tuple[float, ...] | None = None
    input_type: IoType | None = None
    output_type: IoType | None = None
    per_channel: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise ConfigError(f"quantize.weight_bits = {self.weight_bits}: use 2 to 8")
        if self.input_range is not None:
            if self.calibration != "data-free":
                raise ConfigError('quantize.input_range: for calibration = "data-free" alone')
            if len(self.input_range) != 2 or not self.input_range[0] < self.input_range[1]:
                raise ConfigError(
                    f"quantize.input_range = {list(self.input_range)}: use two numbers, the least"
                    " first"
                )
        plain = Quantize.__dataclass_fields__
        own = [name for name in OWN if getattr(self, name) != plain[name].default]
        if self.mode != "int8" and own:
            raise ConfigError(
                f"quantize: {', '.join(own)} are for mode int8, not {self.mode}; leave them out, or"
                " take another recipe"
            )
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

    @property
    def needs_samples(self) -> bool:
        """Whether a run needs data for more than to judge the model."""
        prune = self.prune
        quantize = self.quantize
        return (quantize.calibration == "samples" and quantize.mode.startswith("int")) or (
            prune.active
            and (prune.score == "taylor" or (prune.learns and prune.calibration == "samples"))
        )

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in the TOML file `path`; ConfigError names the file, the key and what is
        allowed."""
        return read_toml(cls, path, error=ConfigError)

    def merged(self, changes: Mapping[str, Mapping[str, Any]], *, seed: int | None) -> Recipe:
        """This recipe with options of the command line on top: `changes[section][key]`.

        A new pruning target takes the place of the recipe's, and without repair the scope
        "predicted", which goes by it, becomes "global".
        """
        sections: dict[str, Any] = {}
        for section, values in changes.items():
            values = dict(values)
            if section == "prune" and values.keys() & set(TARGETS):
                values = {**dict.fromkeys(TARGETS), **values}
            if section == "prune" and values.get("repair") == "none":
                values = {"scope": _unpredicted(self.prune.scope), **values}
            sections[section] = replace(getattr(self, section), **values)
        return replace(self, **sections, seed=self.seed if seed is None else seed)


def _unpredicted(scope: Scope) -> Scope:
    return "global" if scope == "predicted" else scope


def named(name: str) -> Path:
    """The file of a recipe: `name` itself where it is a file, else one that comes with us.

    Raises ConfigError where it is neither, naming those there are.
    """
    path = Path(name)
    if path.suffix or path.exists():
        return path
    own = RECIPES / f"{name}.toml"
    if not own.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(f"recipe {name!r}: no such file, nor a recipe of ours ({known})")
    return own
