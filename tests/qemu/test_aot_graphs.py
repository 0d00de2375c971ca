"""Whole graphs, and every operator family, on emulated Cortex-Ms: TFLM's bits."""

from __future__ import annotations

import pytest

from tests.aot_emulator import run_on
from tests.aot_graphs import graphs
from tests.aot_harness import case, check
from tests.conftest import nightly
from tests.golden.test_aot_graphs import families


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    run = run_on(board)
    seeds = range(5000, 5000 + nightly(8, 400))
    found = [case(graphs(seed), rows=3, seed=seed) for seed in seeds]
    check([*found, *families(nightly(2, 40), libm=False)], run=run)
