"""What leaving out weights of 0 gains: every operator with weights, as it runs and as it would run
with all of them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecompress.backends.aot import places
from edgecompress.backends.aot.calls import Call
from edgecompress.backends.aot.choose import arrays
from edgecompress.backends.aot.schedule import Schedule, schedule
from edgecompress.tflite import Program, Tensor
from edgecompress.tflite.account import is_parameter
from edgecompress.vocabulary import Core, Optimize


@dataclass(frozen=True)
class Side:
    """How an operator runs: its kernel (several: with "+" between), the bytes of flash that its
    constants take, and the instructions that it is estimated to take on a Cortex-M4 (None: not
    known)."""

    kernel: str
    flash: int
    instructions: int | None


@dataclass(frozen=True)
class Row:
    """Operator number `op` of a program: its weights, how many of them are 0, how many values they
    have, and how it runs; `dense` is the same with every weight stored.

    What became part of another operator's call has a kernel of "" there, and counts in that one.
    """

    op: int
    layer: str
    kind: str
    weights: int
    zeros: int
    distinct: int
    chosen: Side
    dense: Side


def dense_against_sparse(
    program: Program, optimize: Optimize, *, core: Core = "dsp"
) -> tuple[Row, ...]:
    """A row for each operator of `program` with quantised weights, in execution order.

    Either side is the best that the chooser finds for `optimize` on `core`, for the whole model.
    Raises UnsupportedError for what `schedule` refuses.
    """
    sides = [
        _sides(program, schedule(program, core=core, optimize=optimize, dense=dense))
        for dense in (False, True)
    ]
    found = []
    for number, op in enumerate(program.ops):
        values = [tensor.array for tensor in _weights(program, number)]
        flat = [array.reshape(-1) for array in values if array is not None]
        if flat:
            both = np.concatenate(flat)
            row = Row(
                op=number,
                layer=program.layer_of(op),
                kind=op.title,
                weights=both.size,
                zeros=both.size - int(np.count_nonzero(both)),
                distinct=len(np.unique(both)),
                chosen=sides[0].get(number, _NOTHING),
                dense=sides[1].get(number, _NOTHING),
            )
            found.append(row)
    return tuple(found)


_NOTHING = Side("", 0, 0)


def _weights(program: Program, number: int) -> Iterator[Tensor]:
    """The quantised constants of two dimensions or more that an operator reads; zero point 0."""
    for tensor in program.args(program.ops[number]):
        if tensor is not None and is_parameter(tensor) and len(tensor.shape) > 1:
            if tensor.scales and not any(tensor.zero_points):
                yield tensor


def _sides(program: Program, planned: Schedule) -> dict[int, Side]:
    """The operators that have calls, by their places in `program`."""
    place = places(program, planned)
    calls: dict[int, list[Call]] = {}
    for step in planned.steps:
        calls.setdefault(place[step.op], []).append(step.call)
    return {number: _side(made) for number, made in calls.items()}


def _side(calls: list[Call]) -> Side:
    counts = [call.instructions for call in calls if call.instructions is not None]
    return Side(
        kernel=" + ".join(dict.fromkeys(call.function for call in calls)),
        flash=arrays(calls),
        instructions=sum(counts) if len(counts) == len(calls) else None,
    )


def gzip_bytes(program: Program) -> int:
    """Bytes of the weights and biases in the flatbuffer after gzip: what a download takes.

    It says nothing of flash: no microcontroller runs from it.
    """
    held = [tensor.data for tensor in program.tensors if is_parameter(tensor) and tensor.data]
    return len(gzip.compress(b"".join(held), compresslevel=9, mtime=0))
