"""3x3 convolutions by exact integer Winograd: TFLM's bits in every form, up to every limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot import convolution, winograd
from edgecompress.backends.aot.calls import Call
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_convolution import padded, spread
from tests.tflite_builder import constant, one_op, quantized

Draw = st.DrawFn
KERNELS = {form.family: form for form in winograd.FORMS}


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels under test, wherever they apply."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*KERNELS))


CHANNELS = (4, 4, 8, 12, 16, 20, 24, 32, 36, 64, 68)
"""Input channels: one block of the product and several, whole and in part."""
FORMS = {"resident": 0, "one strip": 1, "two strips": 2, "whole map": 1 << 10}
RUNS = [(kernel, form) for kernel in KERNELS for form in FORMS][: -len(FORMS)] + [
    ("ec_winograd_1x4", form) for form in FORMS if FORMS[form]
]
"""Kernels and their forms."""


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
    weights = draw(st.sampled_from([None, None, None, -128, 127]))
    return program_of(
        size=(draw(st.integers(least, 9)), draw(st.integers(least, 13))),
        channels=draw(st.sampled_from(CHANNELS if weights is None else CHANNELS[:-2])),
        count=count,
        padding=padding,
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        zeros=(draw(zero), draw(zero)),
        activation=draw(st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])),
        weights=weights,
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


def force(monkeypatch: pytest.MonkeyPatch, kernel: str, form: str) -> None:
    """`kernel` wherever it applies, in one form alone."""
    only = replace(KERNELS[kernel], strips=lambda count: [min(FORMS[form], count)])
    monkeypatch.setattr(winograd, "FORMS", (only,))
    monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (1 << 24,))


def applied(programs: Sequence[Program], kernel: str, form: str) -> None:
    """Assert that `kernel` runs all of `programs`, in `form`."""
    for program in programs:
        call = call_of(program)
        assert call.function == f"{kernel}_s8" and call.params is not None
        assert bool(call.params.fields["strips"]) == bool(FORMS[form])


@pytest.mark.parametrize(("kernel", "form"), RUNS)
def test_gives_tflm_bits(kernel: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kernel, form)
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(24, 1500), seed=FORMS[form])
    applied(programs, kernel, form)
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


@pytest.mark.parametrize(
    ("kernel", "form", "direction"),
    [(*run, way) for run in RUNS[len(FORMS) :] for way in ("forward", "backward")]
    + [("ec_winograd", "resident", "backward"), ("ec_winograd", "two strips", "forward")],
)
def test_output_over_input_gives_the_same_bits(
    kernel: str,
    form: str,
    direction: Literal["forward", "backward"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force(monkeypatch, kernel, form)
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(12, 600), seed=100 + FORMS[form])
    applied(programs, kernel, form)
    check([case(program, seed=seed) for seed, program in enumerate(programs)])


G = {
    "ec_winograd": [[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]],
    "ec_winograd_4x4": [[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]],
}
B = {
    "ec_winograd": [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    "ec_winograd_4x4": [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
ALONG = {
    "ec_winograd": (G["ec_winograd"], B["ec_winograd"]) * 2,
    "ec_winograd_4x4": (G["ec_winograd_4x4"], B["ec_winograd_4x4"]) * 2,
    "ec_winograd_1x4": ([[1, 1, 1]], [[1, 1, 1]], G["ec_winograd_4x4"], B["ec_winograd_4x4"]),
}
"""G and B along columns, G and B along rows."""


def extremes(kernel: str) -> list[Case]:
    """Inputs and weights that take V and U, position after position, as far as they go."""
    found = []
    down_g, down_b, g, b = ALONG[kernel]
    for low in (-128, -127):
        weights = [np.where(np.outer(y, x) > 0, 127, low) for y in down_g for x in g]
        weights += [low + 127 - one for one in weights]
        taps = np.stack(weights)[..., None].repeat(4, axis=3)
        program = program_of(
            size=(len(down_b[0]), len(b[0])),
            channels=4,
            count=len(weights),
            padding="VALID",
            zeros=(-128, 0),
            weights=taps,
            spread=0.3,
        )
        inputs = [np.where(np.outer(y, x) > 0, 127, -128) for y in down_b for x in b]
        inputs += [-1 - one for one in inputs]
        rows = [[one[None, :, :, None].repeat(4, axis=3).astype(np.int8)] for one in inputs]
        found.append(Case(program, rows))
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_halfwords_hold_every_extreme(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kernel, "one strip")
    cases = extremes(kernel)
    applied([one.program for one in cases], kernel, "one strip")
    check(cases)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_map_read_at_once_may_lie_anywhere_under_the_output(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, kernel, "whole map")
    (reuse,) = call_of(program_of(size=(5, 6), channels=8)).reuses
    assert (reuse.forward, reuse.backward) == (-5 * 6 * 8, -5 * 6 * 8)
    force(monkeypatch, kernel, "one strip")
    (reuse,) = call_of(program_of(size=(5, 6), channels=8, count=8)).reuses
    # before the last strip (one row) is read, all above it has been written; it needs one row of it
    assert (reuse.forward, reuse.backward) == (6 * 8, 6 * 8)


# The bounds on 4, 36 and 6 times a sum, weights of 1 (72 each) times what inputs count for.
MOST_BIAS = {
    "ec_winograd": (1 << 29) - 1 - 384 * 72,
    "ec_winograd_4x4": (1 << 31) // 36 - 128 * 72,
    "ec_winograd_1x4": (1 << 31) // 6 - 128 * 72,
}
REFUSED: dict[str, dict[str, Any]] = {
    "kernel": {"kernel": (3, 2)},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "size": (7, 7)},
    "groups": {"groups": 2, "count": 4},
    "channels": {"channels": 6},
    "int4": {"kind": "int4"},
    "shift": {"spread": 3e4},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_falls_back(reason: str) -> None:
    assert call_of(program_of(**REFUSED[reason])).family not in KERNELS


@pytest.mark.parametrize("kernel", KERNELS)
def test_falls_back_beyond_the_last_bias(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kernel, "one strip")
    most = MOST_BIAS[kernel]
    last, beyond = (
        [program_of(weights=1, zeros=(0, 0), bias=sign * one, spread=0.01) for sign in (1, -1)]
        for one in (most, most + 1)
    )
    applied(last, kernel, "one strip")
    assert all(call_of(program).family not in KERNELS for program in beyond)
    check([case(program) for program in (*last, *beyond)])


# Taps (row after row) and the most channels for which nothing that is halved wraps: by products 3
# and 4, by product 0 with them, by a row of column sums.
MOST_CHANNELS = (
    ("ec_winograd_4x4", [0, 0, 0, 0, 0, 0, 127, 127, 127], 64),
    ("ec_winograd_4x4", [127, 127, 127, 0, 0, 0, 0, 0, 0], 84),
    ("ec_winograd_4x4", [124, 0, 0, 124, 0, 0, -31, 0, 0], 276),
    ("ec_winograd_1x4", [0, 0, 127, 0, 0, 127, 0, 0, 127], 920),
    ("ec_winograd_1x4", [127, 0, 0, 127, 0, 0, 127, 0, 0], 1224),
)


@pytest.mark.parametrize(("kernel", "taps", "most"), MOST_CHANNELS)
def test_falls_back_where_halves_would_wrap(
    kernel: str, taps: list[int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, kernel, "one strip")
    values = np.array(taps).reshape(3, 3, 1)
    last, beyond = (
        program_of(channels=n, weights=values, zeros=(-128, 0), spread=0.05)
        for n in (most, most + 4)
    )
    applied([last], kernel, "one strip")
    assert call_of(beyond).family not in KERNELS
    stripes = np.where(np.arange(6) % 2, 127, -128).astype(np.int8)
    inputs = [np.broadcast_to(stripes[:, None], (1, 5, 6, most))]
    check([Case(last, [inputs, [-1 - inputs[0]]]), case(last), case(beyond)])


def test_fallbacks_give_tflm_bits() -> None:
    check([case(program_of(**refused)) for refused in REFUSED.values()])


def test_takes_what_the_scratch_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(size=(16, 16), channels=32, count=32)
    found: dict[int, Call] = {}
    for limit in range(1 << 10, 1 << 17, 1 << 10):
        monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (limit,))
        call = call_of(program)
        if call.family in KERNELS:
            assert call.scratch is not None and call.scratch <= limit
            assert call.instructions is not None
            found[limit] = call
    costs = [call.instructions or 0 for call in found.values()]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) > 3
    assert min(found) < 20 << 10
    monkeypatch.setattr(convolution, "WINOGRAD_SCRATCH", (1 << 20,))
    assert call_of(program).instructions == costs[-1]
