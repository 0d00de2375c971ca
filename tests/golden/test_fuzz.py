"""Thousands of damaged and odd models: nothing but our own errors, and no gigabytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import nightly

ROOT = Path(__file__).parents[2]
MODELS = ("kws_ref_model.tflite", "kws_ref_model_float32.tflite", "pretrainedResnet_quant.tflite")
RARE = 0.05
"""Less than this part of the cases would mean that a step is hardly tried."""


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _fuzz(count: int, *paths: Path) -> None:
    found = _run("-m", "tests.fuzz", "0", str(count), *map(str, paths))
    assert not found["failures"], "\n".join(
        [f"{len(found['failures'])} of {count} cases failed:", *found["failures"][:5]]
    )
    for step in ("refused", "read", "written", "lossless", "tflm", "aot"):
        assert found["counts"].get(step, 0) > RARE * count, found["counts"]


def test_damaged_and_odd_small_models() -> None:
    _fuzz(nightly(600, 10_000))


def test_damaged_and_odd_reference_models(data_dir: Path) -> None:
    _fuzz(nightly(200, 10_000), *(data_dir / "models" / "original" / name for name in MODELS))


@pytest.mark.parametrize(
    ("check", "error"),
    [("bytearray(2 << 30)", "MemoryError"), ("fuzz.signal.pause()", "TooSlow")],
)
def test_the_limits_hold(check: str, error: str) -> None:
    found = _run(
        "-c",
        f"from tests import fuzz; fuzz.SECONDS = 1; fuzz.check = lambda _: {check};"
        " fuzz.main(0, 1, [])",
    )
    assert error in found["failures"][0]
