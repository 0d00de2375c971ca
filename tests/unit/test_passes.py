"""Lossless passes: smaller programs, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from edgecompress import runtimes
from edgecompress.tflite import Op, Program, Tensor, passes, read, write
from tests.aot_harness import case, draw, reference
from tests.conftest import absent, nightly
from tests.strategies import nets
from tests.tflite_builder import activation, constant, conv_net, one_op, options

PASSES: tuple[Callable[[Program], Program], ...] = (
    passes.drop_identities,
    passes.drop_unused_ops,
    passes.drop_unused_tensors,
    passes.join_reshapes,
    passes.lossless,
    passes.merge_constants,
    passes.shorten_names,
)


def test_every_pass_keeps_the_bits_of_tflm() -> None:
    if not runtimes.available("tflm"):
        absent("tflm", "tflite-micro is not installed (it has no wheel for this Python)")
    cases = [case(program) for program in draw(nets(), nightly(25, 1000))]
    after = [
        one._replace(program=replace(made, file=write(made)))
        for step in PASSES
        for one in cases
        for made in [step(one.program)]
    ]
    outputs = reference([*cases, *after])
    expected, found = outputs[: len(cases)] * len(PASSES), outputs[len(cases) :]
    for want, got, one in zip(expected, found, after, strict=True):
        for left, right in zip(want, got, strict=True):
            for a, b in zip(left, right, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=str(one.program.ops))


def test_a_file_is_never_made_larger() -> None:
    data = write(conv_net())
    small = passes.slimmed(data)
    assert len(small) < len(data) and small == write(passes.lossless(read(data)))
    assert passes.slimmed(small) == small


@settings(max_examples=100, deadline=None)
@given(nets())
def test_laws_of_lossless(program: Program) -> None:
    small = passes.lossless(program)
    assert passes.lossless(small) == small
    assert read(write(small)).edit() == small
    assert len(write(small)) <= len(write(program))
    assert len(small.ops) <= len(program.ops)
    for before, after in ((program.inputs, small.inputs), (program.outputs, small.outputs)):
        assert [program.tensors[i] for i in before] == [small.tensors[i] for i in after]
    used = {index for op in small.ops for index in (*op.inputs, *op.outputs)}
    assert used | {*small.inputs, *small.outputs} == set(range(len(small.tensors)))
    assert {op.kind for op in small.ops} <= {op.kind for op in program.ops}


def _relus(count: int, *, outputs: tuple[int, ...]) -> Program:
    """RELUs in a row: operator i makes tensor i + 1 of tensor i."""
    tensors = tuple(activation(f"t{i}", 1, 4) for i in range(count + 1))
    ops = tuple(Op("RELU", (i,), (i + 1,), options("RELU")) for i in range(count))
    return Program(tensors, ops, (0,), outputs)


def test_operators_that_no_output_needs_are_dropped() -> None:
    program = _relus(3, outputs=(1,))
    assert passes.drop_unused_ops(program).ops == program.ops[:1]
    whole = _relus(3, outputs=(3,))
    assert passes.drop_unused_ops(whole) == whole


@pytest.mark.parametrize("kind", ["CUSTOM", "ASSIGN_VARIABLE", "RANDOM_UNIFORM", "STABLEHLO_CASE"])
def test_operators_with_an_effect_stay_and_so_does_what_they_read(kind: str) -> None:
    program = _relus(3, outputs=(1,))
    ops = (*program.ops[:2], replace(program.ops[2], kind=kind))
    program = replace(program, ops=ops)
    assert passes.drop_unused_ops(program) == program


def test_operators_with_a_state_stay() -> None:
    program = _relus(2, outputs=(1,))
    state = replace(program.tensors[0], variable=True)
    program = replace(program, tensors=(*program.tensors, state))
    program = replace(program, ops=(program.ops[0], replace(program.ops[1], inputs=(1, 3))))
    assert passes.drop_unused_ops(program) == program


def test_unused_tensors_go_and_the_others_are_renumbered() -> None:
    tensors = tuple(activation(name, 1, 4) for name in ("in", "no", "mid", "never", "x", "out"))
    op = Op("CUSTOM", (0, -1, 4), (5,), custom="Mine", intermediates=(2,))
    small = passes.drop_unused_tensors(Program(tensors, (op,), (0,), (5,)))
    assert [tensor.name for tensor in small.tensors] == ["in", "mid", "x", "out"]
    assert small.ops == (replace(op, inputs=(0, -1, 2), outputs=(3,), intermediates=(1,)),)
    assert (small.inputs, small.outputs) == ((0,), (3,))


def test_constants_that_differ_only_in_name_become_one() -> None:
    value = constant("a", [1, 2, 3, 4], "int8", scales=(0.5,))
    others = [
        replace(value, name="b"),
        replace(value, name="c", scales=(0.25,)),
        replace(value, name="d", shape=(2, 2)),
        replace(value, name="e", dtype="uint8"),
        replace(value, name="f"),
    ]
    tensors = (activation("x", 4), value, *others, activation("y", 4))
    op = Op("ADD_N", tuple(range(7)), (7,), options("ADD_N"))
    program = Program(tensors, (op,), (0,), (7, 6))
    assert passes.merge_constants(program).ops[0].inputs == (0, 1, 1, 3, 4, 5, 6)


X = activation("x", 1, 2, 1, 3)
SAME = replace(X, name="y")
OTHER = replace(SAME, zero_points=(1,))
NOTHING = constant("paddings", np.zeros((4, 2)), "int32")
SOME = constant("paddings", [[0, 0], [0, 1], [0, 0], [0, 0]], "int32")
VALUE = constant("value", [0], "int8", scales=(0.05,))


def _shape(*sizes: int) -> Tensor:
    return constant("shape", sizes, "int32")


COPIES: list[tuple[str, tuple[Tensor, ...], Tensor, dict[str, Any]]] = [
    ("RESHAPE", (_shape(1, 2, 1, 3),), SAME, {}),
    ("RESHAPE", (_shape(1, -1, 1, 3),), SAME, {}),
    ("RESHAPE", (), SAME, {"new_shape": (1, 2, 1, 3)}),
    ("TRANSPOSE", (_shape(0, 1, 2, 3),), SAME, {}),
    ("PAD", (NOTHING,), SAME, {}),
    ("PADV2", (NOTHING, VALUE), SAME, {}),
    ("MIRROR_PAD", (constant("paddings", np.zeros((4, 2)), "int64"),), SAME, {}),
    ("QUANTIZE", (), SAME, {}),
]
OTHERS: list[tuple[str, tuple[Tensor, ...], Tensor, dict[str, Any]]] = [
    ("RESHAPE", (_shape(1, 2, 1, 3),), OTHER, {}),
    ("RESHAPE", (_shape(1, 2, 3),), activation("y", 1, 2, 3), {}),
    ("RESHAPE", (_shape(1, 3, 1, 2),), SAME, {}),
    ("RESHAPE", (_shape(1, -1, -1, 3),), SAME, {}),
    ("RESHAPE", (Tensor("shape", (4,), "int32"),), SAME, {}),
    ("RESHAPE", (_shape(1, 2, 1, 3),), replace(SAME, signature=(-1, 2, 1, 3)), {}),
    ("TRANSPOSE", (_shape(0, 2, 1, 3),), SAME, {}),
    ("TRANSPOSE", (Tensor("order", (4,), "int32"),), SAME, {}),
    ("PAD", (SOME,), SAME, {}),
    ("PAD", (Tensor("paddings", (4, 2), "int32"),), SAME, {}),
    ("QUANTIZE", (), OTHER, {}),
    ("QUANTIZE", (), replace(SAME, dtype="uint8"), {}),
    ("RELU", (), SAME, {}),
]


def _between(kind: str, more: tuple[Tensor, ...], made: Tensor, values: Any) -> Program:
    """RELU, then the operator, then RELU."""
    program = one_op(kind, (X, *more), (made,), **values)
    start, end = len(program.tensors), len(program.tensors) + 1
    op = program.ops[0]
    ops = (
        Op("RELU", (start,), (op.inputs[0],), options("RELU")),
        op,
        Op("RELU", op.outputs, (end,), options("RELU")),
    )
    tensors = (*program.tensors, replace(X, name="first"), replace(made, name="last"))
    inputs = (start, *(index for index in program.inputs if index != op.inputs[0]))
    return Program(tensors, ops, inputs, (end,))


@pytest.mark.parametrize(("kind", "more", "made", "values"), COPIES)
def test_copies_are_dropped(kind: str, more: Any, made: Tensor, values: Any) -> None:
    program = _between(kind, more, made, values)
    first, op, last = program.ops
    small = passes.drop_identities(program)
    assert small.ops == (first, replace(last, inputs=op.inputs[:1]))


@pytest.mark.parametrize(("kind", "more", "made", "values"), OTHERS)
def test_what_is_no_copy_stays(kind: str, more: Any, made: Tensor, values: Any) -> None:
    program = _between(kind, more, made, values)
    assert passes.drop_identities(program) == program


def _copy_chain(outputs: tuple[int, ...]) -> Program:
    """x -RELU-> a -copy-> b -copy-> c, and a -RELU-> d."""
    tensors = (*(replace(X, name=name) for name in "xabcd"), _shape(1, 2, 1, 3))
    ops = (
        Op("RELU", (0,), (1,), options("RELU")),
        Op("RESHAPE", (1, 5), (2,), options("RESHAPE")),
        Op("RESHAPE", (2, 5), (3,), options("RESHAPE")),
        Op("RELU", (1,), (4,), options("RELU")),
    )
    return Program(tensors, ops, (0,), outputs)


def test_an_output_that_is_a_copy_is_computed_in_its_place() -> None:
    small = passes.drop_identities(_copy_chain((3, 4)))
    assert [(op.kind, op.inputs, op.outputs) for op in small.ops] == [
        ("RELU", (0,), (3,)),
        ("RELU", (3,), (4,)),
    ]


def test_of_two_outputs_with_the_same_values_one_is_copied() -> None:
    small = passes.drop_identities(_copy_chain((2, 3)))
    assert [(op.kind, op.inputs[0], op.outputs) for op in small.ops[:2]] == [
        ("RELU", 0, (2,)),
        ("RESHAPE", 2, (3,)),
    ]
    twice = _copy_chain((2, 3))
    ops = (*twice.ops[:2], replace(twice.ops[2], inputs=(1, 5)), twice.ops[3])
    small = passes.drop_identities(replace(twice, ops=ops))
    assert [(op.kind, op.inputs[0], op.outputs) for op in small.ops[:2]] == [
        ("RELU", 0, (2,)),
        ("RESHAPE", 2, (3,)),
    ]
    small = passes.drop_identities(_copy_chain((1, 3)))
    assert [(op.kind, op.inputs[0], op.outputs) for op in small.ops[:2]] == [
        ("RELU", 0, (1,)),
        ("RESHAPE", 1, (3,)),
    ]


def test_an_output_that_copies_an_input_or_a_state_stays() -> None:
    program = one_op("RESHAPE", (X, _shape(1, 2, 1, 3)), (SAME,)).edit()
    assert passes.drop_identities(program) == program
    program = _copy_chain((4,))
    tensors = [replace(t, variable=t.name in "ab") for t in program.tensors]
    program = program.edit(tensors=tuple(tensors))
    assert passes.drop_identities(program) == program


def _two(first: str, second: str, *, outputs: tuple[int, ...] = (2,)) -> Program:
    """Two operators that change the shape, one after the other."""
    tensors = (
        activation("x", 1, 2, 1, 3),
        activation("m", 1, 2, 3),
        activation("y", 1, 6, 1),
        _shape(1, -1, 3),
        _shape(1, 6, 1),
    )
    ops = (
        Op(first, (0, 3)[: 1 + (first != "SQUEEZE")], (1,), options(first)),
        Op(second, (1, 4)[: 1 + (second != "SQUEEZE")], (2,), options(second)),
    )
    return Program(tensors, ops, (0,), outputs)


@pytest.mark.parametrize(
    ("first", "second"),
    [("RESHAPE", "RESHAPE"), ("SQUEEZE", "RESHAPE"), ("RESHAPE", "SQUEEZE")],
)
def test_reshapes_in_a_row_become_one(first: str, second: str) -> None:
    small = passes.lossless(_two(first, second))
    (op,) = small.ops
    assert (op.kind, op.options["new_shape"]) == ("RESHAPE", (1, 6, 1))
    source, shape = small.args(op)
    assert source is not None and source.name == "x"
    assert shape is not None and shape.array is not None and shape.array.tolist() == [1, 6, 1]


@pytest.mark.parametrize(
    "program",
    [
        _two("RESHAPE", "RESHAPE", outputs=(1, 2)),
        _two("SQUEEZE", "EXPAND_DIMS"),
        _two("RESHAPE", "RELU"),
        replace(
            _two("RESHAPE", "RESHAPE"),
            tensors=_two("RESHAPE", "RESHAPE").tensors[:3]
            + (Tensor("shape", (3,), "int32"), _shape(1, 6, 1)),
        ),
    ],
    ids=["read", "no reshape", "other", "computed"],
)
def test_other_reshapes_stay(program: Program) -> None:
    assert passes.join_reshapes(program) == program


@pytest.mark.parametrize("change", [{"variable": True}, {"signature": (-1, 2, 1, 3)}])
def test_reshapes_of_a_state_or_of_a_size_that_varies_stay(change: dict[str, Any]) -> None:
    program = _two("RESHAPE", "RESHAPE")
    tensors = (replace(program.tensors[0], **change), *program.tensors[1:])
    program = replace(program, tensors=tensors)
    assert passes.join_reshapes(program) == program


def test_three_reshapes_in_a_row_are_joined_at_once() -> None:
    program = _two("RESHAPE", "RESHAPE", outputs=(5,))
    last = Op("RESHAPE", (2, 3), (5,), options("RESHAPE"))
    tensors = (*program.tensors, activation("z", 1, 2, 3))
    program = replace(program, ops=(*program.ops, last), tensors=tensors)
    assert [op.inputs[0] for op in passes.join_reshapes(program).ops] == [0, 0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "m/relu/Relu;m/conv/BiasAdd;m/conv/Conv2D;m/conv/BiasAdd/ReadVariableOp",
        "model/block/inner/conv_1/BiasAdd;model/block/inner/conv_1/Conv2D",
        "functional_1/Identity_conv_1/Relu",
        "plain",
        "StatefulPartitionedCall:0",
    ],
)
def test_short_names_still_tell_the_layer(name: str) -> None:
    tensors = (activation("in", 1, 4), activation(name, 1, 4), activation("a/very/long/out", 1, 4))
    ops = tuple(Op("RELU", (i,), (i + 1,), options("RELU")) for i in range(2))
    program = Program(tensors, ops, (0,), (2,))
    small = passes.shorten_names(program)
    assert [small.layer_of(op) for op in small.ops] == [program.layer_of(op) for op in ops]
    assert [small.tensors[i] for i in (0, 2)] == [tensors[0], tensors[2]]
    assert len(small.tensors[1].name) <= len(name)


def test_constants_have_no_names() -> None:
    small = passes.shorten_names(conv_net())
    assert {tensor.name for tensor in small.tensors if tensor.data is not None} == {""}
    assert [small.layer_of(op) for op in small.ops] == ["conv", "pool", "flatten", "fc", "fc"]
