"""The int8 kernels on the emulated cores, layers wide enough for every path: TFLM's bits."""

from __future__ import annotations

from typing import Literal

import pytest

from edgecompress import memory
from edgecompress.backends.aot.schedule import schedule
from tests.aot_emulator import run_on
from tests.aot_harness import SCHEDULE, at_limit, check, prefer
from tests.conftest import nightly
from tests.cores import KINDS
from tests.golden.test_aot_convolution import spread

BOARDS = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55")


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_conv", "ec_depthwise", "ec_fully_connected"))


@pytest.mark.parametrize("board", BOARDS)
def test_gives_tflm_bits(board: str) -> None:
    each = {"conv": 24, "depthwise": 24, "connected": 16, "arithmetic": 16, "table": 8}
    each |= {"pool": 16, "reduction": 16}
    found = [
        one
        for kind, count in each.items()
        for one in spread(KINDS[kind], nightly(count, 20 * count), seed=5)
    ]
    called = [step.call.function for one in found for step in schedule(one.program).steps]
    assert sum("plain" not in function for function in called) > 0.9 * len(called)
    check(found, run=run_on(board))


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m4", "qemu_m55"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    board: str, direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (KINDS["conv"], KINDS["depthwise"], KINDS["pool"], KINDS["reduction"])
    found = [one for kind in kinds for one in spread(kind, nightly(20, 400), seed=6)]
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(found, run=run_on(board))
