"""Boards -> the tables and the treemap of what an image takes, and what its bytes are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgecompress.report import causes, markdown
from edgecompress.report.boards import BoardRow
from edgecompress.report.html.page import Cell, Chart, Table, count, short, text, with_bars
from edgecompress.report.image import Attribution, SymbolRow
from edgecompress.report.parts import FLASH, RAM
from edgecompress.report.report import Report

MODEL = ("weights", "constants", "kernels")
WHOLE = "whole model"


class Flash(NamedTuple):
    """Where the flash and the RAM of one board go."""

    key: str
    line: str
    flash: Table
    ram: Table
    symbols: Table


def table(rows: Sequence[BoardRow]) -> Table:
    """Each board and backend: does it fit, what does it take, are the bits right?"""
    headings = (
        "board",
        "fits?",
        "flash bytes",
        "of its flash",
        "RAM bytes",
        "of its RAM",
        "arena bytes",
        "stack bytes",
        "model adds (flash / RAM)",
        "per inference",
        "latency",
        "est. Cortex-M4 cycles",
        "outputs equal, 1 LSB, further",
        "compiler",
    )
    return Table("Boards", headings, [_board(row) for row in rows], left=(0, 1, 13))


def _board(row: BoardRow) -> tuple[Cell, ...]:
    image, timing, cost, bits = row.image, row.timing, row.cost, row.outputs
    flash = ram = text(None)
    if image is not None:
        flash = _share(image.flash.total, image.flash_limit)
        ram = _share(image.ram.total + image.ram.stack, image.ram_limit)
    latency = "" if timing is None else markdown.latency(timing)
    pace = text(None)
    if timing is not None:
        pace = Cell(f"{timing.per_inference:,} {timing.unit}", timing.per_inference)
    cycles = None
    if timing is not None and timing.cycles_lo is not None:
        cycles = f"{timing.cycles_lo:,} to {timing.cycles_hi:,}"
    return (
        text(row.key),
        _fits(row),
        count(row.flash),
        flash,
        count(row.ram),
        ram,
        count(row.arena),
        count(row.stack),
        text(None if cost is None else f"{cost.flash:,} / {cost.ram:,} ({cost.built_for})"),
        pace,
        text(latency or None),
        text(cycles or ""),
        text(None if bits is None else f"{bits.exact:,} / {bits.off_by_one:,} / {bits.mismatch:,}"),
        text(row.compiler or ""),
    )


def _share(used: int, limit: int | None) -> Cell:
    if limit is None:
        return text("limit not known", "none")
    share = used / limit
    state = "" if share <= 1 else "over"
    return Cell(f"{share:.1%} of {limit:,}", share, min(round(share, 4), 1.0), state)


def _fits(row: BoardRow) -> Cell:
    """Whether the image fits its board, and what must go where it does not."""
    if row.fits is not None:
        over = zip((0, 0) if row.image is None else row.image.over, ("flash", "RAM"), strict=True)
        gone = " and ".join(f"{number:,} bytes of {what}" for number, what in over if number)
        return (
            text("fits", "ok") if row.fits else text(f"no: {gone} must go" if gone else "no", "bad")
        )
    if row.estimated:
        return text("perhaps", "none")
    if row.flash is not None:
        return text("not taken apart", "none")
    return text("not built" if row.timing is None else "not a board", "none")


def flash(report: Report) -> list[Flash]:
    """Where the bytes of every image that was taken apart go."""
    return [_flash(row, image, report) for row, image in _images(report)]


def _images(report: Report) -> list[tuple[BoardRow, Attribution]]:
    return [(row, row.image) for row in report.boards if row.image is not None]


def _flash(row: BoardRow, image: Attribution, report: Report) -> Flash:
    flash = [(name, getattr(image.flash, part)) for part, name in FLASH.items()]
    ram = [(name, getattr(image.ram, part)) for part, name in RAM.items()]
    ram += [("set aside for the stack", image.ram.stack)]
    layers = causes.layers(report)
    symbols = [
        (
            text(symbol.name),
            text(symbol.file),
            text(FLASH.get(symbol.part, symbol.part)),
            text(_owner(symbol, layers)),
            count(symbol.flash),
            count(symbol.ram),
        )
        for symbol in sorted(image.symbols, key=lambda one: (-one.flash, -one.ram, one.name))
    ]
    return Flash(
        row.key,
        f"{row.key}: {image.flash.total:,}{_of(image.flash_limit)} bytes of flash,"
        f" {image.ram.total + image.ram.stack:,}{_of(image.ram_limit)} of RAM, stack included.",
        _parts(f"Flash of {row.key}", flash, "all"),
        _parts(f"RAM of {row.key}", ram, "all, with the stack"),
        Table(
            f"Symbols of {row.key}",
            ("symbol", "object", "part", "layer", "flash bytes", "RAM bytes"),
            with_bars(symbols, (4, 5)),
            left=range(4),
            tools=True,
        ),
    )


def _of(limit: int | None) -> str:
    return "" if limit is None else f" of {limit:,}"


def _parts(caption: str, listed: Sequence[tuple[str, int]], whole: str) -> Table:
    total = sum(number for _, number in listed)
    rows = [
        (text(name), count(number), text(f"{number / total:.1%}" if total else ""))
        for name, number in listed
    ]
    last = (text(whole), count(total), text(""))
    return Table(caption, ("part", "bytes", "share"), [*with_bars(rows, (1,)), last])


def _owner(symbol: SymbolRow, layers: Sequence[str]) -> str:
    """What a symbol is there for: a layer, several, the whole model, or nothing of a model."""
    needed = _needed(symbol, layers)
    if len(needed) > 1:
        return f"{len(needed)} layers: {', '.join(needed)}"
    return needed[0] if needed else WHOLE if symbol.part in MODEL else ""


def _needed(symbol: SymbolRow, layers: Sequence[str]) -> list[str]:
    """Those of the `layers` (the operators', by place) that a symbol is there for, each once."""
    return list(dict.fromkeys(layers[place] for place in symbol.operators))


def treemap(report: Report) -> Chart | None:
    """The flash of each image by part, layer and symbol; None without an image."""
    views = []
    layers = causes.layers(report)
    for row, image in _images(report):
        parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for symbol in image.symbols:
            if symbol.flash:
                part = symbol.part
                needed = _needed(symbol, layers)
                owner = symbol.file if part not in MODEL else needed[0] if needed else WHOLE
                owner = "shared" if len(needed) > 1 else owner
                leaf = {"name": short(symbol.name), "value": symbol.flash}
                parts.setdefault(part, {}).setdefault(short(owner), []).append(leaf)
        children = [
            {
                "name": name,
                "part": place,
                "children": [_branch(owner, leaves) for owner, leaves in parts[part].items()],
            }
            for place, (part, name) in enumerate(FLASH.items())
            if part in parts
        ]
        if children:
            views.append({"kind": "treemap", "label": row.key, "children": children})
    said = "Treemap of flash by part, layer and symbol; the tables beside it have the same bytes"
    title = "Flash by part, then layer or object, then symbol; choose an area to look into it"
    return Chart(title, said, views, "Board") if views else None


def _branch(owner: str, leaves: list[dict[str, Any]]) -> dict[str, Any]:
    """The symbols of one layer or object; a single one stands for both."""
    if len(leaves) > 1:
        return {"name": owner, "children": leaves}
    return {**leaves[0], "name": short(f"{owner} {leaves[0]['name']}")}
