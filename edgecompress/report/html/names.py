"""What the figures of a report are called for people."""

from __future__ import annotations

from collections.abc import Iterable

from edgecompress.report.figures import MEMORY

_SIZES = {
    "size.params": "parameters",
    "size.macs": "MACs",
    "size.tflite": ".tflite bytes",
    "size.arena": "arena bytes (TFLM)",
    "size.aot_arena": "arena bytes (C)",
}
_MEMORY = {"flash": "flash", "ram": "RAM", "arena": "arena", "stack": "stack"}


def named(key: str) -> str:
    """The words for the figure `key` of `figures.figures`; the last has its unit."""
    if key in _SIZES:
        return _SIZES[key]
    kind, _, rest = key.partition(".")
    if kind != "board":
        return f"{kind}, {rest}"
    board, _, name = rest.partition(".")
    first, _, part = name.partition(".")
    if first not in MEMORY:
        return f"{name}, {board}"
    return f"{_MEMORY[first]} bytes{f' of {part}' if part else ''}, {board}"


def ordered(keys: Iterable[str]) -> list[str]:
    """Each of `keys` once: sizes, accuracies, boards, otherwise as they come."""
    places = {"size": 0, "accuracy": 1}
    return sorted(dict.fromkeys(keys), key=lambda key: places.get(key.partition(".")[0], 2))
