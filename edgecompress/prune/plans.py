"""PrunePlan: which channels of which group go, decided before anything is cut."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from edgecompress import channels, cost
from edgecompress.artifact import Json
from edgecompress.channels import View
from edgecompress.channels.rules import rule_for
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.prune import choose
from edgecompress.prune.choose import ROUNDING
from edgecompress.prune.scores import SCORES, Data, Task
from edgecompress.recipe import Prune
from edgecompress.vocabulary import SCORE_NAMES, Scope, ScoreName, Unknown

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Options(Prune):
    """What to remove, and how to choose it: a recipe's table, with one target and in bounds.

    Exactly one target: `ratio` in [0, 1) of the prunable channels to remove, or `macs` or
    `params` in (0, 1], the share of the original that may remain at most. `scope="global"` ranks
    the channels of all groups together, "layer" takes the same ratio of every group. In every
    group at least `min_channels` channels stay and what stays is rounded up to a multiple of
    `round_to` (never above the group's size), so rounding removes fewer channels than asked for.
    `protect` names layers whose output channels stay. `unknown` as in `channels.groups`. `seed` is
    for score="random". Raises ConfigError for anything else.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        name, value = self.target
        if name == "ratio" and not 0 <= value < 1:
            raise ConfigError(
                f"prune: ratio={value} is not in [0, 1); 0.3 removes 30% of the channels"
            )
        if name != "ratio" and not 0 < value <= 1:
            raise ConfigError(f"prune: {name}={value} is not in (0, 1]; 0.5 keeps at most 50%")
        for key, allowed in (("score", SCORE_NAMES), ("scope", get_args(Scope))):
            given = getattr(self, key)
            if given not in allowed:
                raise ConfigError(f"prune: unknown {key} {given!r}; use {', '.join(allowed)}")
        for key, least in (("round_to", 1), ("min_channels", 1), ("seed", 0)):
            number = getattr(self, key)
            if not isinstance(number, int) or number < least:
                raise ConfigError(f"prune: {key}={number!r} is not a whole number from {least}")

    @property
    def target(self) -> tuple[str, float]:
        """The one target that is given, and its value; ConfigError for none or several."""
        targets = {"ratio": self.ratio, "macs": self.macs, "params": self.params}
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) != 1:
            raise ConfigError(
                f"prune: give exactly one of {', '.join(targets)}; got {', '.join(given) or 'none'}"
            )
        ((name, value),) = given.items()
        return name, value


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one channel group: `drop` are channel indices, 0 .. size - 1, sorted."""

    name: str
    size: int
    drop: tuple[int, ...] = ()
    protected: str | None = None


@dataclass(frozen=True)
class PrunePlan:
    """The channels to remove, per group in graph order, and which groups stay and why.

    A plan is JSON-able, fits any model with the same channel groups, and is applied by `cut` or
    `mask`.
    """

    groups: tuple[GroupPlan, ...]
    unknown: Unknown = "error"

    @property
    def drops(self) -> dict[str, tuple[int, ...]]:
        """Group name -> channels to remove, groups without any left out."""
        return {group.name: group.drop for group in self.groups if group.drop}

    @property
    def channels(self) -> tuple[int, int]:
        """Number of prunable channels before and after."""
        before = sum(group.size for group in self.groups if group.protected is None)
        return before, before - sum(len(group.drop) for group in self.groups)

    def to_json(self) -> Json:
        """This plan as JSON values."""
        groups = [
            {"name": g.name, "size": g.size, "drop": list(g.drop), "protected": g.protected}
            for g in self.groups
        ]
        return {"unknown": self.unknown, "groups": groups}

    @staticmethod
    def from_json(value: Json) -> PrunePlan:
        """The plan that `to_json` wrote; ConfigError for anything else."""
        try:
            if set(value) != {"unknown", "groups"} or value["unknown"] not in get_args(Unknown):
                raise ValueError("keys are not groups and unknown")
            groups = tuple(
                GroupPlan(**{**group, "drop": tuple(int(i) for i in group["drop"])})
                for group in value["groups"]
            )
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"prune plan: not what PrunePlan.to_json writes ({error}); plan the model again"
            ) from error
        return PrunePlan(groups, value["unknown"])


def plan(
    model: keras.Model, *, data: Data | None = None, progress: Progress = silent, **options: Any
) -> PrunePlan:
    """Choose the channels to remove from a Keras model, which is only read.

    `options` are the fields of `Options`; `data` (x, y) is for score="taylor". Raises ConfigError
    for a bad option, or a target that cannot be reached (it says how far one can get);
    UnsupportedError for an unknown layer.
    """
    return follow(model, Options(**options), data=data, progress=progress)


def follow(
    model: keras.Model, options: Options, *, data: Data | None, progress: Progress
) -> PrunePlan:
    """What `plan` does, with its options in one object."""
    (target, value), score = options.target, options.score
    view = channels.analyse(model, unknown=options.unknown, protect=options.protect)
    values = SCORES[score](Task(view, model, data, options.seed, progress))
    scores = [values[view.channels[group.name]] for group in view.groups]
    groups = tuple(
        GroupPlan(g.name, g.size, protected=g.protected or _unscored(s, score))
        for g, s in zip(view.groups, scores, strict=True)
    )
    if target != "ratio" or value > 0:
        _check_prunable(groups)
    ranked = [s for g, s in zip(groups, scores, strict=True) if g.protected is None]
    chooser = choose.Chooser.of(
        ranked, options.scope, round_to=options.round_to, min_channels=options.min_channels
    )

    def chosen(fraction: float) -> PrunePlan:
        drops = iter(chooser.drops(fraction))
        filled = (g if g.protected else replace(g, drop=next(drops)) for g in groups)
        return PrunePlan(tuple(filled), options.unknown)

    if target == "ratio":
        return chosen(value)
    return _search(view, target, value, chooser.steps, chosen)


def _unscored(scores: npt.NDArray[Any], name: ScoreName) -> str | None:
    return f"score {name} does not apply" if np.isnan(scores).any() else None


def _check_prunable(groups: Sequence[GroupPlan]) -> None:
    if all(group.protected for group in groups):
        stay = "; ".join(f"{group.name}: {group.protected}" for group in groups)
        raise ConfigError(f"prune: every channel of the model is protected: {stay}")


def _search(
    view: View,
    target: str,
    share: float,
    steps: Sequence[float],
    chosen: Callable[[float], PrunePlan],
) -> PrunePlan:
    """The plan that removes least and still meets the target, by bisection over nested plans."""
    measure = cost.meter(view)

    def amount(drops: Mapping[str, Sequence[int]]) -> int:
        value = getattr(measure(view.keep(drops)), target)
        if value is None:
            raise UnsupportedError(
                f"prune: {target} cannot be the target: those of {_uncounted(view)} are not known;"
                " use ratio or params"
            )
        return int(value)

    before = amount({})
    limit = math.floor(share * before + ROUNDING)
    index = bisect_left(steps, True, key=lambda step: amount(chosen(step).drops) <= limit)
    if index == len(steps):
        best = amount(chosen(steps[-1]).drops)
        raise ConfigError(
            f"prune: {target}={share:g} cannot be reached: at best {best} of {before} remain"
            f" ({best / before:.4f}) with these min_channels, round_to and protected layers"
        )
    return chosen(steps[index])


def _uncounted(view: View) -> str:
    return ", ".join(
        f"{name} ({type(op).__name__})"
        for name, op, _ in view.graph.layers()
        if rule_for(op) is None
    )


def cut(model: keras.Model, plan: PrunePlan) -> keras.Model:
    """A new, smaller model without the channels of `plan`; ConfigError where it does not fit."""
    return channels.remove(model, _fitting(model, plan), unknown=plan.unknown)


def mask(model: keras.Model, plan: PrunePlan) -> keras.Model:
    """A new model of the old shapes that computes what `cut(model, plan)` computes."""
    return channels.mask(model, _fitting(model, plan), unknown=plan.unknown)


def _fitting(model: keras.Model, plan: PrunePlan) -> dict[str, tuple[int, ...]]:
    sizes = {g.name: g.size for g in channels.groups(model, unknown=plan.unknown)}
    wrong = [g.name for g in plan.groups if sizes.get(g.name) != g.size]
    if wrong or len(sizes) != len(plan.groups):
        raise ConfigError(
            f"prune plan: made for another model than {model.name}:"
            f" {', '.join(wrong) or 'it has more channel groups'}; plan the model again"
        )
    return plan.drops
