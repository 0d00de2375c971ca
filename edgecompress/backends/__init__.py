"""Backends: a Program becomes C or C++ text. Each has `supports` and `generate`."""

from __future__ import annotations

from pathlib import Path

CONTRACT = "ec_model.h"


def contract() -> str:
    """The text of ec_model.h: what every generated model promises the application.

    It lies in firmware/include of the checkout, and in the package of an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]
    places = (home / "firmware" / "include" / CONTRACT for home in (package.parent, package))
    return next(place for place in places if place.is_file()).read_text(encoding="utf-8")
