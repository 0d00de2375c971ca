"""Weights of which many are 0 on emulated Cortex-Ms: TFLM's bits from the assembly (M4, M55) and
from plain C (M0, M3)."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import check
from tests.conftest import nightly
from tests.golden.test_aot_sparse import (
    CODED,
    CONVOLUTION,
    DECODED,
    MASKED,
    MATRIX,
    decoded,
    force,
    taken,
)


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = []
    for function in (CONVOLUTION, MATRIX, CODED):
        with pytest.MonkeyPatch.context() as patch:
            force(patch, function)
            cases += taken(function, nightly(12, 600), seed=53)
    force(monkeypatch, CODED, MATRIX, CONVOLUTION)
    check(cases, run=run_on(board))


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m4"])
def test_bits_for_zeros_give_tflm_bits(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, MASKED)
    check(taken(MASKED, nightly(12, 120), seed=56), run=run_on(board))


@pytest.mark.parametrize(
    ("board", "function"),
    [("qemu_m0", DECODED[2]), ("qemu_m4", DECODED[0]), ("qemu_m4", DECODED[4])],
)
def test_decoded_weights_give_tflm_bits(
    board: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, function)
    check(decoded(function, nightly(12, 120), seed=55), run=run_on(board))
