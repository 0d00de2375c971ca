"""A depthwise and a 1 x 1 convolution in one call: TFLM's bits of both, where it applies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.calls import Call
from edgecompress.backends.aot.choose import Chosen
from edgecompress.backends.aot.schedule import schedule
from edgecompress.backends.aot.separable import Join, joins
from edgecompress.tflite import Op, Program
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check
from tests.conftest import nightly
from tests.golden import test_aot_depthwise_pairs as deep
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, spread
from tests.tflite_builder import constant, options, quantized, with_file

FAMILY = "ec_separable"


def joined(place: int) -> Callable[..., list[Chosen]]:
    """A stand-in for `choose.join`: every pair in its call number `place` (-1: the smallest)."""

    def join(chosen: Sequence[Chosen], pairs: Sequence[Join], **_: Any) -> list[Chosen]:
        made = list(chosen)
        for one in pairs:
            call = one.calls[max(place, -len(one.calls)) % len(one.calls)]
            made[one.first], made[one.second] = Chosen(()), Chosen((call,), "test")
        return made

    return join


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies, band by band."""
    monkeypatch.setattr(SCHEDULE, "join", joined(-1))


def behind(
    program: Program,
    weights: Any,
    *,
    factor: Any = 0.01,
    bias: Any = None,
    zero: int = 0,
    **chosen: Any,
) -> Program:
    """`program` and a CONV_2D of `weights` [out, height, width, in], SAME, behind it.

    Its products are scaled by `factor`.
    """
    weights = np.asarray(weights)
    place = program.outputs[0]
    data = program.tensors[place]
    given: dict[str, Any] = {
        "stride_h": 1,
        "stride_w": 1,
        "padding": "SAME",
        "dilation_h_factor": 1,
    }
    given |= {"dilation_w_factor": 1, "fused_activation_function": "NONE", **chosen}
    strides = given["stride_h"], given["stride_w"]
    sizes = (-(-size // step) for size, step in zip(data.shape[1:3], strides, strict=True))
    scales = tuple(np.ravel(factor) / data.scales[0])
    new = [constant("pw", weights, "int8", scales=scales)]
    if bias is not None:
        new.append(constant("pb", bias, "int32", scales=(0.01,)))
    new.append(quantized("point", (data.shape[0], *sizes, len(weights)), "int8", 1.0, zero))
    count = len(program.tensors)
    inputs = (place, *range(count, count + len(new) - 1))
    out = count + len(new) - 1
    op = Op("CONV_2D", inputs, (out,), options("CONV_2D", **given))
    return with_file(
        replace(
            program,
            tensors=(*program.tensors, *new),
            ops=(*program.ops, op),
            outputs=(out,),
        )
    )


@st.composite
def pairs(draw: Draw) -> Program:
    """A depthwise convolution of any form and a 1 x 1 convolution of its results."""
    program = draw(deep.layers())
    channels = program.tensors[program.outputs[0]].shape[3]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([4, 4, 8, 12, 16]))
    shape = (count, 1, 1, channels)
    weights = {
        "any": random.integers(-127, 128, shape),
        "least": np.full(shape, -127),
        "ends": random.choice([-127, 127], shape),
    }[draw(st.sampled_from(["any", "any", "any", "least", "ends"]))]
    ends = st.sampled_from([-128, -128, 0, 127, -77])
    return behind(
        program,
        weights,
        factor=random.uniform(0.3, 3.0, count if draw(st.booleans()) else 1)
        / np.sqrt(channels)
        / 64,
        bias=random.integers(-4096, 4096, count) if draw(st.booleans()) else None,
        zero=draw(ends),
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )


def call_of(program: Program) -> Call | None:
    """The call that a pair became, None where it is none."""
    steps = schedule(program).steps
    return steps[0].call if len(steps) == 1 else None


def taken(count: int, *, seed: int) -> list[Program]:
    """Programs whose pair became one call, about a third of `count`."""
    found = [program for program in spread(pairs(), count, seed=seed) if call_of(program)]
    assert len(found) > count // 5
    return found


def cases(count: int, *, seed: int) -> list[Case]:
    """Cases of every form."""
    programs = taken(count, seed=seed)
    assert {call.function for call in map(call_of, programs) if call is not None} == {
        f"{FAMILY}_{form}{stride}_s8"
        for form in ("3x3", "3", "5", "7")
        for stride in ("", "_stride2")
    }
    return [case(program, seed=place) for place, program in enumerate(programs)]


@pytest.mark.parametrize("place", [0, -1])
def test_gives_tflm_bits(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULE, "join", joined(place))
    check(cases(nightly(200, 6000), seed=41 + place))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("place", [0, -1])
def test_output_at_its_limit_gives_the_same_bits(
    place: int, direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCHEDULE, "join", joined(place))
    programs = taken(nightly(60, 3000), seed=43)
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


def pair(*, count: int = 8, weight: Any = 127, point: Any = None, **changes: Any) -> Program:
    """A depthwise convolution of `deep.layer` and a 1 x 1 convolution of one weight everywhere."""
    program = deep.layer(**{"channels": 8, **changes})
    channels = program.tensors[program.outputs[0]].shape[3]
    chosen = {"factor": 2.0**-10, **(point or {})}
    kernel = chosen.pop("kernel", 1)
    return behind(program, np.full((count, kernel, kernel, channels), weight), **chosen)


def extremes() -> list[Case]:
    """All weights and inputs at their limits, zero points of every form."""
    programs = [
        pair(
            weight=weight,
            channels=channels,
            zeros=zeros,
            factor=factor,
            activation="RELU" if zeros[1] == -128 else "NONE",
            point={"zero": zero},
        )
        for weight in (-127, 127)
        for channels in (4, 5, 8, 12, 13, 16)
        for zeros, zero in (((-128, -128), -128), ((127, -128), 0), ((-128, -5), 127))
        for factor in (2.0**-8, 2.0**-13)
    ]
    assert all(call_of(program) for program in programs)
    return [deep._extremes(program) for program in programs]


def test_extremes_give_tflm_bits() -> None:
    check(extremes())


def _seen(program: Program) -> Program:
    """The map between the convolutions is an output too."""
    between = program.ops[0].outputs[0]
    return with_file(replace(program, outputs=(*program.outputs, between)))


@pytest.mark.parametrize(
    "program",
    [
        pair(activation="RELU6", zeros=(-128, -128)),  # results limited to less than int8
        pair(channels=3),
        pair(kernel=8, height=9),
        pair(dilation=2),
        pair(count=6),
        pair(weight=-128),  # no weight of -128 beside another one
        pair(point={"kernel": 3}),
        pair(point={"stride_h": 2, "stride_w": 2}),
        pair(point={"factor": 2.0**-24}),
        pair(point={"bias": np.full(8, 1 << 24)}),
        _seen(pair()),
    ],
    ids=lambda program: program.ops[-1].kind,
)
def test_falls_back(program: Program) -> None:
    assert len(schedule(program).steps) == 2
    check([case(program)])


def test_other_cores_have_two_calls() -> None:
    program = pair()
    assert not tuple(joins(program, "plain")) and not tuple(joins(program, "mve"))
    assert len(tuple(joins(program, "dsp"))) == 1


def test_map_between_has_no_place() -> None:
    program = pair()
    planned = schedule(program)
    assert program.ops[0].outputs[0] not in planned.offsets
    assert len(planned.ops) == 2
    (step,) = planned.steps
    assert step.op == 1 and step.call.family == FAMILY
