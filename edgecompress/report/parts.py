"""Where the bytes of each board's image go, as tables for Markdown: (title, note, rows)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.report import causes
from edgecompress.report.boards import BoardRow
from edgecompress.report.report import Report
from edgecompress.report.stages import Section
from edgecompress.vocabulary import OPTIMIZE

FLASH = {
    "weights": "weights",
    "constants": "other constants",
    "kernels": "kernels",
    "runtime": "runtime",
    "application": "application",
    "libc": "libc",
    "data": "initial values of RAM",
}
"""The parts of flash, and how they are called."""
RAM = {
    "arena": "arena",
    "data": "initialised variables",
    "copied": "code and constants copied there",
    "bss": "other variables",
}
"""The parts of RAM without the stack."""
SYMBOLS = ("board", "symbol", "part", "file", "flash bytes", "RAM bytes")
LARGEST = 5
"""Symbols shown of each board."""

_FIGURES = {
    **{f"flash.{part}": f"flash: {words}" for part, words in FLASH.items()},
    "flash.total": "flash",
    "flash_limit": "flash of the board",
    **{f"ram.{part}": f"RAM: {words}" for part, words in RAM.items()},
    "ram.total": "RAM (without the stack)",
    "ram.stack": "RAM set aside for the stack",
    "ram_limit": "RAM of the board",
}
"""Figures of an image in words, in the order of the table."""


def remarks(row: BoardRow) -> Iterator[str]:
    """What the figures of a board do not say, a sentence each."""
    if row.optimize not in (None, OPTIMIZE[0]):
        yield f"{row.key}: its kernels were chosen for {row.optimize} (--optimize {row.optimize})"
    if row.note is not None:
        yield f"{row.key}: {row.note}"


def sections(report: Report) -> Iterator[Section]:
    """The tables of the boards whose image was taken apart or whose inference was profiled."""
    rows = [row for row in report.boards if row.image is not None]
    if rows:
        yield Section("Flash and RAM by part", "Bytes.", ("", *_keys(rows)), _parts(rows))
    if any(row.profile or any(_flash(report, row)) for row in report.boards):
        yield _layers(report)
    if rows:
        note = f"The {LARGEST} largest of each board, the arena and the stack left out."
        yield Section("Symbols", note, SYMBOLS, [cells for row in rows for cells in _symbols(row)])


def _keys(rows: Sequence[BoardRow]) -> list[str]:
    return [row.key for row in rows]


def _parts(rows: Sequence[BoardRow]) -> list[tuple[str, ...]]:
    """A row for each part that is anywhere, a column for each board."""
    table = []
    for name, words in _FIGURES.items():
        counts = [_figure(row, name) for row in rows]
        if any(counts):
            table.append((words, *("" if n is None else f"{n:,}" for n in counts)))
    return table


def _figure(row: BoardRow, name: str) -> int | None:
    value = row.image
    for step in name.split("."):
        value = getattr(value, step)
    assert value is None or isinstance(value, int)
    return value


def _layers(report: Report) -> Section:
    """A row for each operator: flash, and what it takes of an inference, on each board."""
    columns: list[tuple[str, Sequence[int]]] = []
    for row in report.boards:
        flash = _flash(report, row)
        if any(flash):
            columns.append((f"{row.key} flash bytes", flash))
        if row.profile and row.timing is not None:
            amounts = [cost.amount for cost in row.profile]
            columns.append((f"{row.key} {row.timing.unit}", amounts))
    table = [
        (causes.layer(report, i), op.kind, *(f"{n[i]:,}" if n[i] else "" for _, n in columns))
        for i, op in enumerate(report.operators)
    ]
    note = "Bytes of weights, constants and kernels; a kernel is shared out among its operators."
    headings = ("layer", "operator", *(heading for heading, _ in columns))
    return Section("Flash and inference by layer", note, headings, table)


def _flash(report: Report, row: BoardRow) -> list[int]:
    """Bytes of flash that are there for each operator; none where nothing is known of it."""
    if row.image is None:
        return []
    return [each.total for each in row.image.operators(len(report.operators))]


def _symbols(row: BoardRow) -> list[tuple[str, ...]]:
    symbols = () if row.image is None else row.image.symbols
    wanted = [each for each in symbols if each.part not in ("arena", "stack")]
    largest = sorted(wanted, key=lambda each: (-each.flash - each.ram, each.name))[:LARGEST]
    return [
        (row.key, each.name, each.part, each.file, f"{each.flash:,}", f"{each.ram:,}")
        for each in largest
    ]
