"""PrunePlan: which channels of which group go, decided before anything is cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from edgecompress import channels, cost
from edgecompress.artifact import Json
from edgecompress.channels import View
from edgecompress.channels.graph import Weights
from edgecompress.datafree import obs
from edgecompress.datafree.apply import Outcome, repaired
from edgecompress.datafree.audit import audited
from edgecompress.datafree.joint import on_grid
from edgecompress.datafree.measured import measured
from edgecompress.datafree.model import modelled
from edgecompress.datafree.readers import readers
from edgecompress.datafree.sequential import sequential
from edgecompress.datafree.statistics import Statistics
from edgecompress.errors import ConfigError
from edgecompress.progress import Progress, silent
from edgecompress.prune import allocate, budgets, sensitivity
from edgecompress.prune.budgets import Goal
from edgecompress.prune.choose import ROUNDING, Chooser
from edgecompress.prune.scores import SCORES, Data, Task
from edgecompress.recipe.settings import BY_SAMPLES, Choice
from edgecompress.vocabulary import REPAIRS, SCORE_NAMES, TARGETS, Scope, ScoreName, Target, Unknown

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Options(Choice):
    """What to remove, and how to choose it: a recipe's table, with one target and in bounds.

    Exactly one target: `ratio` in [0, 1) of the prunable channels to remove, or what may remain at
    most: `macs`, `params`, or on the device `flash`, `ram` (bytes) or `instructions`, as
    `budgets.on_device` counts them; a share of the original in (0, 1], or above 1 a whole number.
    `scope="global"` ranks the channels of all groups together, "layer" takes the same ratio of
    every group, "predicted" what the repaired layers can do without (`prune.allocate`),
    "sensitivity" what the outputs can do without (`prune.sensitivity`), as `samples` show it. In
    every group at least `min_channels` channels and the share `floor` of its `sizes` (of a model
    that was pruned before: its channels then; else its own) stay, and what stays is rounded up to a
    multiple of `round_to` (never above the group's size), so that rounding removes fewer channels.
    `protect` names layers whose output channels stay. `unknown` as in `channels.groups`. `repair`
    says how the layers that read removed channels are made to do without them; channels that
    cannot be repaired stay. `samples` counts the samples that there are to learn from, which only
    the repairs of BY_SAMPLES can. `seed` is for score="random". `weight_bits` (2 to 8) are those of
    the weights after a later quantisation: a target on the device counts with them. Raises
    ConfigError for anything else.
    """

    seed: int = 0
    samples: int = 0
    weight_bits: int = 8
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"prune: floor={self.floor} is not in [0, 1]")
        name, value = self.target
        if name == "ratio" and not 0 <= value < 1:
            raise ConfigError(
                f"prune: ratio={value} is not in [0, 1); 0.3 removes 30% of the channels"
            )
        if name != "ratio" and not (0 < value <= 1 or (value > 1 and value % 1 == 0)):
            raise ConfigError(
                f"prune: {name}={value} is not in (0, 1], nor a whole number above; 0.5 keeps at"
                " most 50%"
            )
        for key, allowed in (
            ("score", SCORE_NAMES),
            ("scope", get_args(Scope)),
            ("repair", REPAIRS),
        ):
            given = getattr(self, key)
            if given not in allowed:
                raise ConfigError(f"prune: unknown {key} {given!r}; use {', '.join(allowed)}")
        for key, least in (("round_to", 1), ("min_channels", 1), ("seed", 0), ("samples", 0)):
            number = getattr(self, key)
            if not isinstance(number, int) or number < least:
                raise ConfigError(f"prune: {key}={number!r} is not a whole number from {least}")
        if not isinstance(self.weight_bits, int) or not 2 <= self.weight_bits <= 8:
            raise ConfigError(
                f"prune: weight_bits={self.weight_bits!r}; use a whole number, 2 to 8"
            )
        if self.samples and self.repair not in BY_SAMPLES:
            raise ConfigError(
                f'prune: repair="{self.repair}" goes by the weights alone; leave the samples out,'
                ' or use repair="activation"'
            )
        if self.scope == "sensitivity" and not self.samples:
            raise ConfigError(
                "prune: scope sensitivity is measured on rows; pass samples (N, *input_shape)"
            )
        if self.scope == "predicted" and self.repair == "none":
            raise ConfigError(
                'prune: scope predicted goes by what a repair leaves; add repair="activation", or'
                ' use scope="global"'
            )

    def least(self, group: str, size: int) -> int:
        """How many of the `size` channels of `group` stay at least."""
        share = math.ceil(self.floor * self.sizes.get(group, size) - ROUNDING)
        return min(size, max(self.min_channels, share))

    @property
    def target(self) -> tuple[Target, float]:
        """The one target that is given, and its value; ConfigError for none or several."""
        if len(self.targets) != 1:
            given = ", ".join(self.targets) or "none"
            raise ConfigError(f"prune: give exactly one of {', '.join(TARGETS)}; got {given}")
        ((name, value),) = self.targets.items()
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
    model: keras.Model,
    *,
    data: Data | None = None,
    samples: npt.NDArray[Any] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> PrunePlan:
    """Choose the channels to remove from a Keras model, which is only read.

    `options` are the fields of `Options`; `data` (x, y) is for score="taylor", `samples` (N,
    *input_shape) without labels for score="obs" and the guards of a repair. Raises ConfigError
    for a bad option, or a target that cannot be reached (it says how far one can get);
    UnsupportedError for an unknown layer.
    """
    chosen = Options(**options, samples=0 if samples is None else len(samples))
    statistics = learned(model, chosen, samples)
    return follow(
        model, chosen, data=data, statistics=statistics, samples=samples, progress=progress
    )[0]


def learned(
    model: keras.Model, options: Options, samples: npt.NDArray[Any] | None
) -> Statistics | None:
    """What the score and the repair know of the activations: from samples, or from the model
    alone; None where neither asks."""
    if not options.learns:
        return None
    view = channels.analyse(model, unknown=options.unknown)
    return modelled(view) if samples is None else measured(view, samples)


def follow(
    model: keras.Model,
    options: Options,
    *,
    data: Data | None,
    statistics: Statistics | None,
    samples: npt.NDArray[Any] | None,
    progress: Progress,
) -> tuple[PrunePlan, Goal]:
    """What `plan` does, with its options in one object, and what became of the target."""
    (target, value), score = options.target, options.score
    view = channels.analyse(model, unknown=options.unknown, protect=options.protect)
    values = SCORES[score](Task(view, model, data, options.seed, progress, statistics))
    scores = [values[view.channels[group.name]] for group in view.groups]
    unread, doubted = _beyond(view, options, statistics)
    groups = tuple(
        GroupPlan(
            g.name,
            g.size,
            protected=g.protected
            or _unscored(s, score)
            or unread.get(g.name)
            or doubted.get(g.name),
        )
        for g, s in zip(view.groups, scores, strict=True)
    )
    if target != "ratio" or value > 0:
        _check_prunable(groups)
    ranked = [s for g, s in zip(groups, scores, strict=True) if g.protected is None]
    least = tuple(options.least(g.name, g.size) for g in _free(groups))
    chooser = Chooser.of(ranked, options.scope, round_to=options.round_to, least=least)
    orders = {g.name: order for g, order in zip(_free(groups), chooser.orders, strict=True)}
    prices: Sequence[npt.NDArray[Any]] | None = None
    if options.scope == "predicted" and statistics is not None:
        prices = allocate.predicted(view, orders, ranked, statistics)
    if options.scope == "sensitivity" and samples is not None:
        prices = sensitivity.prices(view, orders, samples, progress=progress)
    if prices is not None and orders:
        queue = allocate.queue(view, orders, prices, target=target, least=least)
        chooser = replace(chooser, queue=queue)

    def chosen(fraction: float) -> PrunePlan:
        drops = iter(chooser.drops(fraction))
        filled = (g if g.protected else replace(g, drop=next(drops)) for g in groups)
        return PrunePlan(tuple(filled), options.unknown)

    if target == "ratio":
        return chosen(value), Goal(target, value)
    return budgets.search(
        target,
        value,
        steps=chooser.steps,
        chosen=chosen,
        cost_of=_counter(model, view, options),
        view=view,
        doubted=[g.name for g in groups if g.protected and g.protected == doubted.get(g.name)],
        progress=progress,
    )


def _free(groups: Sequence[GroupPlan]) -> list[GroupPlan]:
    return [group for group in groups if group.protected is None]


def _counter(model: keras.Model, view: View, options: Options) -> Callable[[PrunePlan], int | None]:
    """What a plan costs: of MACs and parameters from the shapes, else of the model that is cut."""
    (target, _), bits = options.target, options.weight_bits
    if target in budgets.ON_DEVICE:
        return lambda plan: budgets.on_device(cut(model, plan), target, weight_bits=bits)
    measure = cost.meter(view)
    return lambda plan: getattr(measure(view.keep(plan.drops)), target)


def _unscored(scores: npt.NDArray[Any], name: ScoreName) -> str | None:
    return f"score {name} does not apply" if np.isnan(scores).any() else None


def _beyond(
    view: View, options: Options, statistics: Statistics | None
) -> tuple[dict[str, str], dict[str, str]]:
    """By group, why the layers that read it cannot be repaired: because nothing is known of what
    one reads, or because a guard does not trust it."""
    unread, doubted = dict[str, str](), dict[str, str]()
    if options.repair == "none" or statistics is None:
        return unread, doubted
    known = tuple(readers(view, statistics))
    for group, classes in view.channels.items():
        if not obs.covered(view, group, known):
            unread[group] = "repair: nothing is known of what a layer that reads it sums over"
        for reader in known:
            guard = statistics.guards.get(reader.name)
            reads = np.isin(view.roots[reader.ids], classes).any()
            if reads and guard is not None and not guard.trusted:
                doubted.setdefault(group, f"repair: {reader.name}: {guard.reason}; give samples")
    return unread, doubted


def mended(
    model: keras.Model,
    plan: PrunePlan,
    options: Options,
    *,
    statistics: Statistics | None,
    samples: npt.NDArray[Any] | None,
    audit: npt.NDArray[Any] | None,
    progress: Progress,
) -> Outcome:
    """The weights that repair the layers which read the channels of `plan`; of "none", none.

    Without `samples`, the errors of the repaired layers are measured on the rows `audit`. "udfc"
    takes the kept channels with weights of `weight_bits` bits where these are fewer than 8.
    """
    if options.repair == "none" or statistics is None or not plan.drops:
        return Outcome()
    view = channels.analyse(model, unknown=options.unknown)
    keep = view.keep(plan.drops)
    if samples is not None and options.repair == "activation":
        return sequential(view, keep, samples, progress=progress)
    if options.weight_bits < 8 and options.repair == "udfc":
        statistics = on_grid(model, statistics, bits=options.weight_bits)
    outcome = repaired(view, keep, statistics, options.repair)
    return outcome if audit is None else audited(view, outcome, statistics, audit)


def _check_prunable(groups: Sequence[GroupPlan]) -> None:
    if all(group.protected for group in groups):
        stay = "; ".join(f"{group.name}: {group.protected}" for group in groups)
        raise ConfigError(f"prune: every channel of the model is protected: {stay}")


def cut(
    model: keras.Model, plan: PrunePlan, *, changes: Mapping[str, Weights] | None = None
) -> keras.Model:
    """A new, smaller model without the channels of `plan`; ConfigError where it does not fit.

    `changes` are new weights of layers, in the old shapes, that the cut starts from.
    """
    return channels.remove(model, _fitting(model, plan), unknown=plan.unknown, changes=changes)


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
