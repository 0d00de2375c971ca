"""Winograd on emulated Cortex-Ms: the DSP path (M4, M55) and plain C (M3) give TFLM's bits."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import strategies as st

from edgecompress import memory
from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, at_limit, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_convolution import spread
from tests.golden.test_aot_winograd import (
    FORMS,
    KERNELS,
    RUNS,
    behind_padding,
    convolutions,
    extremes,
    force,
)


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels under test, wherever they apply."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*KERNELS))


BOARDS = {"resident": "qemu_m4", "one strip": "qemu_m3", "two strips": "qemu_m4"}


@pytest.mark.parametrize(("kernel", "form"), RUNS)
def test_gives_tflm_bits(kernel: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kernel, form)
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(20, 800), seed=200 + FORMS[form])
    check(
        [case(program, seed=seed) for seed, program in enumerate(programs)],
        run=run_on(BOARDS.get(form, "qemu_m55")),
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_halfwords_hold_every_extreme(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, kernel, "one strip")
    check(extremes(kernel), run=run_on("qemu_m4"))


@pytest.mark.parametrize(
    ("kernel", "form", "direction"),
    [
        ("ec_winograd", "resident", "forward"),
        ("ec_winograd_4x4", "one strip", "backward"),
        ("ec_winograd_1x4", "one strip", "forward"),
        ("ec_winograd_1x4", "two strips", "backward"),
    ],
)
def test_output_over_input_gives_the_same_bits(
    kernel: str,
    form: str,
    direction: Literal["forward", "backward"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force(monkeypatch, kernel, form)
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    programs = spread(convolutions(), nightly(12, 400), seed=300 + FORMS[form])
    check(
        [case(program, seed=seed) for seed, program in enumerate(programs)], run=run_on("qemu_m4")
    )
