"""What every test may use: evaluation data, host tools, and when a missing one is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REQUIRED = {item.strip() for item in os.environ.get("EC_REQUIRE", "").split(",") if item.strip()}
PROGRAMS = {
    "cc": ("c++", "cc"),
    "arm-gcc": ("arm-none-eabi-gcc", "arm-none-eabi-size", "make"),
    "qemu": ("qemu-system-arm",),
    "espeak": ("espeak-ng",),
    "uv": ("uv",),
    "git": ("git",),
}


def absent(what: str, reason: str) -> None:
    """Skip the test with `reason`, or fail it where EC_REQUIRE names `what`."""
    if what in REQUIRED:
        pytest.fail(f"EC_REQUIRE names {what}, but {reason}")
    pytest.skip(reason)


def need(what: str) -> None:
    """Skip (or fail, see `absent`) unless the programs behind `what` are on PATH."""
    missing = [program for program in PROGRAMS[what] if shutil.which(program) is None]
    if missing:
        absent(what, f"{' and '.join(missing)} not found on PATH")


def nightly(ci: T, full: T) -> T:
    """What to run: `ci`, or `full` where EC_NIGHTLY=1."""
    return full if os.environ.get("EC_NIGHTLY") == "1" else ci


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with evaluation data and reference models that EC_DATA_DIR names."""
    folder = os.environ.get("EC_DATA_DIR")
    if not folder:
        absent("data", "EC_DATA_DIR is not set (evaluation data and reference models)")
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        absent("data", f"EC_DATA_DIR={folder} is no folder")
    return path.resolve()
