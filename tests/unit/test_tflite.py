"""The `.tflite` reader and Program."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecompress.backends import tflm
from edgecompress.errors import (
    ConfigError,
    EdgeCompressError,
    ModelFileError,
    StageOrderError,
    UnsupportedError,
)
from edgecompress.tflite import DTYPES, Op, Options, Program, Tensor, read
from edgecompress.tflite.lifetimes import lifetimes, live_bytes
from edgecompress.tflite.operators import KINDS, OPTIONS
from edgecompress.tflite.program import layer_in
from tests.strategies import single_ops
from tests.tflite_builder import activation, build, constant, conv_net, options

NET = conv_net()
FILE = build(NET)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"weights": "int4"},
        {"dtype": "int16"},
        {"weights": "float32", "dtype": "float32"},
        {"per_channel": False},
    ],
)
def test_reads_what_the_public_schema_wrote(variant: dict[str, Any]) -> None:
    program = conv_net(**variant)
    file = build(program)
    assert read(file).edit() == program
    assert read(file).file == file


@settings(max_examples=150, deadline=None)
@given(single_ops())
def test_every_operator_and_its_options_survive_the_file(program: Program) -> None:
    assert read(build(program)).edit() == program


def test_custom_operators_keep_their_name_and_bytes() -> None:
    op = Op("CUSTOM", (0, -1), (1,), custom="Mine", custom_options=b"\x01\x02")
    op = dataclasses.replace(op, intermediates=(2,), variable_inputs=(True, False))
    tensors = tuple(activation(name, 2) for name in "xyz")
    program = Program(tensors, (op,), (0,), (1,))
    assert read(build(program)).edit() == program


def test_absent_options_are_the_schemas_defaults() -> None:
    def without_options(model: Any) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptionsType, operator.builtinOptions = 0, None

    assert read(build(NET, edit=without_options)).ops[0].options == options("CONV_2D")


def test_old_files_have_only_the_small_operator_code() -> None:
    def old(model: Any) -> None:
        for code in model.operatorCodes:
            code.builtinCode = 0

    assert read(build(NET, edit=old)).edit() == NET


def _first(path: str, value: Any) -> Callable[[Any], None]:
    """An edit that sets `path` (graph.tensors.0.shape) in the object tree to `value`."""

    def edit(model: Any) -> None:
        target = model.subgraphs[0] if path.startswith("graph.") else model
        *way, last = path.removeprefix("graph.").removeprefix("model.").split(".")
        for part in way:
            target = target[int(part)] if part.isdigit() else getattr(target, part)
        setattr(target, last, value)

    return edit


MALFORMED: list[tuple[str, Any, str]] = [
    ("model.version", 2, "schema version 2, expected 3"),
    ("model.subgraphs", [], "it has no subgraph"),
    ("graph.inputs", [10], "the inputs refer to tensor 10 of 10"),
    ("graph.outputs", [-1], "the outputs refer to tensor -1 of 10"),
    ("graph.outputs", [6, 6, 77], "the outputs refer to tensor 77"),
    ("graph.operators.0.inputs", [0, 10, 2], "inputs of operator 0 CONV_2D refer to tensor 10"),
    ("graph.operators.0.outputs", [-1], "outputs of operator 0 CONV_2D refer to tensor -1"),
    ("graph.operators.0.inputs", [0], r"operator 0 CONV_2D has the inputs \[0\]"),
    ("graph.operators.0.inputs", [0, -1, 2], r"operator 0 CONV_2D has the inputs \[0, -1, 2\]"),
    ("graph.operators.0.outputs", [], "and the outputs"),
    ("graph.operators.0.inputs", [8, 1, 2], "operator 0 CONV_2D reads 'm/fc/BiasAdd', not comp"),
    ("graph.operators.0.outputs", [1], "operator 0 CONV_2D writes 'm/conv/k' a second time"),
    ("graph.operators.0.outputs", [0], "operator 0 CONV_2D writes 'in' a second time"),
    ("graph.operators.1.outputs", [3], "writes 'm/relu/Relu.*' a second time"),
    ("graph.operators.1.opcodeIndex", 5, "operator 1 uses operator code 5 of 5"),
    ("graph.operators.0.builtinOptionsType", 5, "carries Pool2DOptions, not Conv2DOptions"),
    ("graph.operators.0.builtinOptionsType", 127, "the options of operator 0 CONV_2D has the unkn"),
    ("graph.operators.0.builtinOptions.padding", 2, "padding in the options of .* unknown value 2"),
    ("graph.operators.4.builtinOptions.beta", float("nan"), "beta in the options of .* is nan"),
    ("graph.tensors.0.type", 99, "element type of tensor 0 'in' has the unknown value 99"),
    ("graph.tensors.0.shape", [1, -6, 6, 2], r"tensor 0 'in' has the shape \[1, -6, 6, 2\]"),
    ("graph.tensors.0.shape", [2**31 - 1] * 4, "tensor 0 'in' has the shape"),
    ("graph.tensors.1.shape", [4, 3, 3, 3], r"int8\[4, 3, 3, 3\] holds 72 bytes, not 108"),
    ("graph.tensors.1.type", 17, r"int4\[4, 3, 3, 2\] holds 72 bytes, not 36"),
    ("graph.tensors.0.buffer", 9, "tensor 0 'in' uses buffer 9 of 5"),
    ("graph.tensors.1.quantization.scale", [1.0, 2.0], "has 2 scales and 4 zero points"),
    ("graph.tensors.1.quantization.scale", [0.0] * 4, "a scale that is not positive and finite"),
    ("graph.tensors.1.quantization.scale", [float("inf")] * 4, "not positive and finite"),
    ("graph.tensors.1.quantization.zeroPoint", [2**31] * 4, "a zero point outside 32 bits"),
    ("graph.tensors.1.quantization.quantizedDimension", 4, "is along axis 4 of 4"),
    ("graph.tensors.1.quantization.quantizedDimension", 1, "has 4 scales for the shape .* axis 1"),
    ("model.operatorCodes.0.builtinCode", 32, "is custom and has no name"),
]


@pytest.mark.parametrize(("path", "value", "message"), MALFORMED)
def test_a_malformed_file_is_one_clear_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read(build(NET, edit=_first(path, value)))
    assert "\n" not in str(caught.value)


def _sparse(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT()


UNSUPPORTED: list[tuple[Callable[[Any], None], str]] = [
    (_first("model.operatorCodes.0.builtinCode", 5000), "is number 5000, newer than this reader"),
    (_first("model.buffers.1.offset", 4096), "buffer 1 lies outside the flatbuffer"),
    (_first("graph.tensors.0.shape", [1] * 9), "has 9 axes; at most 8"),
    (_first("graph.tensors.1.quantization.detailsType", 2), "is not affine"),
    (_first("graph.tensors.1.externalBuffer", 3), "lies in an external buffer"),
    (_sparse, "tensor 1 'm/conv/k' is sparse"),
]


@pytest.mark.parametrize(("edit", "message"), UNSUPPORTED)
def test_what_no_backend_takes_is_named(edit: Callable[[Any], None], message: str) -> None:
    def with_details(model: Any) -> None:
        edit(model)
        quantization = model.subgraphs[0].tensors[1].quantization
        if quantization.detailsType:
            quantization.details = schema.BlockwiseQuantizationT()

    with pytest.raises(UnsupportedError, match=message):
        read(build(NET, edit=with_details))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x08\0\0\0TFL2" + FILE[8:], FILE[:-200]])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"^\.tflite: "):
        read(data)


def _raw(
    *, root: int = 16, vtable: int = 8, length: int = 6, size: int = 8, field: int = 4
) -> bytes:
    """A file of one table with one field: vtable at 8, table at 16, the number 3 at 20."""
    head = struct.pack("<I4s", root, b"TFL3") + struct.pack("<HHHH", length, size, field, 0)
    return head + struct.pack("<iI", 16 - vtable, 3)


RAW: list[tuple[dict[str, int], str]] = [
    ({"root": 0}, r"the root points to a wrong place \(offset 0\)"),
    ({"root": 18}, r"the root points to a wrong place \(offset 18\)"),
    ({"root": 24}, r"the root points to a wrong place \(offset 24\)"),
    ({"vtable": 9}, "the vtable of the root is broken"),
    ({"vtable": -2}, "the root lies outside the file"),
    ({"length": 5}, "the vtable of the root is broken"),
    ({"length": 2}, "the vtable of the root is broken"),
    ({"length": 18}, "the vtable of the root is broken"),
    ({"size": 2}, "the root claims 2 bytes"),
    ({"size": 9}, "the root claims 9 bytes"),
    ({"field": 2}, "field 0 of the root lies outside its table"),
    ({"field": 6}, "field 0 of the root lies outside its table"),
    ({}, "it has no subgraph"),
]


@pytest.mark.parametrize(("change", "message"), RAW)
def test_every_offset_of_a_table_is_checked(change: dict[str, int], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(_raw(**change))


def test_a_claimed_length_allocates_nothing() -> None:
    start = FILE.index(NET.tensors[1].data or b"?")
    claimed = FILE[: start - 4] + (2**31 - 1).to_bytes(4, "little") + FILE[start:]
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="claims 2147483647 elements"):
        read(claimed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_many_references_to_the_same_bytes_cannot_blow_up() -> None:
    count = 20_000
    builder = flatbuffers.Builder(1024)
    inputs = builder.CreateNumpyVector(np.full(count, -1, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    operator = schema.OperatorEnd(builder)
    schema.SubGraphStartOperatorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    graph = schema.SubGraphEnd(builder)
    schema.OperatorCodeStart(builder)
    schema.OperatorCodeAddBuiltinCode(builder, KINDS.index("CONCATENATION"))
    code = schema.OperatorCodeEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStartOperatorCodesVector(builder, 1)
    builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(ModelFileError, match="share the same bytes"):
        read(bytes(builder.Output()))


def _mutated(data: st.DataObject) -> bytes:
    file = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(file) - 1))
        size = data.draw(st.sampled_from([1, 4]))
        file[place : place + size] = data.draw(st.binary(min_size=size, max_size=size))
    return bytes(file[: data.draw(st.one_of(st.just(len(file)), st.integers(0, len(file))))])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_file_never_raises_anything_of_its_own(data: st.DataObject) -> None:
    try:
        program = read(_mutated(data))
        assert program.macs >= 0
        assert program.weights_bytes <= len(FILE)
        for reason in tflm.supports(program):
            assert "\n" not in reason
    except EdgeCompressError as error:
        assert "\n" not in str(error)


@settings(deadline=None)
@given(hnp.arrays(np.int8, hnp.array_shapes(max_dims=3), elements=st.integers(-8, 7)))
def test_int4_constants_are_unpacked(values: np.ndarray[Any, Any]) -> None:
    tensor = constant("w", values, "int4")
    assert tensor.nbytes == (values.size + 1) // 2
    array = tensor.array
    assert array is not None and array.dtype == np.int8
    np.testing.assert_array_equal(array, values)


def test_other_packed_types_and_types_without_an_array() -> None:
    two = Tensor("w", (5,), "int2", data=bytes([0b11_10_01_00, 0b01]))
    assert two.array is not None and two.array.tolist() == [0, 1, -2, -1, 1]
    four = Tensor("w", (3,), "uint4", data=bytes([0xF1, 0x08]))
    assert four.array is not None and four.array.tolist() == [1, 15, 8]
    with pytest.raises(UnsupportedError, match="'w': element type bfloat16 has no array"):
        _ = Tensor("w", (1,), "bfloat16", data=b"\0\0").array
    assert activation("x", 2, 2).array is None


def test_constants_cannot_be_written_to() -> None:
    array = NET.tensors[1].array
    assert array is not None and not array.flags.writeable


def test_quantisation_rounds_half_away_from_zero_and_saturates() -> None:
    tensor = Tensor("x", (7,), "int8", (1.0,), (3,))
    given_values = [0.5, -0.5, 1.5, -2.5, 0.49999997, 1e9, -1e9]
    assert tensor.quantize(given_values).tolist() == [4, 2, 5, 0, 3, 127, -128]
    assert Tensor("x", (1,), "uint8", (1.0,), (128,)).quantize([-500.0]).tolist() == [0]
    assert Tensor("x", (1,), "int4", (1.0,), (0,)).quantize([99.0, -99.0]).tolist() == [7, -8]


def test_quantisation_per_channel_follows_its_axis() -> None:
    tensor = Tensor("w", (1, 2, 2), "int8", (1.0, 0.5), (0, 1), axis=2)
    stored = tensor.quantize([[[1.0, 1.0], [2.0, -1.0]]])
    assert stored.tolist() == [[[1, 3], [2, -1]]]
    assert tensor.dequantize(stored).tolist() == [[[1.0, 1.0], [2.0, -1.0]]]


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, 8, elements=st.floats(-6, 6, width=32)),
    st.floats(2**-4, 1, width=32),
    st.integers(-20, 20),
)
def test_a_value_survives_quantisation_within_half_a_step(
    values: np.ndarray[Any, Any], scale: float, zero: int
) -> None:
    tensor = Tensor("x", (8,), "int8", (scale,), (zero,))
    back = tensor.dequantize(tensor.quantize(values))
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    assert np.abs(back - np.clip(values, low, high)).max() <= scale / 2 * (1 + 1e-5)


def test_quantisation_refuses_nan_and_leaves_float_alone() -> None:
    with pytest.raises(ConfigError, match="'?x'?: the values to quantise hold NaN"):
        Tensor("x", (1,), "int8", (1.0,), (0,)).quantize([float("nan")])
    plain = Tensor("x", (2,), "float32")
    assert plain.quantize([1.5, 2.5]).dtype == np.float32
    assert plain.dequantize(np.float32([1.5])).tolist() == [1.5]


def _one(kind: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], **values: Any) -> Program:
    tensors = tuple(activation(f"t{i}", *shape) for i, shape in enumerate([*shapes, out]))
    count = len(shapes)
    op = Op(kind, tuple(range(count)), (count,), options(kind, **values))
    return Program(tensors, (op,), tuple(range(count)), (count,))


MACS: list[tuple[str, list[tuple[int, ...]], tuple[int, ...], dict[str, Any], int]] = [
    ("CONV_2D", [(1, 9, 9, 3), (8, 3, 3, 3)], (1, 9, 9, 8), {}, 81 * 8 * 27),
    ("CONV_2D", [(1, 9, 9, 4), (8, 3, 3, 2)], (1, 9, 9, 8), {}, 81 * 8 * 18),
    ("DEPTHWISE_CONV_2D", [(1, 9, 9, 3), (1, 3, 3, 6)], (1, 4, 4, 6), {}, 16 * 6 * 9),
    ("FULLY_CONNECTED", [(2, 10), (7, 10)], (2, 7), {}, 140),
    ("TRANSPOSE_CONV", [(4,), (8, 3, 3, 2), (1, 4, 4, 2)], (1, 8, 8, 8), {}, 32 * 72),
    ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), {}, 120),
    ("BATCH_MATMUL", [(2, 4, 3), (2, 4, 5)], (2, 3, 5), {"adj_x": True}, 120),
    ("MAX_POOL_2D", [(1, 9, 9, 3)], (1, 4, 4, 3), {}, 0),
]


@pytest.mark.parametrize(("kind", "shapes", "out", "values", "expected"), MACS)
def test_macs(
    kind: str,
    shapes: list[tuple[int, ...]],
    out: tuple[int, ...],
    values: dict[str, Any],
    expected: int,
) -> None:
    assert _one(kind, shapes, out, **values).macs == expected


def test_macs_of_an_lstm_are_its_matrices_times_its_steps() -> None:
    step, inner, cells = 5, 3, 4
    shapes = [(1, step, inner), *[(cells, inner)] * 4, *[(cells, cells)] * 4]
    tensors = (*(activation(f"t{i}", *shape) for i, shape in enumerate(shapes)),)
    out = activation("y", 1, step, cells)
    inputs = (*range(9), *(-1,) * 15)
    kind = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    program = Program((*tensors, out), (Op(kind, inputs, (9,), options(kind)),), (0,), (9,))
    assert program.macs == step * (4 * cells * inner + 4 * cells * cells)


def test_sizes_of_a_program() -> None:
    assert NET.macs == 36 * 4 * 18 + 3 * 36
    assert NET.weights_bytes == 4 * 3 * 3 * 2 + 3 * 36
    assert NET.constant_bytes == NET.weights_bytes + 4 * 4 + 2 * 4
    assert conv_net(weights="int4").weights_bytes == NET.weights_bytes // 2


def test_weights_that_are_dequantised_first_count_as_stored() -> None:
    stored = constant("k", np.ones((3, 4)), "float16")
    tensors = (activation("x", 1, 4, dtype="float32"), stored)
    tensors += (activation("w", 3, 4, dtype="float32"), activation("m/fc/MatMul", 1, 3))
    dequantize = Op("DEQUANTIZE", (1,), (2,))
    matmul = Op("FULLY_CONNECTED", (0, 2, -1), (3,), options("FULLY_CONNECTED"))
    assert Program(tensors, (dequantize, matmul), (0,), (3,)).weights_bytes == 24


LAYERS = [
    ("f_1/relu/Relu;f_1/bn/FusedBatchNormV3;f_1/conv/BiasAdd;f_1/conv_4/Conv2D;f_1/conv/Conv2D1"),
    (
        "f/relu/Relu;f/bn/batchnorm/add_1;;f/conv/BiasAdd;f/bn/batchnorm/mul;f/conv/convolution;f/b/s"
    ),
    ("f/relu/Relu;f/conv_4/Conv2D;f/conv/Conv2D1"),
    ("f/relu/Relu;f/conv/depthwise;f/conv_4/Conv2D;f/bn/FusedBatchNormV3"),
    ("f/conv/BiasAdd/ReadVariableOp/resource"),
    ("f/conv/MatMul;f/conv/BiasAdd"),
    ("f/relu/Relu;f/conv/add"),
    ("f/conv/batchnorm/add_1"),
    ("conv/BiasAdd"),
    ("conv"),
]


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_found_in_the_tensors_name(name: str) -> None:
    program = _one("RELU", [(1, 4)], (1, 4))
    tensors = (program.tensors[0], dataclasses.replace(program.tensors[1], name=name))
    program = program.edit(tensors=tensors)
    assert program.layer_of(program.ops[0]) == "conv"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("m/relu1/Relu;m/bn1/batchnorm/add_1;m/bn1/batchnorm/mul_1;m/depthwise1/depthwise", ""),
        ("m/depthwise1/Relu;m/depthwise1/depthwise", ""),
        ("m/relu1/Relu;m/depthwise1/BiasAdd;m/depthwise1/depthwise3", ""),
        ("m/depthwise1/Relu", ""),
        ("m/conv2d_transpose/conv2d_transpose", "conv2d_transpose"),
        ("m/conv2d_transpose/Relu", "conv2d_transpose"),
        ("m/block/depthwise1/Relu;m/block/depthwise1/depthwise", "block/depthwise1"),
        ("/block/depthwise1/", "block/depthwise1"),
    ],
)
def test_a_layer_may_be_called_as_its_operation(name: str, layer: str) -> None:
    assert layer_in(name) == (layer or "depthwise1")


def test_nested_layers_keep_their_path() -> None:
    program = _one("RELU", [(1, 4)], (1, 4))
    tensors = (program.tensors[0], dataclasses.replace(program.tensors[1], name="m/body/conv/Relu"))
    assert program.edit(tensors=tensors).layer_of(program.ops[0]) == "body/conv"


def test_an_operator_without_a_name_takes_its_neighbours_layer() -> None:
    assert [NET.layer_of(op) for op in NET.ops] == ["conv", "pool", "flatten", "fc", "fc"]
    names = ["x", "tfl.quantize", "m/conv/BiasAdd"]
    tensors = tuple(activation(name, 1, 4) for name in names)
    ops = (Op("QUANTIZE", (0,), (1,)), Op("RELU", (1,), (2,)))
    program = Program(tensors, ops, (0,), (2,))
    assert program.layer_of(ops[0]) == "conv"
    nameless = program.edit(tensors=(*tensors[:2], activation("Identity", 1, 4)))
    assert nameless.layer_of(ops[0]) == ""


def test_programs_and_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        NET.tensors[0].name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        NET.ops[0].options["padding"] = "VALID"  # type: ignore[index]
    assert hash(options("CONV_2D")) == hash(options("CONV_2D"))


def test_an_edited_program_has_no_file() -> None:
    program = read(FILE)
    assert program.sha is not None and len(program.sha) == 64
    edited = program.edit(outputs=(8,))
    assert edited.outputs == (8,) and edited.sha is None and program.outputs == (9,)
    with pytest.raises(StageOrderError, match="generate: the program was edited"):
        edited.need_file("generate")


def test_other_subgraphs_are_counted() -> None:
    def twice(model: Any) -> None:
        model.subgraphs.append(model.subgraphs[0])

    assert read(build(NET, edit=twice)).subgraphs == 2


def test_the_tables_agree_with_the_public_schema() -> None:
    def numbers(enum: type) -> dict[str, int]:
        return {name: value for name, value in vars(enum).items() if isinstance(value, int)}

    assert {kind: code for code, kind in enumerate(KINDS)} == numbers(schema.BuiltinOperator)
    unions = {name.removesuffix("Options"): n for name, n in numbers(schema.BuiltinOptions).items()}
    assert {name: n for n, name in enumerate(["NONE", *OPTIONS])} == unions
    types = {name.lower(): number for name, number in numbers(schema.TensorType).items()}
    assert {name: number for number, name in enumerate(DTYPES)} == types


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=12),
    st.lists(st.integers(0, 5), min_size=10, max_size=10),
    st.sets(st.integers(0, 9)),
)
def test_live_bytes_follow_their_definition(
    reads: list[list[int]], sizes: list[int], kept: set[int]
) -> None:
    """At each operator, the bytes of the tensors whose lifetime covers it."""
    tensors = tuple(
        Tensor(str(index), (size,), "int8", variable=index == 9) for index, size in enumerate(sizes)
    )
    ops = tuple(Op("ADD", tuple(used[1:]), (used[0],), Options()) for used in reads)
    program = dataclasses.replace(
        NET, tensors=tensors, ops=ops, inputs=(0,), outputs=tuple(sorted(kept))
    )
    spans = lifetimes(program)
    assert live_bytes(program) == tuple(
        sum(sizes[index] for index, (first, last) in spans.items() if first <= position <= last)
        for position in range(len(ops))
    )
