"""The arena of the ahead-of-time C backend as data, and as text: a drawing, a Markdown table."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from edgecompress.memory import Buffer, Plan
from edgecompress.report.checks import ReportError, at_least
from edgecompress.report.text import plain

HEADINGS = ("step", "layer", "operator", "bytes live", "")
COLUMNS = 64
"""Characters that the arena takes in the text drawing."""
BRIEF = 48
"""Characters of a buffer's label that are shown: the converter joins the names of all that it
fused."""
LETTERS = string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class MapStep:
    """One call of a kernel: its layer ("" where it has none), its operator, and the bytes that
    the buffers alive then need at least (bytes worked on in place count once)."""

    layer: str
    operator: str
    live: int


@dataclass(frozen=True)
class MapBlock:
    """A buffer: `size` bytes at `offset`, kept from step `first` to step `last`, both inclusive.

    `over` names the buffer that it is written over in place, None for one that lies apart.
    """

    label: str
    offset: int
    size: int
    first: int
    last: int
    over: str | None

    def __post_init__(self) -> None:
        at_least(0, offset=self.offset, size=self.size, first=self.first)
        if self.last < self.first:
            raise ReportError(f"last = {self.last}: {self.label!r} begins at step {self.first}")


@dataclass(frozen=True)
class MemoryMap:
    """The memory plan of the model `name`: bytes of the arena, what no plan can undercut, the
    steps in order of execution, and where each buffer lies."""

    name: str
    arena: int
    lower_bound: int
    steps: tuple[MapStep, ...]
    blocks: tuple[MapBlock, ...]

    def __post_init__(self) -> None:
        at_least(0, lower_bound=self.lower_bound)
        at_least(self.lower_bound, arena=self.arena)
        for step in self.steps:
            if not 0 <= step.live <= self.arena:
                raise ReportError(f"live = {step.live}: it is from 0 to {self.arena}, the arena")
        for block in self.blocks:
            if block.offset + block.size > self.arena or block.last >= len(self.steps):
                raise ReportError(
                    f"blocks: {block.label!r} lies outside the {self.arena} bytes of the arena"
                    f" or its {len(self.steps)} steps"
                )

    @property
    def peak(self) -> int:
        """The most bytes live at one step; 0 without steps."""
        return max((step.live for step in self.steps), default=0)


def from_plan(
    name: str, *, buffers: Sequence[Buffer], plan: Plan, labels: Sequence[tuple[str, str]]
) -> MemoryMap:
    """The map of `plan`, made for `buffers`; `labels` are (layer, operator) of each step.

    A step after the last of `labels` has no call and is left out. A buffer is in place where it
    shares bytes with an older one that is still read at the step where it is written.
    """
    end = len(labels) - 1
    placed = [
        MapBlock(buffer.name, offset, buffer.size, buffer.first, min(buffer.last, end), None)
        for buffer, offset in zip(buffers, plan.offsets, strict=True)
        if buffer.first <= end and buffer.size
    ]
    reading: dict[int, list[MapBlock]] = {}
    for block in placed:
        for step in range(block.first, block.last + 1):
            reading.setdefault(step, []).append(block)
    blocks = (_marked(block, reading[block.first]) for block in placed)
    live = [peak.bound for peak in plan.peaks]
    return MemoryMap(
        name=name,
        arena=plan.bytes,
        lower_bound=plan.lower_bound,
        steps=tuple(
            MapStep(*label, live[step] if step < len(live) else 0)
            for step, label in enumerate(labels)
        ),
        blocks=tuple(blocks),
    )


def _marked(block: MapBlock, reading: Sequence[MapBlock]) -> MapBlock:
    """`block`, with the first of the buffers there as it is written that it shares bytes with."""
    for source in reading:
        low, high = _shared(source, block)
        if low < high and (source.first, source.last) < (block.first, block.last):
            return MapBlock(
                block.label, block.offset, block.size, block.first, block.last, source.label
            )
    return block


def _shared(one: MapBlock, other: MapBlock) -> tuple[int, int]:
    """The bytes [low, high) of both; none where low >= high."""
    return max(one.offset, other.offset), min(one.offset + one.size, other.offset + other.size)


def summary(memory: MemoryMap) -> str:
    """One sentence: the arena, and how far it is from the lower bound."""
    if memory.arena == memory.lower_bound:
        return f"{memory.arena:,} bytes of arena: no layout of these buffers needs fewer."
    above = memory.arena / memory.lower_bound - 1 if memory.lower_bound else 0.0
    return (
        f"{memory.arena:,} bytes of arena, {above:.1%} above the lower bound of"
        f" {memory.lower_bound:,}."
    )


def peaks(memory: MemoryMap) -> list[tuple[str, ...]]:
    """One row under HEADINGS for each step; the steps with the most bytes live are the peak."""
    return [
        (
            str(number),
            step.layer,
            step.operator,
            f"{step.live:,}",
            "peak" if step.live == memory.peak else "",
        )
        for number, step in enumerate(memory.steps)
    ]


def draw(memory: MemoryMap) -> str:
    """The plan as text: a row for each step, offsets from left to right, a letter for each buffer.

    `*` are bytes shared by an operator's input and its output (in place), `.` are free. A buffer
    takes one character at least. Letters repeat after 52 buffers; the list below the drawing has
    offset, size and steps of each.
    """
    if not memory.arena:
        return "nothing lies in the arena"
    wide = len(str(max(len(memory.steps) - 1, 0)))
    lines = [f"{'':{wide}} 0{f'{memory.arena:,} bytes':>{COLUMNS}}"]
    alive: list[list[int]] = [[] for _ in memory.steps]
    for number, block in enumerate(memory.blocks):
        for members in alive[block.first : block.last + 1]:
            members.append(number)
    for number, step in enumerate(memory.steps):
        mark = "  <- peak" if step.live == memory.peak else ""
        title = " ".join(filter(None, (plain(step.operator), plain(step.layer))))
        bar = _bar(memory, alive[number])
        lines.append(f"{number:>{wide}} |{bar}| {step.live:>9,}  {title}{mark}")
    lines.append("")
    for number, block in enumerate(memory.blocks):
        lines.append(f"{_letter(number)}  {_said(block)}")
    return "\n".join(lines)


def _bar(memory: MemoryMap, alive: Sequence[int]) -> str:
    bar = ["."] * COLUMNS
    blocks = memory.blocks
    by_size = sorted(alive, key=lambda number: -blocks[number].size)
    for number in by_size:
        block = blocks[number]
        _paint(bar, memory.arena, block.offset, block.offset + block.size, _letter(number))
    for place, number in enumerate(by_size):
        for other in by_size[:place]:
            _paint(bar, memory.arena, *_shared(blocks[number], blocks[other]), "*")
    return "".join(bar)


def _paint(bar: list[str], arena: int, low: int, high: int, letter: str) -> None:
    if low < high:
        first = low * COLUMNS // arena
        last = max(first + 1, high * COLUMNS // arena)
        bar[first:last] = letter * (last - first)


def _letter(number: int) -> str:
    return LETTERS[number % len(LETTERS)]


def _said(block: MapBlock) -> str:
    over = "" if block.over is None else f", in place over {plain(block.over, BRIEF)}"
    return (
        f"{plain(block.label, BRIEF)}: {block.size:,} bytes at {block.offset:,},"
        f" steps {block.first} to {block.last}{over}"
    )
