"""The int8 kernels in the forms of other cores, with sanitizers: TFLM's bits."""

from __future__ import annotations

from functools import partial
from typing import Literal

import pytest

from edgecompress import memory
from tests.aot_harness import SCHEDULE, at_limit, check, prefer, run_host
from tests.conftest import need, nightly
from tests.cores import KINDS
from tests.golden.test_aot_convolution import spread


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_conv", "ec_depthwise", "ec_fully_connected"))


@pytest.mark.parametrize("form", ["-DEC_WITH_DSP", "-DEC_WITH_THUMB1"])
def test_gives_tflm_bits(form: str) -> None:
    need("cc")
    count = nightly(24, 480)
    cases = [one for kind in KINDS.values() for one in spread(kind, count, seed=3)]
    check(cases, run=partial(run_host, flags=(form,)))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("cc")
    kinds = (KINDS["pool"], KINDS["reduction"])
    cases = [one for kind in kinds for one in spread(kind, nightly(24, 480), seed=4)]
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(cases, run=partial(run_host, flags=("-DEC_WITH_DSP",)))
