"""Packed weights on emulated Cortex-Ms: TFLM's bits from assembly (but for M0) and plain C."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import case, check
from tests.conftest import nightly
from tests.golden.test_aot_packed import CONVOLUTIONS, MATRICES, force, small_parts, taken

CHOSEN = [
    *(("qemu_m4", function) for function in (*CONVOLUTIONS, *MATRICES)),
    *(("qemu_m0", function) for function in ("ec_conv_s8", CONVOLUTIONS[1], MATRICES[0])),
    *(("qemu_m55", function) for function in ("ec_conv_s8", CONVOLUTIONS[0])),
    ("qemu_m3", "ec_conv_s8"),
]


@pytest.mark.parametrize(("board", "function"), CHOSEN)
def test_gives_tflm_bits(board: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    force(monkeypatch, function)
    programs = taken(function, nightly(12, 120), seed=43)
    check([case(program, seed=seed) for seed, program in enumerate(programs)], run=run_on(board))
