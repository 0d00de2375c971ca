"""Structured pruning: score, plan, then cut the channels out of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy.typing as npt

from edgecompress import cost
from edgecompress.artifact import Artifact, Json, Step
from edgecompress.progress import Progress, silent
from edgecompress.prune.budgets import amount
from edgecompress.prune.plans import (
    GroupPlan,
    Options,
    PrunePlan,
    cut,
    follow,
    learned,
    mask,
    mended,
    plan,
)
from edgecompress.prune.scores import Data
from edgecompress.vocabulary import REPAIRS, SCORE_NAMES, Repair, Scope, ScoreName, Unknown

__all__ = [
    "REPAIRS",
    "SCORE_NAMES",
    "Data",
    "GroupPlan",
    "Options",
    "PrunePlan",
    "Repair",
    "ScoreName",
    "Scope",
    "cut",
    "mask",
    "plan",
    "prune_structured",
]


def prune_structured(
    artifact: Artifact,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    flash: float | None = None,
    ram: float | None = None,
    instructions: float | None = None,
    score: ScoreName = "l2",
    scope: Scope = "global",
    round_to: int = 1,
    min_channels: int = 1,
    floor: float = 0.0,
    sizes: Mapping[str, int] | None = None,
    protect: Sequence[str] = (),
    data: Data | None = None,
    seed: int = 0,
    unknown: Unknown = "error",
    repair: Repair = "none",
    samples: npt.NDArray[Any] | None = None,
    audit: npt.NDArray[Any] | None = None,
    weight_bits: int = 8,
    progress: Progress = silent,
) -> Artifact:
    """Remove the least important channels of the artifact's Keras model physically.

    The options are those of `Options`; `data` (x, y) is for score="taylor". `repair` goes by the
    weights alone, or by `samples` (N, *input_shape) without labels: repair="activation" then works
    layer by layer (`datafree.sequential`). Scope "sensitivity" is measured on `samples`. A repair
    without samples is measured on the rows `audit` (N, *input_shape), which change nothing but the
    report. For fewer than 8 `weight_bits` repair="udfc" makes up in the same solve
    (`datafree.joint`).

    Errors as in `plan`; UnsupportedError for a repair without samples where nothing is known of the
    activations; StageOrderError without a Keras model or after quantisation. The step's effect
    holds channels (prunable ones), MACs (None where unknown) and parameters, each before and after,
    and the plan: `cut(model, PrunePlan.from_json(effect["plan"]))` repeats the removal. Its
    `repair` holds a row per repaired layer (`datafree.apply.Effect`), its `samples` how many were
    looked at.
    """
    model = artifact.need_keras("prune")
    options = Options(
        ratio=ratio,
        macs=macs,
        params=params,
        flash=flash,
        ram=ram,
        instructions=instructions,
        score=score,
        scope=scope,
        round_to=round_to,
        min_channels=min_channels,
        floor=floor,
        sizes=sizes or {},
        protect=tuple(protect),
        seed=seed,
        unknown=unknown,
        repair=repair,
        samples=0 if samples is None else len(samples),
        weight_bits=weight_bits,
    )
    statistics = learned(model, options, samples)
    chosen, goal = follow(
        model, options, data=data, statistics=statistics, samples=samples, progress=progress
    )
    outcome = mended(
        model,
        chosen,
        options,
        statistics=statistics,
        samples=samples,
        audit=audit,
        progress=progress,
    )
    smaller = cut(model, chosen, changes=outcome.changes)
    old, new = cost.total(model), cost.total(smaller)
    effect = {
        "channels": _change(*chosen.channels),
        "macs": _change(old.macs, new.macs),
        "params": _change(old.params, new.params),
        "plan": chosen.to_json(),
        "repair": [effect.to_json() for effect in outcome.effects],
        "target": goal.to_json(amount(smaller, goal.target, weight_bits=weight_bits)),
    }
    given = {name: value for name, value in asdict(options).items() if value is not None}
    looked_at = given.pop("samples")
    effect["samples"] = looked_at if options.looks else 0
    given["protect"], given["sizes"] = list(protect), dict(options.sizes)
    step = Step("prune_structured", given, effect)
    return artifact.after(step, keras=smaller)


def _change(before: int | None, after: int | None) -> Json:
    return {"before": before, "after": after}
