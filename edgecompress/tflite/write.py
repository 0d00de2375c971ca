"""Program -> `.tflite` bytes: what `read` takes back, as small as the format allows."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from flatbuffers import number_types

from edgecompress.errors import UnsupportedError
from edgecompress.tflite.operators import (
    ENUMS,
    KINDS,
    OPTION_NAMES,
    OPTIONS,
    OPTIONS_OF,
    SCALARS,
    Field,
)
from edgecompress.tflite.program import DTYPES, Op, Program, Tensor

_VERSION = 3
_ALIGN = 16
_SHARED = 8
_LAST_BYTE_CODE = 127
_CODES = tuple(DTYPES)
_FLAGS = {
    "?": number_types.BoolFlags,
    "b": number_types.Int8Flags,
    "B": number_types.Uint8Flags,
    "i": number_types.Int32Flags,
    "I": number_types.Uint32Flags,
    "q": number_types.Int64Flags,
    "f": number_types.Float32Flags,
}
_NO_OPTIONS = ("DILATE", "REDUCE_WINDOW")


def write(program: Program) -> bytes:
    """`program` as a `.tflite` file: schema version 3, one subgraph, the same bytes every time.

    `read` gives an equal program back. Equal constants share one buffer, buffers are aligned to
    16 bytes, fields at their defaults are left out, equal short vectors are stored once; file
    metadata and signature definitions, which a Program does not hold, are gone. The program is
    trusted to be as `read` gives it. Raises UnsupportedError for what a Program does not hold
    complete: several subgraphs, the options of STABLEHLO operators, DILATE and REDUCE_WINDOW, and
    options that do not belong to their operator.
    """
    if program.subgraphs != 1:
        raise UnsupportedError(
            f".tflite: {program.subgraphs} subgraphs, of which a program holds the first;"
            " convert one function, with loops unrolled"
        )
    file = _File()
    constants = dict.fromkeys(tensor.data for tensor in program.tensors if tensor.data)
    numbers = {data: number for number, data in enumerate(constants, 1)}
    codes = {code: place for place, code in enumerate(dict.fromkeys(map(_code, program.ops)))}
    buffers = [file.table(), *(file.table(file.constant(data)) for data in numbers)]
    graph = file.table(
        _Slot(0, file.offsets(_tensor(file, tensor, numbers) for tensor in program.tensors)),
        _Slot(1, file.numbers("i", program.inputs)),
        _Slot(2, file.numbers("i", program.outputs)),
        _Slot(3, file.offsets(_op(file, op, codes[_code(op)]) for op in program.ops)),
    )
    return file.finish(
        file.table(
            _Slot(0, _VERSION, "I"),
            _Slot(1, file.offsets(_operator_code(file, code) for code in codes)),
            _Slot(2, file.offsets([graph])),
            _Slot(4, file.offsets(buffers)),
        )
    )


class _Slot(NamedTuple):
    """A field of a table: its number, its value, its `struct` code ("": an offset), its default.

    A field that equals its default, and an offset of 0, are left out.
    """

    place: int
    value: Any
    code: str = ""
    default: Any = 0

    @property
    def size(self) -> int:
        return struct.calcsize(self.code or "I")

    @property
    def used(self) -> bool:
        if not self.code:
            return bool(self.value)
        return struct.pack(self.code, self.value) != struct.pack(self.code, self.default)


class _File:
    """A FlatBuffer that grows from its end; what its methods return is a place in it."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder()
        self._known: dict[tuple[str, tuple[Any, ...]], int] = {}

    def constant(self, data: bytes) -> _Slot:
        """The field that holds the bytes of a constant, aligned."""
        self._builder.Prep(_ALIGN, len(data))
        return _Slot(0, self._builder.CreateByteVector(data))

    def blob(self, data: bytes) -> int:
        """A vector of bytes; 0 where it is empty."""
        return self._builder.CreateByteVector(data) if data else 0

    def text(self, text: str) -> int:
        """A string; 0 where it is empty."""
        return self._builder.CreateString(text) if text else 0

    def numbers(self, code: str, values: tuple[Any, ...]) -> int:
        """A vector of scalars, stored once where it is short or holds zero points.

        Long ones are not shared: a reader that guards against files which blow up counts what is
        read over and over, and zero points are the only ones that come with bytes of their own.
        """
        known = self._known.get((code, values))
        if known is not None:
            return known
        place: int = self._builder.CreateNumpyVector(np.asarray(values, np.dtype(f"<{code}")))
        if len(values) <= _SHARED or code == "q":
            self._known[code, values] = place
        return place

    def offsets(self, places: Iterable[int]) -> int:
        """A vector of tables."""
        found = list(places)
        self._builder.StartVector(4, len(found), 4)
        for place in reversed(found):
            self._builder.PrependUOffsetTRelative(place)
        return int(self._builder.EndVector())

    def table(self, *slots: _Slot) -> int:
        """A table: large fields first, so that little is lost to alignment."""
        used = sorted((slot for slot in slots if slot.used), key=lambda slot: -slot.size)
        builder = self._builder
        builder.StartObject(max((slot.place for slot in used), default=-1) + 1)
        for slot in used:
            if slot.code:
                builder.Prepend(_FLAGS[slot.code], slot.value)
            else:
                builder.PrependUOffsetTRelative(slot.value)
            builder.Slot(slot.place)
        return int(builder.EndObject())

    def finish(self, root: int) -> bytes:
        """The whole file."""
        self._builder.Finish(root, b"TFL3")
        return bytes(self._builder.Output())


def _code(op: Op) -> tuple[str, str, int]:
    return op.kind, op.custom, op.version


def _operator_code(file: _File, code: tuple[str, str, int]) -> int:
    """Both fields of the number: the byte of older readers, and its successor."""
    kind, custom, version = code
    number = KINDS.index(kind)
    return file.table(
        _Slot(0, min(number, _LAST_BYTE_CODE), "b"),
        _Slot(1, file.text(custom)),
        _Slot(2, version, "i", 1),
        _Slot(3, number, "i"),
    )


def _tensor(file: _File, tensor: Tensor, buffers: Mapping[bytes, int]) -> int:
    return file.table(
        _Slot(0, file.numbers("i", tensor.shape)),
        _Slot(1, _CODES.index(tensor.dtype), "b"),
        _Slot(2, buffers[tensor.data] if tensor.data else 0, "I"),
        _Slot(3, file.text(tensor.name)),
        _Slot(4, _quantization(file, tensor)),
        _Slot(5, tensor.variable, "?", False),
        _Slot(7, _optional(file, "i", tensor.signature)),
    )


def _quantization(file: _File, tensor: Tensor) -> int:
    if not tensor.scales:
        return 0
    return file.table(
        _Slot(2, file.numbers("f", tensor.scales)),
        _Slot(3, file.numbers("q", tensor.zero_points)),
        _Slot(6, tensor.axis, "i"),
    )


def _optional(file: _File, code: str, values: tuple[Any, ...]) -> int:
    return file.numbers(code, values) if values else 0


def _op(file: _File, op: Op, code: int) -> int:
    number, options = _options(file, op)
    return file.table(
        _Slot(0, code, "I"),
        _Slot(1, file.numbers("i", op.inputs)),
        _Slot(2, file.numbers("i", op.outputs)),
        _Slot(3, number, "B"),
        _Slot(4, options),
        _Slot(5, file.blob(op.custom_options)),
        _Slot(7, _optional(file, "?", op.variable_inputs)),
        _Slot(8, _optional(file, "i", op.intermediates)),
    )


def _options(file: _File, op: Op) -> tuple[int, int]:
    """The number and the table of an operator's options; zeros where it has none."""
    if op.kind.startswith("STABLEHLO_") or op.kind in _NO_OPTIONS:
        raise UnsupportedError(
            f".tflite: a program does not hold the options of {op.kind}, so that it cannot be"
            " written; replace the operator"
        )
    name = OPTIONS_OF[op.kind]
    fields = [field for field in OPTIONS[name] if field is not None] if name else []
    foreign = op.options.keys() - {field.name for field in fields}
    if foreign:
        raise UnsupportedError(
            f".tflite: {op.title} carries the options {', '.join(sorted(foreign))}, which are not"
            " its own; leave them out"
        )
    if name is None:
        return 0, 0
    slots = [
        _option(file, op, place, field)
        for place, field in enumerate(OPTIONS[name])
        if field is not None
    ]
    return OPTION_NAMES.index(name), file.table(*slots)


def _option(file: _File, op: Op, place: int, field: Field) -> _Slot:
    value: Any = op.options.get(field.name, field.default)
    if field.type.startswith("["):
        return _Slot(place, _optional(file, SCALARS[field.type[1:-1]], value))
    if field.type == "str":
        return _Slot(place, file.text(value))
    if field.type in ENUMS:
        names = ENUMS[field.type]
        return _Slot(place, names.index(value), "b", names.index(str(field.default)))
    return _Slot(place, value, SCALARS[field.type], field.default)
