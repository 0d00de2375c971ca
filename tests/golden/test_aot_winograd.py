"""3x3 convolutions by exact integer Winograd: TFLM's bits in every form, up to every limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot import convolution, winograd
from edgecompress.backends.aot.calls import Call
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import SCHEDULE, at_limit, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_convolution import padded, spread
from tests.tflite_builder import constant, one_op, quantized

Draw = st.DrawFn
FUNCTION = "ec_winograd_s8"


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_winograd"))


CHANNELS = (4, 4, 8, 12, 16, 20, 24, 32, 36)
"""Input channels: one block of the product and several, whole and in part."""
FORMS = {"resident": 0, "one strip": 1, "two strips": 2, "whole map": 1 << 10}


def program_of(
    *,
    size: tuple[int, int] = (5, 6),
    channels: int = 8,
    count: int = 5,
    kernel: tuple[int, int] = (3, 3),
    padding: str = "SAME",
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    kind: str = "int8",
    batch: int = 1,
    zeros: tuple[int, int] = (3, -7),
    activation: str = "NONE",
    weights: Any = None,
    bias: Any = 100,
    spread: float = 1.0,
    seed: int = 0,
) -> Program:
    """A convolution; sums that are `spread` times what random numbers give fill the output."""
    random = np.random.default_rng(seed)
    shape = (count, *kernel, channels // groups)
    values = random.integers(-127, 128, shape) if weights is None else np.full(shape, weights)
    if kind == "int4":
        values = np.clip(values, -8, 7)
    reach = [(taps - 1) * dilation + 1 for taps in kernel]
    out = [
        -(-n // stride) if padding == "SAME" else (n - span) // stride + 1
        for n, span in zip(size, reach, strict=True)
    ]
    scales = tuple(random.uniform(0.002, 0.02, count))
    largest = 7 if kind == "int4" else 127
    scale = float(np.sqrt(channels * 9)) * largest * 0.01 * 0.02 / spread
    return one_op(
        "CONV_2D",
        (
            quantized("in", (batch, *size, channels), "int8", 0.02, zeros[0]),
            constant("w", values, kind, scales=scales, axis=0),
            constant("b", np.broadcast_to(bias, count), "int32", scales=(0.01,)),
        ),
        (quantized("out", (batch, *out, count), "int8", scale, zeros[1]),),
        padding=padding,
        stride_h=stride,
        stride_w=stride,
        dilation_h_factor=dilation,
        dilation_w_factor=dilation,
        fused_activation_function=activation,
    )


@st.composite
def convolutions(draw: Draw, paddings: Sequence[str] = ("SAME", "VALID")) -> Program:
    padding = draw(st.sampled_from(paddings))
    least = 3 if padding == "VALID" else 1
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    zero = st.one_of(st.sampled_from([-128, 127]), st.integers(-128, 127))
    count = draw(st.one_of(st.sampled_from([4, 8]), st.integers(1, 9)))
    most = int(random.choice([1 << 8, 1 << 14, 1 << 20]))
    return program_of(
        size=(draw(st.integers(least, 9)), draw(st.integers(least, 13))),
        channels=draw(st.sampled_from(CHANNELS)),
        count=count,
        padding=padding,
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        zeros=(draw(zero), draw(zero)),
        activation=draw(st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])),
        weights=draw(st.sampled_from([None, None, None, -128, 127])),
        bias=random.integers(-most, most, count),
        spread=float(random.choice([0.02, 0.5, 1, 1, 20])),
        seed=seed,
    )


@st.composite
def behind_padding(draw: Draw) -> Program:
    """A convolution whose padding, up to three rows or columns on each side, is fused into it."""
    program = draw(convolutions(("VALID",)))
    inner = program.tensors[program.ops[0].inputs[0]]
    amounts = [(0, 0)]
    for size in inner.shape[1:3]:
        before = draw(st.integers(0, min(size - 1, 3)))
        amounts.append((before, draw(st.integers(0, min(size - 1 - before, 3)))))
    return padded(program, [*amounts, (0, 0)], "PAD")


def call_of(program: Program) -> Call:
    (step,) = schedule(program).steps
    return step.call


def force(monkeypatch: pytest.MonkeyPatch, form: int) -> None:
    """Winograd wherever it applies, in one form alone: `form` strips at a time, 0 for resident."""
    monkeypatch.setattr(winograd, "_forms", lambda strips: [min(form, strips)])
    monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (1 << 24,))


@pytest.mark.parametrize("form", FORMS)
def test_gives_tflm_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, FORMS[form])
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(40, 1500), seed=FORMS[form])
    for program in programs:
        call = call_of(program)
        assert call.function == FUNCTION and call.params is not None
        assert bool(call.params.fields["strips"]) == bool(FORMS[form])
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("form", FORMS)
def test_output_over_input_gives_the_same_bits(
    form: str, direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, FORMS[form])
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(16, 600), seed=100 + FORMS[form])
    assert all(call_of(program).function == FUNCTION for program in programs)
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


def test_a_map_read_at_once_may_lie_anywhere_under_the_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force(monkeypatch, FORMS["whole map"])
    (reuse,) = call_of(program_of(size=(5, 6), channels=8)).reuses
    assert (reuse.forward, reuse.backward) == (-5 * 6 * 8, -5 * 6 * 8)
    force(monkeypatch, FORMS["resident"])
    (reuse,) = call_of(program_of(size=(5, 6), channels=8, count=8)).reuses
    # before the last strip (one row) is read, two have been written; it needs the row above its own
    assert (reuse.forward, reuse.backward) == (6 * 8, 6 * 8)


# The bound on four times a sum: 4 * (384 * sum |w| + |bias|) < 2^31, with weights of 1 (72 each).
MOST_BIAS = (1 << 29) - 1 - 384 * 72
REFUSED: dict[str, dict[str, Any]] = {
    "kernel": {"kernel": (3, 2)},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "size": (7, 7)},
    "groups": {"groups": 2, "count": 4},
    "channels": {"channels": 6},
    "int4": {"kind": "int4"},
    "shift": {"spread": 3e4},
    "bias": {"weights": 1, "zeros": (0, 0), "bias": MOST_BIAS + 1},
    "negative bias": {"weights": 1, "zeros": (0, 0), "bias": -MOST_BIAS - 1},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_falls_back(reason: str) -> None:
    assert call_of(program_of(**REFUSED[reason])).function != FUNCTION


def test_fallbacks_and_the_last_bias_give_tflm_bits() -> None:
    last = [program_of(weights=1, zeros=(0, 0), bias=b) for b in (MOST_BIAS, -MOST_BIAS)]
    assert all(call_of(program).function == FUNCTION for program in last)
    check([case(program) for program in (*last, *(program_of(**r) for r in REFUSED.values()))])


def test_takes_what_the_scratch_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(size=(16, 16), channels=32, count=32)
    found: dict[int, Call] = {}
    for limit in range(1 << 10, 1 << 17, 1 << 10):
        monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (limit,))
        call = call_of(program)
        if call.function == FUNCTION:
            assert call.scratch is not None and call.scratch <= limit
            assert call.instructions is not None
            found[limit] = call
    costs = [call.instructions or 0 for call in found.values()]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) > 3
    assert min(found) < 20 << 10
    monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (1 << 20,))
    assert call_of(program).instructions == costs[-1]
