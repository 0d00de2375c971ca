"""Kernels for int16 activations: TFLM's bits up to every bound, and behind it another form."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.calls import Call
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check, prefer
from tests.conftest import need, nightly
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, padded, spread
from tests.tflite_builder import constant, one_op, quantized

FAMILIES = ("ec_conv_s16", "ec_depthwise_s16", "ec_fully_connected_pairs_s16")
ROWS = ("ec_conv_rows_s16",)


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels under test, wherever they apply."""
    need("cc")
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*FAMILIES))


def call(program: Program) -> Call:
    """What computes the last operator."""
    return schedule(program).steps[-1].call


def fast(program: Program, families: tuple[str, ...] = FAMILIES) -> bool:
    """Whether a kernel of `families` computes it, with a multiplication for each result."""
    found = call(program)
    assert found.params is not None
    return found.family in families and found.params.fields.get("multipliers") is None


def window(
    kind: str,
    weights: Any,
    *,
    size: tuple[int, int] = (1, 1),
    batch: int = 1,
    bias: Any = None,
    bias_type: str = "int64",
    factor: Any = 2.0**-9,
    groups: int = 1,
    fan: int = 1,
    **chosen: Any,
) -> Program:
    """A CONV_2D of `weights` [out, height, width, in], or a DEPTHWISE_CONV_2D of
    [1, height, width, out], whose products are scaled by `factor`."""
    weights = np.asarray(weights)
    deep = kind == "DEPTHWISE_CONV_2D"
    given = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1}
    given |= {"dilation_w_factor": 1, "fused_activation_function": "NONE", **chosen}
    if deep:
        given["depth_multiplier"] = fan
    outs = []
    for axis, name in enumerate("hw"):
        reach = (weights.shape[1 + axis] - 1) * given[f"dilation_{name}_factor"] + 1
        stride = given[f"stride_{name}"]
        same = given["padding"] == "SAME"
        outs.append(-(-(size[axis] if same else size[axis] - reach + 1) // stride))
    count = weights.shape[3 if deep else 0]
    channels = count // fan if deep else weights.shape[3] * groups
    tensors: tuple[Any, ...] = (
        quantized("in", (batch, *size, channels), "int16", 1.0, 0),
        constant("w", weights, "int8", scales=tuple(np.ravel(factor)), axis=3 if deep else 0),
    )
    if bias is not None:
        tensors += (constant("b", bias, bias_type, scales=(0.01,)),)
    out = quantized("out", (batch, *outs, count), "int16", 1.0, 0)
    return one_op(kind, tensors, (out,), **given)


def conv(weights: Any, **chosen: Any) -> Program:
    return window("CONV_2D", weights, **chosen)


def matrix(
    weights: Any,
    *,
    batch: int = 1,
    bias: Any = None,
    factor: float = 2.0**-9,
    activation: str = "NONE",
) -> Program:
    """A FULLY_CONNECTED of `weights` [out, in] whose products are scaled by `factor`."""
    weights = np.asarray(weights)
    tensors: tuple[Any, ...] = (
        quantized("in", (batch, weights.shape[1]), "int16", 1.0, 0),
        constant("w", weights, "int8", scales=(factor,)),
        None if bias is None else constant("b", bias, "int64", scales=(0.01,)),
    )
    out = quantized("out", (batch, len(weights)), "int16", 1.0, 0)
    return one_op("FULLY_CONNECTED", tensors, (out,), fused_activation_function=activation)


def _values(
    draw: Draw, random: np.random.Generator, shape: tuple[int, ...], *, least: int = -128
) -> Any:
    kind = draw(st.sampled_from(["any", "any", "any", "least", "greatest", "ends"]))
    return {
        "any": random.integers(least, 128, shape),
        "least": np.full(shape, least),
        "greatest": np.full(shape, 127),
        "ends": random.choice([least, 127], shape),
    }[kind]


def _factor(draw: Draw, random: np.random.Generator, count: int, taps: int) -> Any:
    """Factors that use the output's range, sometimes too small or too large for it."""
    factor = random.uniform(0.3, 2.0, count if draw(st.booleans()) else 1) / np.sqrt(taps) / 128
    return factor * float(random.choice([0.125, 1.0, 1.0, 4.0]))


def _sliding(draw: Draw, kernel: tuple[int, int]) -> dict[str, Any]:
    """Size, padding, strides, dilations, activation."""
    padding = draw(st.sampled_from(["SAME", "SAME", "VALID"]))
    found: dict[str, Any] = {"padding": padding}
    size = []
    for axis, name in enumerate("hw"):
        found[f"stride_{name}"] = draw(st.sampled_from([1, 1, 1, 2, 3]))
        dilation = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
        found[f"dilation_{name}_factor"] = dilation
        reach = (kernel[axis] - 1) * dilation + 1
        size.append(draw(st.integers(reach if padding == "VALID" else 1, reach + 8)))
    found["fused_activation_function"] = draw(st.sampled_from(ACTIVATIONS))
    return {**found, "size": tuple(size), "batch": draw(st.sampled_from([1, 1, 2, 3]))}


@st.composite
def convolutions(draw: Draw) -> Program:
    """Convolutions of every form, the sums of which fit 32 bits."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 2), (1, 5), (4, 3), (5, 1), (3, 2)]))
    depth = draw(st.one_of(st.sampled_from([1, 2, 3, 4, 8, 16, 64]), st.integers(1, 19)))
    depth = min(depth, 500 // (kernel[0] * kernel[1]))
    count = draw(st.one_of(st.sampled_from([4, 8, 16]), st.integers(1, 11)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = int(random.choice([1, 1 << 12, 1 << 20]))
    return conv(
        _values(draw, random, (count, *kernel, depth)),
        bias=random.integers(-reach, reach, count) if draw(st.booleans()) else None,
        factor=_factor(draw, random, count, depth * kernel[0] * kernel[1]),
        **_sliding(draw, kernel),
    )


@st.composite
def depthwise(draw: Draw) -> Program:
    """Depthwise convolutions of every form, lines along either axis."""
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (2, 2), (1, 5), (4, 3), (7, 1), (2, 6)]))
    channels = draw(st.one_of(st.sampled_from([2, 4, 8]), st.integers(1, 9)))
    fan = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    count = channels * fan
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = int(random.choice([1, 1 << 12, 1 << 20]))
    sliding = _sliding(draw, kernel)
    name = draw(st.sampled_from("hw"))  # the axis that lines may lie along
    sliding[f"dilation_{name}_factor"] = 1
    sliding[f"stride_{name}"] = min(sliding[f"stride_{name}"], 2)
    return window(
        "DEPTHWISE_CONV_2D",
        _values(draw, random, (1, *kernel, count)),
        fan=fan,
        bias=random.integers(-reach, reach, count) if draw(st.booleans()) else None,
        factor=_factor(draw, random, count, kernel[0] * kernel[1]),
        **sliding,
    )


@st.composite
def matrices(draw: Draw) -> Program:
    """Matrices of every form, the sums of which fit 32 bits."""
    inputs = draw(st.one_of(st.sampled_from([2, 16, 32, 34, 128, 256, 500]), st.integers(1, 70)))
    count = draw(st.one_of(st.sampled_from([6, 12, 18]), st.integers(1, 19)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = int(random.choice([1, 1 << 12, 1 << 20]))
    return matrix(
        _values(draw, random, (count, inputs), least=-127),
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        bias=random.integers(-reach, reach, count) if draw(st.booleans()) else None,
        factor=float(_factor(draw, random, 1, inputs)[0]),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


KINDS = {"conv": convolutions, "depthwise": depthwise, "matrix": matrices}


def taken(kind: str, count: int, *, seed: int, families: tuple[str, ...] = FAMILIES) -> list[Case]:
    """Layers that one of `families` computes; `prefer` must have been told."""
    programs = spread(KINDS[kind](), count, seed=seed)
    if kind == "depthwise" and families == ROWS:
        programs = [one for one in programs if one.ops[0].options["depth_multiplier"] == 1]
    assert all(fast(program, families) for program in programs)
    return [case(program, seed=seed) for seed, program in enumerate(programs)]


@pytest.mark.parametrize("kind", KINDS)
def test_gives_tflm_bits(kind: str) -> None:
    check(taken(kind, nightly(80, 1500), seed=41))


def test_rows_give_tflm_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*ROWS))
    count = nightly(32, 800)
    check([one for kind in KINDS for one in taken(kind, count, seed=44, families=ROWS)])


@pytest.mark.parametrize("families", [FAMILIES, ROWS])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: Literal["forward", "backward"],
    families: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*families))
    count = nightly(24, 400)
    found = [one for kind in KINDS for one in taken(kind, count, seed=42, families=families)]
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(found)


def extreme(program: Program) -> Case:
    """The least and the greatest input everywhere, and both in turn; then random ones."""
    (place,) = program.inputs
    shape = program.tensors[place].shape
    turns = np.where(np.arange(np.prod(shape)).reshape(shape) % 2, 32767, -32768)
    rows = [np.full(shape, -32768), np.full(shape, 32767), turns, -1 - turns]
    random = np.random.default_rng(3)
    rows += [random.choice([-32768, 32767], shape) for _ in range(2)]
    return Case(program, [[row.astype(np.int16)] for row in rows])


def deep(weights: Any, **chosen: Any) -> Program:
    return window("DEPTHWISE_CONV_2D", weights, **chosen)


MOST = (1 << 31) - 1
MADE: dict[str, Any] = {
    "conv": lambda w, **more: conv(np.reshape(w, (len(w), 1, 1, -1)), **more),
    "depthwise": lambda w, **more: deep(np.transpose(w)[None, None], size=(1, len(w[0])), **more),
    "matrix": matrix,
}
"""A layer of one kind with rows of weights, one per output."""


def bounds(kind: str) -> dict[str, tuple[Program, Program]]:
    """What bounds the kernels of a kind: a layer that is just taken, one that no longer is."""
    made = MADE[kind]
    weights = np.array([[3, 5, -7], [127, 1, 0]])
    reach = 3 * 32767 + 5 * 32767 + 7 * 32768
    least = -(3 * 32768 + 5 * 32768 + 7 * 32767)
    return {
        "greatest sum": (
            made(weights, bias=[MOST - reach, 0]),
            made(weights, bias=[MOST - reach + 1, 0]),
        ),
        "least sum": (
            made(weights, bias=[-MOST - 1 - least, 0]),
            made(weights, bias=[-MOST - 2 - least, 0]),
        ),
        "greatest factor": (
            made(weights, factor=0.499),
            made(weights, factor=0.5),
        ),
        "least factor": (
            made(weights, factor=2.0**-18 * 1.01),
            made(weights, factor=2.0**-18 * 0.49),
        ),
    }


@pytest.mark.parametrize("families", [FAMILIES, ROWS])
def test_bounds_are_met_and_kept(
    families: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*families))
    found = []
    for kind in MADE:
        for name, (inside, outside) in bounds(kind).items():
            assert fast(inside, families), (kind, name)
            assert not fast(outside, families), (kind, name)
            found += [extreme(inside), extreme(outside)]
    check(found)


def long_sums() -> list[Program]:
    """Sums beyond 32 bits, in several segments; biases of both types; factors of every size."""
    random = np.random.default_rng(8)
    ends = random.choice([-128, 127], (3, 3, 3, 170))  # 1530 products: segments of 510
    most = np.full((2, 1, 1, 512), -128)
    wide = random.integers(-1 << 46, 1 << 46, 3)
    bias = random.integers(-1 << 30, 1 << 30, 3)
    odd = random.integers(-128, 128, (3, 2, 2, 3))
    return [
        conv(ends, size=(4, 5), padding="SAME", factor=2.0**-12),
        conv(ends, size=(4, 5), padding="SAME", factor=[2.0**-12, 2.0**-13, 1e-5], bias=bias),
        conv(most, size=(1, 3), factor=2.0**-15, fused_activation_function="RELU"),
        conv(most, size=(1, 3), factor=2.0**-15, bias=[1 << 40, -1 << 40]),
        conv(odd, size=(3, 4), bias=wide, factor=2.0**-31),
        conv(odd, size=(3, 4), bias=bias, bias_type="int32", factor=[1e-4, 0.3, 2.0]),
        conv(odd, size=(3, 4), factor=[100.0, 1e-7, 0.75], fused_activation_function="RELU6"),
    ]


def test_long_sums_and_other_factors() -> None:
    programs = long_sums()
    assert {call(program).family for program in programs} == {"ec_conv_s16"}
    assert not any(map(fast, programs))
    check([extreme(program) for program in programs])


def refused() -> list[Program]:
    """Layers that the kernels for the DSP extension do not take."""
    weights = np.arange(-60, 60).reshape(4, 2, 3, 5)
    both = {"stride_h": 3, "stride_w": 3, "size": (7, 7)}
    other = [
        matrix([[-1, 2], [-128, 3]]),  # -128 beside a negative weight
        conv(weights, groups=2, size=(3, 4)),
        deep(weights.reshape(1, 2, 3, 20), **both),
        deep(weights.reshape(1, 2, 3, 20), size=(5, 6), dilation_h_factor=2, dilation_w_factor=2),
    ]
    return other


def test_what_they_do_not_take_others_compute() -> None:
    programs = refused()
    assert not {call(program).family for program in programs} & set(FAMILIES)
    check([extreme(program) for program in programs])


def test_padding_larger_than_the_map() -> None:
    """Windows that see nothing but padding, on either side."""
    weights = np.arange(1, 19)
    programs = []
    for made, shape in ((conv, (2, 3, 3, 1)), (deep, (1, 3, 3, 2))):
        inner = made(weights.reshape(shape), size=(14, 15))
        amounts = [(0, 0), (5, 7), (7, 6), (0, 0)]
        programs.append(padded(inner, amounts, "PAD"))
    assert all(map(fast, programs))
    check([extreme(program) for program in programs])


def test_cores_get_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    weights = np.random.default_rng(9).integers(-127, 128, (16, 1, 1, 32))
    layers = (
        conv(weights, size=(6, 6)),
        deep(weights.reshape(1, 4, 4, 32), size=(9, 9)),
        matrix(weights.reshape(16, 32)),
    )
    for program, family in zip(layers, FAMILIES, strict=True):
        assert schedule(program, core="dsp", optimize="speed").steps[-1].call.family == family
        for core in ("plain", "mve"):
            step = schedule(program, core=core, optimize="speed").steps[-1]
            assert step.call.family == "ec_conv_rows_s16"
