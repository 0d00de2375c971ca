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
from tests.golden.test_aot_winograd import FORMS, behind_padding, convolutions, force


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_winograd"))


@pytest.mark.parametrize(
    ("board", "form"),
    [("qemu_m4", "resident"), ("qemu_m4", "two strips"), ("qemu_m3", "one strip")]
    + [("qemu_m55", "whole map")],
)
def test_gives_tflm_bits(board: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, FORMS[form])
    made = st.one_of(convolutions(), behind_padding())
    programs = spread(made, nightly(32, 800), seed=200 + FORMS[form])
    check([case(program, seed=seed) for seed, program in enumerate(programs)], run=run_on(board))


@pytest.mark.parametrize(
    ("form", "direction"), [("resident", "forward"), ("one strip", "backward")]
)
def test_output_over_input_gives_the_same_bits(
    form: str, direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, FORMS[form])
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    programs = spread(convolutions(), nightly(16, 400), seed=300 + FORMS[form])
    check(
        [case(program, seed=seed) for seed, program in enumerate(programs)], run=run_on("qemu_m4")
    )
