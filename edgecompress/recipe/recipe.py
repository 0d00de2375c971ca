"""recipe.toml -> Recipe; an unknown key or a wrong type is an error."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from edgecompress.errors import ConfigError
from edgecompress.recipe.settings import (
    OWN,
    Cluster,
    Evaluate,
    Finetune,
    Prune,
    Qat,
    Quantize,
    Sparsify,
    Train,
)
from edgecompress.strict import read_toml
from edgecompress.vocabulary import TARGETS, Scope

STAGES = ("finetune", "sparsify", "cluster", "qat")
"""The stages of a recipe that train, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `edgecompress.compress` does to a model.

    The stages run in this order, those that are given: each keeps what those before it promise
    (channels that are cut, zeros, shared values, grids), which the reverse order would undo.
    """

    prune: Prune = field(default_factory=Prune)
    finetune: Finetune | None = None
    sparsify: Sparsify | None = None
    cluster: Cluster | None = None
    qat: Qat | None = None
    quantize: Quantize = field(default_factory=Quantize)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: use a whole number from 0")
        if self.qat is not None:
            self._check_trained()
        shaped = self.sparsify is not None or self.cluster is not None
        if shaped and self.quantize.rounding != "nearest":
            raise ConfigError(
                f'quantize.rounding = "{self.quantize.rounding}": it would change the zeros and'
                ' distinct values that sparsify and cluster made; use "nearest"'
            )
        mode = self.quantize.mode
        if (shaped and mode == "float16") or (self.cluster is not None and mode == "dynamic"):
            raise ConfigError(
                f'quantize.mode = "{mode}": its weights are stored in a way that does not keep what'
                " sparsify and cluster promise; use int8, int16x8 or float32"
            )
        plain = Quantize()
        for key in ("equalise", "weight_bits", "weight_flash") if self.cluster else ():
            if getattr(self.quantize, key) != getattr(plain, key):
                raise ConfigError(
                    f"quantize.{key}: cluster leaves distinct values on grids of 8 bits, which it"
                    " would change; leave it out (qat has weight_bits of its own)"
                )
        if self.prune.rounds > 1 and not self.prune.active:
            raise ConfigError("prune.rounds: there is no target to prune to; add macs = 0.5, say")

    def _check_trained(self) -> None:
        """ConfigError where `quantize` contradicts `qat`, which says what grids there are."""
        plain = Quantize()
        for key in ("mode", "per_channel", *OWN):
            if getattr(self.quantize, key) != getattr(plain, key):
                raise ConfigError(
                    f"quantize.{key}: qat trains for int8 activations and its own weight_bits;"
                    " leave it out"
                )

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of what is done before the conversion, in order."""
        given = [name for name in STAGES if getattr(self, name) is not None]
        return ("prune", *given) if self.prune.active else tuple(given)

    @property
    def trains(self) -> bool:
        """Whether a stage needs rows to train on."""
        return self.prune.rounds > 1 or any(name in STAGES for name in self.stages)

    @property
    def needs_samples(self) -> bool:
        """Whether a run needs data for more than to judge the model."""
        prune = self.prune
        quantize = self.quantize
        calibrates = quantize.calibration == "samples" and quantize.mode.startswith("int")
        return (
            self.trains
            or calibrates
            or (
                prune.active
                and (prune.score == "taylor" or (prune.looks and prune.calibration == "samples"))
            )
        )

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in the TOML file `path`; ConfigError names the file, the key and what is
        allowed."""
        return read_toml(cls, path, error=ConfigError)

    def to_toml(self) -> str:
        """A complete recipe.toml that reads back as this recipe; what is None is left out."""
        parts = [f"seed = {self.seed}\n"]
        for item in fields(self):
            table = getattr(self, item.name)
            if not is_dataclass(table):
                continue
            about = " ".join(str(type(table).__doc__).partition("\n\n")[0].split())
            lines = [
                textwrap.fill(about, 98, initial_indent="# ", subsequent_indent="# "),
                f"[{item.name}]",
            ]
            given = {key: value for key, value in vars(table).items() if value is not None}
            lines += [f"{key} = {_toml(value)}" for key, value in given.items()]
            unset = [key for key in vars(table) if key not in given]
            lines += [f"# not set: {', '.join(unset)}"] if unset else []
            parts.append("\n".join([*lines, ""]))
        return "\n".join(parts)

    def merged(self, changes: Mapping[str, Mapping[str, Any]], *, seed: int | None) -> Recipe:
        """This recipe with options of the command line on top: `changes[section][key]`.

        A new pruning target takes the place of the recipe's, and without repair the scope
        "predicted", which goes by it, becomes "global". Epochs of `train` are those of every stage,
        in place of its own; ConfigError where none trains.
        """
        sections: dict[str, Any] = {}
        if "epochs" in changes.get("train", {}):
            if not self.trains:
                raise ConfigError(
                    "train.epochs: nothing in the recipe trains; add a stage that does (--recipe"
                    " finetune), or leave the epochs out"
                )
            given = {name: getattr(self, name) for name in STAGES}
            sections |= {name: replace(own, epochs=None) for name, own in given.items() if own}
        for section, values in changes.items():
            values = dict(values)
            if section == "prune" and values.keys() & set(TARGETS):
                values = {**dict.fromkeys(TARGETS), **values}
            if section == "prune" and values.get("repair") == "none":
                values = {"scope": _unpredicted(self.prune.scope), **values}
            sections[section] = replace(getattr(self, section), **values)
        return replace(self, **sections, seed=self.seed if seed is None else seed)


def _toml(value: Any) -> str:
    """A TOML value of a bool, a number, a str or a tuple of these."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if type(value) is float else json.dumps(value)


def _unpredicted(scope: Scope) -> Scope:
    return "global" if scope == "predicted" else scope
