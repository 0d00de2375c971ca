"""Weights of few bits in flash, unpacked before the kernel runs: TFLM's bits with every kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot import pairs, streams
from edgecompress.backends.aot.calls import Array, Call, Choice, Lowered
from edgecompress.backends.aot.choose import Chosen
from edgecompress.backends.aot.schedule import Schedule, schedule
from edgecompress.tflite import Program
from edgecompress.vocabulary import Core
from tests.aot_harness import SCHEDULE, at_limit, case, check, run_guarded, run_host
from tests.conftest import nightly
from tests.golden import test_aot_fully_connected_pairs as matrices
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, spread
from tests.golden.test_aot_pairs import conv, extreme

BITS = (2, 3, 4, 5, 6, 7)
CONVOLUTIONS = ("ec_conv_pairs_s8", "ec_conv_pairs_packed_s8", "ec_conv_s8")
MATRICES = ("ec_fully_connected_pairs_packed_s8", "ec_fully_connected_s8")


def force(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """The kernel under test with packed weights, wherever it has them."""

    def chosen(lowered: Sequence[Lowered], **_: Any) -> list[Chosen]:
        return [Chosen(_picked(part, function)) for part in lowered]

    monkeypatch.setattr(SCHEDULE, "choose", chosen)


def _picked(part: Lowered, function: str) -> Any:
    if not isinstance(part, Choice):
        return part
    found = [call for call in part.alternatives if call.uses and call.function == function]
    return (found or list(part.alternatives))[:1]


def call_of(program: Program, *, core: Core = "dsp") -> Call:
    return schedule(program, core=core).steps[-1].call


def bits(call: Call) -> int:
    """Of the packed weights."""
    assert call.params is not None
    fields = call.params.fields
    if call.unpacked is not None:
        fields = call.unpacked.params.fields
    elif "unpack" in fields:
        fields = fields["unpack"].fields  # type: ignore[union-attr]
    found = fields["bits"]
    assert isinstance(found, int)
    return found


def values(random: np.random.Generator, shape: tuple[int, ...], width: int) -> Any:
    """Weights of `width` bits: random ones, the ends, or one of them alone."""
    most = (1 << (width - 1)) - 1
    ends = [[-most, most], [-most], [most]]
    kind = int(random.integers(0, 6))
    found = (
        random.choice(ends[kind], shape) if kind < 3 else random.integers(-most, most + 1, shape)
    )
    found.reshape(-1)[0] = most
    return found


@st.composite
def convolutions(draw: Draw, width: int, *, stored: str) -> Program:
    """Convolutions of every form whose weights are of a few bits."""
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    depth = draw(st.sampled_from([3, 8, 13, 16, 32, 33]))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    strides = [draw(st.sampled_from([1, 1, 2])) for _ in "hw"]
    dilations = [draw(st.sampled_from([1, 1, 1, 2])) for _ in "hw"]
    size = []
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        size.append(draw(st.integers(reach if padding == "VALID" else 1, reach + 6)))
    count = draw(st.one_of(st.sampled_from([8, 16, 24]), st.integers(7, 29)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = values(random, (count, *kernel, depth), width)
    taps = depth * kernel[0] * kernel[1]
    factor = random.uniform(0.3, 3.0, count if draw(st.booleans()) else 1) / np.sqrt(taps)
    ends = st.sampled_from([-128, -128, 0, 127, 5, -77])
    return conv(
        weights,
        size=(size[0], size[1]),
        batch=draw(st.sampled_from([1, 1, 2])),
        bias=random.integers(-4096, 4096, count) if draw(st.booleans()) else None,
        factor=factor / (1 << width) * 0.25,
        zeros=(draw(ends), draw(ends)),
        kind=stored,
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h_factor=dilations[0],
        dilation_w_factor=dilations[1],
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )


@st.composite
def fully_connected(draw: Draw, width: int, *, stored: str) -> Program:
    """Matrices of weights of a few bits."""
    inputs = draw(st.one_of(st.sampled_from([32, 64, 128]), st.integers(30, 90)))
    count = draw(st.one_of(st.sampled_from([8, 16, 24]), st.integers(7, 27)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    each = count if stored == "int8" and draw(st.booleans()) else 1
    ends = st.sampled_from([-128, 0, 127, 5, -77])
    return matrices.matrix(
        values(random, (count, inputs), width),
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        bias=random.integers(-4096, 4096, count) if draw(st.booleans()) else None,
        factor=random.uniform(0.3, 3.0, each) / np.sqrt(inputs) / (1 << width) * 0.25,
        zeros=(draw(ends), draw(ends)),
        kind=stored,
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one block and more of the weights."""
    monkeypatch.setattr(pairs, "PARTS", (1 << 8, 3 << 10))


def taken(function: str, count: int, *, seed: int, stored: str = "int8") -> list[Program]:
    """Programs that the kernel takes with packed weights, of every width."""
    widths = (4,) if stored == "int4" else BITS
    programs = []
    for width in widths:
        if function in MATRICES:
            made = fully_connected(width, stored=stored)
        else:
            made = convolutions(width, stored=stored)
        found = spread(made, count // len(widths), seed=10 * seed + width)
        found = [p for p in found if call_of(p).uses and call_of(p).function == function]
        assert len(found) >= 0.5 * (count // len(widths))
        assert {bits(call_of(program)) for program in found} == {width}
        programs += found
    return programs


FORMS: dict[str, Callable[..., Any]] = {
    "portable": run_host,
    "dsp": partial(run_host, flags=("-DEC_WITH_DSP",)),
    "guarded": run_guarded,
}


@pytest.mark.parametrize("stored", ["int8", "int4"])
@pytest.mark.parametrize("function", [*CONVOLUTIONS, *MATRICES])
def test_gives_tflm_bits(function: str, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    force(monkeypatch, function)
    programs = taken(function, nightly(24, 480), seed=41, stored=stored)
    form = FORMS["guarded" if stored == "int8" else "portable"]
    check([case(program, seed=seed) for seed, program in enumerate(programs)], run=form)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("function", [*CONVOLUTIONS, MATRICES[0]])
def test_output_over_input_gives_the_same_bits(
    function: str, direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    force(monkeypatch, function)
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    programs = taken(function, nightly(12, 240), seed=42)
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


def test_a_part_after_the_other_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the input is read again for the next part."""
    force(monkeypatch, "ec_conv_pairs_packed_s8")
    monkeypatch.setattr(pairs, "PARTS", (1 << 10,))
    program = conv(np.ones((64, 1, 1, 64)), size=(5, 5))
    call = call_of(program)
    assert call.function == "ec_conv_pairs_packed_s8" and not call.reuses
    assert call.scratch is not None and call.scratch <= 1 << 10
    five = call_of(conv(np.ones((18, 1, 1, 64)), size=(5, 5)))
    monkeypatch.setattr(pairs, "PARTS", (1 << 10, 1 << 16))
    again = call_of(conv(np.ones((18, 1, 1, 64)), size=(5, 5)))
    assert five.params is not None and five.params.fields["part"] == 2  # of five blocks: 2, 2, 1
    assert (five.scratch, five.instructions) == (again.scratch, again.instructions)
    force(monkeypatch, "ec_conv_pairs_s8")
    whole = call_of(program)
    assert five.instructions is not None and whole.instructions is not None
    assert 0 < five.instructions < whole.instructions
    assert whole.reuses and whole.scratch == 256 + 16 * (4 + 2 * 32 + 12) * 4


def _edges(most: int, *, stored: str = "int8") -> Program:
    weights = np.random.default_rng(8).integers(-3, 4, (16, 1, 1, 32))
    weights[3, 0, 0, 7] = most
    return conv(weights, size=(3, 3), factor=0.01, kind=stored)


@pytest.mark.parametrize("function", ["ec_conv_pairs_s8", "ec_conv_s8"])
def test_takes_as_many_bits_as_the_weights_need(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, function)
    ends = {3: 3, -3: 3, 7: 4, -7: 4, -15: 5, 31: 6, -32: 7, 63: 7, -63: 7}
    programs = [_edges(most) for most in ends]
    assert [bits(call_of(program)) for program in programs] == list(ends.values())
    assert bits(call_of(_edges(-7, stored="int4"))) == 4
    assert bits(call_of(_edges(-8, stored="int4"))) == 5  # the nibble kernels need less
    check([extreme(p) for p in (*programs, _edges(-8, stored="int4"))])


@pytest.mark.parametrize("most", [-66, 127, -127, -128])
def test_eight_bits_stay_as_they_are(most: int) -> None:
    for function in ("ec_conv_pairs_s8", "ec_conv_s8"):
        with pytest.MonkeyPatch.context() as patch:
            force(patch, function)
            assert "ec_unpack" not in call_of(_edges(most)).uses


def test_few_weights_stay_as_they_are() -> None:
    """What would take more flash packed is not offered."""
    for count, packed in ((2, False), (8, True)):
        with pytest.MonkeyPatch.context() as patch:
            force(patch, "ec_conv_s8")
            assert bool(call_of(conv(np.ones((count, 1, 1, 8)))).uses) == packed


@pytest.mark.parametrize("core", ["plain", "mve"])
def test_other_cores_have_the_general_kernels(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    for function, program in (
        ("ec_conv_s8", conv(np.ones((16, 3, 3, 16)), size=(4, 4))),
        ("ec_fully_connected_s8", matrices.matrix(np.ones((16, 32)))),
    ):
        force(monkeypatch, function)
        call = call_of(program, core=core)
        assert call.function == function and call.uses and bits(call) == 2


def _flash(planned: Schedule) -> int:
    """Bytes of the constants, without the structs."""
    arrays = []
    for step in planned.steps:
        fields = dict(step.call.params.fields) if step.call.params else {}
        if step.call.unpacked is not None:
            fields |= step.call.unpacked.params.fields
        arrays += [value for value in fields.values() if isinstance(value, Array)]
    widths = {"int8_t": 1, "int32_t": 4, "uint32_t": 4}
    return sum(np.asarray(one.values).size * widths[one.ctype] for one in arrays)


def test_each_goal() -> None:
    """A layer of 4-bit weights in int8: `speed` leaves them, `size` packs them."""
    weights = np.random.default_rng(9).integers(-7, 8, (64, 1, 1, 64))
    program = conv(weights, size=(25, 5), factor=0.002)
    fast, small = schedule(program, optimize="speed"), schedule(program, optimize="size")
    assert not fast.steps[0].call.uses and small.steps[0].call.uses
    assert _flash(small) < 0.6 * _flash(fast)
    int4 = schedule(conv(weights, size=(25, 5), factor=0.002, kind="int4"), optimize="speed")
    assert int4.steps[0].call.function == "ec_conv_pairs_s8"


def alternatives(program: Program) -> list[Call]:
    (part,) = SCHEDULE._lowered(program, "dsp")[1]
    assert isinstance(part, Choice)
    return list(part.alternatives)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_packed_3x3_runs_in_pairs(kind: str) -> None:
    """Winograd reads int8 weights alone, and nibbles are for the general kernel."""
    weights = np.random.default_rng(10).integers(-7, 8, (16, 3, 3, 16))
    found = alternatives(conv(weights, size=(8, 8), padding="SAME", kind=kind, factor=0.002))
    packed = {call.family for call in found if call.is_packed}
    whole = {call.family for call in found if not call.is_packed}
    assert packed == {"ec_conv_pairs", "ec_conv"}
    assert any("winograd" in family for family in whole) == (kind == "int8")
    assert ("ec_conv_pairs" in whole) == (kind == "int8")


def test_bands_have_the_weights_as_they_are() -> None:
    """What is unpacked for each band would be unpacked again and again."""
    weights = np.random.default_rng(10).integers(-7, 8, (16, 1, 1, 16))
    part = SCHEDULE._lowered(conv(weights, size=(8, 8), factor=0.002), "dsp")[1][0]
    offered = streams._options(part)
    assert offered == tuple(call for call in part.alternatives if not call.is_packed)
    assert 0 < len(offered) < len(part.alternatives)
