"""What the stages that go through the bridge have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from edgecompress.artifact import Artifact, Json, Step
from edgecompress.data import Dataset, Training
from edgecompress.progress import Progress
from edgecompress.recipe.settings import Cluster, Qat, Sparsify, Train
from edgecompress.training import promises
from edgecompress.training.bridge import Bridged
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.fit import Fit, fit
from edgecompress.training.kernels import Kernel
from edgecompress.training.task import Task

if TYPE_CHECKING:
    import keras
    import tf_keras


@dataclass(frozen=True, eq=False)
class Trainer:
    """The arguments of a stage: an artifact, and how it is trained."""

    stage: str
    artifact: Artifact
    data: Dataset
    options: Sparsify | Cluster | Qat
    train: Train
    teacher: keras.Model | None
    seed: int
    checkpoints: Checkpoints | None
    progress: Progress

    @cached_property
    def rows(self) -> Training:
        """The rows to train on."""
        return self.data.to_train(self.stage)

    @cached_property
    def own(self) -> Train:
        """How this stage trains."""
        return self.options.training(self.train)

    @property
    def steps(self) -> int:
        """How many steps all epochs have together."""
        return self.own.epochs * -(-len(self.rows.rows) // self.own.batch)

    def fit(self, bridged: Bridged, model: tf_keras.Model, **how: Any) -> Fit:
        """Train `model`, which is made of what `bridged` has; `how` goes to `fit`."""
        at = None
        if self.checkpoints is not None:
            at = self.checkpoints.at(self.stage, f"{self.options}")
        return fit(
            model,
            self.rows,
            Task.of(self.data, bridged.source),
            self.own,
            teacher=self.teacher,
            names=bridged.names,
            seed=self.seed,
            label=self.stage,
            checkpoint=at,
            progress=self.progress,
            **how,
        )

    def finished(
        self,
        bridged: Bridged,
        done: Fit,
        made: Mapping[Kernel, npt.NDArray[Any]],
        **effect: Json,
    ) -> Artifact:
        """The artifact with what was trained and the kernels `made`, checked in float32."""
        changes: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for kernel, values in made.items():
            changes.setdefault(kernel.layer, {})[kernel.weight] = values
        params = {**asdict(self.options), "train": asdict(self.own), "seed": self.seed}
        step = Step(
            self.stage,
            json.loads(json.dumps(params)),  # tuples as they come back from a file
            {"training": done.to_json(), **effect},
        )
        return promises.kept(self.artifact.after(step, keras=bridged.back(changes)))
