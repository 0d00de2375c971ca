"""Chains of layers in bands of rows, on emulated Cortex-Ms: TFLM's bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.backends import aot
from edgecompress.building import firmware
from edgecompress.measuring import measurement
from tests.aot_chains import chains, in_bands, mobilenet
from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, case, check
from tests.conftest import need, nightly


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULE, "_in_bands", in_bands(0))
    monkeypatch.setattr(SCHEDULE, "_is_better", lambda *_: True)
    run = run_on(board)
    check([case(chains(n), seed=n) for n in range(8000, 8000 + nightly(8, 300))], run=run)


def test_the_bands_of_an_operator_count_together(tmp_path: Path) -> None:
    for tool in ("arm-gcc", "qemu", "cc"):
        need(tool)
    program = mobilenet(32)
    planned = aot.schedule(program, optimize="ram")
    assert planned.streams
    image = firmware.build(
        aot.generate(program, name="small", planned=planned),
        board="qemu_m4",
        backend="aot",
        out=tmp_path,
        name="small",
        tflite=program.file,
        optimize="ram",
    )
    run = measurement.measure(image, runs=1)
    assert run.bits is not None and run.bits.exact == run.bits.elements
    assert [row.kind for row in run.ops] == [op.kind for op in program.ops]
    assert all(row.amount > row.macs for row in run.ops[:5])  # none of these takes less than 1
    assert -len(planned.steps) < run.rest < 20 * len(planned.steps)
