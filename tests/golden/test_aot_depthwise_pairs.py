"""Depthwise convolutions in pair planes: TFLM's bits, where the kernel applies and where not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.calls import Array, Call, Struct
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_convolution import ACTIVATIONS, _Parts, padded, spread
from tests.tflite_builder import constant, one_op, quantized, with_file

Draw = st.DrawFn
FAMILY = "ec_depthwise_pairs"


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer(FAMILY))


def _axis(draw: Draw, padding: str, stride: int, *, most: int) -> tuple[int, int, int]:
    """(input size, output size, kernel) of one axis."""
    kernel = draw(st.sampled_from([3, 3, 3, 3, 1, 2, 4, 5, 5, 6, 7]))
    size = draw(st.integers(kernel if padding == "VALID" else 1, most))
    return size, -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1, kernel


@st.composite
def layers(draw: Draw, *, alike: bool = False) -> Program:
    """A depthwise convolution that the kernel may take; `alike`: its output may lie over its input.

    Factors and biases are sometimes beyond what it proves, so that another kernel is chosen.
    """
    padding = "SAME" if alike else draw(st.sampled_from(["SAME", "SAME", "VALID"]))
    stride = 1 if alike else draw(st.sampled_from([1, 1, 2]))
    strides = (stride, stride if alike else draw(st.sampled_from([stride] * 6 + [1, 2, 3])))
    rows, columns = (
        _axis(draw, padding, step, most=most) for step, most in zip(strides, (27, 13), strict=True)
    )
    batch = draw(st.sampled_from([1, 1, 1, 2]))
    channels = draw(st.one_of(st.sampled_from([4, 8, 12]), st.integers(4, 13)))
    fan = 1 if alike else draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    parts = _Parts(draw, "int8", fan_in=rows[2] * columns[2])
    weights = parts.weights(1, rows[2], columns[2], channels * fan, axis=3)
    bias = parts.bias(draw, channels * fan, ("int32", "int32"))
    amounts = [draw(st.integers(0, 3)) if padding == "VALID" else 0 for _ in range(4)]
    sizes = [
        size + sum(around)
        for size, around in zip((rows[0], columns[0]), (amounts[:2], amounts[2:]), strict=True)
    ]
    outs = (
        (rows[1], columns[1])
        if padding == "SAME"
        else [
            (n - k) // step + 1
            for n, k, step in zip(sizes, (rows[2], columns[2]), strides, strict=True)
        ]
    )
    program = one_op(
        "DEPTHWISE_CONV_2D",
        (parts.data("in", batch, *sizes, channels), weights)
        + ((bias,) if bias is not None else ()),
        (parts.data("out", batch, *outs, channels * fan),),
        depth_multiplier=fan,
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h_factor=1,
        dilation_w_factor=1,
        fused_activation_function=draw(st.sampled_from((*ACTIVATIONS, "RELU", "RELU", "RELU"))),
    )
    if any(amounts):
        return padded(program, [(0, 0), amounts[:2], amounts[2:], (0, 0)], "PAD")
    return program


def _call(program: Program) -> Call:
    """The one call that a convolution became."""
    (step,) = schedule(program).steps
    return step.call


def _shifts(call: Call) -> np.ndarray[Any, Any]:
    """Above 0: the short form of a channel, below: the long one."""
    assert call.params is not None
    planes = call.params.fields["planes"]
    assert isinstance(planes, Struct)
    shifts = planes.fields["shifts"]
    assert isinstance(shifts, Array)
    return shifts.values


def _chosen(programs: list[Program]) -> list[Call]:
    return [call for call in map(_call, programs) if call.family == FAMILY]


def cases(count: int, *, seed: int) -> list[Case]:
    """Cases that reach every path of the kernel, and its fallbacks."""
    programs = spread(layers(), count, seed=seed)
    chosen = _chosen(programs)
    assert count // 2 < len(chosen) < count
    assert {call.function for call in chosen} == {
        f"{FAMILY}_{form}{stride}_s8"
        for form in ("3x3", "3", "5", "7")
        for stride in ("", "_stride2")
    }
    forms = {tuple(sorted({value > 0 for value in _shifts(call).tolist()})) for call in chosen}
    assert forms == {(False,), (True,), (False, True)}
    return [case(program, seed=number) for number, program in enumerate(programs)]


def test_gives_tflm_bits() -> None:
    check(cases(nightly(200, 6000), seed=21))


def test_output_exactly_over_input_gives_the_same_bits() -> None:
    programs = spread(layers(alike=True), nightly(60, 2000), seed=22)
    placed = [p for p in programs if _call(p).family == FAMILY]
    assert len(placed) > len(programs) // 2
    for program in placed:
        offsets = schedule(program).offsets
        assert offsets[program.inputs[0]] == offsets[program.outputs[0]]
    check([case(program, seed=seed) for seed, program in enumerate(placed)])


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_at_its_limit_gives_the_same_bits(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = spread(layers(), nightly(80, 2000), seed=23)
    placed = [p for p in programs if not any(reuse.exact for reuse in _call(p).reuses)]
    assert len(_chosen(placed)) > 20
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check([case(program, seed=seed) for seed, program in enumerate(placed)])


def layer(
    *,
    height: int = 7,
    width: int = 6,
    channels: int = 6,
    weight: Any = 127,
    bias: int = 0,
    zeros: tuple[int, int] = (-128, -128),
    factor: float = 2.0**-8,
    kernel: int = 3,
    stride: tuple[int, int] = (1, 1),
    dilation: int = 1,
    activation: str = "RELU",
) -> Program:
    """A SAME depthwise convolution with one weight, bias and factor everywhere."""
    weights = np.broadcast_to(np.asarray(weight), (1, kernel, kernel, channels))
    shape = (1, -(-height // stride[0]), -(-width // stride[1]), channels)
    return one_op(
        "DEPTHWISE_CONV_2D",
        (
            quantized("in", (1, height, width, channels), "int8", 1.0, zeros[0]),
            constant("w", weights, "int8", scales=(factor,), axis=3),
            constant("b", np.full(channels, bias), "int32", scales=(factor,)),
        ),
        (quantized("out", shape, "int8", 1.0, zeros[1]),),
        depth_multiplier=1,
        padding="SAME",
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h_factor=dilation,
        dilation_w_factor=dilation,
        fused_activation_function=activation,
    )


def _extremes(program: Program) -> Case:
    """Rows of the lowest value, the highest, and both in turn."""
    shape = program.tensors[program.inputs[0]].shape
    turns = np.where(np.indices(shape).sum(axis=0) % 2, 127, -128)
    rows = [np.full(shape, -128), np.full(shape, 127), turns, -1 - turns]
    return Case(program, [[row.astype(np.int8)] for row in rows])


def extremes() -> list[Case]:
    """All weights and inputs at their limits, zero points and factors of every form."""
    programs = [
        layer(weight=weight, zeros=(zero_in, zero_out), factor=2.0**-exponent, activation=how)
        for weight in (-128, -127, 127)
        for zero_in in (-128, 127)
        for zero_out, how in ((-128, "RELU"), (0, "RELU"), (127, "NONE"), (-5, "RELU6"))
        for exponent in (5, 8, 12, 13, 22)
    ]
    assert len(_chosen(programs)) == len(programs)
    return [_extremes(program) for program in programs]


def test_extremes_give_tflm_bits() -> None:
    check(extremes())


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({}, True),
        ({"activation": "NONE", "zeros": (-128, -127)}, False),  # results below the zero point
        ({"factor": 2.0**-14}, False),  # 2^k below 4
        ({"factor": 2.0**-13}, False),
        ({"factor": 2.0**-12}, True),
        ({"factor": 2.0**-6, "weight": 127}, True),
        ({"factor": 2.0**-6, "weight": -128}, True),
        ({"factor": 2.0**-5, "weight": 127}, False),  # weights beyond int16
        ({"factor": 2.0**-5, "weight": 63}, True),
        ({"factor": 2.0**-6, "bias": 2**23 - 9 * 127 * 255 - 1}, True),
        ({"factor": 2.0**-6, "bias": 2**23 - 9 * 127 * 255}, False),  # sums beyond int32
        ({"factor": 2.0**-6, "bias": 9 * 127 * 255 - 2**23}, False),
    ],
)
def test_short_form_where_it_is_proven(changes: dict[str, Any], short: bool) -> None:
    program = layer(**changes)
    call = _call(program)
    assert call.family == FAMILY
    assert ((_shifts(call) > 0) == short).all()
    check([_extremes(program), case(program)])


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": 8, "height": 9},
        {"stride": (3, 3)},
        {"dilation": 2},
        {"channels": 3},
        {"factor": 2.0**-24},
        {"bias": 2**31 - 1},
    ],
)
def test_falls_back(changes: dict[str, Any]) -> None:
    program = layer(**changes)
    assert _call(program).family != FAMILY
    check([case(program)])


def test_stays_apart_from_an_input_that_others_read() -> None:
    program = layer()
    both = with_file(replace(program, outputs=(*program.outputs, *program.inputs)))
    offsets = schedule(both).offsets
    assert offsets[both.inputs[0]] != offsets[both.outputs[0]]
    check([case(both)])
