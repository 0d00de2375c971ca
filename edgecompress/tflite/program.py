"""Program: a quantised model as both backends, the memory plan and the passes see it.

Everything is frozen; a pass calls `Program.edit` and gets a new program. Tensors are referred to
by their index in `Program.tensors`, as in the `.tflite` file.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError

Option = bool | int | float | str | tuple[int, ...] | tuple[float, ...]
Array = npt.NDArray[Any]


class DType(NamedTuple):
    """An element type: its bits in a file (0: no fixed size) and its numpy type, if it has one."""

    bits: int
    numpy: str | None


DTYPES: dict[str, DType] = {
    "float32": DType(32, "<f4"),
    "float16": DType(16, "<f2"),
    "int32": DType(32, "<i4"),
    "uint8": DType(8, "u1"),
    "int64": DType(64, "<i8"),
    "string": DType(0, None),
    "bool": DType(8, "?"),
    "int16": DType(16, "<i2"),
    "complex64": DType(64, "<c8"),
    "int8": DType(8, "i1"),
    "float64": DType(64, "<f8"),
    "complex128": DType(128, "<c16"),
    "uint64": DType(64, "<u8"),
    "resource": DType(0, None),
    "variant": DType(0, None),
    "uint32": DType(32, "<u4"),
    "uint16": DType(16, "<u2"),
    "int4": DType(4, "i1"),
    "bfloat16": DType(16, None),
    "int2": DType(2, "i1"),
    "uint4": DType(4, "u1"),
    "float8_e4m3fn": DType(8, None),
    "float8_e5m2": DType(8, None),
}
"""Element types in the order of their codes in the file; several 4- and 2-bit values share a
byte, the first in the low bits, and become one int8 or uint8 each in `Tensor.array`."""


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that `shape` elements of `dtype` take in a file; 0 for types without a fixed size."""
    return (math.prod(shape) * DTYPES[dtype].bits + 7) // 8


@dataclass(frozen=True)
class Tensor:
    """A tensor: an activation, or a constant where `data` is not None.

    `data` holds the little-endian bytes as in the file. `scales` is empty for a tensor that is not
    quantised, has one entry for a scale per tensor, or `shape[axis]` entries for one per channel;
    `zero_points` is as long as `scales`. `signature` is the shape with -1 for a dimension that may
    vary (TFLite keeps 1 in `shape` there), empty where the shape is fixed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: bytes | None = None
    signature: tuple[int, ...] = ()
    variable: bool = False

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, packed as in a file; a string constant counts its own bytes."""
        if self.data is not None:
            return len(self.data)
        return size_of(self.dtype, self.shape)

    @property
    def array(self) -> Array | None:
        """The constant as a read-only array of `shape`, None for an activation.

        4- and 2-bit values are unpacked to int8 or uint8. Raises UnsupportedError for an element
        type that numpy does not have.
        """
        if self.data is None:
            return None
        bits = DTYPES[self.dtype].bits
        flat = np.frombuffer(self.data, self._numpy())
        if bits < 8:
            flat = _unpacked(flat, bits, self.elements)
        array = flat.reshape(self.shape)
        array.flags.writeable = False
        return array

    def quantize(self, values: npt.ArrayLike) -> Array:
        """`values` (float32, any shape that broadcasts along `axis`) as this tensor stores them.

        q = clip(round(x / scale) + zero point), the quotient in float32 and rounded half away
        from zero: TFLite's QUANTIZE kernel (AffineQuantize with TfLiteRound). A tensor without
        scales only changes the element type. Raises ConfigError for NaN.
        """
        x = np.asarray(values, np.float32)
        kind = np.dtype(self._numpy())
        if not self.scales:
            return x.astype(kind)
        if np.isnan(x).any():
            raise ConfigError(f"{self.name}: the values to quantise hold NaN; remove those samples")
        ratio = (x / self._along_axis(self.scales, np.float32, x.ndim)).astype(np.float64)
        rounded = np.trunc(ratio + np.copysign(0.5, ratio))
        low, high = self._limits()
        shifted = rounded + self._along_axis(self.zero_points, np.float64, x.ndim)
        return np.asarray(np.clip(shifted, low, high).astype(kind))

    def dequantize(self, stored: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The float32 values behind `stored`: (q - zero point) * scale, as TFLite's DEQUANTIZE."""
        q = np.asarray(stored)
        if not self.scales:
            return q.astype(np.float32)
        zero = self._along_axis(self.zero_points, np.float64, q.ndim)
        scale = self._along_axis(self.scales, np.float64, q.ndim)
        return np.asarray((q.astype(np.float64) - zero) * scale, np.float32)

    def _numpy(self) -> str:
        name = DTYPES[self.dtype].numpy
        if name is None:
            raise UnsupportedError(f"tensor {self.name!r}: element type {self.dtype} has no array")
        return name

    def _limits(self) -> tuple[int, int]:
        bits = DTYPES[self.dtype].bits
        if self.dtype.startswith("u"):
            return 0, (1 << bits) - 1
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def _along_axis(self, values: tuple[float, ...], kind: npt.DTypeLike, rank: int) -> Array:
        if len(values) == 1:
            return np.asarray(values[0], kind)
        shape = [1] * rank
        shape[self.axis] = len(values)
        return np.asarray(values, kind).reshape(shape)


def _unpacked(packed: Array, bits: int, count: int) -> Array:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (packed.view(np.uint8)[:, None] >> shifts) & ((1 << bits) - 1)
    flat = values.reshape(-1)[:count].astype(np.uint8)
    if packed.dtype == np.int8:
        sign = np.uint8(1 << (bits - 1))
        return ((flat ^ sign).astype(np.int16) - int(sign)).astype(np.int8)
    return flat


class Options(Mapping[str, Option]):
    """The options of an operator: a mapping that cannot change, by the schema's field names."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Option] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> Option:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"Options({self._items})"


@dataclass(frozen=True)
class Op:
    """An operator: `kind` is the schema's name (CONV_2D), `inputs` and `outputs` tensor indexes.

    An input of -1 is optional and absent. `options` has every field of the operator's options
    table, defaults included; enumerations are names. A custom operator has the kind CUSTOM, its
    own name in `custom` and its raw options in `custom_options`.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options = field(default_factory=Options)
    version: int = 1
    custom: str = ""
    custom_options: bytes = b""
    intermediates: tuple[int, ...] = ()
    variable_inputs: tuple[bool, ...] = ()

    @property
    def title(self) -> str:
        """The kind, or a custom operator's own name (quoted where it is not printable)."""
        return (self.custom if self.custom.isprintable() else repr(self.custom)) or self.kind


@dataclass(frozen=True)
class Program:
    """A model: tensors, operators in execution order, and which tensors go in and out.

    `file` is the `.tflite` that the program was read from, None after an edit until it is written.
    `subgraphs` counts the file's subgraphs; the program is the first of them.
    """

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    file: bytes | None = None
    subgraphs: int = 1

    def edit(self, **changes: Any) -> Program:
        """A copy with `changes` (field=value); it has no file any more."""
        return replace(self, **{**changes, "file": None})

    def need_file(self, stage: str) -> bytes:
        """The file's bytes, or StageOrderError where the program was edited and not written."""
        if self.file is None:
            raise StageOrderError(f"{stage}: the program was edited; write it to a .tflite first")
        return self.file

    @cached_property
    def sha(self) -> str | None:
        """SHA-256 (hex) of the file, None after an edit."""
        return None if self.file is None else hashlib.sha256(self.file).hexdigest()

    @cached_property
    def producer(self) -> Mapping[int, Op]:
        """Tensor index -> the operator that computes it."""
        return {index: op for op in self.ops for index in op.outputs}

    @cached_property
    def consumer(self) -> Mapping[int, Op]:
        """Tensor index -> the first operator that reads it."""
        return {index: op for op in reversed(self.ops) for index in op.inputs}

    def args(self, op: Op) -> tuple[Tensor | None, ...]:
        """The input tensors of `op`, None for an optional one that is absent."""
        return tuple(None if index < 0 else self.tensors[index] for index in op.inputs)

    def results(self, op: Op) -> tuple[Tensor, ...]:
        """The output tensors of `op`."""
        return tuple(self.tensors[index] for index in op.outputs)

    def macs_of(self, op: Op) -> int:
        """Multiply-accumulates of one operator.

        Convolutions, fully connected, matrix products and LSTM; 0 for everything else:
        element-wise work, pooling and requantisation are not counted.
        """
        rule = _MACS.get(op.kind)
        return 0 if rule is None else rule(self, op)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference; see `macs_of`."""
        return sum(self.macs_of(op) for op in self.ops)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the constants that are multiplied by activations (no biases, no shapes).

        A constant that a DEQUANTIZE turns into weights first (float16 models) counts as stored.
        """
        used = {
            self._stored(index)
            for op in self.ops
            for place in _WEIGHTS.get(op.kind, ())
            if place < len(op.inputs) and (index := op.inputs[place]) >= 0
        }
        return sum(self.tensors[i].nbytes for i in used if self.tensors[i].data is not None)

    def _stored(self, index: int) -> int:
        maker = self.producer.get(index)
        return maker.inputs[0] if maker is not None and maker.kind == "DEQUANTIZE" else index

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(tensor.nbytes for tensor in self.tensors if tensor.data is not None)

    def layer_of(self, op: Op) -> str:
        """The Keras layer that `op` comes from, as far as tensor names tell; "" where they do not.

        The converter names a fused operator after all it holds, joined by `;`, and gives graph
        outputs names that say nothing: then the layer of an operator that feeds it is taken, or
        of one that it feeds. Keras 3 may append a number to a layer's name (conv2d_1_2).
        """
        for step in (self._before, self._after):
            current: Op | None = op
            for _ in range(_REACH):
                if current is None:
                    break
                layer = layer_in(self.tensors[current.outputs[0]].name) if current.outputs else ""
                if layer:
                    return layer
                current = step(current)
        return ""

    def _before(self, op: Op) -> Op | None:
        return next((self.producer[index] for index in op.inputs if index in self.producer), None)

    def _after(self, op: Op) -> Op | None:
        return next((self.consumer[index] for index in op.outputs if index in self.consumer), None)


_REACH = 8
_KERNELS = ("BiasAdd", "depthwise", "conv2d_transpose", "convolution", "Conv2D", "MatMul")
_INNER = frozenset({"batchnorm", "Tensordot", "ReadVariableOp", "moments"})
_NAMELESS = re.compile(r"(Stateful)?PartitionedCall|Identity|tfl\.|arith\.")


def layer_in(name: str) -> str:
    """The Keras layer that a tensor's name tells of, "" where it tells of none."""
    paths = [part.split("/") for part in name.split(";") if "/" in part]
    if not paths:
        return "" if _NAMELESS.match(name) or ";" in name else name
    path = paths[-1][:-1]
    for kernel in _KERNELS:
        places = [(one, _place(one, kernel)) for one in paths]
        found = [one[:place] for one, place in places if place > 0]
        if found:
            path = found[-1]
            break
    while len(path) > 1 and path[-1] in _INNER:
        path = path[:-1]
    return "/".join(path[1:] if len(path) > 1 else path)


def _place(path: list[str], kernel: str) -> int:
    """Where in `path` the operation `kernel` stands, or 0.

    The converter may append digits to the last part; a layer is called alike (depthwise1), or even
    the same, and stands before its operation.
    """
    last = len(path) - 1
    if path[last].rstrip("0123456789") == kernel:
        return last
    # At 1 it is the layer, behind the model's name.
    return next((i for i in range(last - 1, 1, -1) if path[i] == kernel), 0)


def _kernel_macs(channel_axis: int) -> Callable[[Program, Op], int]:
    """MACs of an operator whose every output element meets `weights / channels` weights."""

    def macs(program: Program, op: Op) -> int:
        weights, out = program.tensors[op.inputs[1]], program.tensors[op.outputs[0]]
        channels = weights.shape[channel_axis] if weights.shape else 0
        return out.elements * (weights.elements // channels) if channels else 0

    return macs


def _transpose_conv_macs(program: Program, op: Op) -> int:
    weights, data = program.tensors[op.inputs[1]], program.tensors[op.inputs[2]]
    channels = weights.shape[-1] if weights.shape else 0
    return data.elements * (weights.elements // channels) if channels else 0


def _matmul_macs(program: Program, op: Op) -> int:
    left, out = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    axis = -2 if op.options["adj_x"] else -1
    return out.elements * left.shape[axis] if len(left.shape) >= 2 else 0


def _recurrent_macs(program: Program, op: Op) -> int:
    data = program.tensors[op.inputs[0]]
    features = data.shape[-1] if data.shape else 0
    steps = data.elements // features if features else 0
    used = [i for i in _WEIGHTS[op.kind] if i < len(op.inputs) and op.inputs[i] >= 0]
    return steps * sum(program.tensors[op.inputs[i]].elements for i in used)


_WEIGHTS: dict[str, tuple[int, ...]] = {
    "CONV_2D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "FULLY_CONNECTED": (1,),
    "TRANSPOSE_CONV": (1,),
    "CONV_3D": (1,),
    "BATCH_MATMUL": (0, 1),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 9), 16),
    "SVDF": (1, 2),
}
"""Which inputs are weights."""

_MACS: dict[str, Callable[[Program, Op], int]] = {
    "CONV_2D": _kernel_macs(0),
    "DEPTHWISE_CONV_2D": _kernel_macs(-1),
    "FULLY_CONNECTED": _kernel_macs(0),
    "TRANSPOSE_CONV": _transpose_conv_macs,
    "CONV_3D": _kernel_macs(-1),
    "BATCH_MATMUL": _matmul_macs,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent_macs,
}
