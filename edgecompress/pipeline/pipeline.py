"""The whole run: recipe -> pruned, quantised, converted, proven, reported.

`plan` reads and checks everything at the door; `run` does the work and writes nothing; the
result is saved in one go, so that a failed run leaves an earlier run directory untouched.
"""

from __future__ import annotations

import contextlib
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgecompress import checkout, cost, runtimes
from edgecompress.artifact import Artifact, Step
from edgecompress.backends import aot, tflm
from edgecompress.backends.aot.density import Row, dense_against_sparse, gzip_bytes
from edgecompress.budget import Budget, judge
from edgecompress.data import Dataset, Float
from edgecompress.evaluation import confusion, predict, score
from edgecompress.files import write_text
from edgecompress.pipeline import proof, stages
from edgecompress.pipeline.planning import Plan, plan
from edgecompress.pipeline.stages import Work
from edgecompress.progress import Progress, silent, step
from edgecompress.quantization import LayerError, quantize, sqnr
from edgecompress.recipe import Recipe
from edgecompress.report import AccuracyRow, Change, MemoryMap, OperatorRow, Report, Size
from edgecompress.report.memory_map import from_plan
from edgecompress.tflite import Program, read
from edgecompress.tflite.account import accounts
from edgecompress.tflite.passes import slimmed
from edgecompress.training import promises
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.vocabulary import Optimize

TOOLS = (
    "edgecompress",
    "tensorflow",
    "keras",
    "numpy",
    "tflite-runtime",
    "ai-edge-litert",
    "tflite-micro",
)


MANY_ZEROS = 0.3
"""The share of zeros in a layer from which a report compares dense and sparse kernels."""

Scores = list[float] | None
"""The metric of each split, None where it was not measured."""


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
    data: Dataset | Path | str | None = None,
    recipe: Recipe | Path | str | None = None,
    budget: Budget | Path | None = None,
    seed: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Run the recipe of a zoo model, or of a model file with `data`; see `plan` and `run`."""
    ready = plan(model, data=data, recipe=recipe, budget=budget, seed=seed, progress=progress)
    return run(ready, checkpoints=checkpoints, progress=progress)


def run(
    plan: Plan,
    *,
    checkpoints: Path | None = None,
    restart: bool = False,
    finish: bool = False,
    progress: Progress = silent,
) -> Result:
    """Do what the plan says and measure it; nothing is written but `checkpoints`.

    That folder keeps what training has reached: the same plan goes on from there after an interrupt
    or a crash. `restart` begins anew; `finish` takes the best weights of a training that was
    interrupted and goes on with what comes after it. The runtimes work in processes of their own
    while TensorFlow converts and evaluates.
    """
    if checkpoints is not None and restart:
        shutil.rmtree(checkpoints, ignore_errors=True)
    kept = None if checkpoints is None else Checkpoints(checkpoints, finish=finish)
    try:
        return _run(plan, kept, progress)
    except BaseException:
        runtimes.cancel_all()
        raise


def _run(plan: Plan, checkpoints: Checkpoints | None, progress: Progress) -> Result:
    given = plan.artifact
    floats = _floats(plan, given, "float accuracy", progress)
    baseline = _baseline(plan, progress)
    work = Work(given, plan.data, plan.recipe, plan.calibration, checkpoints, progress)
    pruned = stages.pruned(work)
    pruned_floats = None if pruned is given else _floats(plan, pruned, "pruned accuracy", progress)
    trained = stages.trained(pruned, work)
    trained_floats = (
        None if trained is pruned else _floats(plan, trained, "trained accuracy", progress)
    )
    quantized = _proven(_quantized(plan, trained, progress))
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
    with step(progress, "accuracy"):
        outputs = judged.result()
    with step(progress, "TFLM bits"):
        found = None if device is None else device.finish(outputs)
    arena = None if found is None else found.arena
    planned, aot_unsupported = _planned(program, plan.optimize)
    density = () if planned is None else _density(program, planned, plan.optimize)
    head = checkout.head()
    report = Report(
        name=artifact.name,
        sha256=str(artifact.sha256),
        tools={**_versions(), "accuracy": outputs.label},
        commit=None if head is None else head.commit,
        steps=artifact.steps,
        size=_size(given, artifact, program, baseline, arena, planned),
        accuracy=_accuracy(
            plan, floats, pruned_floats, outputs.values, found, trained=trained_floats
        ),
        proof=None if found is None else found.proof,
        operators=_operators(program, errors),
        unsupported=unsupported,
        aot_unsupported=aot_unsupported,
        memory=None if planned is None else _memory(planned, artifact.name),
        labels=() if plan.data is None else plan.data.labels,
        density=density,
        gzip=gzip_bytes(program) if density else None,
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
    with step(progress, "convert float32"):
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
    with step(progress, label):
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


def _quantized(plan: Plan, artifact: Artifact, progress: Progress) -> Artifact:
    if artifact.tflite is not None:
        return artifact
    options = asdict(plan.recipe.quantize)
    del options["calibration_samples"]
    if plan.recipe.qat is not None:
        options["calibration"] = "trained"
    elif options["calibration"] == "samples":
        options["calibration"] = plan.calibration
    return quantize(artifact, **options, seed=plan.recipe.seed, progress=progress)


def _proven(artifact: Artifact) -> Artifact:
    """The artifact, whose flatbuffer has what the training stages promise of it."""
    found = promises.check(read(artifact.need_tflite("check")), artifact.steps)
    if not found:
        return artifact
    return artifact.after(Step("promises", effect={"promises": [asdict(each) for each in found]}))


def _slimmed(artifact: Artifact) -> Artifact:
    """The artifact without the bytes of its flatbuffer that no runtime reads."""
    before = artifact.need_tflite("lossless")
    after = slimmed(before)
    if after == before:
        return artifact
    effect = {"tflite_bytes_before": len(before), "tflite_bytes": len(after)}
    return artifact.after(Step("lossless", effect=effect), tflite=after)


def _errors(plan: Plan, artifact: Artifact, progress: Progress) -> Sequence[LayerError]:
    """The quantisation error of each operator; none where it cannot be known."""
    if artifact.keras is None or plan.calibration is None:
        return ()
    rows = plan.calibration[: plan.recipe.evaluate.error_samples]
    with step(progress, "quantisation error"):
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


def _density(program: Program, planned: aot.Schedule, optimize: Optimize) -> tuple[Row, ...]:
    """What zeros and few distinct weights gain, of a model with a layer of many zeros or with
    kernels that read them so."""
    many = any(row.zeros > MANY_ZEROS * row.weights for row in accounts(program))
    if not many and not any(step.call.is_sparse for step in planned.steps):
        return ()
    return dense_against_sparse(program, optimize)


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
    plan: Plan,
    floats: Scores,
    pruned: Scores,
    outputs: Float,
    found: proof.OnDevice | None,
    *,
    trained: Scores,
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
                trained=None if trained is None else trained[i],
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
