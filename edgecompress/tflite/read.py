"""`.tflite` bytes -> Program: strict, so that everything behind it may trust what it gets."""

from __future__ import annotations

import math
from typing import Any

from edgecompress.errors import UnsupportedError
from edgecompress.tflite.flatbuffer import Buffer, Table, malformed
from edgecompress.tflite.operators import (
    ARITY,
    ENUMS,
    KINDS,
    OPTION_NAMES,
    OPTIONS,
    OPTIONS_OF,
    SCALARS,
    Field,
)
from edgecompress.tflite.program import DTYPES, Op, Option, Options, Program, Tensor, size_of

_DTYPE_NAMES = tuple(DTYPES)
_VERSION = 3
_LIMIT = 2**31 - 1
_MAX_RANK = 8
_AFFINE = 0
_MAX_TITLE = 60


def read(data: bytes) -> Program:
    """The first subgraph of a `.tflite` file.

    Every offset, index, shape and length is checked; constants hold exactly what their shape and
    element type say; operators read only what is computed before. Raises ModelFileError for a
    damaged file and UnsupportedError for what the format allows and no backend here takes:
    weights outside the flatbuffer, sparse tensors, block-wise quantisation, newer operators.
    """
    if len(data) > _LIMIT:
        raise UnsupportedError(
            f".tflite: {len(data)} bytes; at most {_LIMIT} are supported, use a smaller model"
        )
    model = Buffer(bytes(data)).root(b"TFL3")
    version = model.integer(0, "I")
    if version != _VERSION:
        raise malformed(f"schema version {version}, expected {_VERSION}")
    codes = [_code(table) for table in model.tables(1, "operator code")]
    subgraphs = model.tables(2, "subgraph")
    if not subgraphs:
        raise malformed("it has no subgraph")
    buffers = [_buffer(table) for table in model.tables(4, "buffer")]
    graph = subgraphs[0]
    tensors = tuple(_tensor(table, buffers) for table in graph.tables(0, "tensor"))
    program = Program(
        tensors=tensors,
        inputs=_indexes(graph, 1, "the inputs", len(tensors)),
        outputs=_indexes(graph, 2, "the outputs", len(tensors)),
        ops=tuple(_op(table, codes, len(tensors)) for table in graph.tables(3, "operator")),
        file=bytes(data),
        subgraphs=len(subgraphs),
    )
    _check_order(program)
    return program


def _code(table: Table) -> tuple[str, str, int]:
    """Kind, custom name and version of an operator code.

    `builtin_code` was added when one byte became too small; the larger of the two counts.
    """
    code = max(table.integer(0, "b"), table.integer(3, "i"))
    if not 0 <= code < len(KINDS):
        raise UnsupportedError(
            f".tflite: {table.what} is number {code}, newer than this reader (0..{len(KINDS) - 1});"
            " convert with an older target or update edgecompress"
        )
    kind = KINDS[code]
    name = table.text(1, f"the name of {table.what}")
    if kind == "CUSTOM" and not name:
        raise malformed(f"{table.what} is custom and has no name")
    return kind, name if kind == "CUSTOM" else "", table.integer(2, "i", 1)


def _buffer(table: Table) -> bytes | None:
    """The bytes of a buffer, None for an empty one."""
    if table.integer(1, "Q") > 1 or table.integer(2, "Q") > 1:
        raise UnsupportedError(
            f".tflite: {table.what} lies outside the flatbuffer, as in models above 2 GB;"
            " use a smaller model"
        )
    return table.bytes(0, table.what) or None


def _indexes(
    table: Table, field: int, name: str, count: int, *, optional: bool = False
) -> tuple[int, ...]:
    found = table.vector(field, "i", name)
    for index in found:
        if not (-1 if optional else 0) <= index < count:
            raise malformed(f"{name} refer to tensor {index} of {count}")
    return found


def _tensor(table: Table, buffers: list[bytes | None]) -> Tensor:
    name = table.text(3, f"the name of {table.what}")
    title = f"{table.what} {_short(name)}"
    shape: tuple[int, ...] = table.vector(0, "i", f"the shape of {title}")
    dtype = _enum(_DTYPE_NAMES, table.integer(1, "b"), f"the element type of {title}")
    if len(shape) > _MAX_RANK:
        raise UnsupportedError(f".tflite: {title} has {len(shape)} axes; at most {_MAX_RANK}")
    if any(size < 0 for size in shape) or size_of(dtype, shape) > _LIMIT:
        raise malformed(f"{title} has the shape {list(shape)}")
    if table.table(6, title) is not None:
        raise UnsupportedError(f".tflite: {title} is sparse; convert without sparsity")
    if table.integer(10, "I"):
        raise UnsupportedError(f".tflite: {title} lies in an external buffer; keep it in the file")
    number = table.integer(2, "I")
    if number >= max(len(buffers), 1):
        raise malformed(f"{title} uses buffer {number} of {len(buffers)}")
    data = buffers[number] if buffers else None
    expected = size_of(dtype, shape)
    if data is not None and DTYPES[dtype].bits and len(data) != expected:
        raise malformed(f"{title} {dtype}{list(shape)} holds {len(data)} bytes, not {expected}")
    scales, zero_points, axis = _quantization(table.table(4, f"the quantisation of {title}"), shape)
    return Tensor(
        name=name,
        shape=shape,
        dtype=dtype,
        scales=scales,
        zero_points=zero_points,
        axis=axis,
        data=data,
        signature=table.vector(7, "i", f"the shape signature of {title}"),
        variable=bool(table.scalar(5, "?", False)),
    )


def _short(name: str) -> str:
    """A tensor's name for a message: quoted, and only as much of it as a line can take."""
    return repr(name if len(name) <= _MAX_TITLE else f"{name[:_MAX_TITLE]}...")


def _quantization(
    table: Table | None, shape: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if table is None:
        return (), (), 0
    what = table.what
    if table.integer(4, "B") != _AFFINE:
        raise UnsupportedError(
            f".tflite: {what} is not affine (block-wise or custom); use per-tensor or per-channel"
        )
    scales: tuple[float, ...] = table.vector(2, "f", what)
    zero_points: tuple[int, ...] = table.vector(3, "q", what)
    axis = table.integer(6, "i")
    if not scales:
        return (), (), 0
    if len(zero_points) != len(scales):
        raise malformed(f"{what} has {len(scales)} scales and {len(zero_points)} zero points")
    if not all(0 < scale < math.inf for scale in scales):
        raise malformed(f"{what} has a scale that is not positive and finite")
    if not all(-(2**31) <= point < 2**31 for point in zero_points):
        raise malformed(f"{what} has a zero point outside 32 bits")
    if not 0 <= axis < max(len(shape), 1):
        raise malformed(f"{what} is along axis {axis} of {len(shape)}")
    if len(scales) > 1 and (not shape or shape[axis] != len(scales)):
        raise malformed(f"{what} has {len(scales)} scales for the shape {list(shape)}, axis {axis}")
    return scales, zero_points, axis


def _op(table: Table, codes: list[tuple[str, str, int]], tensors: int) -> Op:
    number = table.integer(0, "I")
    if number >= len(codes):
        raise malformed(f"{table.what} uses operator code {number} of {len(codes)}")
    kind, custom, version = codes[number]
    title = f"{table.what} {custom or kind}"
    op = Op(
        kind=kind,
        inputs=_indexes(table, 1, f"the inputs of {title}", tensors, optional=True),
        outputs=_indexes(table, 2, f"the outputs of {title}", tensors),
        options=_options(table, kind, title),
        version=version,
        custom=custom,
        custom_options=table.bytes(5, f"the options of {title}") or b"",
        intermediates=_indexes(table, 8, f"the intermediates of {title}", tensors),
        variable_inputs=table.vector(7, "?", f"the variable inputs of {title}"),
    )
    if table.integer(9, "Q") > 1:
        raise UnsupportedError(f".tflite: the options of {title} lie outside the flatbuffer")
    arity = ARITY.get(kind)
    if arity is not None and not (
        arity.least <= len(op.inputs) <= arity.most
        and -1 not in op.inputs[: arity.required]
        and op.outputs
    ):
        raise malformed(
            f"{title} has the inputs {list(op.inputs)} and the outputs {list(op.outputs)}"
        )
    return op


def _options(table: Table, kind: str, title: str) -> Options:
    """The options of an operator, defaults included.

    The second union (STABLEHLO operators, DILATE, REDUCE_WINDOW) is not decoded: those operators
    have no options here.
    """
    number = table.integer(3, "B")
    name = _enum(OPTION_NAMES, number, f"the options of {title}")
    expected = OPTIONS_OF[kind]
    if name and expected and name != expected:
        raise malformed(f"{title} carries {name}Options, not {expected}Options")
    chosen = name or expected
    if not chosen:
        return Options()
    body = table.table(4, f"the options of {title}") if name else None
    return Options(
        {
            field.name: field.default if body is None else _option(body, place, field)
            for place, field in enumerate(OPTIONS[chosen])
            if field is not None
        }
    )


def _option(table: Table, place: int, field: Field) -> Option:
    what = f"{field.name} in {table.what}"
    if field.type.startswith("["):
        items: tuple[Any, ...] = table.vector(place, SCALARS[field.type[1:-1]], what)
        return items
    if field.type == "str":
        return table.text(place, what)
    if field.type in ENUMS:
        names = ENUMS[field.type]
        return _enum(names, table.integer(place, "b", names.index(str(field.default))), what)
    value: bool | int | float = table.scalar(place, SCALARS[field.type], field.default)
    if not math.isfinite(value):
        raise malformed(f"{what} is {value}")
    return value


def _enum(names: tuple[str, ...], value: int, what: str) -> str:
    if not 0 <= value < len(names):
        raise malformed(f"{what} has the unknown value {value}")
    return names[value]


def _check_order(program: Program) -> None:
    """Each activation is computed once, before it is read; constants and inputs never."""
    tensors = program.tensors
    ready = {
        index
        for index, tensor in enumerate(tensors)
        if tensor.data is not None or tensor.variable or not tensor.elements
    }
    fixed = {index for index, tensor in enumerate(tensors) if tensor.data is not None}
    fixed.update(program.inputs)
    ready.update(program.inputs)
    for number, op in enumerate(program.ops):
        title = f"operator {number} {op.title}"
        for index in op.inputs:
            if index >= 0 and index not in ready:
                raise malformed(f"{title} reads {_short(tensors[index].name)}, not computed yet")
        for index in op.outputs:
            if index in fixed:
                raise malformed(f"{title} writes {_short(tensors[index].name)} a second time")
            fixed.add(index)
            ready.add(index)
    for index in program.outputs:
        if index not in ready:
            raise malformed(f"the output {_short(tensors[index].name)} is computed by no operator")
