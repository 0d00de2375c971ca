"""Fine-tuning: training on, of the weights as they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgecompress.artifact import Artifact, Step
from edgecompress.data import Dataset
from edgecompress.progress import Progress, silent
from edgecompress.recipe.settings import Finetune, Train
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.fit import fit
from edgecompress.training.task import Task

if TYPE_CHECKING:
    import keras

STAGE = "finetune"
_OPTIONS, _TRAIN = Finetune(), Train()


def finetune(
    artifact: Artifact,
    *,
    data: Dataset,
    options: Finetune = _OPTIONS,
    train: Train = _TRAIN,
    teacher: keras.Model | None = None,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Artifact:
    """The artifact with its weights trained on; frozen layers keep theirs.

    `teacher` is the uncompressed model, where `train` follows one. The step's effect holds what the
    training did (`fit.Fit`). Raises like `fit`, and ConfigError for data without rows to train on.
    """
    given = artifact.need_keras(STAGE)
    training, own = data.to_train(STAGE), options.training(train)
    model = copied(given)
    done = fit(
        model,
        training,
        Task.of(data, given),
        own,
        teacher=teacher,
        seed=seed,
        label=STAGE,
        checkpoint=None if checkpoints is None else checkpoints.at(STAGE),
        progress=progress,
    )
    params = {**asdict(own), "features": list(own.features), "seed": seed}
    return artifact.after(Step(STAGE, params, {"training": done.to_json()}), keras=model)


def copied(model: keras.Model) -> keras.Model:
    """A Keras 3 model of the same layers with variables of its own."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
