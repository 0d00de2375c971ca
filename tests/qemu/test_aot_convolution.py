"""Convolutions on emulated Cortex-Ms: the DSP path (M4, M55) and plain C (M3) give TFLM's bits."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_harness import case, check
from tests.conftest import nightly
from tests.golden.test_aot_convolution import KINDS, spread


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    run = run_on(board)
    each = {"conv": nightly(40, 800), "depthwise": nightly(30, 600), "transposed": nightly(10, 100)}
    programs = [p for kind, count in each.items() for p in spread(KINDS[kind](), count, seed=11)]
    check([case(program, seed=seed) for seed, program in enumerate(programs)], run=run)
