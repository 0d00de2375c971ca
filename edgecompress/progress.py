"""How long work tells a caller where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called from the working thread, `done` from 0 to `total`."""


def silent(label: str, done: int, total: int) -> None:
    """The default callback: the library never prints."""


@contextmanager
def step(progress: Progress, label: str) -> Iterator[None]:
    """Tell of work that is done all at once."""
    progress(label, 0, 1)
    yield
    progress(label, 1, 1)
