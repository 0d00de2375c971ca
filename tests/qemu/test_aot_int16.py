"""Kernels for int16 activations on emulated Cortex-Ms: TFLM's bits from assembly, vectors and C."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, check, prefer
from tests.conftest import nightly
from tests.golden.test_aot_int16 import (
    FAMILIES,
    KINDS,
    ROWS,
    extreme,
    long_sums,
    taken,
)


@pytest.mark.parametrize(
    ("board", "families"),
    [
        ("qemu_m4", FAMILIES),
        ("qemu_m55", FAMILIES),
        ("qemu_m0", ROWS),
        ("qemu_m3", ROWS),
        ("qemu_m55", ROWS),
    ],
)
def test_gives_tflm_bits(
    board: str, families: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer(*families))
    count = nightly(40, 1000)
    found = [one for kind in KINDS for one in taken(kind, count, seed=43, families=families)]
    if families == FAMILIES:
        found += [extreme(program) for program in long_sums()]
    check(found, run=run_on(board))
