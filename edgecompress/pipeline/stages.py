"""The stages of a recipe before the conversion, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np

from edgecompress.artifact import Artifact, Step
from edgecompress.data import Dataset, Float, Training
from edgecompress.datafree.distil import BATCH, distilled
from edgecompress.errors import ConfigError
from edgecompress.progress import Progress
from edgecompress.prune import prune_structured
from edgecompress.prune.rounds import prune_in_rounds
from edgecompress.recipe import STAGES, Recipe
from edgecompress.recipe.settings import Finetune
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.recalibrate import recalibrated

RECALIBRATION = (16, 128)
"""Batches, at most, that moving statistics are taken from after a cut, and the rows of each."""


@dataclass(frozen=True, eq=False)
class Work:
    """What the stages of a run share: the model as given, data, recipe, where training may stop and
    go on, and the calibration rows."""

    given: Artifact
    data: Dataset | None
    recipe: Recipe
    calibration: Float | None
    checkpoints: Checkpoints | None
    progress: Progress

    def train(self, stage: str, artifact: Artifact, options: Any, *, label: str = "") -> Artifact:
        """Run the stage of that name (edgecompress.training), `options` its table in the recipe."""
        if self.data is None:
            raise ConfigError(f"{stage}: there is nothing to train on; give --data my.npz")
        run = getattr(import_module(f"edgecompress.training.{stage}"), stage)
        done: Artifact = run(
            artifact,
            data=self.data,
            options=options,
            train=self.recipe.train,
            teacher=self.given.need_keras(stage),
            seed=self.recipe.seed,
            checkpoints=None if self.checkpoints is None else self.checkpoints.under(label),
            progress=self.progress,
        )
        return done


def pruned(work: Work) -> Artifact:
    """The artifact as given without the channels that the recipe's `prune` removes.

    Where the recipe trains, BatchNormalization is recalibrated after each cut.
    """
    options, recipe = work.recipe.prune, work.recipe
    if not options.active:
        return work.given
    labelled = labelled_rows(work.data, recipe) if options.score == "taylor" else None
    bits = recipe.quantize.weight_bits if recipe.qat is None else recipe.qat.weight_bits
    given = asdict(options)
    for own in ("calibration", "rounds", "epochs"):
        del given[own]
    given |= {
        "samples": _looked_at(work) if options.looks else None,
        "audit": work.calibration,
        "weight_bits": bits,
        "data": labelled,
        "seed": recipe.seed,
        "progress": work.progress,
    }
    if options.rounds == 1:
        return _settled(prune_structured(work.given, **given), work)
    tuned = Finetune(epochs=options.epochs)

    def tune(artifact: Artifact, done: int) -> Artifact:
        return work.train("finetune", _settled(artifact, work), tuned, label=f"round-{done}")

    return _settled(prune_in_rounds(work.given, rounds=options.rounds, tune=tune, **given), work)


def trained(artifact: Artifact, work: Work) -> Artifact:
    """The artifact after every stage of the recipe that trains, in their order."""
    for stage in STAGES:
        options = getattr(work.recipe, stage)
        if options is not None:
            artifact = work.train(stage, artifact, options)
    return artifact


def labelled_rows(data: Dataset | None, recipe: Recipe) -> tuple[Float, Any]:
    """Calibration rows with their targets; ConfigError where there are none."""
    if data is None:
        raise ConfigError("prune: score taylor needs samples with their targets; give --data")
    return data.labelled(recipe.quantize.calibration_samples, seed=recipe.seed)


def _looked_at(work: Work) -> Float | None:
    """The rows that pruning learns the activations from; None where it goes by the weights."""
    options, seed = work.recipe.prune, work.recipe.seed
    if options.calibration == "samples" and work.data is not None:
        return work.data.calibration(options.samples, seed=seed)
    if options.calibration == "distilled":
        model, count = work.given.need_keras("prune"), min(options.samples, BATCH)
        return distilled(model, count=count, seed=seed, progress=work.progress)
    return None


def _settled(artifact: Artifact, work: Work) -> Artifact:
    """The artifact with its BatchNormalization layers recalibrated, where there are rows for it."""
    if not work.recipe.trains or work.data is None or work.data.training is None:
        return artifact
    model = artifact.need_keras("recalibrate")
    kinds = {type(layer).__name__ for layer in model.layers}
    if "BatchNormalization" not in kinds:
        return artifact
    rows = list(_batches(work.data.training(), work.recipe.seed))
    step = Step("recalibrate", {"rows": sum(map(len, rows)), "batch": RECALIBRATION[1]})
    return artifact.after(step, keras=recalibrated(model, rows))


def _batches(training: Training, seed: int) -> Iterator[Float]:
    """The first batches of a pass over the rows, as they are."""
    count, size = RECALIBRATION
    epoch = training.rows.epoch(size, np.random.default_rng(seed))
    for rows, _ in islice(epoch, count):
        yield rows
