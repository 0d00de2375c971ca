"""Convolutions: the C gives TFLM's bits, also where the output lies over the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.schedule import schedule
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Options, Program
from tests.aot_harness import at_limit, case, check, draw
from tests.conftest import nightly
from tests.tflite_builder import constant, one_op, options, quantized, with_file

Draw = st.DrawFn
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
TYPES = ("int8", "int8", "int8", "int4", "int16", "float32")
"""Element types of a case: int4 stands for int4 weights under int8 activations."""


def _axis(draw: Draw, padding: str, *, dilate: bool = True) -> tuple[int, int, int, int, int]:
    """(input size, output size, kernel, stride, dilation) of one axis."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    dilation = draw(st.sampled_from([1, 1, 1, 2, 3])) if dilate else 1
    reach = (kernel - 1) * dilation + 1
    size = draw(st.integers(reach if padding == "VALID" else 1, max(reach, 9)))
    out = -(-size // stride) if padding == "SAME" else (size - reach) // stride + 1
    return size, out, kernel, stride, dilation


def _weights(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    if kind == "float32":
        return random.standard_normal(shape)
    low, high = (-8, 7) if kind == "int4" else (-128, 127)
    extreme = random.integers(0, 8)
    if extreme < 2:
        return np.full(shape, (low, high)[extreme])
    return random.integers(low, high + 1, shape)


class _Parts:
    """The tensors that every convolution has, with scales that use the whole output range."""

    def __init__(self, draw: Draw, kind: str, *, fan_in: int) -> None:
        self.kind = kind
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.dtype = {"int4": "int8"}.get(kind, kind)
        self.weight_type = "int8" if kind == "int16" else kind
        zero = st.integers(-128, 127) if self.dtype == "int8" else st.just(0)
        self.zeros = draw(zero), draw(st.one_of(st.just(-128), zero) if zero != 0 else zero)
        if self.dtype != "int8":
            self.zeros = 0, 0
        spread = float(self.random.choice([1e-5, 0.05, 1, 1, 1, 1, 20, 3e4]))
        if kind == "int16":
            spread = min(spread, 20)
        largest = 7 if kind == "int4" else 127
        self.scale_out = float(np.sqrt(fan_in)) * largest * 0.01 * 0.02 / spread
        self.per_channel = draw(st.booleans())

    def data(self, name: str, *shape: int) -> Any:
        first = name == "in"
        scale = 0.02 if first else self.scale_out
        return quantized(name, shape, self.dtype, scale, self.zeros[not first])

    def weights(self, *shape: int, axis: int) -> Any:
        count = shape[axis] if self.per_channel else 1
        scales = tuple(self.random.uniform(0.001, 0.02, count))
        values = _weights(self.random, shape, self.weight_type)
        return constant(
            "w",
            values,
            self.weight_type,
            scales=() if self.kind == "float32" else scales,
            axis=axis,
        )

    def bias(self, draw: Draw, count: int, wide: Sequence[str]) -> Any:
        chosen = draw(st.sampled_from([*wide, "none"]))
        if chosen == "none":
            return None
        most = int(self.random.choice([1 << 8, 1 << 12, 1 << 18, (1 << 31) - 1]))
        if chosen == "int16":
            most = 1 << 14
        values = self.random.integers(-most, most, count)
        if chosen == "float32":
            return constant("b", self.random.standard_normal(count), "float32")
        return constant("b", values, chosen, scales=(0.01,))


BIAS = {
    "int8": ("int32", "int32"),
    "int4": ("int32", "int32"),
    "int16": ("int32", "int64"),
    "float32": ("float32", "float32"),
}


def _options(draw: Draw, padding: str, rows: Any, columns: Any) -> dict[str, Any]:
    return {
        "padding": padding,
        "stride_h": rows[3],
        "stride_w": columns[3],
        "dilation_h_factor": rows[4],
        "dilation_w_factor": columns[4],
        "fused_activation_function": draw(st.sampled_from(ACTIVATIONS)),
    }


@st.composite
def convolutions(draw: Draw) -> Program:
    kind = draw(st.sampled_from(TYPES))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    rows, columns = _axis(draw, padding), _axis(draw, padding)
    if draw(st.integers(0, 4)) == 0:
        rows = (1, 1, 1, 1, 1)  # one dimension
    batch, groups = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 1, 2, 3]))
    depth = draw(st.one_of(st.sampled_from([4, 8, 12]), st.integers(1, 9)))
    count = groups * draw(st.integers(1, 6))
    parts = _Parts(draw, kind, fan_in=depth * rows[2] * columns[2])
    weights = parts.weights(count, rows[2], columns[2], depth, axis=0)
    bias = parts.bias(draw, count, BIAS[kind])
    return one_op(
        "CONV_2D",
        (parts.data("in", batch, rows[0], columns[0], depth * groups), weights)
        + ((bias,) if bias is not None else ()),
        (parts.data("out", batch, rows[1], columns[1], count),),
        **_options(draw, padding, rows, columns),
    )


@st.composite
def depthwise(draw: Draw) -> Program:
    kind = draw(st.sampled_from(TYPES))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    rows, columns = _axis(draw, padding), _axis(draw, padding)
    if draw(st.integers(0, 4)) == 0:
        rows = (1, 1, 1, 1, 1)
    batch = draw(st.sampled_from([1, 1, 2]))
    channels = draw(st.one_of(st.sampled_from([4, 8, 12]), st.integers(1, 9)))
    fan = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    parts = _Parts(draw, kind, fan_in=rows[2] * columns[2])
    weights = parts.weights(1, rows[2], columns[2], channels * fan, axis=3)
    wide = ("int64", "int64") if kind == "int16" else BIAS[kind]
    bias = parts.bias(draw, channels * fan, wide)
    return one_op(
        "DEPTHWISE_CONV_2D",
        (parts.data("in", batch, rows[0], columns[0], channels), weights)
        + ((bias,) if bias is not None else ()),
        (parts.data("out", batch, rows[1], columns[1], channels * fan),),
        depth_multiplier=fan,
        **_options(draw, padding, rows, columns),
    )


@st.composite
def transposed(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["int8", "int16", "float32"]))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    axes = []
    for _ in range(2):
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        size = draw(st.integers(1, 5))
        out = size * stride if padding == "SAME" else (size - 1) * stride + kernel
        axes.append((size, out, kernel, stride))
    rows, columns = axes
    batch, channels, count = (draw(st.integers(1, n)) for n in (2, 6, 5))
    parts = _Parts(draw, kind, fan_in=channels * rows[2] * columns[2])
    weights = parts.weights(count, rows[2], columns[2], channels, axis=0)
    wide = ("int64", "int16") if kind == "int16" else BIAS[kind]
    bias = parts.bias(draw, count, wide)
    shape = (batch, rows[1], columns[1], count)
    return one_op(
        "TRANSPOSE_CONV",
        (
            constant("shape", np.asarray(shape), "int32"),
            weights,
            parts.data("in", batch, rows[0], columns[0], channels),
        )
        + ((bias,) if bias is not None else ()),
        (parts.data("out", *shape),),
        padding=padding,
        stride_h=rows[3],
        stride_w=columns[3],
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )


def spread(made: st.SearchStrategy[Any], count: int, *, seed: int = 0) -> list[Any]:
    """`count` values from many short runs: within a long one hypothesis repeats itself."""
    runs = range(-(-count // 8))
    return [value for run in runs for value in draw(made, 8, seed=1000 * seed + run)][:count]


KINDS = {"conv": convolutions, "depthwise": depthwise, "transposed": transposed}


@pytest.mark.parametrize(("kind", "count"), [("conv", 200), ("depthwise", 150), ("transposed", 60)])
def test_gives_tflm_bits(kind: str, count: int) -> None:
    programs = spread(KINDS[kind](), nightly(count, 20 * count))
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = nightly(40, 800)
    programs = [p for made in KINDS.values() for p in spread(made(), each, seed=7)]
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


def padded(program: Program, amounts: Any, kind: str, *, value: int = 0) -> Program:
    """`program`, a VALID convolution, behind a padding by `amounts` (4 pairs)."""
    (op,) = program.ops
    inner = program.tensors[op.inputs[0]]
    shape = tuple(n - sum(pair) for n, pair in zip(inner.shape, amounts, strict=True))
    count = len(program.tensors)
    outer = quantized("outer", shape, inner.dtype, *inner.scales, *inner.zero_points)
    added = [outer, constant("amounts", np.asarray(amounts), "int32")]
    if kind == "PADV2":
        filled = constant("value", [value], inner.dtype, scales=inner.scales)
        added.append(replace(filled, zero_points=inner.zero_points))
    pad = Op(kind, (count, *range(count + 1, count + len(added))), op.inputs[:1], options(kind))
    tensors = (*program.tensors, *added)
    return with_file(Program(tensors, (pad, op), (count,), program.outputs))


@st.composite
def paddings(draw: Draw) -> tuple[Program, bool]:
    """A padding and a convolution, and whether the one becomes part of the other."""
    made = st.one_of(convolutions(), depthwise())
    program = draw(made.filter(lambda p: p.ops[0].options["padding"] == "VALID"))
    inner = program.tensors[program.ops[0].inputs[0]]
    amounts = [(0, 0)]
    for size in inner.shape[1:3]:
        before = draw(st.integers(0, min(size - 1, 3)))
        amounts.append((before, draw(st.integers(0, min(size - 1 - before, 3)))))
    amounts.append((0, 0))
    kind = draw(st.sampled_from(["PAD", "PAD", "PADV2"]))
    if kind == "PAD" or inner.dtype != "int8":
        return padded(program, amounts, "PAD"), True
    zero = inner.zero_points[0]
    value = draw(st.sampled_from([zero, zero, zero - 1 if zero > 0 else zero + 1]))
    return padded(program, amounts, kind, value=value), value == zero


def test_padding_becomes_part_of_the_convolution() -> None:
    found = spread(paddings(), nightly(60, 1200))
    for program, fused in found:
        assert len(schedule(program).ops) == (1 if fused else 2)
    check([case(program, seed=seed) for seed, (program, _) in enumerate(found)])


def test_padding_that_others_read_stays() -> None:
    program, _ = draw(paddings().filter(lambda found: found[1]), 1)[0]
    pad, op = program.ops
    both = with_file(
        Program(program.tensors, program.ops, program.inputs, (*program.outputs, *pad.outputs))
    )
    assert [one.kind for one in schedule(both).ops] == [pad.kind, op.kind]
    check([case(both)])


ODD_NUMBERS = (-(2**31), -1, 0, 1, 2, 3, 2**20, 2**31 - 1)


@st.composite
def odd_programs(draw: Draw) -> Program:
    """A convolution with one thing about a tensor or an option changed."""
    program = draw(st.one_of(*(made() for made in KINDS.values())))
    (op,) = program.ops
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(op.options)))
        values = st.one_of(st.sampled_from(ODD_NUMBERS), st.sampled_from(["SAME", "TANH", "?"]))
        changed = Options({**op.options, name: draw(values)})
        return program.edit(ops=(replace(op, options=changed),))
    place = draw(st.integers(0, len(program.tensors) - 1))
    tensor = program.tensors[place]
    shape = list(tensor.shape)
    spot = draw(st.integers(0, len(shape) - 1))
    scale = draw(st.sampled_from([0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan")]))
    changes: list[dict[str, Any]] = [
        {"scales": ()},
        {"scales": tensor.scales * 3, "zero_points": tensor.zero_points * 3},
        {"scales": (scale,) * len(tensor.scales)},
        {"zero_points": tuple(draw(st.sampled_from(ODD_NUMBERS)) for _ in tensor.zero_points)},
        {"axis": draw(st.integers(0, 3))},
    ]
    if tensor.data is None:
        shape[spot] = draw(st.sampled_from([0, 1, 2, 17, 2**16, 2**31 - 1]))
        changes += [
            {"shape": tuple(shape)},
            {"shape": tensor.shape[:spot]},
            {"dtype": draw(st.sampled_from(["int8", "int16", "float32", "uint8", "int64"]))},
        ]
    else:
        changes += [{"data": None}, {"shape": tensor.shape[::-1]}, {"shape": (tensor.elements,)}]
    tensors = list(program.tensors)
    tensors[place] = replace(tensor, **draw(st.sampled_from(changes)))
    return program.edit(tensors=tuple(tensors))


def test_odd_programs_are_lowered_or_refused_with_a_reason() -> None:
    refused = 0
    for program in spread(odd_programs(), nightly(400, 10000)):
        try:
            schedule(program)
        except UnsupportedError as error:
            refused += 1
            assert str(error).startswith("aot: ") and "\n" not in str(error)
    assert refused > 100
