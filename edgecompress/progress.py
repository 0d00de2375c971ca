"""How long work tells a caller where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called from the working thread, `done` from 0 to `total`."""


def silent(label: str, done: int, total: int) -> None:
    """The default callback: the library never prints."""
