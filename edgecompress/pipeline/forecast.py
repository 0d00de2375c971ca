"""A dry run: what a plan will do, and about how large its result will be, without training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress import cost
from edgecompress.artifact import Artifact, Step
from edgecompress.backends import aot
from edgecompress.backends.aot.choose import flash
from edgecompress.data import Training
from edgecompress.datafree.fold import fold
from edgecompress.pipeline import stages
from edgecompress.pipeline.standin import stand_in
from edgecompress.progress import Progress, silent
from edgecompress.quantization import quantize, trained
from edgecompress.quantization.conversion import SETTINGS, Float, convert
from edgecompress.recipe import Recipe
from edgecompress.recipe.settings import Cluster, Finetune, Qat, Quantize, Sparsify, Stage
from edgecompress.tflite import read
from edgecompress.tflite.account import accounts
from edgecompress.tflite.passes import slimmed

if TYPE_CHECKING:
    from edgecompress.pipeline.planning import Plan

ROWS = 16
"""Rows that the forecast calibrates with: sizes do not depend on ranges."""


@dataclass(frozen=True)
class Row:
    """One stage: its name, what it does, and for those that train the epochs, the steps of all of
    them and the rows of one (None for others)."""

    stage: str
    what: str
    epochs: int | None = None
    steps: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Sizes:
    """What a converted model takes: multiply-accumulates and parameters of the Keras model (None
    where there is none, or they are not known), bytes of its weights and biases and of the whole
    `.tflite`, and of the ahead-of-time C the bytes of arena and flash and the instructions of one
    inference, as `prune.budgets.on_device` counts them (None where that C cannot run it)."""

    macs: int | None
    params: int | None
    weights: int
    tflite: int
    arena: int | None
    flash: int | None
    instructions: int | None


@dataclass(frozen=True)
class Forecast:
    """The stages of a plan, and the sizes of the model as given, converted as the recipe says with
    8-bit weights, and of what the plan is to make of it; `unsupported` is what keeps the
    ahead-of-time C from running that."""

    name: str
    stages: tuple[Row, ...]
    given: Sizes
    predicted: Sizes
    unsupported: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """This forecast as JSON values."""
        return asdict(self)


def forecast(plan: Plan, *, progress: Progress = silent) -> Forecast:
    """What the plan will do and about how large its result will be; nothing is written.

    Channels are cut as they will be, in one round and without training; kernels are then given the
    zeros, the distinct values and the grids that the stages promise. What training changes beside
    that (which channels later rounds remove, which weights are zero) is not foreseen: sizes are
    near, the MACs exact for one round. Data that train are read, layers that are named or that a
    stage cannot work on are checked; raises the errors that the stages themselves would.
    """
    given, recipe = plan.artifact, plan.recipe
    training = None
    if recipe.trains and plan.data is not None:
        training = plan.data.to_train(recipe.stages[0])
    rows = _rows(plan)
    if given.tflite is not None:
        sizes, reasons = _sizes(given, given.tflite, plan)
        return Forecast(given.name, tuple(_told(plan, training)), sizes, sizes, reasons)
    cut = stages.pruned(_work(plan, progress))
    _check(plan, cut)
    progress("convert", 0, 2)
    plain = Quantize(mode=recipe.quantize.mode, per_channel=recipe.quantize.per_channel)
    before, _ = _sizes(given, _converted(given, Recipe(quantize=plain), rows), plan)
    progress("convert", 1, 2)
    after, reasons = _sizes(cut, _converted(cut, recipe, rows), plan)
    progress("convert", 2, 2)
    return Forecast(given.name, tuple(_told(plan, training)), before, after, reasons)


def _work(plan: Plan, progress: Progress) -> stages.Work:
    """Pruning alone, in one round and without rows made for it."""
    prune = replace(plan.recipe.prune, rounds=1)
    if prune.calibration == "distilled":
        prune = replace(prune, calibration="data-free")
    qat, bits = plan.recipe.qat, plan.recipe.quantize.weight_bits
    bits = bits if qat is None else qat.weight_bits
    recipe = Recipe(prune=prune, quantize=Quantize(weight_bits=bits), seed=plan.recipe.seed)
    return stages.Work(plan.artifact, plan.data, recipe, None, None, progress)


def _rows(plan: Plan) -> Float:
    """A few rows to convert with: calibration rows, or noise."""
    if plan.calibration is not None:
        return plan.calibration[:ROWS]
    if plan.artifact.keras is None:
        return np.zeros((0,), np.float32)
    shape = (2, *(size or 1 for size in plan.artifact.keras.inputs[0].shape[1:]))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _check(plan: Plan, cut: Artifact) -> None:
    """The errors of stages that cannot work on the model, before any trains."""
    recipe, model = plan.recipe, cut.need_keras("forecast")
    if plan.data is None or not recipe.trains:
        return
    from edgecompress.training.bridge import to_tf_keras
    from edgecompress.training.task import Task
    from edgecompress.training.teacher import teaching

    teaching(model, plan.artifact.keras, Task.of(plan.data, model), recipe.train)
    if recipe.sparsify or recipe.cluster or recipe.qat:
        to_tf_keras(model)


def _told(plan: Plan, training: Training | None) -> Iterator[Row]:
    """A row for each stage, in order."""
    recipe, train = plan.recipe, plan.recipe.train
    rows = None if training is None else len(training.rows)

    def row(name: str, what: str, epochs: int) -> Row:
        steps = None if rows is None else epochs * math.ceil(rows / train.batch)
        return Row(name, what, epochs, steps, rows)

    if recipe.prune.active:
        prune = recipe.prune
        ((target, goal),) = prune.targets.items()
        done = "to go" if target == "ratio" else "to remain"
        what = f"{target} {goal:g} {done}, {prune.score}, {prune.scope}"
        if prune.rounds > 1:
            what = f"{what}, {prune.rounds} rounds"
            yield row("prune", what, (prune.rounds - 1) * prune.epochs)
        else:
            yield Row("prune", what)
    for name in recipe.stages:
        options = getattr(recipe, name)
        if isinstance(options, Stage):
            yield row(name, _TOLD[type(options)](options, recipe), options.training(train).epochs)
    if plan.artifact.tflite is None:
        yield Row("quantize", _quantized(recipe))


def _finetuned(options: Any, recipe: Recipe) -> str:
    train = recipe.train
    parts = [f"{train.teacher:g} by the uncompressed model's outputs"] if train.teacher else []
    parts += [f"features of {', '.join(train.features)}"] if train.features else []
    return ", ".join(parts) or "by the data's targets"


_TOLD: dict[type[Stage], Any] = {
    Finetune: _finetuned,
    Sparsify: lambda own, _: f"{own.share:.0%} of the weights 0, {own.pattern}, {own.ramp}",
    Cluster: lambda own, _: f"{own.clusters} values a kernel, from {own.centroids}",
    Qat: lambda own, _: f"weights of {own.weight_bits} bits, activations of 8",
}


def _quantized(recipe: Recipe) -> str:
    own = recipe.quantize
    if recipe.qat is not None:
        return "int8, on the grids and in the ranges of qat"
    parts: list[str] = [own.mode]
    if SETTINGS[own.mode].ops is not None:
        parts.append(f"calibrated with {own.calibration}")
    if own.weight_flash is not None:
        most = f"{own.weight_flash:.0%}" if own.weight_flash <= 1 else f"{own.weight_flash:g} bytes"
        parts.append(f"weights of 8 or 4 bits in {most}")
    elif own.weight_bits != 8:
        parts.append(f"weights of {own.weight_bits} bits")
    return ", ".join(parts)


def _converted(artifact: Artifact, recipe: Recipe, rows: Float) -> bytes:
    """The flatbuffer of the model as the stages of `recipe` behind pruning leave it."""
    options = recipe.quantize
    model, grids = stand_in(artifact.need_keras("forecast"), recipe)
    if recipe.qat is not None:
        types = options.input_type or "int8", options.output_type or "int8"
        data = convert(fold(model), mode="int8", types=types, rows=rows)
        return trained.put_on(data, model, grids)[0]
    clustered = (Step("cluster", effect={"grids": grids}),) if grids else ()
    return quantize(
        Artifact(artifact.name, model, steps=clustered),
        calibration=rows if SETTINGS[options.mode].ops is not None else None,
        mode=options.mode,
        weight_bits=options.weight_bits,
        weight_flash=options.weight_flash,
        input_type=options.input_type,
        output_type=options.output_type,
        per_channel=options.per_channel,
    ).need_tflite("forecast")


def _sizes(artifact: Artifact, flatbuffer: bytes, plan: Plan) -> tuple[Sizes, tuple[str, ...]]:
    """What the converted `artifact` takes, without what no runtime reads, and what of it the
    ahead-of-time C cannot run."""
    flatbuffer = slimmed(flatbuffer)
    program = read(flatbuffer)
    total = None if artifact.keras is None else cost.total(artifact.keras)
    arena = code = instructions = None
    reasons = tuple(aot.supports(program))
    if not reasons:
        planned = aot.schedule(program, optimize=plan.optimize)
        calls = [step.call for step in planned.steps]
        arena, code = planned.plan.bytes, flash(calls)
        instructions = sum(call.instructions or 0 for call in calls)
    sizes = Sizes(
        macs=program.macs if total is None else total.macs,
        params=None if total is None else total.params,
        weights=sum(row.weight_bytes for row in accounts(program)),
        tflite=len(flatbuffer),
        arena=arena,
        flash=code,
        instructions=instructions,
    )
    return sizes, reasons
