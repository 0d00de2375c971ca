"""Fusions that only this backend knows: a padding becomes part of the convolutions behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from edgecompress.tflite import Op, Options, Program

FUSED_INTO = ("CONV_2D", "DEPTHWISE_CONV_2D")
FUSED_TYPES = ("int8", "int16", "float32")


class _Padding(NamedTuple):
    """Rows and columns of zero points around a map."""

    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int


def fuse_pads(program: Program) -> Program:
    """`program` with paddings taken into the convolutions behind them.

    A PAD, or a PADV2 with the zero point, of the spatial axes only, that nothing but VALID
    convolutions read, disappears; those get the options pad_top, pad_bottom, pad_left and pad_right
    (elements), which no file has. Outputs keep their bits.
    """
    fused: dict[int, tuple[int, _Padding]] = {}
    kept: list[Op] = []
    for op in program.ops:
        padding = _padding(program, op)
        if padding is not None:
            fused[op.outputs[0]] = op.inputs[0], padding
            continue
        source, taken = fused.get(op.inputs[0], (0, None)) if op.inputs else (0, None)
        if taken is not None:
            options = Options({**op.options, **taken._asdict()})
            op = replace(op, inputs=(source, *op.inputs[1:]), options=options)
        kept.append(op)
    return program.edit(ops=tuple(kept)) if fused else program


def _padding(program: Program, op: Op) -> _Padding | None:
    """What `op` adds to a map where it is a padding that can be fused, else None."""
    if op.kind not in ("PAD", "PADV2") or len(op.inputs) < 2 or len(op.outputs) != 1:
        return None
    if min(op.inputs[:2]) < 0:
        return None
    data, amounts = (program.tensors[index] for index in op.inputs[:2])
    result = program.tensors[op.outputs[0]]
    widths = amounts.array if amounts.dtype in ("int32", "int64") else None
    if (
        widths is None
        or len(data.shape) != 4
        or widths.shape != (4, 2)
        or widths.min() < 0
        or widths[[0, 3]].any()
        or data.dtype not in FUSED_TYPES
        or (data.dtype, data.scales, data.zero_points)
        != (result.dtype, result.scales, result.zero_points)
        or result.shape != tuple(np.add(data.shape, widths.sum(axis=1)).tolist())
        or not _fills_with_zero(program, op)
        or not _only_convolutions(program, op.outputs[0])
    ):
        return None
    return _Padding(*map(int, widths[1:3].reshape(-1)))


def _fills_with_zero(program: Program, op: Op) -> bool:
    """Whether the padding stands for 0: PAD always, PADV2 where its constant is the zero point."""
    if op.kind == "PAD":
        return True
    result = program.tensors[op.outputs[0]]
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return False
    given = program.tensors[op.inputs[2]]
    values = given.array if given.dtype == result.dtype else None
    zero = result.zero_points[0] if result.zero_points else 0
    return values is not None and values.size == 1 and bool((values == zero).all())


def _only_convolutions(program: Program, index: int) -> bool:
    """Whether tensor `index` is read, and only as the map of VALID convolutions."""
    readers = [op for op in program.ops if index in op.inputs]
    return (
        bool(readers)
        and index not in program.outputs
        and all(
            op.kind in FUSED_INTO
            and op.options.get("padding") == "VALID"
            and op.inputs.index(index) == 0
            and op.inputs.count(index) == 1
            for op in readers
        )
    )
