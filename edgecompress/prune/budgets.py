"""What a pruned model may cost, and the plan that removes least and still costs no more."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgecompress import cost
from edgecompress.artifact import Artifact, Json
from edgecompress.backends import aot
from edgecompress.backends.aot.choose import flash
from edgecompress.channels import View
from edgecompress.channels.rules import rule_for
from edgecompress.datafree.repair import Kept
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.progress import Progress
from edgecompress.prune.choose import ROUNDING
from edgecompress.quantization import quantize
from edgecompress.tflite import read
from edgecompress.vocabulary import Target

if TYPE_CHECKING:
    import keras

ON_DEVICE: tuple[Target, ...] = ("flash", "ram", "instructions")
TRIED = 32
"""Plans among which a target on the device is searched: a conversion each, so few."""
PEAK = 16
"""The norm of what layers hold that stands for the largest: the next largest count a little."""

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Goal:
    """A target, what was asked and what came of it, in the target's unit.

    `before` is the original's cost, `limit` the most that was asked for, `predicted` what the plan
    costs; all None for a ratio, which counts channels.
    """

    target: Target
    asked: float
    before: int | None = None
    limit: int | None = None
    predicted: int | None = None

    def to_json(self, reached: int | None) -> Json:
        """This goal and the finished model's cost, as JSON values."""
        return {**vars(self), "reached": reached}


def amount(model: keras.Model, target: Target, *, weight_bits: int) -> int | None:
    """What a model costs: `macs`, `params`, or on the device (`on_device`); None for a ratio."""
    if target == "ratio":
        return None
    if target in ON_DEVICE:
        return on_device(model, target, weight_bits=weight_bits)
    counted: int | None = getattr(cost.total(model), target)
    return counted


def on_device(model: keras.Model, target: Target, *, weight_bits: int) -> int:
    """Bytes of `flash` or `ram`, or `instructions` of one inference, of a Keras model as int8 with
    weights of `weight_bits` bits.

    As the ahead-of-time C of the model's own flatbuffer counts them for a Cortex-M4, optimised
    "balanced": flash is the weights and its estimate of the kernels' code, RAM the arena, and the
    instructions are what it chooses kernels by (operators without an estimate count nothing). The
    application's and the board's own bytes are not in it. The ranges of the activations are those
    of noise: sizes do not depend on them. Raises UnsupportedError for what cannot be converted.
    """
    shape = (2, *(size or 1 for size in model.inputs[0].shape[1:]))
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    given = Artifact(model.name, model)
    made = quantize(given, calibration=noise, weight_bits=weight_bits).need_tflite("prune")
    planned = aot.schedule(read(made))
    calls = [step.call for step in planned.steps]
    if target == "ram":
        return planned.plan.bytes
    if target == "flash":
        return flash(calls)
    return sum(call.instructions or 0 for call in calls)


def meter(view: View, target: Target) -> Callable[[Kept], float]:
    """A function from the kept atoms (`View.keep`) to what stands for the target's amount.

    Quick to compute, to weigh one group's channels against another's: their number for a ratio,
    MACs also for instructions, parameters also for flash, and for RAM the largest sum of what a
    layer with weights reads and makes. Parameters stand for MACs that are not known.
    """
    if target == "ratio":
        groups = [view.channels[group.name] for group in view.groups if not group.protected]
        atoms = np.array(sorted(int(c) for classes in groups for c in classes), dtype=np.int64)
        return lambda keep: float(keep[atoms].sum())
    if target == "ram":
        return _held(view)
    measure = cost.meter(view)
    if target in ("params", "flash") or measure(view.keep({})).macs is None:
        return lambda keep: float(measure(keep).params)
    return lambda keep: float(measure(keep).macs or 0)


def _held(view: View) -> Callable[[Kept], float]:
    ends = []
    for name, _, calls in view.graph.layers():
        flow = view.flows.get(name)
        axes = [axis for weight in flow.weights.values() for axis in weight] if flow else []
        reads = next((axis.ids for axis in axes if axis.side != "out"), None)
        if flow is None or reads is None:
            continue
        made, taken = view.graph.output_shape(calls[0]), view.graph.input_shapes(calls[0])[0]
        for_made, for_taken = (
            math.prod(size or 1 for size in shape[1:]) / len(ids)
            for shape, ids in ((made, flow.output.ids), (taken, reads))
        )
        ends.append(((flow.output.ids, for_made), (reads, for_taken)))

    def largest(keep: Kept) -> float:
        sums = [sum(keep[ids].sum() * each for ids, each in layer) for layer in ends]
        return float(np.linalg.norm(sums, PEAK))

    return largest


def search(
    target: Target,
    asked: float,
    *,
    steps: Sequence[float],
    chosen: Callable[[float], Plan],
    cost_of: Callable[[Plan], int | None],
    view: View,
    doubted: Sequence[str],
    progress: Progress,
) -> tuple[Plan, Goal]:
    """The plan that removes least and still meets the target, by bisection over nested plans.

    `chosen` gives the plan for one of the `steps`, ascending from 0. On the device more channels
    may take a little more, and the plans are TRIED at most: there, one that removes less may do.
    Raises ConfigError where no plan meets the target, UnsupportedError where it cannot be counted.
    `doubted` are the groups that stay because their repair cannot be trusted without samples.
    """
    if target in ON_DEVICE:
        stride = -(-(len(steps) - 1) // TRIED) or 1
        steps = [*steps[:-1:stride], steps[-1]]
    tries = len(steps).bit_length() + 1
    found: dict[int, int] = {}

    def costs(index: int) -> int:
        if index not in found:
            progress(target, len(found), tries)
            value = cost_of(chosen(steps[index]))
            if value is None:
                raise UnsupportedError(
                    f"prune: {target} cannot be the target: those of {_uncounted(view)} are not"
                    " known; use ratio or params"
                )
            found[index] = value
        return found[index]

    before = costs(0)
    limit = math.floor(asked * before + ROUNDING) if asked <= 1 else int(asked)

    def within(index: int) -> bool:
        return costs(index) <= limit

    index = bisect_left(range(len(steps)), True, key=within)
    if index == len(steps):
        best = costs(len(steps) - 1)
        whole = (
            "; kept whole because a repair by the weights alone cannot be trusted there, give"
            f" samples: {', '.join(doubted)}"
        )
        raise ConfigError(
            f"prune: {target}={asked:g} cannot be reached: at best {best} of {before} remain"
            f" ({best / before:.4f}) with these min_channels, floor, round_to and protected layers"
            f"{whole if doubted else ''}"
        )
    progress(target, tries, tries)
    return chosen(steps[index]), Goal(target, asked, before, limit, costs(index))


def _uncounted(view: View) -> str:
    return ", ".join(
        f"{name} ({type(op).__name__})"
        for name, op, _ in view.graph.layers()
        if rule_for(op) is None
    )
