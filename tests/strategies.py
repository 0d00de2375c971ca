"""Hypothesis strategies for Programs: single operators with any options, runnable small nets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgecompress.tflite import Op, Options, Program, Tensor
from edgecompress.tflite.operators import ARITY, ENUMS, KINDS, OPTIONS, OPTIONS_OF, Field
from tests.tflite_builder import activation, constant, options, quantized, with_file


def option_values(field: Field) -> st.SearchStrategy[Any]:
    """Every value that an option may have."""
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    by_type: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "i8": st.integers(-128, 127),
        "i32": st.integers(-(2**31), 2**31 - 1),
        "u32": st.integers(0, 2**32 - 1),
        "i64": st.integers(-(2**63), 2**63 - 1),
        "f32": floats,
        "[i32]": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple),
        "[u8]": st.lists(st.integers(0, 255), max_size=4).map(tuple),
        "[f32]": st.lists(floats, max_size=4).map(tuple),
        "str": st.text(max_size=8).filter(lambda text: "\x00" not in text),
    }
    return by_type[field.type] if field.type in by_type else st.sampled_from(ENUMS[field.type])


@st.composite
def single_ops(draw: st.DrawFn) -> Program:
    """A program of one builtin operator, its options drawn from all there are."""
    kind = draw(st.sampled_from([kind for kind in KINDS if kind != "CUSTOM"]))
    fields = [field for field in OPTIONS.get(OPTIONS_OF[kind] or "", ()) if field is not None]
    chosen = Options({field.name: draw(option_values(field)) for field in fields})
    count = ARITY[kind].least if kind in ARITY else 1
    op = Op(kind, (0,) * count, (1,), chosen, version=draw(st.integers(1, 9)))
    tensors = (activation("x", 1, 4), activation("y", 1, 4))
    return Program(tensors, (op,), (0,), (1,))


@dataclass
class _Net:
    """A program under construction; `step` appends an operator to what `last` computed."""

    draw: st.DrawFn
    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    last: int = 0

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def numbers(self, *values: Any) -> int:
        return self.add(constant(f"c{len(self.tensors)}", np.asarray(values), "int32"))

    @property
    def now(self) -> Tensor:
        return self.tensors[self.last]

    def step(self, kind: str, *extra: int, shape: tuple[int, ...], **values: Any) -> None:
        scale, zero = values.pop("quantisation", (self.now.scales[0], self.now.zero_points[0]))
        made = quantized(f"m/l{len(self.ops)}/{kind}", shape, "int8", scale, zero)
        target = self.add(made)
        self.ops.append(Op(kind, (self.last, *extra), (target,), options(kind, **values)))
        self.last = target


def _reshape(net: _Net) -> None:
    size = net.now.elements
    first = net.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    shape = net.draw(st.sampled_from([net.now.shape, (1, size), (1, first, size // first)]))
    hidden = net.draw(st.integers(-1, len(shape) - 1))
    wanted = tuple(-1 if i == hidden else size for i, size in enumerate(shape))
    if net.draw(st.booleans()):
        net.step("RESHAPE", net.numbers(*wanted), shape=shape)
    else:
        net.step("RESHAPE", shape=shape, new_shape=shape)


def _squeeze(net: _Net) -> None:
    axes = tuple(i for i, size in enumerate(net.now.shape) if i and size == 1)
    shape = tuple(size for i, size in enumerate(net.now.shape) if i not in axes)
    if axes or 1 not in shape:  # no axes given: all that are 1
        net.step("SQUEEZE", shape=shape, squeeze_dims=axes)


def _expand(net: _Net) -> None:
    axis = net.draw(st.integers(1, len(net.now.shape)))
    shape = (*net.now.shape[:axis], 1, *net.now.shape[axis:])
    if len(shape) <= 4:
        net.step("EXPAND_DIMS", net.numbers(axis), shape=shape)


def _transpose(net: _Net) -> None:
    order = list(range(len(net.now.shape)))
    if net.draw(st.booleans()):
        order = net.draw(st.permutations(order))
    shape = tuple(net.now.shape[i] for i in order)
    net.step("TRANSPOSE", net.numbers(*order), shape=shape)


def _pad(net: _Net) -> None:
    rank = len(net.now.shape)
    widths = [(0, 0)] * rank
    if net.draw(st.booleans()):
        widths[-1] = (net.draw(st.integers(0, 1)), net.draw(st.integers(0, 1)))
    shape = tuple(n + sum(w) for n, w in zip(net.now.shape, widths, strict=True))
    net.step("PAD", net.add(constant("paddings", widths, "int32")), shape=shape)


def _quantize(net: _Net) -> None:
    other = (0.1, net.draw(st.integers(-9, 9)))
    same = (net.now.scales[0], net.now.zero_points[0])
    chosen = net.draw(st.sampled_from([same, other]))
    net.step("QUANTIZE", shape=net.now.shape, quantisation=chosen)


def _fully_connected(net: _Net) -> None:
    """Units from a narrow choice of weights, so that constants repeat."""
    inputs, units = net.now.shape[-1], net.draw(st.integers(1, 3))
    weights = np.random.default_rng(net.draw(st.integers(0, 1))).integers(-9, 9, (units, inputs))
    scales = (0.02, 0.03, 0.04)[:units]
    bias_scales = tuple(scale * net.now.scales[0] for scale in scales)
    net.step(
        "FULLY_CONNECTED",
        net.add(constant(f"w{len(net.ops)}", weights, "int8", scales=scales)),
        net.add(constant(f"b{len(net.ops)}", range(units), "int32", scales=bias_scales)),
        shape=(math.prod(net.now.shape[:-1]), units),
    )


def _add(net: _Net) -> None:
    other = net.draw(st.sampled_from(range(len(net.tensors))))
    if net.tensors[other].shape != net.now.shape or net.tensors[other].dtype != "int8":
        other = net.last
    net.step("ADD", other, shape=net.now.shape, quantisation=(0.1, 1))


def _aside(net: _Net) -> None:
    """An operator whose result nobody need read."""
    before = net.last
    net.step("RELU", shape=net.now.shape)
    if net.draw(st.booleans()):
        net.last = before


_STEPS = (_reshape, _squeeze, _expand, _transpose, _pad, _quantize, _fully_connected, _add, _aside)


@st.composite
def nets(draw: st.DrawFn) -> Program:
    """An int8 program with its file that TFLM runs: a chain of operators with waste in it."""
    net = _Net(draw)
    net.add(
        quantized("in", draw(st.sampled_from([(1, 2, 3, 2), (1, 12), (1, 1, 4)])), "int8", 0.05)
    )
    for step in draw(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=8)):
        step(net)
    if not net.ops:
        _aside(net)
    made = [op.outputs[0] for op in net.ops]
    outputs = dict.fromkeys(
        [net.last if net.last in made else made[-1], draw(st.sampled_from(made))]
    )
    return with_file(Program(tuple(net.tensors), tuple(net.ops), (0,), tuple(outputs)))
