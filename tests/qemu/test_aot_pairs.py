"""Convolutions two pixels and four channels at a time on emulated Cortex-Ms: TFLM's bits from the
assembly (M4, M55) and from plain C (M3)."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, case, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_pairs import BOUNDS, extreme, rectifiers, taken, ties


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_conv_pairs"))


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    bounds = [extreme(program) for pair in BOUNDS.values() for program in pair]
    ranges = [case(program, seed=seed) for seed, program in enumerate([*rectifiers(), *ties()])]
    check([*bounds, *ranges, *taken(nightly(60, 1500), seed=24)], run=run_on(board))
