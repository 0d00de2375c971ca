"""Matrices eight outputs at a time: TFLM's bits up to every bound, and behind it another kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program
from tests.aot_harness import Case, at_limit, case, check
from tests.conftest import need, nightly
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, spread
from tests.golden.test_aot_pairs import GREATEST, LEAST, TAPS, extreme
from tests.tflite_builder import constant, one_op, quantized, with_file

FAMILY = "ec_fully_connected_pairs"


@pytest.fixture(autouse=True)
def _compiler() -> None:
    need("cc")


@pytest.fixture(autouse=True)
def _fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes this kernel wherever it can be taken, however few the outputs."""
    prefer(monkeypatch)


def prefer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgecompress.backends.aot.fully_connected_pairs._instructions", lambda *_: 0
    )


def family(program: Program) -> str:
    """The kernel that computes the operator."""
    return schedule(program).steps[-1].call.family


def matrix(
    weights: Any,
    *,
    batch: int = 1,
    bias: Any = None,
    factor: Any = 0.01,
    zeros: tuple[int, int] = (0, 0),
    kind: str = "int8",
    activation: str = "NONE",
) -> Program:
    """A FULLY_CONNECTED of `weights` [out, in] whose products are scaled by `factor`."""
    weights = np.asarray(weights)
    tensors: tuple[Any, ...] = (
        quantized("in", (batch, weights.shape[1]), "int8", 1.0, zeros[0]),
        constant("w", weights, kind, scales=tuple(np.ravel(factor))),
        None if bias is None else constant("b", bias, "int32", scales=(0.01,)),
    )
    out = quantized("out", (batch, len(weights)), "int8", 1.0, zeros[1])
    return one_op("FULLY_CONNECTED", tensors, (out,), fused_activation_function=activation)


@st.composite
def layers(draw: Draw) -> Program:
    """Matrices of every form that this kernel takes."""
    inputs = draw(st.one_of(st.sampled_from([4, 8, 16, 32, 36, 128, 256]), st.integers(1, 70)))
    count = draw(st.one_of(st.sampled_from([8, 16, 24]), st.integers(1, 19)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, inputs)
    kind = draw(st.sampled_from(["any", "any", "any", "least", "greatest", "ends"]))
    weights = {
        "any": random.integers(-127, 128, shape),
        "least": np.full(shape, -127),
        "greatest": np.full(shape, 127),
        "ends": random.choice([-127, 127], shape),
    }[kind]
    factor = random.uniform(0.3, 3.0, count if draw(st.booleans()) else 1) / np.sqrt(inputs) / 64
    reach = int(random.choice([1, 1 << 6, 1 << 12]))
    ends = st.sampled_from([-128, -128, 0, 127, 5, -77])
    return matrix(
        weights,
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        bias=random.integers(-reach, reach, count) if draw(st.booleans()) else None,
        factor=factor * float(random.choice([1e-3, 0.3, 1.0, 1.0])),
        zeros=(draw(ends), draw(ends)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


def taken(count: int, *, seed: int) -> list[Case]:
    programs = spread(layers(), count, seed=seed)
    assert {family(program) for program in programs} == {FAMILY}
    return [case(program, seed=seed) for seed, program in enumerate(programs)]


def test_gives_tflm_bits() -> None:
    check(taken(nightly(120, 4000), seed=31))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(taken(nightly(40, 1500), seed=32))


def _at(bias: int, sign: int = 1) -> Program:
    """Two outputs whose sums reach 127 or 128 * sum of the weights, plus `bias` for the second."""
    weights = np.full((2, TAPS), 127 * sign)
    weights[0, ::3] = -127
    return matrix(weights, bias=[-9, bias], factor=2e-3)


def _shifted() -> Program:
    """Weights with a zero point."""
    program = matrix([[7, -7]])
    tensors = [replace(t, zero_points=(3,)) if t.name == "w" else t for t in program.tensors]
    return with_file(replace(program, tensors=tuple(tensors)))


BOUNDS = {
    "greatest odd sum": (_at(GREATEST), _at(GREATEST + 1)),
    "least odd sum": (_at(LEAST), _at(LEAST - 1)),
    "weight of -128": (
        matrix([[5], [-128], [-128], [-127]]),
        matrix([[-1], [-128], [0], [0]]),
    ),
    "result before saturation": (
        matrix(np.full((4, 500), 127), factor=0.0039),
        matrix(np.full((4, 500), 127), factor=0.0041),
    ),
    "factor": (matrix([[100]], factor=0.499), matrix([[100]], factor=0.5)),
    "least factor": (
        matrix([[100]], factor=2.0**-23 * 1.01),
        matrix([[100]], factor=2.0**-23 * 0.49),
    ),
    "one output of many": (
        matrix(np.full((9, 3), 9), factor=[0.01] * 8 + [0.499]),
        matrix(np.full((9, 3), 9), factor=[0.01] * 8 + [0.501]),
    ),
    "zero point of weights": (matrix([[7, -7]]), _shifted()),
}
"""What bounds the kernel: a matrix that is just taken, one that no longer is."""


def test_bounds_are_met_and_kept() -> None:
    for name, (inside, outside) in BOUNDS.items():
        assert family(inside) == FAMILY, name
        assert family(outside) == "ec_fully_connected", name
    check([extreme(program) for pair in BOUNDS.values() for program in pair])


def test_even_outputs_may_hold_larger_sums() -> None:
    program = matrix(np.full((1, 3000), 127), factor=1e-4, bias=[1 << 24])
    assert family(program) == FAMILY
    check([extreme(program)])


def ranges() -> list[Program]:
    """Output ranges of every kind."""
    weights = np.random.default_rng(5).integers(-127, 128, (11, 16))
    return [
        matrix(weights, factor=4e-3, zeros=(0, zero), activation=kind)
        for kind in ACTIVATIONS
        for zero in (-128, -127, 0, 127)
    ]


def test_output_ranges() -> None:
    check([case(program, rows=3, seed=seed) for seed, program in enumerate(ranges())])


def test_other_cores_take_the_general_kernel() -> None:
    program = matrix(np.ones((8, 16)))
    assert schedule(program, core="plain").steps[-1].call.family == "ec_fully_connected"
    assert schedule(program, core="mve").steps[-1].call.family == "ec_fully_connected"


@pytest.mark.parametrize(("outputs", "chosen"), [(1, False), (128, True)])
def test_the_cheaper_kernel_is_chosen(
    outputs: int, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert (family(matrix(np.ones((outputs, 128)))) == FAMILY) == chosen
