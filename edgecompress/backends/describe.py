"""Operators and tensors in words, for messages and comments, and as ec_model.h has them."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.backends import cgen
from edgecompress.tflite import Op, Program, Tensor

IO = {
    "float32": "EC_FLOAT32",
    "int8": "EC_INT8",
    "uint8": "EC_UINT8",
    "int16": "EC_INT16",
    "int32": "EC_INT32",
    "int64": "EC_INT64",
    "bool": "EC_BOOL",
}
"""Element types that inputs and outputs may have, and their names in ec_model.h."""


def shape(tensor: Tensor) -> str:
    """Element type and shape: `int8[1,49,10,1]`."""
    return f"{tensor.dtype}[{','.join(map(str, tensor.shape))}]"


def where(program: Program, op: Op) -> str:
    """The operator, the layer it comes from and its shapes."""
    layer = program.layer_of(op)
    given = ", ".join(shape(tensor) for tensor in program.args(op) if tensor is not None)
    made = ", ".join(map(shape, program.results(op)))
    return f"{op.title}{f' from layer {layer!r}' if layer else ''} ({given} -> {made})"


def boundary(program: Program) -> list[str]:
    """Why the model's inputs, outputs and subgraphs do not fit ec_model.h: one line each."""
    parts = {"inputs": program.inputs, "outputs": program.outputs, "operators": program.ops}
    reasons = [f"the model has no {part}" for part, found in parts.items() if not found]
    reasons += [
        f"{side} {tensor.name!r} {shape(tensor)}: {tensor.dtype} cannot enter or leave a model;"
        f" use {', '.join(IO)}"
        for side, indexes in (("input", program.inputs), ("output", program.outputs))
        for tensor in (program.tensors[index] for index in indexes)
        if tensor.dtype not in IO
    ]
    if program.subgraphs > 1:
        reasons.append(
            f"the model has {program.subgraphs} subgraphs (control flow or several entry points);"
            " convert one function, with loops unrolled"
        )
    return reasons


def tensor_infos(program: Program, indexes: tuple[int, ...]) -> Iterator[str]:
    """One initialiser of an ec_tensor_info_t a line, for the tensors `indexes`."""
    for index in indexes:
        yield f"    {_tensor_info(program.tensors[index])},\n"


def _tensor_info(tensor: Tensor) -> str:
    fields = (
        cgen.string(tensor.name),
        IO[tensor.dtype],
        str(tensor.nbytes),
        cgen.float32(tensor.scales[0] if tensor.scales else 0.0),
        str(tensor.zero_points[0] if tensor.zero_points else 0),
        str(len(tensor.shape)),
        cgen.int_list(tensor.shape or (0,)),
    )
    return "{" + ", ".join(fields) + "}"
