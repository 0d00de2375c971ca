"""Structured pruning: score, plan, then cut the channels out of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from edgecompress import cost
from edgecompress.artifact import Artifact, Json, Step
from edgecompress.progress import Progress, silent
from edgecompress.prune.plans import GroupPlan, Options, PrunePlan, cut, follow, mask, plan
from edgecompress.prune.scores import Data
from edgecompress.vocabulary import SCORE_NAMES, Scope, ScoreName, Unknown

__all__ = [
    "SCORE_NAMES",
    "Data",
    "GroupPlan",
    "Options",
    "PrunePlan",
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
    score: ScoreName = "l2",
    scope: Scope = "global",
    round_to: int = 1,
    min_channels: int = 1,
    protect: Sequence[str] = (),
    data: Data | None = None,
    seed: int = 0,
    unknown: Unknown = "error",
    progress: Progress = silent,
) -> Artifact:
    """Remove the least important channels of the artifact's Keras model physically.

    The options are those of `Options`; `data` (x, y) is for score="taylor". Errors as in `plan`;
    StageOrderError without a Keras model or after quantisation. The step's effect holds channels
    (prunable ones), MACs (None where unknown) and parameters, each before and after, and the plan:
    `cut(model, PrunePlan.from_json(effect["plan"]))` repeats the run.
    """
    model = artifact.need_keras("prune")
    options = Options(
        ratio=ratio,
        macs=macs,
        params=params,
        score=score,
        scope=scope,
        round_to=round_to,
        min_channels=min_channels,
        protect=tuple(protect),
        seed=seed,
        unknown=unknown,
    )
    chosen = follow(model, options, data=data, progress=progress)
    smaller = cut(model, chosen)
    old, new = cost.total(model), cost.total(smaller)
    effect = {
        "channels": _change(*chosen.channels),
        "macs": _change(old.macs, new.macs),
        "params": _change(old.params, new.params),
        "plan": chosen.to_json(),
    }
    given = {name: value for name, value in asdict(options).items() if value is not None}
    step = Step("prune_structured", {**given, "protect": list(protect)}, effect)
    return artifact.after(step, keras=smaller)


def _change(before: int | None, after: int | None) -> Json:
    return {"before": before, "after": after}
