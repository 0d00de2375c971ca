"""The tables of a recipe: what each stage may be told, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgecompress.errors import ConfigError
from edgecompress.vocabulary import (
    IO_TYPES,
    TARGETS,
    Calibration,
    Centroids,
    ClassWeights,
    IoType,
    Kernels,
    Mode,
    Optimizer,
    Pattern,
    Ramp,
    Repair,
    Rounding,
    Schedule,
    Scope,
    ScoreName,
    Target,
    Unknown,
)

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
    floor: float = 0.0
    protect: tuple[str, ...] = ()
    unknown: Unknown = "error"
    repair: Repair = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"prune.floor = {self.floor}: use a share from 0 to 1")
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

    @property
    def looks(self) -> bool:
        """Whether there is anything that rows are looked at for, where there are some."""
        return self.learns or self.scope == "sensitivity"


@dataclass(frozen=True)
class Prune(Choice):
    """Structured pruning; without a target, none.

    `calibration` says what repair, score "obs" and scope "predicted" learn the activations from:
    the weights alone, `samples` rows, or as many distilled ones (at most those that one batch has).
    The repairs of BY_SAMPLES can do either, the others need "data-free"; scope "sensitivity" needs
    rows. With several `rounds` the
    target is approached step by step, with `epochs` of training (see Train) after each but the
    last, behind which `finetune` comes.
    """

    calibration: Calibration = "data-free"
    samples: int = 256
    rounds: int = 1
    epochs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"prune.{name} = {getattr(self, name)}: use at least 1")
        if self.samples < 1:
            raise ConfigError(f"prune.samples = {self.samples}: use at least 1")
        if self.calibration == "data-free" and self.active and self.scope == "sensitivity":
            raise ConfigError(
                'prune.scope = "sensitivity" is measured on rows; add calibration = "samples", or'
                ' "distilled"'
            )
        if self.calibration != "data-free" and self.repair not in BY_SAMPLES:
            raise ConfigError(
                f'prune.calibration = "{self.calibration}": repair = "{self.repair}" goes by the'
                ' weights alone; use calibration = "data-free", or repair = "activation"'
            )


OWN = ("calibration", "weight_bits", "weight_flash", "rounding", "correct_bias", "equalise")
"""Keys of `quantize` that are for mode int8."""


@dataclass(frozen=True)
class Quantize:
    """Conversion to a flatbuffer: the arguments of `edgecompress.quantize` of the same name.

    `calibration = "samples"` takes `calibration_samples` rows of the data. `input_range` is the
    least and the largest value of the inputs, for `calibration = "data-free"`. `weight_flash` is
    what the weights may take, up to 1 a share of their bytes with 8 bits, above 1 a whole number:
    layers then have 8 or 4 bits, by what that does to the outputs.
    """

    mode: Mode = "int8"
    calibration: Calibration = "samples"
    calibration_samples: int = 200
    weight_bits: int = 8
    weight_flash: float | None = None
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
        if self.weight_flash is not None:
            self._check_flash(self.weight_flash)
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
        for key in ("input_type", "output_type"):
            value, allowed = getattr(self, key), IO_TYPES[self.mode]
            if value is not None and value not in allowed:
                raise ConfigError(
                    f"quantize.{key} = {value}: it does not go with mode {self.mode}; use"
                    f" {' or '.join(allowed)}, or leave it out"
                )
        if self.calibration_samples < 1:
            raise ConfigError(
                f"quantize.calibration_samples = {self.calibration_samples}: use at least 1"
            )

    def _check_flash(self, limit: float) -> None:
        """ConfigError for a `limit` that is none, or that another key contradicts."""
        if not (0 < limit <= 1 or (limit > 1 and limit % 1 == 0)):
            raise ConfigError(
                f"quantize.weight_flash = {limit}: use a fraction from 0 to 1, or a whole number of"
                " bytes"
            )
        if self.weight_bits != 8:
            raise ConfigError(
                "quantize: weight_flash chooses the bits of each layer; leave weight_bits out"
            )
        if self.calibration == "data-free":
            raise ConfigError(
                "quantize.weight_flash: what bits do is measured on rows; use calibration ="
                ' "samples" or "distilled"'
            )


@dataclass(frozen=True)
class Train:
    """How every stage that trains does it.

    `epochs` passes over the rows in batches of `batch`, with `learning_rate` at its highest after
    the share `warm_up` of the steps, and then along `schedule`. A stage ends early after `patience`
    epochs without a better validation (0: never) and leaves its best weights. `teacher` is the
    share of the loss that goes by the uncompressed model's outputs softened by `temperature`
    (Hinton et al., arXiv:1503.02531), the rest goes by the labels; `features` names layers whose
    outputs follow the uncompressed model's too, weighed `feature_weight`.
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warm_up: float = 0.05
    optimizer: Optimizer = "adamw"
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    patience: int = 0
    class_weights: ClassWeights = "none"
    teacher: float = 0.0
    temperature: float = 2.0
    features: tuple[str, ...] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: use at least 1")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: use a number above 0")
        for name in ("weight_decay", "patience", "feature_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: use 0 or more")
        for name in ("warm_up", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: use 0 up to below 1")
        if not 0 <= self.teacher <= 1:
            raise ConfigError(f"train.teacher = {self.teacher}: use a share from 0 to 1")


@dataclass(frozen=True)
class Stage:
    """What every stage that trains may set apart from `train`."""

    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"epochs = {self.epochs}: use at least 1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"learning_rate = {self.learning_rate}: use a number above 0")

    def training(self, train: Train) -> Train:
        """`train` with what this stage sets."""
        own: dict[str, Any] = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return replace(train, **{key: value for key, value in own.items() if value is not None})


@dataclass(frozen=True)
class Finetune(Stage):
    """Training on, of the weights as they are."""


@dataclass(frozen=True)
class Sparsify(Stage):
    """Training while the smallest weights become zero and stay so, the share `sparsity` of each
    kernel outside the layers `protect` (names or classes; those of depthwise convolutions have few
    weights, none of them spare, and the ahead-of-time C gains nothing by their zeros).

    `pattern` says which may (1:2, 1:4 and 2:4 bring their own sparsity). Sparsity rises along
    `ramp` and is whole after the share `end` of the steps.
    """

    sparsity: float = 0.8
    pattern: Pattern = "unstructured"
    ramp: Ramp = "polynomial"
    end: float = 0.6
    protect: tuple[str, ...] = ("DepthwiseConv1D", "DepthwiseConv2D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"sparsity = {self.sparsity}: use a share between 0 and 1")
        if not 0 < self.end <= 1:
            raise ConfigError(f"end = {self.end}: use a share above 0, up to 1")
        own = self.share_of_pattern
        if own is not None and self.sparsity not in (own, Sparsify.sparsity):
            raise ConfigError(
                f"sparsity = {self.sparsity}: pattern {self.pattern} makes {own} zero; leave it out"
            )

    @property
    def share_of_pattern(self) -> float | None:
        """The share of zeros that the pattern itself makes; None where `sparsity` says it."""
        kept, colon, of = self.pattern.partition(":")
        return 1 - int(kept) / int(of) if colon else None

    @property
    def share(self) -> float:
        """The share of each kernel's weights that become zero."""
        own = self.share_of_pattern
        return self.sparsity if own is None else own


@dataclass(frozen=True)
class Cluster(Stage):
    """Training with at most `clusters` distinct weights in each kernel outside the layers
    `protect`; zeros of `sparsify` stay, and count as one of them."""

    clusters: int = 16
    centroids: Centroids = "kmeans++"
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.clusters <= 256:
            raise ConfigError(f"clusters = {self.clusters}: use 2 to 256")


@dataclass(frozen=True)
class Qat(Stage):
    """Training with weights of `weight_bits` and activations of 8 bits, as they will be; zeros of
    `sparsify` and the clusters of `cluster` stay (PQAT, CQAT, PCQAT)."""

    weight_bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.weight_bits <= 8:
            raise ConfigError(f"weight_bits = {self.weight_bits}: use 2 to 8")


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
