"""The plan of the arena -> its drawing and its tables."""

from __future__ import annotations

from edgecompress.report.html.page import Chart, Table, count, short, text, with_bars
from edgecompress.report.memory_map import MemoryMap, summary


def plan(memory: MemoryMap | None) -> Chart | None:
    """Buffers over steps; None where nothing lies in the arena."""
    if memory is None or not memory.arena or not memory.blocks:
        return None
    view = {
        "kind": "plan",
        "label": "",
        "arena": memory.arena,
        "bound": memory.lower_bound,
        "steps": [short(step.layer or step.operator) for step in memory.steps],
        "live": [step.live for step in memory.steps],
        "blocks": [
            {
                "name": short(block.label),
                "box": [block.first, block.last, block.offset, block.offset + block.size],
                "over": None if block.over is None else short(block.over),
            }
            for block in memory.blocks
        ],
    }
    said = f"Plan of the arena: {len(memory.blocks)} buffers over {len(memory.steps)} steps, peak"
    title = "The arena over time: one box a buffer, dashed where it is written in place"
    return Chart(title, f"{said} {memory.peak:,} of {summary(memory)}", [view])


def tables(memory: MemoryMap) -> tuple[Table, Table]:
    """Where each buffer lies, and how many bytes are live at each step."""
    blocks = [
        (
            text(block.label),
            text(block.over or ""),
            count(block.offset),
            count(block.size),
            count(block.first),
            count(block.last),
        )
        for block in memory.blocks
    ]
    steps = [
        (
            count(number),
            text(step.layer),
            text(step.operator),
            count(step.live),
            text("peak" if step.live == memory.peak else ""),
        )
        for number, step in enumerate(memory.steps)
    ]
    headings = ("buffer", "in place over", "offset", "bytes", "first step", "last step")
    return (
        Table("Buffers of the arena", headings, with_bars(blocks, (3,)), left=range(2), tools=True),
        Table(
            "Bytes live by step",
            ("step", "layer", "operator", "bytes live", ""),
            with_bars(steps, (3,)),
            left=range(3),
        ),
    )
