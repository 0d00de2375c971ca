"""The training loop of all stages, for Keras 3 and tf_keras models alike."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Json
from edgecompress.data import Training
from edgecompress.digest import digest
from edgecompress.errors import ConfigError, EdgeCompressError, UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.recipe.settings import Train
from edgecompress.training import legacy
from edgecompress.training.checkpoint import Checkpoint, State
from edgecompress.training.recalibrate import forgetful
from edgecompress.training.task import Task
from edgecompress.training.teacher import Teaching, teaching
from edgecompress.vocabulary import Metric

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Variable = Any
Hook = Callable[[int, int], None]
"""Called with the number of a step, from 0, and how many there are."""

CLIP = 5.0
"""The norm that the gradient of all weights together is cut to."""
MOMENTUM = 0.9
"""Of the optimizer "sgd"."""
BATCH = 256
"""Rows of the validation that are computed at once."""


@dataclass(frozen=True)
class Fit:
    """What a training did.

    `before` and `after` are the validation's metric (of `rows` rows) at the start and of the
    weights that were left, which are those after `best_epoch` epochs of `epochs` (0: as they came).
    `losses` and `validations` are one number per epoch.
    """

    metric: Metric
    rows: int
    before: float
    after: float
    epochs: int
    best_epoch: int
    losses: tuple[float, ...]
    validations: tuple[float, ...]

    def to_json(self) -> Json:
        """All of it, as JSON values."""
        return {**asdict(self), "losses": list(self.losses), "validations": list(self.validations)}


@dataclass
class _Run:
    """Where a training stands: what a checkpoint holds beside the weights. No epoch is the best
    yet where `best` is None."""

    before: float
    best: float | None
    best_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    done: bool = False

    @property
    def epochs(self) -> int:
        return len(self.losses)


def fit(
    model: keras.Model,
    training: Training,
    task: Task,
    train: Train,
    *,
    teacher: keras.Model | None = None,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
    label: str = "train",
    checkpoint: Checkpoint | None = None,
    best_from: float = 0.0,
    before_step: Hook | None = None,
    after_step: Hook | None = None,
    variables: Sequence[Variable] | None = None,
    progress: Progress = silent,
) -> Fit:
    """Train a functional model of Keras 3 or tf_keras where it stands.

    The weights left are the best by the validation, the earlier ones on a tie; no epoch before the
    share `best_from` of all counts, and with 0 the weights as they came do too. Gradients are cut
    to the norm CLIP; moving statistics look back a part of an epoch (`recalibrate.forgetful`).
    `variables` are the tf.Variables to train, all trainable ones by default. `before_step` and
    `after_step` may set variables of the model. `teacher` and `names` are those of
    `teacher.teaching`. Order, augmentation and dropout hang on `seed` and the epoch alone.

    After every epoch all of it goes to `checkpoint`, where the next call of the same goes on; what
    was finished is only read, and of what was interrupted the best so far is taken where the
    checkpoint is to `finish` it. KeyboardInterrupt leaves the best weights so far and is passed on.

    Raises EdgeCompressError for a loss or weights that are not finite (the checkpoint keeps the
    epochs before), ConfigError for rows that do not fit, UnsupportedError for a model of a fixed
    batch size or of several inputs or outputs, ToolError without tf-keras.
    """
    _check(model, training)
    taught = teaching(model, teacher, task, train, names)
    loop = _Loop(model, training, taught, seed=seed, variables=variables)
    if checkpoint is not None:
        checkpoint = checkpoint.of(loop.identity(), f"{best_from}")
    run, best = loop.start(checkpoint, best_from == 0)
    if checkpoint is not None and checkpoint.finish and run.losses and run.best is not None:
        run.done = True
    total = train.epochs * loop.steps
    first = max(1, math.ceil(best_from * train.epochs))

    def told(step: int) -> None:
        progress(label, step, total)

    try:
        with forgetful(model, loop.steps):
            while not run.done:
                loop.epoch(run, before_step, after_step, told)
                if run.epochs >= first and loop.better(run.validations[-1], run.best):
                    run.best, run.best_epoch, best = run.validations[-1], run.epochs, loop.weights()
                waited = run.epochs - max(run.best_epoch, first - 1)
                run.done = run.epochs == train.epochs or 0 < train.patience <= waited
                if checkpoint is not None:
                    checkpoint.write(loop.state(run, best))
    finally:
        loop.put(best)
    told(total)
    assert run.best is not None  # the last epoch counts if no other does
    return Fit(
        loop.metric,
        len(training.validation),
        run.before,
        run.best,
        run.epochs,
        run.best_epoch,
        tuple(run.losses),
        tuple(run.validations),
    )


class _Loop:
    """The model with all that changes in training, and how a step is made."""

    def __init__(
        self,
        model: keras.Model,
        training: Training,
        taught: Teaching,
        *,
        seed: int,
        variables: Sequence[Variable] | None,
    ) -> None:
        self.training, self.taught, self.seed = training, taught, seed
        self.task, self.train, self.model = taught.task, taught.train, model
        self.steps = math.ceil(len(training.rows) / self.train.batch)
        self.metric = self.task.measure(training.validation)
        _seed(model, seed)
        self.variables = [_raw(variable) for variable in model.variables]
        own = model.trainable_variables if variables is None else variables
        if not own:
            raise ConfigError(f"{model.name}: every layer is frozen; nothing can be trained")
        self.optimizer = _optimizer(self.train, [_raw(variable) for variable in own])
        self.of_class = _class_weights(training, self.task, self.train)
        self._step = self._compiled(own)
        self._outputs = _inference(model)

    def identity(self) -> str:
        """A digest of all that a training depends on: weights, teacher, rows, what changes them
        (shown on rows of the validation), options."""
        validation, change = self.training.validation, self.training.augment
        rows = [validation.x] if validation.y is None else [validation.x, validation.y]
        if change is not None:
            few = validation.rows(np.arange(min(BATCH, len(validation))))
            rows.append(change(few.x, few.y, np.random.default_rng(self.seed)))
        models = [self.model] if self.taught.teacher is None else [self.model, self.taught.teacher]
        return digest(
            json.dumps([asdict(self.train), asdict(self.task), self.seed]),
            self.training.rows.key(),
            *(np.asarray(_raw(variable)) for m in models for variable in m.weights),
            *map(np.asarray, rows),
        )

    def start(self, checkpoint: Checkpoint | None, counts: bool) -> tuple[_Run, list[Array]]:
        """Where to begin, and the best weights there: at the checkpoint, or before the first epoch,
        whose weights are the best so far where they do count."""
        state = None if checkpoint is None else checkpoint.read()
        if state is not None:
            run, best = _Run(**state.notes), _listed(state, "best")
            if not run.done:
                self.put(_listed(state, "model"))
                for variable, value in zip(
                    self.optimizer.variables, _listed(state, "optimizer"), strict=True
                ):
                    variable.assign(value)
            return run, best
        before = self.judged()
        return _Run(before, before if counts else None), self.weights()

    def state(self, run: _Run, best: Sequence[Array]) -> State:
        """What a checkpoint holds: of a finished run the best weights alone."""
        kept: dict[str, Sequence[Array]] = {"best": best}
        if not run.done:
            kept["model"] = self.weights()
            kept["optimizer"] = [np.asarray(variable) for variable in self.optimizer.variables]
        arrays = {f"{k}/{i}": array for k, group in kept.items() for i, array in enumerate(group)}
        return State(arrays, asdict(run))

    def weights(self) -> list[Array]:
        """All that the model holds: weights, moving statistics, the state of dropout."""
        return [variable.numpy() for variable in self.variables]

    def put(self, weights: Sequence[Array]) -> None:
        """The opposite of `weights`."""
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def judged(self) -> float:
        """The metric of the validation."""
        split = self.training.validation
        outputs = [
            np.asarray(self._outputs(split.x[start : start + BATCH]))
            for start in range(0, len(split), BATCH)
        ]
        return self.task.judge(np.concatenate(outputs).astype(np.float32), split)

    def better(self, value: float, than: float | None) -> bool:
        """Whether a validation beats the best so far."""
        if than is None:
            return True
        return value < than if self.metric == "mse" else value > than

    def epoch(
        self, run: _Run, before: Hook | None, after: Hook | None, told: Callable[[int], None]
    ) -> None:
        """One pass over the rows, and what the validation says then."""
        total, sums = self.train.epochs * self.steps, 0.0
        step = run.epochs * self.steps
        for x, y, weights in self._batches(run.epochs):
            told(step)
            if before is not None:
                before(step, total)
            self.optimizer.learning_rate = rate(self.train, step, total)
            loss = float(self._step(x, y, weights))
            if not math.isfinite(loss):
                raise _diverged(run.epochs, self.train)
            if after is not None:
                after(step, total)
            sums += loss * len(x)
            step += 1
        if not all(np.isfinite(value).all() for value in self.weights() if value.dtype.kind == "f"):
            raise _diverged(run.epochs, self.train)
        run.validations.append(self.judged())
        run.losses.append(sums / len(self.training.rows))

    def _batches(self, epoch: int) -> Iterator[tuple[Float, Array, Float]]:
        """Augmented rows, their targets and how much they count."""
        order, change = (np.random.default_rng([self.seed, epoch, use]) for use in (0, 1))
        shape = self.training.validation.x.shape[1:]
        for x, y in self.training.rows.epoch(self.train.batch, order):
            if self.training.augment is not None:
                x = self.training.augment(x, y, change)
            if x.shape[1:] != shape:
                raise ConfigError(
                    f"training rows are {x.shape[1:]} but the validation's are {shape}; make them"
                    " alike"
                )
            targets = self.task.targets(x, y)
            weights = self.task.weights(y, self.of_class, len(x))
            yield x.astype(np.float32, copy=False), targets, weights

    def _compiled(self, trained: Sequence[Variable]) -> Callable[..., Any]:
        """The step as a graph, traced once for batches of any size."""
        import tensorflow as tf

        task, taught = self.task, self.taught
        smoothing = self.train.label_smoothing
        raw = [_raw(variable) for variable in trained]
        bound = [variable for variable in trained if getattr(variable, "constraint", None)]

        def step(x: Any, y: Any, weights: Any) -> Any:
            told = taught.told(x)
            with tf.GradientTape() as tape:
                made = taught.answers(x)
                plain = task.losses(made[0], x, y, smoothing=smoothing)
                loss = tf.reduce_mean(weights * taught.losses(made, told, plain))
                loss += sum(self.model.losses)
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, raw), CLIP)
            pairs = zip(gradients, raw, strict=True)
            self.optimizer.apply_gradients((g, v) for g, v in pairs if g is not None)
            for variable in bound:
                variable.assign(variable.constraint(variable))
            return loss

        wide = task.kind == "values"
        kind = tf.int32 if task.kind == "classes" else tf.float32
        compiled: Callable[..., Any] = tf.function(
            step,
            autograph=False,
            input_signature=[
                tf.TensorSpec((None, *self.training.validation.x.shape[1:]), tf.float32),
                tf.TensorSpec((None, task.width) if wide else (None,), kind),
                tf.TensorSpec((None,), tf.float32),
            ],
        )
        return compiled


def rate(train: Train, step: int, total: int) -> float:
    """The learning rate of a step, from 0, of `total`: it rises along a line during the warm-up,
    and falls as `train.schedule` says."""
    warm = train.warm_up * total
    if step < warm:
        return train.learning_rate * (step + 1) / (math.floor(warm) + 1)
    past = (step - warm) / (total - warm)
    falls = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * past)) / 2,
        "step": 0.1 ** ((past >= 0.5) + (past >= 0.75)),
    }
    return train.learning_rate * falls[train.schedule]


def _check(model: keras.Model, training: Training) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs;"
            " models with one of each can be trained"
        )
    batch, *shape = model.inputs[0].shape
    if batch is not None:
        raise UnsupportedError(
            f"{model.name} takes batches of {batch}; rebuild it with keras.Input({tuple(shape)}),"
            " whose batches may be of any size"
        )
    found = training.validation.x.shape[1:]
    if not len(training.validation) or not len(training.rows):
        raise ConfigError(
            f"{len(training.rows)} rows to train on and {len(training.validation)} to validate;"
            " at least 1 of each is needed"
        )
    sizes = zip(shape, found, strict=False)
    if len(shape) != len(found) or any(want not in (None, got) for want, got in sizes):
        raise ConfigError(
            f"training: rows are {found} but {model.name} takes {tuple(shape)}; reshape the array"
        )


def _optimizer(train: Train, variables: Sequence[Variable]) -> Any:
    """AdamW, or SGD with momentum; kernels decay, biases and scales (of one axis) do not."""
    optimizers = legacy.tf_keras().optimizers
    options = {"weight_decay": train.weight_decay, "jit_compile": False}
    if train.optimizer == "adamw":
        optimizer = optimizers.AdamW(train.learning_rate, **options)
    else:
        optimizer = optimizers.SGD(train.learning_rate, momentum=MOMENTUM, **options)
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer


def _class_weights(training: Training, task: Task, train: Train) -> Float | None:
    """A weight per class so that all count alike, 1 on average over the rows; None for none."""
    if train.class_weights == "none" or not task.classes:
        return None
    counts = np.zeros(task.classes, np.int64)
    for x, y in training.rows.epoch(train.batch, np.random.default_rng(0)):
        counts += np.bincount(task.targets(x, y).astype(np.int64), minlength=task.classes)
    present = np.count_nonzero(counts)
    weights: Float = (counts.sum() / (present * np.maximum(counts, 1))).astype(np.float32)
    return weights


def _inference(model: keras.Model) -> Callable[[Float], Any]:
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)]
    compiled: Callable[[Float], Any] = tf.function(
        lambda x: model(x, training=False), autograph=False, input_signature=signature
    )
    return compiled


def _seed(model: keras.Model, seed: int) -> None:
    """Start what draws numbers in training, such as dropout, at `seed`."""
    import keras
    import tensorflow as tf

    if not isinstance(model, keras.Model):
        tf.random.set_seed(seed)
        return
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for number, variable in enumerate(states):
        drawn = np.random.default_rng([seed, number]).integers(2**31)
        variable.assign([drawn, 0])


def _raw(variable: Variable) -> Variable:
    """The tf.Variable of a Keras 3 or tf_keras one."""
    import keras

    return variable.value if isinstance(variable, keras.Variable) else variable


def _listed(state: State, group: str) -> list[Array]:
    count = sum(name.startswith(f"{group}/") for name in state.arrays)
    return [state.arrays[f"{group}/{i}"] for i in range(count)]


def _diverged(epoch: int, train: Train) -> EdgeCompressError:
    return EdgeCompressError(
        f"training: the loss is no number any more in epoch {epoch + 1}; lower learning_rate"
        f" (now {train.learning_rate})"
    )
