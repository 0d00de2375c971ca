"""The int8 kernels in the forms of other cores, with sanitizers: TFLM's bits."""

from __future__ import annotations

from functools import partial

import pytest

from tests.aot_harness import SCHEDULE, check, prefer, run_host
from tests.conftest import need, nightly
from tests.cores import KINDS
from tests.golden.test_aot_convolution import spread


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel under test, wherever it applies."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_conv", "ec_depthwise"))


@pytest.mark.parametrize("form", ["-DEC_WITH_DSP", "-DEC_WITH_THUMB1"])
def test_gives_tflm_bits(form: str) -> None:
    need("cc")
    count = nightly(24, 480)
    cases = [one for kind in KINDS.values() for one in spread(kind, count, seed=3)]
    check(cases, run=partial(run_host, flags=(form,)))
