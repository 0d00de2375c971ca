"""Backends: a Program becomes C or C++ text. Each has `supports` and `generate`."""

from __future__ import annotations

from pathlib import Path

CONTRACT = "ec_model.h"


def firmware_folder() -> Path:
    """The folder of C sources: firmware/ of the checkout, or of an installed package."""
    package = Path(__file__).resolve().parents[1]
    places = (home / "firmware" for home in (package.parent, package))
    return next(place for place in places if (place / "include" / CONTRACT).is_file())


def contract() -> str:
    """The text of ec_model.h: what every generated model promises the application."""
    return (firmware_folder() / "include" / CONTRACT).read_text(encoding="utf-8")
