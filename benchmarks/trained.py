"""What the benchmarks of training share: runs that can be taken up again, and their rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from edgecompress import zoo
from edgecompress.artifact import Artifact
from edgecompress.data import Dataset, Split
from edgecompress.evaluation import predict, score
from edgecompress.recipe import Finetune, Train
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.finetune import finetune

if TYPE_CHECKING:
    import keras

KEPT = Path(__file__).resolve().parent.parent / "build" / "benchmarks"
"""Checkpoints: a benchmark that was interrupted goes on where it stood."""


def kept(*names: object) -> Checkpoints:
    """The checkpoints of one run."""
    return Checkpoints(KEPT / "-".join(str(name) for name in names))


def top1(model: keras.Model, split: Split) -> float:
    """The share of the rows of `split` that a Keras model is right on."""
    return score(predict(model, split.x), split, metric="top1")


def from_scratch(
    artifact: Artifact, *, data: Dataset, train: Train, seed: int, checkpoints: Checkpoints
) -> keras.Model:
    """The architecture of `artifact` with fresh weights, trained as `train` says: what pruning has
    to beat (Liu et al., "Rethinking the Value of Network Pruning", arXiv:1810.05270)."""
    import keras

    keras.utils.set_random_seed(seed)
    fresh = Artifact(artifact.name, keras.models.clone_model(artifact.need_keras("benchmark")))
    done = finetune(
        fresh, data=data, options=Finetune(), train=train, seed=seed, checkpoints=checkpoints
    )
    return done.need_keras("benchmark")


def percent(value: float | None) -> str:
    """A share in percent; nothing where it was not measured."""
    return "" if value is None else f"{100 * value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The mean of shares ± half their range, in percent."""
    half = (max(values) - min(values)) / 2
    return percent(values[0]) if len(values) == 1 else f"{percent(mean(values))} ± {100 * half:.2f}"


def told(text: str) -> None:
    """Where the benchmark stands, on stderr."""
    print(text, file=sys.stderr, flush=True)


def need(name: str) -> Path:
    """A file of EC_DATA_DIR."""
    file = zoo.data_file(name)
    if file is None:
        sys.exit(f"benchmarks: no {name} under EC_DATA_DIR; set it")
    return file
