"""Where the bytes of each board's image go, as tables for Markdown: (title, note, rows)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from edgecompress.report import causes
from edgecompress.report.boards import BoardRow
from edgecompress.report.image import FlashParts, RamParts
from edgecompress.report.report import Report
from edgecompress.report.stages import Section

PARTS = {
    "flash.constants": "flash: other constants",
    "flash.data": "flash: initial values of RAM",
    "flash.total": "flash",
    "ram.data": "RAM: initialised variables",
    "ram.copied": "RAM: code and constants copied there",
    "ram.bss": "RAM: other variables",
    "ram.total": "RAM (without the stack)",
    "ram.stack": "RAM set aside for the stack",
    "flash_limit": "flash of the board",
    "ram_limit": "RAM of the board",
}
"""Figures of an image in words; the others are called as their parts are."""
SYMBOLS = ("board", "symbol", "part", "file", "flash bytes", "RAM bytes")
LARGEST = 5
"""Symbols shown of each board."""

_ORDER = (
    *(f"flash.{item.name}" for item in fields(FlashParts)), "flash.total", "flash_limit",
    *(f"ram.{item.name}" for item in fields(RamParts) if item.name != "stack"), "ram.total",
    "ram.stack", "ram_limit",
)  # fmt: skip


def remarks(row: BoardRow) -> Iterator[str]:
    """What the figures of a board do not say, a sentence each."""
    if row.image is not None and row.image.over != (0, 0):
        flash, ram = row.image.over
        yield (
            f"{row.key}: the image does not fit: {flash:,} bytes of flash and {ram:,} of RAM must"
            " go"
        )
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
    for name in _ORDER:
        counts = [_figure(row, name) for row in rows]
        if any(counts):
            words = PARTS.get(name, name.replace(".", ": ").replace("ram", "RAM"))
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
