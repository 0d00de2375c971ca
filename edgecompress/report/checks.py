"""The error of a bad report, and the check that its tables share."""

from __future__ import annotations

from edgecompress.errors import EdgeCompressError


class ReportError(EdgeCompressError):
    """A report file that is missing, damaged or of another schema."""


def at_least(least: int, **values: float | None) -> None:
    """ReportError unless each of the values that were measured is `least` or more."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ReportError(f"{name} = {value}: it must be {least} or more")
