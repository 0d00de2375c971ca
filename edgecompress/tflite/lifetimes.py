"""When each activation of a Program is alive."""

from __future__ import annotations

from itertools import accumulate

from edgecompress.tflite.program import Program


def lifetimes(program: Program) -> dict[int, tuple[int, int]]:
    """Tensor index -> (first, last) operator position at which the tensor must be in memory.

    Constants are left out. A graph input lives from position 0, a graph output and a variable
    tensor to the last operator; a result that nobody reads lives at its own operator.
    """
    end = max(len(program.ops) - 1, 0)
    spans: dict[int, tuple[int, int]] = {}

    def touch(index: int, position: int) -> None:
        if index < 0 or program.tensors[index].data is not None:
            return
        first, last = spans.get(index, (position, position))
        spans[index] = (min(first, position), max(last, position))

    for index in program.inputs:
        touch(index, 0)
    for position, op in enumerate(program.ops):
        for index in (*op.inputs, *op.outputs):
            touch(index, position)
    for index in program.outputs:
        touch(index, end)
    for index in list(spans):
        if program.tensors[index].variable:
            spans[index] = (0, end)
    return spans


def live_bytes(program: Program) -> tuple[int, ...]:
    """Bytes of activations alive at each operator, in execution order.

    The largest is the floor of any interpreter's arena that does not work in place.
    """
    change = [0] * (len(program.ops) + 2)
    for index, (first, last) in lifetimes(program).items():
        size = program.tensors[index].nbytes
        change[first] += size
        change[last + 1] -= size
    return tuple(accumulate(change[: len(program.ops)]))
