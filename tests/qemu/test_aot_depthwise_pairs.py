"""Depthwise convolutions in pair planes on emulated Cortex-Ms: assembly (M4, M55), plain C (M3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecompress.backends import aot
from edgecompress.backends.aot.schedule import schedule
from edgecompress.building import firmware
from edgecompress.measuring import measurement
from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, check, prefer
from tests.conftest import need, nightly
from tests.golden.test_aot_depthwise_pairs import cases, extremes, layer


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_depthwise_pairs"))


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
def test_gives_tflm_bits(board: str) -> None:
    run = run_on(board)
    check([*cases(nightly(100, 1500), seed=31), *extremes()], run=run)


@pytest.mark.parametrize(
    "changes", [{"channels": 32, "height": 12, "width": 13}, {"stride": (2, 2), "height": 20}]
)
def test_instructions_are_as_estimated(changes: dict[str, Any], tmp_path: Path) -> None:
    need("arm-gcc")
    need("qemu")
    program = layer(**changes)
    (step,) = schedule(program).steps
    image = firmware.build(
        aot.generate(program, name="one"),
        board="qemu_m4",
        backend=aot.NAME,
        out=tmp_path,
        name="one",
        tflite=program.need_file("test"),
    )
    run = measurement.measure(image, runs=1)
    assert step.call.instructions == pytest.approx(run.ops[0].amount, rel=0.05)
