"""From a compressed model to a board: find the model, generate its sources, build the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress import boards, loading, runtimes, zoo
from edgecompress.artifact import FLATBUFFER, STEPS, Artifact
from edgecompress.backends import aot, tflm
from edgecompress.boards import Board
from edgecompress.building import firmware
from edgecompress.building.firmware import Image
from edgecompress.data import Dataset, Split, check_shape
from edgecompress.errors import ConfigError, StageOrderError
from edgecompress.evaluation import score
from edgecompress.progress import Progress, silent
from edgecompress.report.markdown import formatted
from edgecompress.sources import read_data
from edgecompress.tflite import Program, read
from edgecompress.vocabulary import Backend, Core, Metric, Optimize

RUNS = Path("build")
"""Where run directories are made unless the user names another place."""


def compressed(model: str) -> bool:
    """Whether there is a run of the name `model`, or in the folder that it names."""
    return (_folder(model) / FLATBUFFER).is_file()


def _folder(model: str) -> Path:
    """The run directory that `model` names: itself, or build/MODEL."""
    path = Path(model)
    return path if (path / STEPS).is_file() else RUNS / path.stem


def find(model: str) -> tuple[Artifact, Path]:
    """The compressed model that `model` names, and its run directory.

    `model` is a `.tflite`, a run directory, or the name of a run: its directory is build/MODEL.
    The artifact comes without its Keras model. Raises StageOrderError for a model that was not
    compressed yet, ModelFileError for a damaged one.
    """
    path = Path(model)
    if path.suffix.lower() == ".tflite":
        artifact = loading.load_flatbuffer(path)
        return artifact, RUNS / artifact.name
    folder = _folder(model)
    if not compressed(model):
        raise StageOrderError(
            f"{model}: no {folder / FLATBUFFER} yet; run `edgecompress compress {model}` first, or"
            f" give a .tflite (the zoo has {', '.join(zoo.names())})"
        )
    return loading.load_flatbuffer(folder), folder


def build(
    artifact: Artifact,
    *,
    board: str | Board,
    backend: Backend = "aot",
    optimize: Optimize = "balanced",
    out: Path | None = None,
    oversize: bool = False,
    progress: Progress = silent,
) -> Image:
    """The firmware image of a quantised model for `board`, in <out>/<board>-<backend>/.

    `optimize` is what the kernels of the ahead-of-time C are chosen for (see `aot.schedule`); `out`
    is build/<name> unless given; `oversize` is as in `firmware.build`. Its footprint says which
    operators of the model the symbols are there for (under tflm: none). Raises the errors of
    `sources` and of `firmware.build`.
    """
    target = boards.load(board) if isinstance(board, str) else board
    flatbuffer = artifact.need_tflite("build")
    program = read(flatbuffer)
    planned = None
    if backend == aot.NAME:
        planned = aot.schedule(program, core=target.core, optimize=optimize)
    return firmware.build(
        _sources(artifact, program, planned),
        board=target,
        backend=backend,
        out=RUNS / artifact.name if out is None else out,
        name=artifact.name,
        tflite=flatbuffer,
        owners=None if planned is None else aot.owners(program, planned),
        layers=[
            program.layer_of(op) or f"{op.title} {place}" for place, op in enumerate(program.ops)
        ],
        optimize=optimize,
        oversize=oversize,
        progress=progress,
    )


def sources(
    artifact: Artifact, *, backend: Backend = "aot", core: Core = "dsp", optimize: Optimize
) -> dict[str, str]:
    """What `backend` generates of a quantised model, by path; `core` and `optimize` are for aot.

    Under tflm the arena is what the TFLM interpreter of this computer needs: the tensors take as
    much on a board, the pointers beside them half. Kernels that need scratch memory of their own,
    as CMSIS-NN's, have had room in that half; a board where they have not says so at the start.
    Raises StageOrderError for a model that is not quantised yet, UnsupportedError for operators
    that the backend lacks, and under tflm the errors of `runtimes.arena`.
    """
    program = read(artifact.need_tflite("build"))
    planned = None
    if backend == aot.NAME:
        planned = aot.schedule(program, core=core, optimize=optimize)
    return _sources(artifact, program, planned)


def _sources(artifact: Artifact, program: Program, planned: aot.Schedule | None) -> dict[str, str]:
    """The sources for the ahead-of-time C as `planned`, for TFLite Micro where that is None."""
    if planned is not None:
        return aot.generate(program, name=artifact.name, planned=planned)
    tflm.check(program, artifact.name)
    arena = runtimes.arena(artifact.need_tflite("build"))
    return tflm.generate(program, name=artifact.name, arena=arena)


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows to judge a board's outputs on: `split`, by `metric`."""

    split: Split
    metric: Metric

    def judge(self, values: npt.NDArray[Any]) -> Judged:
        """The score of `values` (N, *output_shape), real numbers; errors as of `score`."""
        return Judged(self.metric, len(self.split), score(values, self.split, metric=self.metric))


@dataclass(frozen=True)
class Judged:
    """What a board's outputs are worth: `value` in `metric`, over `samples` rows."""

    metric: Metric
    samples: int
    value: float

    def __str__(self) -> str:
        value = formatted(self.value, self.metric)
        return f"{self.metric} on the board: {value} ({self.samples:,} samples)"


def samples(
    model: str,
    artifact: Artifact,
    *,
    data: str | None,
    features: str | None = None,
    count: int | None,
) -> Samples | None:
    """`count` rows (None: all) to judge `model`, which `find` says is `artifact`, on, evenly spread
    over its test split.

    They come from what `data` names (`sources.read_data`, with its hook `features`), or from the
    zoo's model; None where neither data nor count is given. Data that the model was trained,
    pruned or calibrated on are divided as they were then, and the test's part judged. Raises
    ConfigError for a count below 1, a model without data and rows that do not fit it, and the
    errors of `read_data` and `zoo.dataset`.
    """
    if data is None and count is None:
        return None
    if count is not None and count < 1:
        raise ConfigError(f"samples: {count}; judge at least 1")
    if data is None:
        if model not in zoo.names():
            raise ConfigError(f"{model}: no data to judge it on; give --data my.npz (x, y)")
        found = zoo.dataset(model)
    else:
        found = _as_trained(model, artifact, data, features)
    rows = len(found.test)
    if not rows:
        raise ConfigError(f"{data}: calibration rows alone, nothing to judge on; add x and y")
    kept = rows if count is None else min(rows, count)
    return Samples(found.test.rows(np.arange(kept) * rows // kept), found.metric)


def _as_trained(model: str, artifact: Artifact, data: str, features: str | None) -> Dataset:
    """The data set, divided as for the run that made the artifact: whether that trained, and with
    which seed, its steps say; those of a `.tflite` lie beside it."""
    steps, folder = artifact.steps, Path(model).parent
    if Path(model).suffix.lower() == ".tflite" and (folder / STEPS).is_file():
        beside = loading.load_flatbuffer(folder)
        steps = beside.steps if beside.sha256 == artifact.sha256 else steps
    program = read(artifact.need_tflite("measure"))
    shape = program.tensors[program.inputs[0]].shape[1:]
    found = read_data(
        data,
        shape=shape,
        seed=next((step.params["seed"] for step in reversed(steps) if "seed" in step.params), 0),
        training=any("training" in step.effect for step in steps),
        features=features,
    )
    check_shape(found, shape, model=artifact.name)
    return found
