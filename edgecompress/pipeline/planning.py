"""What a run needs, read and checked at the door: model, data, recipe, budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress import zoo
from edgecompress.artifact import Artifact
from edgecompress.backends import cgen
from edgecompress.budget import Budget
from edgecompress.data import Dataset, Float, Split, check_shape
from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError
from edgecompress.pipeline import stages
from edgecompress.progress import Progress, silent, step
from edgecompress.recipe import Recipe, find
from edgecompress.recipe.settings import Quantize
from edgecompress.sources import read_data
from edgecompress.tflite import read
from edgecompress.vocabulary import Metric, Optimize


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run needs, read and checked."""

    artifact: Artifact
    data: Dataset | None
    recipe: Recipe
    budget: Budget
    optimize: Optimize = "balanced"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.artifact.name

    @property
    def splits(self) -> tuple[Split, ...]:
        """What there is to judge: the test split, which the budget looks at, and further ones."""
        if self.data is None:
            return ()
        return tuple(split for split in (self.data.test, *self.data.extra) if len(split))

    @cached_property
    def samples(self) -> Float | None:
        """The rows of all splits, one after the other; None without data."""
        return np.concatenate([split.x for split in self.splits]) if self.splits else None

    @cached_property
    def calibration(self) -> Float | None:
        """The calibration rows that the recipe asks for; None without data."""
        if self.data is None:
            return None
        return self.data.calibration(
            self.recipe.quantize.calibration_samples, seed=self.recipe.seed
        )


def plan(
    model: str | Path,
    *,
    data: Dataset | Path | str | None = None,
    metric: Metric | None = None,
    features: str | None = None,
    augment: str | None = None,
    recipe: Recipe | Path | str | None = None,
    budget: Budget | Path | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    name: str | None = None,
    optimize: Optimize = "balanced",
    progress: Progress = silent,
) -> Plan:
    """Read and check the model, its data, recipe and budget.

    `model` is a name of the zoo, whose data set, recipe.toml and budget.toml are the defaults, or
    a model file, which needs `data` (a Dataset, or what `sources.read_data` reads, with its hooks
    `features` and `augment`) unless the recipe calibrates without samples. `recipe` is a Recipe or
    what `recipe.find` takes. `changes` are options on top of the recipe, by section and key;
    `name` takes the place of the model's own, and must make a C identifier; `optimize` is what the
    ahead-of-time C is for (`aot.schedule`). Raises the errors of each part.
    """
    home = zoo.folder(str(model)) if str(model) in zoo.names() else None
    chosen = _recipe(recipe, home).merged(changes or {}, seed=seed)
    limits = _budget(budget, home)
    if home is None and not Path(model).exists():
        zoo_names = ", ".join(zoo.names())
        raise ConfigError(f"{model}: no such model file, nor a model of the zoo ({zoo_names})")
    dataset = _dataset(model, data, recipe=chosen, home=home)
    with step(progress, "load model"):
        artifact = zoo.load(model)
    artifact = artifact if name is None else replace(artifact, name=name)
    cgen.identifier(artifact.name)
    shape = _input_shape(artifact)
    if dataset is None and data is not None:
        hooks = {"features": features, "augment": augment}
        with step(progress, "read data"):
            dataset = read_data(
                str(data), shape=shape, seed=chosen.seed, training=chosen.trains, **hooks
            )
    if dataset is not None:
        dataset = dataset if metric is None else replace(dataset, metric=metric)
        check_shape(dataset, shape, model=artifact.name)
    _check(artifact, dataset, chosen)
    return Plan(artifact, dataset, chosen, limits, optimize)


def _check(artifact: Artifact, dataset: Dataset | None, recipe: Recipe) -> None:
    """ConfigError or StageOrderError where the recipe asks for what the data or the model lack."""
    if recipe.prune.active and recipe.prune.score == "taylor":
        stages.labelled_rows(dataset, recipe)  # are there any?
    if recipe.trains and (dataset is None or dataset.training is None):
        raise ConfigError(
            f"{artifact.name}: {', '.join(recipe.stages)} train, and there are no rows to train on;"
            " give --data with x_train and y_train, or a folder of class folders"
        )
    if artifact.keras is None and recipe.stages:
        raise StageOrderError(
            f"{recipe.stages[0]}: {artifact.name} is a .tflite, which cannot be pruned or trained;"
            " start from the Keras model, or leave the stages out"
        )
    if artifact.tflite is not None and recipe.quantize != Quantize():
        raise StageOrderError(
            f"quantize: {artifact.name} is a .tflite, which is quantised already; start from the"
            " Keras model, or leave the quantize options out"
        )


def changed(plan: Plan, changes: Mapping[str, Mapping[str, Any]]) -> Plan:
    """The same plan under another recipe: `changes[section][key]`, as in `plan`."""
    return replace(plan, recipe=plan.recipe.merged(changes, seed=None))


def _recipe(given: Recipe | Path | str | None, home: Path | None) -> Recipe:
    """The recipe that is asked for; the zoo model's own is the default, and the base of others."""
    if isinstance(given, Recipe):
        return given
    own = None if home is None else home / "recipe.toml"
    base = None if own is None or not own.is_file() else Recipe.read(own)
    if given is None:
        return Recipe() if base is None else base
    return find(str(given), base=base)


def _budget(given: Budget | Path | None, home: Path | None) -> Budget:
    if isinstance(given, Budget):
        return given
    own = None if home is None else home / "budget.toml"
    if given is None:
        return Budget() if own is None or not own.is_file() else Budget.read(own)
    return Budget.read(Path(given))


def _dataset(
    model: str | Path, data: Dataset | Path | str | None, *, recipe: Recipe, home: Path | None
) -> Dataset | None:
    """The data to train, calibrate and judge with; None where they are still to be read, and where
    there are none and the recipe needs none."""
    if isinstance(data, Dataset):
        return data
    if data is None and home is not None:
        return zoo.dataset(home.name)
    if data is None and recipe.needs_samples and Path(model).suffix != ".tflite":
        raise ConfigError(
            f"{model}: no data to calibrate and judge it on; give --data my.npz (x, y), or"
            " compress it without data: --recipe data-free"
        )
    return None


def _input_shape(artifact: Artifact) -> tuple[int, ...]:
    if artifact.keras is not None:
        inputs = [tuple(tensor.shape[1:]) for tensor in artifact.keras.inputs]
    else:
        program = read(artifact.need_tflite("compress"))
        inputs = [program.tensors[index].shape[1:] for index in program.inputs]
    if len(inputs) != 1:
        raise UnsupportedError(
            f"{artifact.name}: {len(inputs)} inputs; compress works on models with one input"
        )
    return inputs[0]
