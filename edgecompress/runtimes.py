"""Run a `.tflite` under one of the TFLite runtimes, each in a worker process of its own.

Two runtimes in one process break each other (TensorFlow, then tflite_runtime: `vector::reserve`),
and a hostile or odd model may take its interpreter down or all of the memory: a worker, whose
address space is limited, turns that into an error.

| runtime  | package        | bits                                                                |
|----------|----------------|---------------------------------------------------------------------|
| `tflm`   | tflite-micro   | those of the device; the exact arena comes with them                |
| `tflite` | tflite-runtime | its reference kernels give the bits of TFLM, its optimised ones do  |
|          |                | not always (ADD); ai-edge-litert takes its place on Python 3.12     |
| `litert` | ai-edge-litert | its reference kernels round once: up to 1 LSB away                  |

`kernels="exact"` means the reference kernels, `"fast"` the default ones (XNNPACK): right for float
models, never an oracle for integer ones. All of them run one row at a time and on one thread:
measured, larger batches gain nothing under the reference kernels, and threads lose.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ConfigError, ToolError, UnsupportedError
from edgecompress.tflite import Program, Tensor, read
from edgecompress.vocabulary import KERNELS, Kernels

Runtime = Literal["tflite", "litert", "tflm"]
Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]

TIMEOUT = 600.0
"""Seconds after which a worker is given up, unless told otherwise."""

_WORKER = Path(__file__).with_name("worker.py")
_MIN_ARENA = 64 << 20
_HEADROOM = 2 << 30
"""Bytes of address space for a worker beyond its arena, rows and results; 0.3 GB is typical."""
_MAX_ACTIVATIONS = 256 << 20
"""No model may declare more bytes of activations than this, all tensors together."""
_LINES = 4


class Package(NamedTuple):
    """Where a runtime lives: its module and its distribution."""

    module: str
    name: str


_LITERT = Package("ai_edge_litert", "ai-edge-litert")
RUNTIMES: dict[Runtime, tuple[Package, ...]] = {
    "tflite": (Package("tflite_runtime", "tflite-runtime"), _LITERT),
    "litert": (_LITERT,),
    "tflm": (Package("tflite_micro", "tflite-micro"),),
}
"""Runtime -> the packages that provide it, the preferred one first."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a runtime computed.

    `outputs` holds each output of the model, (N, *output_shape) in its own type, `arena` the bytes
    of tensor arena that TFLite Micro needs (None under the other runtimes, and when tensors are
    kept), `tensors` maps a tensor's index in `program` to its values (N, *shape), raw, where they
    were asked for and the runtime kept them.
    `runtime` is the distribution that ran, `kernels` which of its kernels.
    """

    program: Program
    outputs: tuple[Array, ...]
    runtime: str
    version: str
    kernels: Kernels
    arena: int | None = None
    tensors: Mapping[int, Array] = field(default_factory=dict)

    @property
    def raw(self) -> Array:
        """The output of a model with one."""
        (only,) = self.outputs
        return only

    @cached_property
    def values(self) -> Float:
        """The same, float32 (N, *output_shape), dequantised where the model is quantised."""
        return self.program.tensors[self.program.outputs[0]].dequantize(self.raw)

    @property
    def label(self) -> str:
        """Runtime, version and kernels in words, for a report."""
        kernels = {"exact": "reference kernels", "fast": "default kernels"}[self.kernels]
        return f"{self.runtime} {self.version} ({kernels})"


class Job:
    """A worker at work: `result` waits for it; `cancel`, or dropping the job, ends it."""

    def __init__(
        self,
        program: Program,
        package: Package,
        kernels: Kernels,
        rows: int,
        wanted: tuple[int, ...],
        timeout: float,
        folder: Path,
        process: subprocess.Popen[bytes],
    ) -> None:
        self.program = program
        self.package = package
        self.kernels = kernels
        self.cancel = weakref.finalize(self, _clean, process, folder)
        self._rows = rows
        self._wanted = wanted
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._folder = folder
        self._process = process
        _JOBS.add(self)

    def result(self) -> Outcome:
        """What the model computed; waits for the worker. To be called once.

        Raises UnsupportedError for an operator that the runtime lacks and ToolError for a worker
        that crashed, failed or ran out of time.
        """
        try:
            self._wait()
            log = (self._folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            if self._process.returncode:
                raise _failure(self.package, self.program, self._process.returncode, log)
            return self._outcome(log)
        finally:
            self.cancel()

    def _wait(self) -> None:
        try:
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ToolError(
                f"{self.package.name}: no result after {self._timeout:g} s on {self._rows} rows;"
                " use fewer rows or a longer timeout"
            ) from error

    def _outcome(self, log: str) -> Outcome:
        found = _ARENA.search(log)
        return Outcome(
            program=self.program,
            outputs=tuple(
                self._array(f"y{place}", index) for place, index in enumerate(self.program.outputs)
            ),
            runtime=self.package.name,
            version=metadata.version(self.package.name),
            kernels=self.kernels,
            arena=int(found[1]) if found else None,
            tensors={
                index: self._array(f"t{index}", index)
                for index in self._wanted
                if (self._folder / f"t{index}.npy").exists()
            },
        )

    def _array(self, name: str, index: int) -> Array:
        stored: Array = np.load(self._folder / f"{name}.npy", allow_pickle=False)
        return stored.reshape(-1, *self.program.tensors[index].shape[1:])[: self._rows]


def submit(
    model: bytes,
    x: npt.ArrayLike | tuple[npt.ArrayLike, ...],
    *,
    runtime: Runtime = "tflite",
    kernels: Kernels = "exact",
    tensors: bool = False,
    timeout: float = TIMEOUT,
) -> Job:
    """Start to run `model` on `x` (N, *input_shape) in a worker process and return at once.

    `x` is in the float domain of the model: it is quantised to the model's input type here. It is
    the rows of a model with one input and one output, or a tuple of such arrays, one for each
    input, for a model with any number of them.
    `tensors` keeps what every operator computes, for every row. `timeout` is in seconds. Raises
    ModelFileError for a damaged model, UnsupportedError for one with several inputs or outputs
    where `x` is no tuple, or more than 256 MiB of activations, ConfigError for rows that do not
    fit it, ToolError for a runtime that is not installed.
    """
    if runtime not in RUNTIMES or kernels not in KERNELS:
        raise ConfigError(
            f"runtime {runtime!r} with kernels {kernels!r}: the runtimes are"
            f" {', '.join(RUNTIMES)}, the kernels {', '.join(KERNELS)}"
        )
    if kernels == "fast" and (tensors or runtime == "tflm"):
        raise ConfigError("kernels='fast': not under tflm, nor with tensors kept; use 'exact'")
    package = _package(runtime)
    program = read(model)
    if not isinstance(x, tuple):
        _one_of_each(program)
    batch = _batch(program)
    rows = _rows(program, x if isinstance(x, tuple) else (x,))
    wanted = _activations(program, batch) if tensors else ()
    size = max(_MIN_ARENA, 16 * len(model), 4 * sum(t.nbytes for t in program.tensors))
    kept = sum(program.tensors[index].nbytes for index in (*wanted, *program.outputs))
    given = sum(array.nbytes for array in rows)
    job = {
        "module": package.module,
        "kernels": kernels,
        "tensors": wanted,
        "copies": [op.outputs[0] for op in program.ops if op.kind in _COPIES],
        "inputs": len(rows),
        "outputs": len(program.outputs),
        "batch": batch,
        "arena": size,
        "memory": _HEADROOM + size + 2 * (given + kept * math.ceil(len(rows[0]) / batch)),
    }
    folder = Path(tempfile.mkdtemp(prefix="edgecompress-"))
    try:
        process = _start(folder, model, rows, job)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Job(program, package, kernels, len(rows[0]), wanted, timeout, folder, process)


def run(
    model: bytes,
    x: npt.ArrayLike,
    *,
    runtime: Runtime = "tflite",
    kernels: Kernels = "exact",
    tensors: bool = False,
    timeout: float = TIMEOUT,
) -> Outcome:
    """`submit` and wait for the result."""
    options: dict[str, Any] = {"kernels": kernels, "tensors": tensors, "timeout": timeout}
    return submit(model, x, runtime=runtime, **options).result()


def cancel_all() -> None:
    """Cancel every job of this process that was not waited for."""
    for job in list(_JOBS):
        job.cancel()


def arena(model: bytes, *, timeout: float = TIMEOUT) -> int:
    """Bytes of tensor arena that `model` needs under TFLite Micro, exact for a 64-bit host.

    As TFLite Micro's recording allocator reports it after an inference; the smallest arena that
    works has the same size. The part for tensors is that of the device, the part for pointers is
    smaller on a 32-bit core. Raises like `submit` and `Job.result`.
    """
    program = read(model)
    _one_of_each(program)
    batch = _batch(program)
    rows = np.zeros((batch, *program.tensors[program.inputs[0]].shape[1:]), np.float32)
    size = run(model, rows, runtime="tflm", timeout=timeout).arena
    if size is None:
        raise ToolError("tflite-micro: it reported no arena size; this version is not supported")
    return size


def available(runtime: Runtime) -> bool:
    """Whether a package that provides `runtime` is installed."""
    return _installed(runtime) is not None


def _installed(runtime: Runtime) -> Package | None:
    found = (p for p in RUNTIMES[runtime] if util.find_spec(p.module) is not None)
    return next(found, None)


def _package(runtime: Runtime) -> Package:
    """The package that provides `runtime` here."""
    package = _installed(runtime)
    if package is not None:
        return package
    names = " or ".join(package.name for package in RUNTIMES[runtime])
    raise ToolError(
        f"runtime {runtime}: {names} is not installed for Python"
        f" {sys.version_info.major}.{sys.version_info.minor}; install it, or use another runtime"
    )


def _one_of_each(program: Program) -> None:
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise UnsupportedError(
            f"the model has {len(program.inputs)} inputs and {len(program.outputs)} outputs;"
            " models with one of each can be run"
        )


def _batch(program: Program) -> int:
    """Rows per inference, after the model's size, inputs and outputs were found usable."""
    activations = sum(tensor.nbytes for tensor in program.tensors if tensor.data is None)
    if activations > _MAX_ACTIVATIONS:
        raise UnsupportedError(
            f"the model declares {activations >> 20} MiB of activations, more than the"
            f" {_MAX_ACTIVATIONS >> 20} MiB allowed; this is no model for a microcontroller"
        )
    sources, targets = (
        [program.tensors[i] for i in side] for side in (program.inputs, program.outputs)
    )
    for what, tensor in (*(("input", t) for t in sources), *(("output", t) for t in targets)):
        if tensor.dtype not in _TYPES:
            raise UnsupportedError(
                f"{what} {tensor.name!r} is of type {tensor.dtype}; {', '.join(_TYPES)} can be run"
            )
    firsts = {tensor.shape[:1] for tensor in (*sources, *targets)}
    if len(firsts) != 1 or firsts == {()}:
        shapes = [", ".join(str(list(t.shape)) for t in side) for side in (sources, targets)]
        raise UnsupportedError(
            f"input {shapes[0]} and output {shapes[1]} do not share a first"
            " dimension; convert the model with a batch of 1"
        )
    return sources[0].shape[0]


def _rows(program: Program, given: tuple[npt.ArrayLike, ...]) -> list[Array]:
    """The rows of each input checked and in its type."""
    if len(given) != len(program.inputs):
        raise ConfigError(f"rows for {len(given)} inputs: the model has {len(program.inputs)}")
    found = [_checked(program.tensors[i], x) for i, x in zip(program.inputs, given, strict=True)]
    counts = {len(rows) for rows in found}
    if len(counts) > 1:
        raise ConfigError(f"{sorted(counts)} rows: give as many for each input of the model")
    return found


def _checked(source: Tensor, x: npt.ArrayLike) -> Array:
    """`x` checked and in the type of the input `source`."""
    values = np.asarray(x)
    want = source.shape[1:]
    if values.dtype.kind not in "fiu" or values.ndim == 0 or values.shape[1:] != want:
        raise ConfigError(
            f"rows of {list(values.shape[1:])} {values.dtype}: the model takes (N,"
            f" {', '.join(map(str, want))}) numbers in its float domain"
        )
    if not len(values):
        raise ConfigError("no rows to run the model on; give at least 1")
    if not np.isfinite(values).all():
        raise ConfigError("the rows hold NaN or infinite values; remove those samples")
    return source.quantize(values)


def _activations(program: Program, batch: int) -> tuple[int, ...]:
    """The tensors that operators compute, one value per row."""
    return tuple(
        index
        for op in program.ops
        for index in op.outputs
        if program.tensors[index].dtype in _TYPES and program.tensors[index].shape[:1] == (batch,)
    )


def _start(
    folder: Path, model: bytes, rows: Sequence[Array], job: Mapping[str, Any]
) -> subprocess.Popen[bytes]:
    (folder / "model.tflite").write_bytes(model)
    for place, array in enumerate(rows):
        np.save(folder / f"x{place}.npy", array, allow_pickle=False)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key not in _SCRUBBED}
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(_WORKER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},
        )


def _clean(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def _failure(
    package: Package, program: Program, status: int, log: str
) -> UnsupportedError | ToolError:
    """The error for a worker that ended with `status` after it wrote `log`."""
    for pattern in _MISSING:
        if found := pattern.search(log):
            layers = {program.layer_of(op) for op in program.ops if op.title == found[1]}
            where = f" (layer {', '.join(sorted(layers))})" if any(layers) else ""
            return UnsupportedError(
                f"{package.name}: it has no operator {found[1]}{where}; replace it in the model"
            )
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = " | ".join(lines[-_LINES:]) or "nothing"
    return ToolError(f"{package.name}: the worker ended with {how}; it said: {said}")


_JOBS: weakref.WeakSet[Job] = weakref.WeakSet()
_TYPES = ("float32", "int8", "uint8", "int16", "int32")
_COPIES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_SCRUBBED = {"TF_USE_LEGACY_KERAS"}
_ARENA = re.compile(r"Arena allocation total (\d+) bytes")
_MISSING = (
    re.compile(r"Didn't find op for builtin opcode '(\w+)'"),
    re.compile(r"Encountered unresolved custom op: (\w+)"),
)
