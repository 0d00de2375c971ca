"""int8 ADD and SUB on the emulated cores: TFLM's bits."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import check
from tests.conftest import nightly
from tests.golden.test_aot_linear import few


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    check(few(nightly(60, 500), seed=5), run=run_on(board))
