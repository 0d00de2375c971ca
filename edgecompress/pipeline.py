"""The whole run: recipe -> pruned, quantised, converted, proven, reported.

`plan` reads and checks everything at the door; `run` does the work and writes nothing; the
result is saved in one go, so that a failed run leaves an earlier run directory untouched.
"""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress import checkout, cost, proof, runtimes, zoo
from edgecompress.artifact import Artifact, Step
from edgecompress.backends import aot, cgen, tflm
from edgecompress.budget import Budget, judge
from edgecompress.data import Dataset, Float, Split, check_shape, load_npz
from edgecompress.datafree.distil import BATCH, distilled
from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError
from edgecompress.evaluation import confusion, predict, score
from edgecompress.files import write_text
from edgecompress.progress import Progress, silent
from edgecompress.prune import prune_structured
from edgecompress.quantization import LayerError, quantize, sqnr
from edgecompress.recipe import Quantize, Recipe, named
from edgecompress.report import AccuracyRow, Change, MemoryMap, OperatorRow, Report, Size
from edgecompress.report.memory_map import from_plan
from edgecompress.tflite import Program, read, write
from edgecompress.tflite.account import accounts
from edgecompress.tflite.passes import lossless
from edgecompress.vocabulary import Metric, Optimize

TOOLS = (
    "edgecompress",
    "tensorflow",
    "keras",
    "numpy",
    "tflite-runtime",
    "ai-edge-litert",
    "tflite-micro",
)


Scores = list[float] | None
"""The metric of each split, None where it was not measured."""


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


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gives: the artifact, its report, and the sources by path (aot/model.c)."""

    artifact: Artifact
    report: Report
    sources: Mapping[str, str]

    def save(self, folder: Path) -> None:
        """Fill the run directory; the report comes last."""
        self.artifact.save(folder)
        for path, text in self.sources.items():
            write_text(folder / path, text)
        for stale in _generated(folder) - self.sources.keys():
            (folder / stale).unlink()
        self.report.save(folder)


def compress(
    model: str | Path,
    *,
    data: Dataset | Path | None = None,
    recipe: Recipe | Path | str | None = None,
    budget: Budget | Path | None = None,
    seed: int | None = None,
    progress: Progress = silent,
) -> Result:
    """Run the recipe of a zoo model, or of a model file with `data`; see `plan` and `run`."""
    ready = plan(model, data=data, recipe=recipe, budget=budget, seed=seed, progress=progress)
    return run(ready, progress=progress)


def plan(
    model: str | Path,
    *,
    data: Dataset | Path | None = None,
    metric: Metric | None = None,
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
    a model file, which needs `data` (a Dataset or an .npz, see `load_npz`) unless the recipe
    calibrates without samples. `recipe` is a Recipe, a file or the name of one that comes with
    edgecompress (`data-free`). `changes` are options on top of the recipe, by section and key;
    `name` takes the place of the model's own, and must make a C identifier; `optimize` is what the
    ahead-of-time C is for (`aot.schedule`). Raises the errors of each part.
    """
    home = zoo.folder(str(model)) if str(model) in zoo.names() else None
    chosen = _read(Recipe, recipe, home).merged(changes or {}, seed=seed)
    limits = _read(Budget, budget, home)
    if home is None and not Path(model).exists():
        zoo_names = ", ".join(zoo.names())
        raise ConfigError(f"{model}: no such model file, nor a model of the zoo ({zoo_names})")
    dataset = _dataset(model, data, recipe=chosen, metric=metric, zoo_model=home is not None)
    if chosen.prune.active and chosen.prune.score == "taylor":
        _labelled(dataset, chosen)  # are there any?
    with _stage(progress, "load model"):
        artifact = zoo.load(model)
    artifact = artifact if name is None else replace(artifact, name=name)
    cgen.identifier(artifact.name)
    shape = _input_shape(artifact)
    if dataset is not None:
        check_shape(dataset, shape, model=artifact.name)
    if artifact.keras is None and chosen.prune.active:
        raise StageOrderError(
            f"prune: {artifact.name} is a .tflite, which cannot be pruned; start from the Keras"
            " model, or leave the pruning target out"
        )
    if artifact.tflite is not None and chosen.quantize != Quantize():
        raise StageOrderError(
            f"quantize: {artifact.name} is a .tflite, which is quantised already; start from the"
            " Keras model, or leave the quantize options out"
        )
    return Plan(artifact, dataset, chosen, limits, optimize)


def changed(plan: Plan, changes: Mapping[str, Mapping[str, Any]]) -> Plan:
    """The same plan under another recipe: `changes[section][key]`, as in `plan`."""
    return replace(plan, recipe=plan.recipe.merged(changes, seed=None))


def run(plan: Plan, *, progress: Progress = silent) -> Result:
    """Do what the plan says and measure it; nothing is written.

    The runtimes work in processes of their own while TensorFlow converts and evaluates.
    """
    try:
        return _run(plan, progress)
    except BaseException:
        runtimes.cancel_all()
        raise


def _run(plan: Plan, progress: Progress) -> Result:
    given = plan.artifact
    floats = _floats(plan, given, "float accuracy", progress)
    baseline = _baseline(plan, progress)
    pruned = _pruned(plan, progress)
    pruned_floats = None if pruned is given else _floats(plan, pruned, "pruned accuracy", progress)
    quantized = _quantized(plan, pruned, progress)
    artifact = _slimmed(quantized)
    flatbuffer = artifact.need_tflite("evaluate")
    program = read(flatbuffer)
    unsupported = tuple(tflm.supports(program))
    options = plan.recipe.evaluate
    samples = plan.samples
    if samples is None:
        samples = probe(program, options.tflm_samples, seed=plan.recipe.seed)
    judged = runtimes.submit(flatbuffer, samples, kernels=options.kernels)
    device = None
    if runtimes.available("tflm") and not unsupported:
        device = proof.start(
            flatbuffer,
            plan.splits[0].x if plan.splits else samples,
            samples=options.tflm_samples,
            kernels=options.kernels,
        )
    errors = _errors(plan, quantized, progress)
    with _stage(progress, "accuracy"):
        outputs = judged.result()
    with _stage(progress, "TFLM bits"):
        found = None if device is None else device.finish(outputs)
    arena = None if found is None else found.arena
    planned, aot_unsupported = _planned(program, plan.optimize)
    head = checkout.head()
    report = Report(
        name=artifact.name,
        sha256=str(artifact.sha256),
        tools={**_versions(), "accuracy": outputs.label},
        commit=None if head is None else head.commit,
        steps=artifact.steps,
        size=_size(given, artifact, program, baseline, arena, planned),
        accuracy=_accuracy(plan, floats, pruned_floats, outputs.values, found),
        proof=None if found is None else found.proof,
        operators=_operators(program, errors),
        unsupported=unsupported,
        aot_unsupported=aot_unsupported,
        memory=None if planned is None else _memory(planned, artifact.name),
        labels=() if plan.data is None else plan.data.labels,
    )
    sources = _sources(program, artifact.name, tflm_arena=arena, planned=planned)
    return Result(artifact, judge(report, plan.budget), sources)


def _sources(
    program: Program, name: str, *, tflm_arena: int | None, planned: aot.Schedule | None
) -> dict[str, str]:
    """The sources of both backends, as far as they can run the model."""
    found: dict[str, dict[str, str]] = {}
    if not tflm.supports(program):
        found[tflm.NAME] = tflm.generate(program, name=name, arena=tflm_arena)
    if planned is not None:
        found[aot.NAME] = aot.generate(program, name=name, planned=planned)
    return {
        f"{backend}/{path}": text
        for backend, files in found.items()
        for path, text in files.items()
    }


def _generated(folder: Path) -> set[str]:
    """The sources that an earlier run left in `folder`."""
    patterns = [f"{tflm.NAME}/{name}" for name in tflm.FILES]
    patterns += [f"{aot.NAME}/{name}" for name in aot.FILES]
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix() for path in found}


@contextlib.contextmanager
def _stage(progress: Progress, label: str) -> Iterator[None]:
    progress(label, 0, 1)
    yield
    progress(label, 1, 1)


def _read(kind: type[Any], given: Any, home: Path | None) -> Any:
    if isinstance(given, kind):
        return given
    file = f"{kind.__name__.lower()}.toml"
    if given is None and home is not None and (home / file).is_file():
        given = home / file
    if given is None:
        return kind()
    return kind.read(named(str(given)) if kind is Recipe else Path(given))


def _dataset(
    model: str | Path,
    data: Dataset | Path | None,
    *,
    recipe: Recipe,
    metric: Metric | None,
    zoo_model: bool,
) -> Dataset | None:
    """The data to calibrate and judge on; None where there are none and the recipe needs none."""
    if data is None and not zoo_model:
        if recipe.needs_samples and Path(model).suffix != ".tflite":
            raise ConfigError(
                f"{model}: no data to calibrate and judge it on; give --data my.npz (x, y), or"
                " compress it without data: --recipe data-free"
            )
        return None
    if data is None:
        data = zoo.dataset(str(model))
    if not isinstance(data, Dataset):
        data = load_npz(Path(data), seed=recipe.seed)
    return data if metric is None else replace(data, metric=metric)


def probe(program: Program, rows: int, *, seed: int) -> Float:
    """Random inputs (rows, *input_shape) for a converted model, to compare bits on.

    Uniform over the whole range of a quantised input, standard normal for a float one.
    """
    rng = np.random.default_rng(seed)
    tensor = program.tensors[program.inputs[0]]
    shape = (rows, *tensor.shape[1:])
    if tensor.dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    kind = np.dtype(tensor.dtype)
    limits = np.iinfo(kind)
    stored = rng.integers(limits.min, limits.max, size=shape, dtype=kind, endpoint=True)
    return tensor.dequantize(stored).astype(np.float32)


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


@dataclass(frozen=True)
class _Baseline:
    """The model as given: its float32 `.tflite` bytes, the worker that finds its arena under
    TFLM, and that of the ahead-of-time C."""

    bytes: int
    running: runtimes.Job | None
    aot_arena: int | None


def _baseline(plan: Plan, progress: Progress) -> _Baseline | None:
    """None where the run changes nothing: a `.tflite`, or a plain conversion to float32."""
    given, recipe = plan.artifact, plan.recipe
    if given.tflite is not None or (recipe.quantize.mode == "float32" and not recipe.prune.active):
        return None
    with _stage(progress, "convert float32"):
        converted = quantize(given, mode="float32").need_tflite("convert")
        running = None
        if runtimes.available("tflm") and not tflm.supports(read(converted)):
            running = runtimes.submit(converted, probe(read(converted), 1, seed=0), runtime="tflm")
        planned, _ = _planned(read(converted), plan.optimize)
    return _Baseline(len(converted), running, None if planned is None else planned.plan.bytes)


def _planned(program: Program, optimize: Optimize) -> tuple[aot.Schedule | None, tuple[str, ...]]:
    """The schedule of the ahead-of-time C, or why there is none."""
    reasons = tuple(aot.supports(program))
    return None if reasons else aot.schedule(program, optimize=optimize), reasons


def _floats(plan: Plan, artifact: Artifact, label: str, progress: Progress) -> Scores:
    if artifact.keras is None or plan.samples is None:
        return None
    with _stage(progress, label):
        return _judged(plan, predict(artifact.keras, plan.samples))


def _judged(plan: Plan, outputs: Float) -> list[float]:
    """The metric of each split; `outputs` are those of all splits, one after the other."""
    if plan.data is None:
        return []
    parts = zip(_by_split(plan, outputs), plan.splits, strict=True)
    return [score(part, split, metric=plan.data.metric) for part, split in parts]


def _by_split(plan: Plan, outputs: Float) -> list[Float]:
    """The rows of `outputs`, those of all splits, that are each split's."""
    if not plan.splits:
        return []
    ends = np.cumsum([len(split) for split in plan.splits])
    return np.split(outputs, ends[:-1])


def _pruned(plan: Plan, progress: Progress) -> Artifact:
    options = plan.recipe.prune
    if not options.active:
        return plan.artifact
    labelled = _labelled(plan.data, plan.recipe) if options.score == "taylor" else None
    given = asdict(options)
    del given["calibration"]  # of the samples; they are samples to it wherever they come from
    given["samples"] = _looked_at(plan, progress) if options.learns else None
    return prune_structured(
        plan.artifact,
        **given,
        audit=plan.calibration,
        weight_bits=plan.recipe.quantize.weight_bits,
        data=labelled,
        seed=plan.recipe.seed,
        progress=progress,
    )


def _looked_at(plan: Plan, progress: Progress) -> Float | None:
    """The rows that pruning learns the activations from; None where it goes by the weights."""
    options, seed = plan.recipe.prune, plan.recipe.seed
    if options.calibration == "samples" and plan.data is not None:
        return plan.data.calibration(options.samples, seed=seed)
    if options.calibration == "distilled":
        model, count = plan.artifact.need_keras("prune"), min(options.samples, BATCH)
        return distilled(model, count=count, seed=seed, progress=progress)
    return None


def _labelled(data: Dataset | None, recipe: Recipe) -> tuple[Float, Any]:
    """Calibration rows with their targets; ConfigError where there are none."""
    if data is None:
        raise ConfigError("prune: score taylor needs samples with their targets; give --data")
    return data.labelled(recipe.quantize.calibration_samples, seed=recipe.seed)


def _quantized(plan: Plan, artifact: Artifact, progress: Progress) -> Artifact:
    if artifact.tflite is not None:
        return artifact
    options = asdict(plan.recipe.quantize)
    del options["calibration_samples"]
    if options["calibration"] == "samples":
        options["calibration"] = plan.calibration
    return quantize(artifact, **options, seed=plan.recipe.seed, progress=progress)


def _slimmed(artifact: Artifact) -> Artifact:
    """The artifact without the bytes of its flatbuffer that no runtime reads; the bits stay.

    A flatbuffer with parts that a Program does not hold stays as it is.
    """
    before = artifact.need_tflite("lossless")
    try:
        after = write(lossless(read(before)))
    except UnsupportedError:
        return artifact
    if len(after) >= len(before):
        return artifact
    effect = {"tflite_bytes_before": len(before), "tflite_bytes": len(after)}
    return artifact.after(Step("lossless", effect=effect), tflite=after)


def _errors(plan: Plan, artifact: Artifact, progress: Progress) -> Sequence[LayerError]:
    """The quantisation error of each operator; none where it cannot be known."""
    if artifact.keras is None or plan.calibration is None:
        return ()
    rows = plan.calibration[: plan.recipe.evaluate.error_samples]
    with _stage(progress, "quantisation error"):
        return sqnr(artifact, rows)


def _operators(program: Program, errors: Sequence[LayerError]) -> tuple[OperatorRow, ...]:
    """The operators of `program` with their `errors`, which may be of more: those of the flatbuffer
    that lossless passes made it of."""
    rows = []
    left = iter(errors)
    for each in accounts(program):
        error = next((one for one in left if one.kind == each.kind), None)
        known = None if error is None else error.sqnr_db
        rows.append(
            OperatorRow(
                **asdict(each),
                sqnr_db=None if known is None or math.isinf(known) else known,
                max_abs=None if error is None else error.max_abs,
            )
        )
    return tuple(rows)


def _size(
    given: Artifact,
    artifact: Artifact,
    program: Program,
    baseline: _Baseline | None,
    arena: int | None,
    planned: aot.Schedule | None,
) -> Size:
    if given.keras is None or artifact.keras is None:
        macs, params = Change(program.macs, program.macs), Change(None, None)
    else:
        old, new = cost.total(given.keras), cost.total(artifact.keras)
        macs, params = Change(old.macs, new.macs), Change(old.params, new.params)
    tflite = len(artifact.need_tflite("report"))
    own = None if planned is None else planned.plan.bytes
    if baseline is None:
        return Size(params, macs, Change(tflite, tflite), Change(arena, arena), Change(own, own))
    needed = None if baseline.running is None else baseline.running.result().arena
    return Size(
        params,
        macs,
        Change(baseline.bytes, tflite),
        Change(needed, arena),
        Change(baseline.aot_arena, own),
    )


def _memory(planned: aot.Schedule, name: str) -> MemoryMap:
    """The memory plan as a report carries it."""
    ops = {step.time: planned.ops[step.op] for step in planned.steps}
    labels = [(planned.program.layer_of(ops[time]), ops[time].title) for time in sorted(ops)]
    return from_plan(name, buffers=planned.buffers, plan=planned.plan, labels=labels)


def _accuracy(
    plan: Plan, floats: Scores, pruned: Scores, outputs: Float, found: proof.OnDevice | None
) -> tuple[AccuracyRow, ...]:
    """One row a split; `outputs` are the flatbuffer's, what TFLM computed is of rows of the
    first."""
    rows: list[AccuracyRow] = []
    if plan.data is None:
        return ()
    parts = _by_split(plan, outputs)
    for i, (split, part) in enumerate(zip(plan.splits, parts, strict=True)):
        device = None if found is None or i else _device_score(plan.data, found)
        rows.append(
            AccuracyRow(
                split=split.name,
                source=split.source,
                metric=plan.data.metric,
                samples=len(split),
                float=None if floats is None else floats[i],
                pruned=None if pruned is None else pruned[i],
                compressed=score(part, split, metric=plan.data.metric),
                tflm=device,
                tflm_samples=None if device is None or found is None else len(found.picked),
                confusion=confusion(part, split) if plan.data.metric == "top1" else None,
            )
        )
    return tuple(rows)


def _device_score(data: Dataset, found: proof.OnDevice) -> float | None:
    """The metric on TFLM's rows; None where they are too few to have both classes of an AUC."""
    rows = data.test.rows(found.picked)
    if data.metric == "auc" and rows.y is not None and len(np.unique(rows.y)) < 2:
        return None
    return score(found.values, rows, metric=data.metric)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for tool in TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[tool] = metadata.version(tool)
    return found
