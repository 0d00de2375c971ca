"""Program -> `.tflite` with the public generated schema: an independent writer for tests."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecompress.tflite import DTYPES, Op, Options, Program, Tensor
from edgecompress.tflite.operators import ENUMS, KINDS, OPTION_NAMES, OPTIONS, OPTIONS_OF

TYPES = list(DTYPES)


def camel(name: str) -> str:
    """The generated schema's attribute for a field: stride_w -> strideW."""
    return re.sub(r"_(\w)", lambda match: match.group(1).upper(), name)


def _quantization(tensor: Tensor) -> Any:
    made = schema.QuantizationParametersT()
    made.scale = list(tensor.scales)
    made.zeroPoint = list(tensor.zero_points)
    made.quantizedDimension = tensor.axis
    return made


def _options(op: Op) -> tuple[int, Any]:
    name = OPTIONS_OF[op.kind]
    if name is None:
        return 0, None
    made = getattr(schema, f"{name}OptionsT")()
    for field in OPTIONS[name]:
        if field is None or field.name not in op.options:
            continue
        value: Any = op.options[field.name]
        if field.type in ENUMS:
            value = ENUMS[field.type].index(value)
        elif isinstance(value, tuple):
            value = list(value)
        setattr(made, camel(field.name), value)
    return OPTION_NAMES.index(name), made


def _operator(op: Op, code: int) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = code
    made.inputs, made.outputs = list(op.inputs), list(op.outputs)
    made.builtinOptionsType, made.builtinOptions = _options(op)
    made.customOptions = list(op.custom_options) or None
    made.intermediates = list(op.intermediates) or None
    made.mutatingVariableInputs = list(op.variable_inputs) or None
    return made


def build(program: Program, *, edit: Any = None) -> bytes:
    """`program` as a file; `edit(model)` may change the object tree before it is packed."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, graph.tensors = [schema.BufferT()], []
    for tensor in program.tensors:
        made = schema.TensorT()
        made.name, made.shape, made.type = (
            tensor.name,
            list(tensor.shape),
            TYPES.index(tensor.dtype),
        )
        made.buffer, made.isVariable = 0, tensor.variable
        made.shapeSignature = list(tensor.signature) or None
        made.quantization = _quantization(tensor) if tensor.scales else None
        if tensor.data is not None:
            made.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(tensor.data, np.uint8)
        graph.tensors.append(made)
    codes = sorted({(op.kind, op.custom, op.version) for op in program.ops})
    model.operatorCodes = []
    for kind, custom, version in codes:
        made = schema.OperatorCodeT()
        made.builtinCode, made.version = KINDS.index(kind), version
        made.deprecatedBuiltinCode = min(KINDS.index(kind), 127)
        made.customCode = custom or None
        model.operatorCodes.append(made)
    graph.operators = [
        _operator(op, codes.index((op.kind, op.custom, op.version))) for op in program.ops
    ]
    graph.inputs, graph.outputs = list(program.inputs), list(program.outputs)
    if edit is not None:
        edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def activation(name: str, *shape: int, dtype: str = "int8", scale: float = 0.05) -> Tensor:
    """An activation; quantised with zero point 0 (uint8: 128) unless its type is a float."""
    if dtype.startswith("float") or dtype in ("int32", "int64", "bool"):
        return Tensor(name, shape, dtype)
    scale = float(np.float32(scale))
    return Tensor(name, shape, dtype, (scale,), (128 if dtype == "uint8" else 0,))


def constant(
    name: str, values: Any, dtype: str, *, scales: tuple[float, ...] = (), axis: int = 0
) -> Tensor:
    """A constant from an array; int4 values are packed two to a byte, the first one low."""
    array = np.asarray(values)
    scales = tuple(float(np.float32(scale)) for scale in scales)
    if dtype == "int4":
        flat = np.concatenate([array.reshape(-1), np.zeros(array.size % 2)]).astype(np.int8)
        data = ((flat[0::2] & 15) | (flat[1::2] << 4)).astype(np.int8).tobytes()
    else:
        data = array.astype(DTYPES[dtype].numpy).tobytes()
    return Tensor(name, array.shape, dtype, scales, (0,) * len(scales), axis, data)


def options(kind: str, **values: Any) -> Options:
    """All options of an operator: `values`, and the schema's defaults."""
    fields = OPTIONS.get(OPTIONS_OF[kind] or "", ())
    return Options({field.name: values.get(field.name, field.default) for field in fields if field})


def conv_net(*, weights: str = "int8", dtype: str = "int8", per_channel: bool = True) -> Program:
    """A small model: CONV_2D -> MAX_POOL_2D -> RESHAPE -> FULLY_CONNECTED -> SOFTMAX."""
    random = np.random.default_rng(0)
    limit = 7 if weights == "int4" else 127
    wide = "float32" if dtype == "float32" else "int64" if dtype == "int16" else "int32"
    quantised = weights != "float32"
    scales = tuple(0.01 * (i + 1) for i in range(4)) if per_channel else (0.01,)
    bias_scales = tuple(0.05 * s for s in scales) if wide != "float32" else ()
    kernel = random.integers(-limit, limit + 1, (4, 3, 3, 2))
    matrix = random.integers(-limit, limit + 1, (3, 36))
    tensors = (
        activation("in", 1, 6, 6, 2, dtype=dtype),
        constant("m/conv/k", kernel, weights, scales=scales if quantised else ()),
        constant("m/conv/b", [3, -2, 1, 0], wide, scales=bias_scales),
        activation("m/relu/Relu;m/conv/BiasAdd;m/conv/Conv2D1", 1, 6, 6, 4, dtype=dtype),
        activation("m/pool/MaxPool", 1, 3, 3, 4, dtype=dtype),
        constant("m/flatten/Const", [1, 36], "int32"),
        activation("m/flatten/Reshape", 1, 36, dtype=dtype),
        constant("m/fc/MatMul", matrix, weights, scales=(0.01,) if quantised else ()),
        activation("m/fc/BiasAdd", 1, 3, dtype=dtype, scale=0.5),
        Tensor("Identity", (1, 3), dtype, *_SOFTMAX_OUTPUT.get(dtype, ((), ()))),
    )
    ops = (
        Op(
            "CONV_2D",
            (0, 1, 2),
            (3,),
            options("CONV_2D", stride_w=1, stride_h=1, fused_activation_function="RELU"),
        ),
        Op(
            "MAX_POOL_2D",
            (3,),
            (4,),
            options("MAX_POOL_2D", stride_w=2, stride_h=2, filter_width=2, filter_height=2),
        ),
        Op("RESHAPE", (4, 5), (6,), options("RESHAPE", new_shape=(1, 36))),
        Op("FULLY_CONNECTED", (6, 7, -1), (8,), options("FULLY_CONNECTED")),
        Op("SOFTMAX", (8,), (9,), options("SOFTMAX", beta=1.0)),
    )
    return Program(tensors, ops, (0,), (9,))


_SOFTMAX_OUTPUT: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
    "int8": ((1 / 256,), (-128,)),
    "int16": ((1 / 32768,), (0,)),
}


def quantized(
    name: str, shape: tuple[int, ...], dtype: str, scale: float = 1.0, zero_point: int = 0
) -> Tensor:
    """An activation; float32 and plain integer types (int32, int64, bool) have no scale."""
    if dtype in ("float32", "int32", "int64", "bool"):
        return Tensor(name, shape, dtype)
    return Tensor(name, shape, dtype, (float(np.float32(scale)),), (zero_point,))


def one_op(
    kind: str, inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor, ...], **values: Any
) -> Program:
    """A program of one operator; activations among `inputs` are graph inputs, None is left out.

    `values` are options. The program has its file.
    """
    tensors = tuple(tensor for tensor in (*inputs, *outputs) if tensor is not None)
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    op = Op(
        kind,
        tuple(-1 if tensor is None else places[id(tensor)] for tensor in inputs),
        tuple(places[id(tensor)] for tensor in outputs),
        options(kind, **values),
    )
    given = dict.fromkeys(
        i for i in op.inputs if i >= 0 and tensors[i].data is None and not tensors[i].variable
    )
    return with_file(Program(tensors, (op,), tuple(given), op.outputs))


def with_file(program: Program) -> Program:
    """`program` with its bytes, as if read from a file."""
    return replace(program, file=build(program))
