"""Chains of layers in bands of rows: TFLM's bits, whatever the bands, and what they save."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest

from edgecompress.backends.aot.schedule import Schedule, schedule
from edgecompress.tflite import read
from tests.aot_chains import chains, in_bands, mobilenet
from tests.aot_harness import SCHEDULE, Case, case, check, run_guarded, run_host
from tests.conftest import nightly


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random segments in random bands, wherever there can be a stream."""
    monkeypatch.setattr(SCHEDULE, "_in_bands", in_bands(0))
    monkeypatch.setattr(SCHEDULE, "_is_better", lambda *_: True)


def cases(seeds: Sequence[int]) -> list[Case]:
    """Chains, most of which run in bands."""
    found = [chains(seed) for seed in seeds]
    made = [schedule(program) for program in found]
    assert sum(bool(one.streams) for one in made) > len(made) // 2
    families = {step.call.family for one in made for step in one.steps}
    assert {"ec_move", "ec_pool_rows", "ec_elementwise_s8"} < families
    return [case(program, seed=seed) for seed, program in zip(seeds, found, strict=True)]


def test_gives_tflm_bits() -> None:
    check(cases(range(nightly(16, 2000))), run=run_guarded)


def test_gives_tflm_bits_with_the_kernels_for_dsp_and_outputs_over_inputs() -> None:
    found = cases(range(5000, 5000 + nightly(16, 2000)))
    check(found, run=lambda given: run_host(given, flags=("-DEC_WITH_DSP",)))


@pytest.mark.parametrize("core", ["plain", "mve"])
def test_other_cores_run_in_bands_too(core: str) -> None:
    made = [schedule(chains(seed), core=core) for seed in range(20)]  # type: ignore[arg-type]
    assert any(one.streams for one in made)


def _without_bands() -> Schedule:
    with patch.object(SCHEDULE, "_in_bands", lambda *_: ()):
        return schedule(mobilenet(), optimize="ram")


def test_a_mobilenet_needs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _without_bands()
    monkeypatch.undo()
    program = mobilenet()
    for optimize in ("ram", "balanced"):
        made = schedule(program, optimize=optimize)  # type: ignore[arg-type]
        assert made.streams
        assert made.plan.bytes <= 0.85 * before.plan.bytes
        assert len(made.steps) < 2 * len(made.ops)
    for optimize in ("speed", "size"):
        assert not schedule(program, optimize=optimize).streams  # type: ignore[arg-type]
    check([case(program, rows=1)])


def test_the_image_classifier_in_16_kb(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = data_dir / "models" / "original" / "pretrainedResnet_quant.tflite"
    made = schedule(read(path.read_bytes()), optimize="ram")
    assert made.plan.bytes == 15_488 == made.plan.lower_bound
