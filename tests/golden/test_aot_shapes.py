"""Pooling, reductions, resizing and moving data: the C gives TFLM's bits, in place too."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.tflite import Op, Program, Tensor
from tests.aot_harness import Case, at_limit, case, check, draw
from tests.conftest import nightly
from tests.tflite_builder import constant, one_op, options, quantized, with_file

Draw = st.DrawFn
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
LIMITS = {"int8": (-128, 127), "int16": (0, 0), "float32": (0, 0), "int32": (0, 0), "bool": (0, 0)}


def numbers(*values: int) -> Tensor:
    return constant("numbers", np.asarray(values), "int32")


def tensor(draw: Draw, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    scale = draw(st.sampled_from([0.003, 0.02, 0.05, 0.4, 1.0]))
    zero = draw(st.integers(*LIMITS[dtype]))
    return quantized(name, shape, dtype, scale, zero)


def like(other: Tensor, shape: tuple[int, ...], name: str = "out") -> Tensor:
    return Tensor(name, shape, other.dtype, other.scales, other.zero_points)


def shape_of(draw: Draw, least: int, most: int, size: int = 5) -> tuple[int, ...]:
    rank = draw(st.integers(least, most))
    return tuple(draw(st.lists(st.integers(1, size), min_size=rank, max_size=rank)))


def run(strategy: st.SearchStrategy[Program], ci: int, full: int) -> None:
    programs = draw(strategy, nightly(ci, full))
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


@st.composite
def pools(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    dtype = draw(st.sampled_from(["int8", "int8", "int16", "float32"]))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    sizes, outs, values = [], [], {}
    for name, short in (("height", "h"), ("width", "w")):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 4))
        size = draw(st.integers(kernel if padding == "VALID" else 1, 12))
        sizes.append(size)
        outs.append(-(-size // stride) if padding == "SAME" else -(-(size - kernel + 1) // stride))
        values |= {f"filter_{name}": kernel, f"stride_{short}": stride}
    data = tensor(draw, "in", (batch, *sizes, channels), dtype)
    result = like(data, (batch, *outs, channels))
    activation = draw(st.sampled_from(ACTIVATIONS))
    return one_op(
        kind, (data,), (result,), padding=padding, fused_activation_function=activation, **values
    )


def test_pooling_gives_tflm_bits() -> None:
    run(pools(), 120, 3000)


@st.composite
def reductions(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["MEAN", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"]))
    types = ["int8", "float32"] if kind.startswith("REDUCE") else ["int8", "int16", "float32"]
    data = tensor(draw, "in", shape_of(draw, 1, 4, 7), draw(st.sampled_from(types)))
    rank = len(data.shape)
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    keep = draw(st.booleans())
    shape = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(data.shape)
        if keep or axis not in axes
    )
    same = kind.startswith("REDUCE") or draw(st.booleans())
    result = like(data, shape) if same else tensor(draw, "out", shape, data.dtype)
    given = [axis - rank * draw(st.booleans()) for axis in axes]
    return one_op(kind, (data, numbers(*given)), (result,), keep_dims=keep)


def test_reductions_give_tflm_bits() -> None:
    run(reductions(), 150, 3000)


@st.composite
def argmaxes(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["ARG_MAX", "ARG_MIN"]))
    dtype = draw(st.sampled_from(["int8", "float32"]))
    data = tensor(draw, "in", shape_of(draw, 1, 4, 6), dtype)
    axis = draw(st.integers(0, len(data.shape) - 1))
    result = quantized("out", (*data.shape[:axis], *data.shape[axis + 1 :]), "int32")
    given = axis - len(data.shape) * draw(st.booleans())
    return one_op(kind, (data, numbers(given)), (result,), output_type="int32")


def test_arg_max_gives_tflm_bits() -> None:
    programs = draw(argmaxes(), nightly(50, 1500))
    cases = []
    for seed, program in enumerate(programs):
        random = np.random.default_rng(seed)
        shape, dtype = program.tensors[0].shape, program.tensors[0].dtype
        rows = [[random.integers(-2, 3, shape).astype(dtype)] for _ in range(2)]
        cases.append(Case(program, rows))
    check(cases)


@st.composite
def resizes(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"]))
    types = ["int8", "float32"] + (["int16"] if kind == "RESIZE_NEAREST_NEIGHBOR" else [])
    data = tensor(draw, "in", shape_of(draw, 4, 4, 9), draw(st.sampled_from(types)))
    size = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    align = draw(st.booleans())
    half = draw(st.booleans()) and not (align and kind == "RESIZE_BILINEAR")
    result = like(data, (data.shape[0], *size, data.shape[3]))
    return one_op(
        kind, (data, numbers(*size)), (result,), align_corners=align, half_pixel_centers=half
    )


def test_resizing_gives_tflm_bits() -> None:
    run(resizes(), 100, 2500)


def movable(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    return tensor(draw, "in", shape, draw(st.sampled_from(["int8", "int16", "float32"])))


@st.composite
def pads(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["PAD", "PADV2", "MIRROR_PAD"]))
    types = ["int8", "float32"] + ([] if kind == "MIRROR_PAD" else ["int16", "int32"])
    data = tensor(draw, "in", shape_of(draw, 1, 4), draw(st.sampled_from(types)))
    mode = draw(st.sampled_from(["REFLECT", "SYMMETRIC"]))
    most = [3] * len(data.shape)
    if kind == "MIRROR_PAD":
        most = [size - (mode == "REFLECT") for size in data.shape]
    pairs = [
        (draw(st.integers(0, one)), draw(st.integers(0, one))) if draw(st.booleans()) else (0, 0)
        for one in most
    ]
    out = tuple(n + a + b for n, (a, b) in zip(data.shape, pairs, strict=True))
    paddings = constant("paddings", np.asarray(pairs), "int32")
    if kind == "MIRROR_PAD":
        return one_op(kind, (data, paddings), (like(data, out),), mode=mode)
    inputs = [data, paddings]
    if kind == "PADV2":
        value = constant("value", draw(st.integers(-128, 127)), data.dtype, scales=data.scales)
        value = Tensor("value", (), data.dtype, data.scales, data.zero_points, data=value.data)
        inputs.append(value)
    return one_op(kind, tuple(inputs), (like(data, out),))


def test_padding_gives_tflm_bits() -> None:
    run(pads(), 120, 2500)


@st.composite
def slices(draw: Draw) -> Program:
    data = movable(draw, shape_of(draw, 1, 5, 6))
    begins = [draw(st.integers(0, size - 1)) for size in data.shape]
    counts = [draw(st.integers(1, n - b)) for n, b in zip(data.shape, begins, strict=True)]
    whole = [n - b for n, b in zip(data.shape, begins, strict=True)]
    sizes = [
        -1 if c == w and draw(st.booleans()) else c for c, w in zip(counts, whole, strict=True)
    ]
    return one_op("SLICE", (data, numbers(*begins), numbers(*sizes)), (like(data, tuple(counts)),))


@st.composite
def strided_slices(draw: Draw) -> Program:
    data = movable(draw, shape_of(draw, 1, 4, 7))
    parts, shape = [], []
    masks = {"begin_mask": 0, "end_mask": 0, "shrink_axis_mask": 0}
    for axis, size in enumerate(data.shape):
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        begin, end = draw(st.integers(-size - 2, size + 2)), draw(st.integers(-size - 2, size + 2))
        mask = {name: draw(st.integers(0, 3)) == 0 for name in masks}
        places = range(size)[
            None if mask["begin_mask"] else begin : None if mask["end_mask"] else end : step
        ]
        if mask["shrink_axis_mask"]:
            begin, step, mask["begin_mask"] = draw(st.integers(-size, size - 1)), 1, False
        elif not places:
            begin, end, step = 0, size, 1
            mask |= {"begin_mask": False, "end_mask": False}
            places = range(size)
        if not mask["shrink_axis_mask"]:
            shape.append(len(places))
        for name, value in mask.items():
            masks[name] |= value << axis
        parts.append((begin, end, step))
    columns = [numbers(*column) for column in zip(*parts, strict=True)]
    return one_op("STRIDED_SLICE", (data, *columns), (like(data, tuple(shape)),), **masks)


@st.composite
def transposes(draw: Draw) -> Program:
    data = movable(draw, shape_of(draw, 2, 5))
    order = draw(st.permutations(range(len(data.shape))))
    result = like(data, tuple(data.shape[axis] for axis in order))
    return one_op("TRANSPOSE", (data, numbers(*order)), (result,))


@st.composite
def joins(draw: Draw) -> Program:
    kind = draw(st.sampled_from(["CONCATENATION", "PACK", "SPLIT", "SPLIT_V", "UNPACK"]))
    first = movable(draw, shape_of(draw, 1, 4 if kind != "PACK" else 3))
    if kind == "PACK" and first.dtype == "int16":
        first = quantized("in", first.shape, "int8", 0.5, 3)
    rank = len(first.shape)
    count = draw(st.integers(1, 4))
    axis = draw(st.integers(0, rank - (kind != "PACK")))
    given = axis - (rank + (kind == "PACK")) * draw(st.booleans())
    if kind == "PACK":
        parts = [like(first, first.shape, f"x{i}") for i in range(count)]
        whole = like(first, (*first.shape[:axis], count, *first.shape[axis:]))
        return one_op(kind, tuple(parts), (whole,), axis=given, values_count=count)
    if kind == "UNPACK":
        shape = (*first.shape[:axis], *first.shape[axis + 1 :])
        parts = [like(first, shape, f"y{i}") for i in range(first.shape[axis])]
        return one_op(kind, (first,), tuple(parts), axis=given, num=len(parts))
    sizes = [draw(st.integers(1, 4)) for _ in range(count)]
    if kind == "SPLIT":
        sizes = sizes[:1] * count
    shapes = [(*first.shape[:axis], size, *first.shape[axis + 1 :]) for size in sizes]
    parts = [like(first, shape, f"part{i}") for i, shape in enumerate(shapes)]
    whole = like(first, (*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), "whole")
    if kind == "CONCATENATION":
        return one_op(kind, tuple(parts), (whole,), axis=given)
    chosen = constant("axis", given, "int32")
    if kind == "SPLIT":
        return one_op(kind, (chosen, whole), tuple(parts), num_splits=count)
    return one_op(kind, (whole, numbers(*sizes), chosen), tuple(parts), num_splits=count)


def test_moving_data_gives_tflm_bits() -> None:
    run(slices(), 60, 1500)
    run(strided_slices(), 100, 2500)
    run(transposes(), 60, 1500)
    run(joins(), 100, 2500)


def in_place() -> st.SearchStrategy[Program]:
    """Programs whose one operator may write over its input."""
    moving = [slices(), strided_slices(), transposes(), joins(), pads()]
    return st.one_of(pools(), pools(), reductions(), argmaxes(), resizes(), *moving)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_outputs_may_overlap_inputs_as_far_as_they_say(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    run(in_place(), 200, 4000)


def test_distances_are_the_least_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "plan", at_limit("forward", closer=4))
    with pytest.raises(AssertionError, match="cases differ"):
        run(pools(), 20, 20)


def test_odd_floats_fare_as_in_tflm() -> None:
    """NaN, infinities and zeros of both signs."""
    cases = []
    strategy = st.one_of(pools(), reductions(), argmaxes())
    for seed, program in enumerate(draw(strategy, nightly(150, 2000), seed=1)):
        first = program.tensors[program.inputs[0]]
        if first.dtype != "float32":
            continue
        random = np.random.default_rng(seed)
        odd = np.asarray([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -3e38], np.float32)
        cases.append(Case(program, [[random.choice(odd, first.shape)] for _ in range(2)]))
    check(cases)


def test_special_cases_give_tflm_bits() -> None:
    """Many axes, scalars, one tensor twice, constants, views in between."""
    five, flat = quantized("in", (2, 3, 2, 3, 2), "int8", 0.5, 3), quantized("in", (2, 3), "int32")
    six = like(five, (2, 3, 2, 3, 2, 2), "in")
    fixed = constant("fixed", [[1, 2, 3], [4, 5, 6]], "int32")
    pairs = constant("pairs", [[1, 0], [0, 0], [2, 1], [0, 0], [1, 1]], "int32")
    flags = quantized("in", (2, 3), "bool")
    part = numbers(0, 1), numbers(2, 2)
    joined, row = like(five, (4, 53)), like(five, (4, 48), "row")
    image = like(five, (4, 4, 4, 3), "in")
    wide = constant("pairs", [[0, 0], [2, 3]], "int32")
    ops = (
        Op("RESHAPE", (0, 1), (2,), options("RESHAPE", new_shape=(4, 48))),
        Op("PAD", (2, 3), (4,), options("PAD")),
    )
    fixed_ops = (
        Op("RESHAPE", (1, 2), (3,), options("RESHAPE", new_shape=(6,))),
        Op("CONCATENATION", (0, 3), (4,), options("CONCATENATION", axis=0)),
    )
    six_ints = [quantized(name, (6,), "int32") for name in ("in", "view")]
    programs = [
        one_op("MEAN", (five, numbers(0, 2, 4)), (like(five, (3, 3)),)),
        one_op("MEAN", (six, numbers(0, 2, 4)), (like(six, (3, 3, 2)),)),
        one_op("MEAN", (five, numbers(0, 0, -5)), (like(five, (3, 2, 3, 2)),)),
        one_op("REDUCE_MAX", (five, numbers(1, 3)), (like(five, (2, 2, 2)),)),
        one_op("SUM", (like(five, (5,), "in"), numbers(0)), (like(five, ()),)),
        one_op("PAD", (five, pairs), (like(five, (3, 3, 5, 3, 4)),)),
        one_op("SLICE", (flat, *part), (like(flat, (2, 2)),)),
        one_op("SLICE", (flags, *part), (like(flags, (2, 2)),)),
        one_op("CONCATENATION", (flat, flat), (like(flat, (2, 6)),), axis=-1),
        one_op("CONCATENATION", (flat, fixed), (like(flat, (4, 3)),), axis=0),
        one_op("RESHAPE", (flat, numbers(6)), (like(flat, (6,)),), new_shape=(6,)),
        with_file(Program((image, numbers(4, 48), row, wide, joined), ops, (0,), (4,))),
        with_file(
            Program(
                (six_ints[0], fixed, numbers(6), six_ints[1], like(flat, (12,))),
                fixed_ops,
                (0,),
                (4,),
            )
        ),
    ]
    check([case(program, seed=seed) for seed, program in enumerate(programs)])
