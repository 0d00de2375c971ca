"""Matrices on emulated Cortex-Ms: the DSP path (M4, M55) and plain C (M3) give TFLM's bits."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, check, draw, prefer
from tests.conftest import nightly
from tests.golden.test_aot_matrix import KINDS


@pytest.fixture(autouse=True)
def _general(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for all matrices, with the weights as they are."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_fully_connected"))


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    run = run_on(board)
    each = {
        "fully_connected": nightly(40, 800),
        "batch_matmul": nightly(15, 300),
        "softmax": nightly(15, 300),
        "lstm": nightly(10, 200),
    }
    cases = [one for kind, count in each.items() for one in draw(KINDS[kind], count, seed=7)]
    check(cases, run=run)
