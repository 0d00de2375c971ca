"""Structured pruning a little at a time, with training in between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgecompress import channels
from edgecompress.artifact import Artifact, Step
from edgecompress.prune import prune_structured
from edgecompress.prune.budgets import amount
from edgecompress.prune.choose import ROUNDING
from edgecompress.vocabulary import TARGETS, Target

Tune = Callable[[Artifact, int], Artifact]
"""Trains an artifact after a round (the first is 1)."""


def prune_in_rounds(artifact: Artifact, *, rounds: int, tune: Tune, **options: Any) -> Artifact:
    """Approach a target in `rounds` rounds, calling `tune` after each but the last.

    `options` are those of `prune_structured`, which makes every round, with one target among them;
    `floor` counts from the channels of the artifact as it comes. What remains falls by the same
    factor in each round, and each round chooses its channels anew: what training made superfluous
    goes, and a layer that became a bottleneck is left alone. Source: Molchanov et al., "Importance
    Estimation for Neural Network Pruning" (CVPR 2019), section 3.4. Raises as `prune_structured`.
    """
    model = artifact.need_keras("prune")
    ((target, asked),) = (
        (name, options[name]) for name in TARGETS if options.get(name) is not None
    )
    groups = channels.groups(model, unknown=options.get("unknown", "error"))
    sizes = {group.name: group.size for group in groups}
    before, left = amount(model, target, weight_bits=options.get("weight_bits", 8)), 1.0
    for done, goal in enumerate(goals(target, asked, before, rounds), start=1):
        if target == "ratio":
            goal = max(0.0, 1 - (1 - goal) / left)
        given = {**options, target: goal, "sizes": sizes}
        artifact = prune_structured(artifact, **given)
        left *= _kept(artifact.steps[-1])
        if done < rounds:
            artifact = tune(artifact, done)
    return artifact


def goals(target: Target, asked: float, before: int | None, rounds: int) -> list[float]:
    """The target of each round: whole numbers of what `before` counts, the last one as asked for,
    or the share of all channels that is gone then (`ratio`)."""
    if target == "ratio":
        return [1 - (1 - asked) ** (done / rounds) for done in range(1, rounds)] + [asked]
    if before is None or not asked:  # which the first round explains
        return [asked] * rounds
    last = math.floor(asked * before + ROUNDING) if asked <= 1 else int(asked)
    steps = [before * (last / before) ** (done / rounds) for done in range(1, rounds)]
    return [*(float(max(math.ceil(step), last, 2)) for step in steps), float(last)]


def _kept(step: Step) -> float:
    """The share of the channels that might go, and stayed, in a step of `prune_structured`."""
    free = [group for group in step.effect["plan"]["groups"] if group["protected"] is None]
    gone = sum(len(group["drop"]) for group in free)
    size = sum(group["size"] for group in free)
    return 1 - float(gone) / size if size else 1.0
