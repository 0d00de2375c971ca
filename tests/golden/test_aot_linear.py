"""int8 ADD and SUB as a linear form: TFLM's bits for every pair, or the general kernel."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot import elementwise
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import Case, at_limit, case, check, run_host
from tests.conftest import need, nightly
from tests.golden.test_aot_convolution import spread
from tests.golden.test_aot_elementwise import ACTIVATIONS, ZEROS, Draw, powers
from tests.tflite_builder import one_op, quantized

PAIRS = [np.repeat(np.arange(-128, 128), 256).astype(np.int8)]
PAIRS += [np.tile(np.arange(-128, 128), 256).astype(np.int8)]
KINDS = ("ADD", "SUB")


@pytest.fixture(autouse=True)
def _tools() -> None:
    need("cc")


def kernel(program: Program) -> str:
    return schedule(program).steps[0].call.function


def added(
    scales: tuple[float, float, float],
    zeros: tuple[int, int, int] = (3, -7, -128),
    *,
    shape: tuple[int, ...] = (65536,),
    kind: str = "ADD",
    activation: str = "NONE",
) -> Program:
    a, b, out = (
        quantized(name, shape, "int8", float(np.float32(scale)), zero)
        for name, scale, zero in zip("abo", scales, zeros, strict=True)
    )
    return one_op(kind, (a, b), (out,), fused_activation_function=activation)


@st.composite
def sums(draw: Draw, shape: tuple[int, ...] | None = None) -> Program:
    """Sums and differences as networks have them, of any number of elements."""
    scale = draw(powers(-7, 1))
    other = scale * draw(powers(-3, 3))
    out = max(scale, other) * draw(powers(-1, 2))
    if shape is None:
        shape = (draw(st.integers(1, 67)),)
    return added(
        (scale, other, out),
        draw(st.tuples(ZEROS, ZEROS, ZEROS)),
        shape=shape,
        kind=draw(st.sampled_from(KINDS)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


def few(count: int, *, seed: int) -> list[Case]:
    """Few elements each; nearly all are forms."""
    programs = spread(sums(), count, seed=seed)
    forms = sum(kernel(program) == "ec_linear_s8" for program in programs)
    assert forms > 0.8 * len(programs)
    return [case(program, rows=3, seed=seed) for seed, program in enumerate(programs)]


def test_every_pair_of_inputs() -> None:
    programs = spread(sums((65536,)), nightly(8, 40), seed=1)
    assert sum(kernel(program) == "ec_linear_s8" for program in programs) > 0.7 * len(programs)
    check([Case(program, [PAIRS]) for program in programs])


@pytest.mark.parametrize("form", ["", "-DEC_WITH_DSP", "-DEC_WITH_THUMB1"])
def test_any_number_of_elements(form: str) -> None:
    check(few(nightly(60, 500), seed=2), run=partial(run_host, flags=(form,) if form else ()))


def test_the_output_lies_over_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "plan", at_limit("forward"))
    check(few(nightly(60, 500), seed=3))


FALLBACKS = {
    "many sums on a bound of rounding": (
        added((1, 0.71, 1.2), (-8, -19, -17)),
        added((1, 0.7071, 1.2071), (-8, -19, -17)),
    ),
    "forms beyond 32 bits": (
        added((1, 1, 0.6), (-128, -128, 127)),
        added((1, 1, 0.6), (-128, -128, 0)),
    ),
}
"""What no form gives, and beside it what one gives."""


@pytest.mark.parametrize("reason", FALLBACKS)
def test_the_general_kernel_stands_behind(reason: str) -> None:
    outside, inside = FALLBACKS[reason]
    assert kernel(outside) == "ec_add_s8"
    assert kernel(inside) == "ec_linear_s8"
    check([Case(program, [PAIRS]) for program in (outside, inside)])


def test_halves_are_rounded_away_from_zero() -> None:
    program = added((1, 1, 2), (0, 0, 0))
    assert kernel(program) == "ec_linear_s8"
    check([Case(program, [PAIRS])])


def test_repeated_inputs() -> None:
    row, out = (quantized(n, (n == "o") * (9,) + (5,), "int8", 0.1, 4) for n in "ro")
    rows = quantized("a", (9, 5), "int8", 0.07, -3)
    program = one_op("SUB", (rows, row), (out,), fused_activation_function="RELU")
    assert kernel(program) == "ec_linear_s8_broadcast"
    check([case(program, rows=4)])


def test_the_general_kernel_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "linear_form", lambda *_, **__: None)
    programs = spread(sums((65536,)), nightly(4, 24), seed=4)
    assert {kernel(program) for program in programs} == {"ec_add_s8"}
    check([Case(program, [PAIRS]) for program in programs])
