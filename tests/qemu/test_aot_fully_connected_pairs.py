"""Matrices eight outputs at a time on emulated Cortex-Ms: TFLM's bits from the assembly (M4, M55)
and from plain C (M3)."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import case, check
from tests.conftest import nightly
from tests.golden.test_aot_fully_connected_pairs import BOUNDS, extreme, prefer, ranges, taken


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch)
    bounds = [extreme(program) for pair in BOUNDS.values() for program in pair]
    limited = [case(program, seed=seed) for seed, program in enumerate(ranges())]
    check([*bounds, *limited, *taken(nightly(60, 1500), seed=34)], run=run_on(board))
