"""Convolutions two pixels and four channels at a time: TFLM's bits up to every bound, and behind it
another kernel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, spread
from tests.tflite_builder import constant, one_op, quantized

FAMILY = "ec_conv_pairs"


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer(FAMILY))


def family(program: Program) -> str:
    """The kernel that computes the last operator."""
    return schedule(program).steps[-1].call.family


def conv(
    weights: Any,
    *,
    size: tuple[int, int] = (1, 1),
    batch: int = 1,
    bias: Any = None,
    factor: Any = 0.01,
    zeros: tuple[int, int] = (0, 0),
    kind: str = "int8",
    groups: int = 1,
    **chosen: Any,
) -> Program:
    """A CONV_2D of `weights` [out, height, width, in] whose products are scaled by `factor`."""
    weights = np.asarray(weights)
    given = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1}
    given |= {"dilation_w_factor": 1, "fused_activation_function": "NONE", **chosen}
    outs = []
    for axis, name in enumerate("hw"):
        reach = (weights.shape[1 + axis] - 1) * given[f"dilation_{name}_factor"] + 1
        stride = given[f"stride_{name}"]
        same = given["padding"] == "SAME"
        outs.append(-(-(size[axis] if same else size[axis] - reach + 1) // stride))
    tensors: tuple[Any, ...] = (
        quantized("in", (batch, *size, weights.shape[3] * groups), "int8", 1.0, zeros[0]),
        constant("w", weights, kind, scales=tuple(np.ravel(factor))),
    )
    if bias is not None:
        tensors += (constant("b", bias, "int32", scales=(0.01,)),)
    out = quantized("out", (batch, *outs, len(weights)), "int8", 1.0, zeros[1])
    return one_op("CONV_2D", tensors, (out,), **given)


@st.composite
def layers(draw: Draw) -> Program:
    """Convolutions of every form that this kernel takes."""
    form = draw(st.sampled_from(["point", "map", "map", "map", "first", "line"]))
    kernel = {
        "point": (1, 1),
        "map": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "first": (draw(st.integers(3, 7)), draw(st.integers(2, 5))),
        "line": (1, draw(st.integers(2, 9))),
    }[form]
    depth = draw(st.sampled_from([1, 2, 3])) if form == "first" else 0
    depth = depth or draw(st.one_of(st.sampled_from([4, 8, 16, 20, 32]), st.integers(1, 19)))
    depth = min(depth, 256 // (kernel[0] * kernel[1]))  # 256 * 127 * 255 is below 2^23
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    strides = [draw(st.sampled_from([1, 1, 2, 3])) for _ in "hw"]
    dilations = [draw(st.sampled_from([1, 1, 1, 1, 2, 3])) for _ in "hw"]
    size = [0, 0]
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        size[axis] = draw(st.integers(reach if padding == "VALID" else 1, reach + 8))
    if form == "line":
        size[0] = 1
    count = draw(st.one_of(st.sampled_from([4, 8, 16]), st.integers(1, 11)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, *kernel, depth)
    kind = draw(st.sampled_from(["any", "any", "any", "least", "greatest", "ends"]))
    weights = {
        "any": random.integers(-127, 128, shape),
        "least": np.full(shape, -127),
        "greatest": np.full(shape, 127),
        "ends": random.choice([-127, 127], shape),
    }[kind]
    taps = depth * kernel[0] * kernel[1]
    factor = random.uniform(0.3, 3.0, count if draw(st.booleans()) else 1) / np.sqrt(taps) / 64
    reach = int(random.choice([1, 1 << 6, 1 << 12]))
    ends = st.sampled_from([-128, -128, -128, 0, 127, 5, -77])
    return conv(
        weights,
        size=(size[0], size[1]),
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        bias=random.integers(-reach, reach, count) if draw(st.booleans()) else None,
        factor=factor * float(random.choice([1e-3, 0.3, 1.0, 1.0])),
        zeros=(draw(ends), draw(ends)),
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h_factor=dilations[0],
        dilation_w_factor=dilations[1],
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )


def taken(count: int, *, seed: int) -> list[Case]:
    programs = spread(layers(), count, seed=seed)
    assert {family(program) for program in programs} == {FAMILY}
    return [case(program, seed=seed) for seed, program in enumerate(programs)]


def test_gives_tflm_bits() -> None:
    check(taken(nightly(150, 4000), seed=21))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(taken(nightly(60, 1500), seed=22))


def extreme(program: Program) -> Case:
    """The least and the greatest input everywhere, and both in turn; then random ones."""
    (place,) = program.inputs
    shape = program.tensors[place].shape
    turns = np.where(np.arange(np.prod(shape)).reshape(shape) % 2, 127, -128)
    rows = [np.full(shape, -128), np.full(shape, 127), turns, -1 - turns]
    random = np.random.default_rng(3)
    rows += [random.choice([-128, 127], shape) for _ in range(4)]
    return Case(program, [[row.astype(np.int8)] for row in rows])


ODD_SUM = 1 << 23
TAPS = 400


def _at(bias: int, sign: int = 1) -> Program:
    """Two channels whose sums reach 127 or 128 * sum of the weights, plus `bias` for the second."""
    weights = np.full((2, 1, 1, TAPS), 127 * sign)
    weights[0, 0, 0, ::3] = -127
    return conv(weights, bias=[-9, bias], factor=2e-3)


GREATEST = ODD_SUM - 1 - 127 * 127 * TAPS
LEAST = -ODD_SUM + 128 * 127 * TAPS
BOUNDS = {
    "greatest odd sum": (_at(GREATEST), _at(GREATEST + 1)),
    "least odd sum": (_at(LEAST), _at(LEAST - 1)),
    "weight of -128": (
        conv([[[[5]]], [[[-128]]], [[[-128]]], [[[-127]]]]),
        conv([[[[-1]]], [[[-128]]], [[[0]]], [[[0]]]]),
    ),
    "result before saturation": (
        conv(np.full((4, 1, 1, 500), 127), factor=0.0039),
        conv(np.full((4, 1, 1, 500), 127), factor=0.0041),
    ),
    "factor": (conv([[[[100]]]], factor=0.499), conv([[[[100]]]], factor=0.5)),
    "least factor": (
        conv([[[[100]]]], factor=2.0**-23 * 1.01),
        conv([[[[100]]]], factor=2.0**-23 * 0.49),
    ),
    "scratch": (
        conv(np.ones((1, 2, 2, 1)), size=(2, 3), padding="SAME", dilation_w_factor=3),
        conv(np.ones((1, 2, 2, 128)), size=(2, 3), padding="SAME", dilation_w_factor=60000),
    ),
    "groups": (conv([[[[1, 2, 3]]]]), conv([[[[1, 2, 3]]], [[[4, 5, 6]]]], groups=2)),
}
"""What bounds the kernel: a convolution that is just taken, one that no longer is."""


def test_bounds_are_met_and_kept() -> None:
    for name, (inside, outside) in BOUNDS.items():
        assert family(inside) == FAMILY, name
        assert family(outside) != FAMILY, name
    check([extreme(program) for pair in BOUNDS.values() for program in pair])


def test_even_channels_may_hold_larger_sums() -> None:
    program = conv(np.full((1, 1, 1, 3000), 127), factor=1e-4, bias=[1 << 24])
    assert family(program) == FAMILY
    check([extreme(program)])


def rectifiers() -> list[Program]:
    """Output ranges at and beside the one where negative sums need no exact rounding."""
    random = np.random.default_rng(5)
    weights = random.integers(-127, 128, (8, 1, 1, 16))
    return [
        conv(weights, size=(9, 9), factor=4e-3, zeros=(0, zero), fused_activation_function=kind)
        for kind in ACTIVATIONS
        for zero in (-128, -127, 0, 127)
    ]


def ties() -> list[Program]:
    """Factors that are powers of two: many results lie half-way between two integers."""
    random = np.random.default_rng(6)
    return [
        conv(
            random.integers(-2, 3, (4, 1, 1, 3)), size=(5, 13), factor=2.0**-right, zeros=(0, zero)
        )
        for right in (2, 3, 5)
        for zero in (-128, 3)
    ]


def test_output_ranges_and_ties() -> None:
    programs = [*rectifiers(), *ties()]
    assert {family(program) for program in programs} == {FAMILY}
    check([case(program, rows=3, seed=seed) for seed, program in enumerate(programs)])


@pytest.mark.parametrize("channels", [16, 64])
def test_takes_no_more_scratch_than_said(channels: int) -> None:
    """Two windows of int16, and what an output row sees where a window leaves the map."""
    weights = np.ones((8, 3, 3, channels))
    for padding, staged in (("VALID", 0), ("SAME", 3 * 18 * channels)):
        program = conv(weights, size=(16, 16), padding=padding)
        call = schedule(program).steps[0].call
        assert call.scratch == 2 * 2 * 9 * channels + staged


def test_the_general_kernel_takes_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_conv"))
    programs = spread(layers(), nightly(40, 800), seed=23)
    assert {family(program) for program in programs} == {"ec_conv"}
    check([case(program, seed=seed) for seed, program in enumerate(programs)])
