"""The `.tflite` writer: what it writes, the reader, the public schema and the runtimes take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings

from edgecompress import runtimes
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import DTYPES, Op, Options, Program, Tensor, read, write
from edgecompress.tflite.operators import KINDS
from tests.conftest import absent
from tests.strategies import nets, single_ops
from tests.tflite_builder import activation, build, constant, conv_net, options

NET = conv_net()
VARIANTS: list[dict[str, Any]] = [
    {},
    {"weights": "int4"},
    {"dtype": "int16"},
    {"weights": "float32", "dtype": "float32"},
    {"per_channel": False},
]


def _parsed(file: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(file, 0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_program_survives_the_file(variant: dict[str, Any]) -> None:
    program = conv_net(**variant)
    file = write(program)
    assert read(file).edit() == program
    assert write(read(file)) == write(program) == file
    assert len(file) < len(build(program))


@settings(max_examples=150, deadline=None)
@given(single_ops())
def test_every_operator_and_its_options_survive_the_file(program: Program) -> None:
    kind = program.ops[0].kind
    if kind.startswith("STABLEHLO_") or kind in ("DILATE", "REDUCE_WINDOW"):
        with pytest.raises(UnsupportedError, match=f"the options of {kind}, so that it cannot"):
            write(program)
    else:
        assert read(write(program)).edit() == program


@settings(max_examples=50, deadline=None)
@given(nets())
def test_programs_with_many_operators_survive_the_file(program: Program) -> None:
    assert read(write(program)).edit() == program.edit()


def test_the_public_schema_reads_the_same() -> None:
    ours, theirs = _parsed(write(NET)), _parsed(build(NET))
    assert (ours.version, len(ours.subgraphs)) == (3, 1)
    left, right = ours.subgraphs[0], theirs.subgraphs[0]
    assert list(left.inputs) == list(right.inputs)
    assert list(left.outputs) == list(right.outputs)
    for one, other in zip(left.tensors, right.tensors, strict=True):
        assert (one.name, one.type, list(one.shape)) == (other.name, other.type, list(other.shape))
        data, expected = ours.buffers[one.buffer].data, theirs.buffers[other.buffer].data
        assert (data is None) == (expected is None)
        assert data is None or data.tobytes() == expected.tobytes()
        assert (one.quantization is None) == (other.quantization is None)
        if one.quantization is not None:
            assert list(one.quantization.scale) == list(other.quantization.scale)
            assert list(one.quantization.zeroPoint) == list(other.quantization.zeroPoint)
    for one, other in zip(left.operators, right.operators, strict=True):
        assert list(one.inputs) == list(other.inputs)
        assert one.builtinOptionsType == other.builtinOptionsType
        assert vars(one.builtinOptions).keys() == vars(other.builtinOptions).keys()


def test_everything_a_tensor_and_an_operator_may_have() -> None:
    tensors = (
        Tensor("in", (1, 4), "int8", (0.5,), (-3,), signature=(-1, 4)),
        Tensor("state", (1, 4), "int16", (0.25,), (0,), variable=True),
        Tensor("scalar", (), "int32", data=b"\1\0\0\0"),
        Tensor("axis", (2, 3), "int8", (0.5, 0.25, 1.0), (1, 2, 3), 1, bytes(6)),
        Tensor("words", (2,), "string", data=b"abc"),
        Tensor("mid", (), "float32"),
        Tensor("out", (1, 4), "int8", (0.5,), (2**31 - 1,)),
    )
    op = Op(
        "CUSTOM",
        (0, -1, 1, 2, 3, 4),
        (6,),
        version=3,
        custom="Mine",
        custom_options=b"\1\2\3",
        intermediates=(5,),
        variable_inputs=(False, True),
    )
    program = Program(tensors, (op,), (0,), (6,))
    assert read(write(program)).edit() == program


def test_equal_constants_share_an_aligned_buffer() -> None:
    data = bytes(range(1, 10))
    tensors = (
        activation("x", 1, 9),
        Tensor("a", (9,), "int8", data=data),
        Tensor("b", (3, 3), "uint8", data=data),
        Tensor("c", (9,), "int8", data=data[::-1]),
        activation("y", 1, 9),
    )
    op = Op("ADD_N", (0, 1, 2, 3), (4,), options("ADD_N"))
    file = write(Program(tensors, (op,), (0,), (4,)))
    assert [tensor.buffer for tensor in _parsed(file).subgraphs[0].tensors] == [0, 1, 1, 2, 0]
    assert file.count(data) == 1
    assert file.index(data) % 16 == file.index(data[::-1]) % 16 == 0


def test_operator_codes_are_written_once_and_for_old_readers_too() -> None:
    tensors = tuple(activation(name, 1, 4) for name in "abcde")
    ops = tuple(
        Op(kind, (i,), (i + 1,), options(kind), version)
        for i, (kind, version) in enumerate([("RELU", 1), ("GELU", 2), ("RELU", 1), ("RELU", 2)])
    )
    codes = _parsed(write(Program(tensors, ops, (0,), (4,)))).operatorCodes
    relu, gelu = KINDS.index("RELU"), KINDS.index("GELU")
    assert gelu > 127
    assert [(c.deprecatedBuiltinCode, c.builtinCode, c.version) for c in codes] == [
        (relu, relu, 1),
        (127, gelu, 2),
        (relu, relu, 2),
    ]


def test_many_long_vectors_do_not_look_like_an_attack_to_the_reader() -> None:
    """What is shared is read over and over, and the reader counts that."""
    channels = 256
    scales = tuple(float(i + 1) for i in range(channels))
    constants = tuple(
        Tensor("", (channels,), "int8", scales, (0,) * channels, 0, i.to_bytes(channels, "little"))
        for i in range(1, 200)
    )
    count = len(constants)
    made = tuple(activation("", channels) for _ in range(100))
    ops = tuple(
        Op("CONCATENATION", tuple(range(count)), (count + i,), options("CONCATENATION"))
        for i in range(len(made))
    )
    program = Program((*constants, *made), ops, (), (count,))
    file = write(program)
    assert read(file).edit() == program
    zero_points, own = 8 * channels, 4 * channels + channels
    assert len(file) < count * (own + 100) + len(ops) * (4 * count + 100) + 2 * zero_points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subgraphs": 2}, "2 subgraphs, of which a program holds the first"),
        (
            {"ops": (Op("STABLEHLO_PAD", (0,), (9,)),)},
            "does not hold the options of STABLEHLO_PAD",
        ),
        (
            {"ops": (Op("RELU", (0,), (9,), Options({"axis": 1, "alpha": 2.0})),)},
            "RELU carries the options alpha, axis, which are not its own",
        ),
        (
            {"ops": (Op("CUSTOM", (0,), (9,), Options({"axis": 1}), custom="Mine"),)},
            "Mine carries the options axis",
        ),
    ],
)
def test_what_a_program_does_not_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        write(replace(NET, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["tflm", "tflite", "litert"])
def test_the_runtimes_compute_the_same(runtime: runtimes.Runtime) -> None:
    if not runtimes.available(runtime):
        absent(runtime, f"runtime {runtime} is not installed")
    rows = np.random.default_rng(1).standard_normal((20, 6, 6, 2)).astype(np.float32)
    jobs = [runtimes.submit(file, rows, runtime=runtime) for file in (build(NET), write(NET))]
    expected, found = (job.result() for job in jobs)
    np.testing.assert_array_equal(found.raw, expected.raw)
    assert found.arena == expected.arena


def test_constants_of_every_element_type_survive_the_file() -> None:
    tensors = tuple(
        Tensor(dtype, (3,), dtype, data=bytes(range((3 * bits + 7) // 8)) or b"x")
        for dtype, (bits, _) in DTYPES.items()
    )
    output = constant("y", [1], "int32")
    program = Program((*tensors, replace(output, data=None)), (), (), ())
    assert read(write(program)).edit() == program
