"""What the training stages promise, checked on a converted flatbuffer.

tfmot's own faults are of this kind: a promised property that the converted file does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact, Step
from edgecompress.channels.graph import rebuild, trace
from edgecompress.errors import EdgeCompressError
from edgecompress.quantization.calibrated import AXES
from edgecompress.tflite import Op, Program, read
from edgecompress.training.kernels import DEPTHWISE

Rows = npt.NDArray[Any]
Key = Mapping[str, Any]

_INTEGERS = frozenset({"int8", "int4"})


@dataclass(frozen=True)
class Promise:
    """A property of one kernel: `what` in words, the number that was promised and the one found."""

    stage: str
    layer: str
    what: str
    promised: int
    found: int
    at_least: bool = False

    @property
    def kept(self) -> bool:
        """Whether what was found is what was promised, or better."""
        if self.at_least:
            return self.found >= self.promised
        return self.found <= self.promised


def kept(artifact: Artifact) -> Artifact:
    """The artifact itself, whose float32 conversion keeps what its steps promise.

    Raises like `check` and `edgecompress.quantize`.
    """
    from edgecompress.quantization import quantize

    model = artifact.need_keras("check")
    flat = rebuild(trace(model), config=lambda name: {}, weights=lambda name, old: old)
    converted = quantize(Artifact(artifact.name, flat), mode="float32")
    check(read(converted.need_tflite("check")), artifact.steps)
    return artifact


def check(program: Program, steps: Sequence[Step]) -> tuple[Promise, ...]:
    """Everything that `steps` promise of the weights of a converted model, float32 or int8.

    - sparsify: as many zeros (or blocks of zeros) in each kernel, or no more than n of m;
    - cluster: at most k distinct values in each int8 kernel, which has one scale; in float32 in the
      weights of each output, as BatchNormalization scales outputs apart;
    - qat: at most 2^bits - 1 distinct values in the weights of each output, and in an int8 program
      no operator in float.

    And no kernel has become all zeros. A layer is found by its name in the flat graph, or by its
    path. Raises EdgeCompressError with the layer, what was promised and what was found; also where
    a layer's kernel is not there.
    """
    found: list[Promise] = []
    kernels = _kernels(program)
    integer = any(program.tensors[op.inputs[1]].dtype in _INTEGERS for op, _ in kernels.values())
    last = {step.stage: step for step in steps}
    if "qat" in last and integer:
        _check_integer(program)
    for stage in ("sparsify", "cluster", "qat"):
        if stage not in last:
            continue
        effect = last[stage].effect
        for key, promised in effect["grids" if stage == "qat" else "kernels"].items():
            for weights in _of(program, kernels, key, promised, stage):
                found.extend(_promises(stage, key, promised, weights, integer=integer))
    for promise in found:
        if not promise.kept:
            raise EdgeCompressError(
                f"{promise.stage}: the converted kernel of layer {promise.layer!r} has"
                f" {promise.found} {promise.what}, {promise.promised} were promised; please report"
                " this with the model"
            )
    return tuple(found)


def _kernels(program: Program) -> dict[int, tuple[Op, Rows]]:
    """The operators with constant kernels, by place, and these as (outputs, rest)."""
    found = {}
    for place, op in enumerate(program.ops):
        if op.kind not in AXES:
            continue
        array = program.tensors[op.inputs[1]].array
        if array is not None:
            moved = np.moveaxis(array, AXES[op.kind], 0)
            found[place] = op, moved.reshape(len(moved), -1)
    return found


def _of(
    program: Program, kernels: Mapping[int, tuple[Op, Rows]], key: str, promised: Key, stage: str
) -> Iterator[Rows]:
    """The weights of the operators that a kernel became: several where its layer is shared."""
    names = {key.removesuffix(DEPTHWISE), promised["path"]}
    none = True
    for op, rows in kernels.values():
        path = program.layer_of(op)
        if names & {path, path.rpartition("/")[0]} and rows.shape == tuple(promised["shape"]):
            none = False
            yield rows
    if none:
        raise EdgeCompressError(
            f"{stage}: the converted model has no kernel of {promised['shape']} of layer"
            f" {key.removesuffix(DEPTHWISE)!r}, so that what {stage} promised cannot be checked;"
            " please report this with the model"
        )


def _promises(
    stage: str, key: str, promised: Key, rows: Rows, *, integer: bool
) -> Iterator[Promise]:
    """What `stage` promises of one kernel, and what its weights are."""
    if promised["alive"]:
        used = int(np.count_nonzero(rows))
        yield Promise(stage, key, "weights that are not 0", 1, used, at_least=True)
    if stage == "sparsify":
        yield _sparse(key, promised, rows)
        return
    most = 2 ** promised["bits"] - 1 if stage == "qat" else promised["distinct"]
    distinct = max(len(np.unique(row)) for row in rows)
    yield Promise(stage, key, "distinct weights in an output", most, distinct)
    if stage == "cluster" and integer:
        yield Promise(stage, key, "distinct weights", most, len(np.unique(rows)))


def _sparse(key: str, promised: Key, rows: Rows) -> Promise:
    """The zeros of a kernel against those promised."""
    if "group" in promised:
        n, m = promised["group"]
        used = np.count_nonzero(_groups(rows.reshape(-1, promised["inputs"]), m), axis=1)
        most = int(used.max(initial=0))
        return Promise("sparsify", key, f"weights in a group of {m} that are not 0", n, most)
    block = promised["block"]
    empty = int((~_groups(rows, block).any(axis=1)).sum())
    what = "zeros" if block == 1 else f"blocks of {block} zeros"
    return Promise("sparsify", key, what, promised["zeros"], empty, at_least=True)


def _groups(rows: Rows, size: int) -> Rows:
    """(groups, size): neighbours in each row, the last group filled with zeros."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % size))).reshape(-1, size)


def _check_integer(program: Program) -> None:
    """EdgeCompressError for an operator that computes in float."""
    for op in program.ops:
        if op.kind in ("QUANTIZE", "DEQUANTIZE"):
            continue
        tensors = [*program.args(op), *program.results(op)]
        if any(tensor is not None and tensor.dtype == "float32" for tensor in tensors):
            raise EdgeCompressError(
                f"qat: the converted operator {op.title} of layer {program.layer_of(op)!r}"
                " computes in float32, integers were promised; please report this with the model"
            )
