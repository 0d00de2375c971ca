"""The memory plan in the report: strict data, text, Markdown and SVG."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from edgecompress.memory import Buffer, Overlap, plan
from edgecompress.report import Change, MapBlock, MapStep, MemoryMap, Report, Size, markdown
from edgecompress.report.memory_map import draw, from_plan, peaks, summary
from edgecompress.report.report import ReportError

BUFFERS = [
    Buffer("in", 64, 0, 0),
    Buffer("conv", 64, 0, 1),
    Buffer("columns", 32, 0, 0),
    Buffer("none", 0, 0, 1),
    Buffer("out", 16, 1, 1),
]
LABELS = [("conv1", "CONV_2D"), ("", "SOFTMAX")]
MAP = MemoryMap(
    name="tiny",
    arena=128,
    lower_bound=112,
    steps=(MapStep("conv1", "CONV_2D", 112), MapStep("", "SOFTMAX", 80)),
    blocks=(
        MapBlock("in", 16, 64, 0, 0, None),
        MapBlock("conv", 0, 64, 0, 1, "in"),
        MapBlock("columns", 96, 32, 0, 0, None),
        MapBlock("out", 64, 16, 1, 1, None),
    ),
)
NONE = Change(None, None)
SIZE = Size(NONE, NONE, NONE, NONE, NONE)
REPORT = Report("tiny", "ab", {}, None, (), SIZE, (), None, (), (), ())


def test_a_plan_becomes_a_map() -> None:
    made = plan(BUFFERS, [Overlap(0, 1, 16, None)])
    drawn = from_plan("tiny", buffers=BUFFERS, plan=made, labels=LABELS)
    assert (drawn.arena, drawn.lower_bound, drawn.peak) == (112, 112, 112)
    assert drawn.steps == (MapStep("conv1", "CONV_2D", 112), MapStep("", "SOFTMAX", 80))
    offsets = {b.name: at for b, at in zip(BUFFERS, made.offsets, strict=True)}
    assert {b.label: (b.offset, b.first, b.last, b.over) for b in drawn.blocks} == {
        "in": (offsets["in"], 0, 0, None),
        "conv": (offsets["conv"], 0, 1, "in"),
        "columns": (offsets["columns"], 0, 0, None),
        "out": (offsets["out"], 1, 1, None),
    }


def test_a_plan_with_more_or_fewer_steps_than_calls() -> None:
    made = plan(BUFFERS)
    short = from_plan("tiny", buffers=BUFFERS, plan=made, labels=LABELS[:1])
    assert [(b.label, b.last) for b in short.blocks] == [("in", 0), ("conv", 0), ("columns", 0)]
    longer = from_plan("tiny", buffers=BUFFERS, plan=made, labels=[*LABELS, ("x", "ADD")])
    assert longer.steps[2] == MapStep("x", "ADD", 0)
    empty = from_plan("none", buffers=[], plan=plan([]), labels=[])
    assert draw(empty) == "nothing lies in the arena"
    assert summary(empty) == "0 bytes of arena: no layout of these buffers needs fewer."


def test_the_text_shows_where_each_buffer_lies() -> None:
    lines = draw(MAP).splitlines()
    assert lines == [
        "  0" + " " * 55 + "128 bytes",
        "0 |" + "B" * 8 + "*" * 24 + "A" * 8 + "." * 8 + "C" * 16
        + "|       112  CONV_2D conv1  <- peak",
        "1 |" + "B" * 32 + "D" * 8 + "." * 24 + "|        80  SOFTMAX",
        "",
        "A  in: 64 bytes at 16, steps 0 to 0",
        "B  conv: 64 bytes at 0, steps 0 to 1, in place over in",
        "C  columns: 32 bytes at 96, steps 0 to 0",
        "D  out: 16 bytes at 64, steps 1 to 1",
    ]  # fmt: skip


def test_a_small_buffer_is_still_seen() -> None:
    blocks = (MapBlock("small", 100_000, 4, 0, 0, None), MapBlock("large", 0, 100_000, 0, 0, None))
    wide = MemoryMap("m", 100_004, 100_004, (MapStep("", "ADD", 100_004),), blocks)
    assert draw(wide).splitlines()[1].startswith("0 |" + "B" * 63 + "A|")


def test_letters_repeat() -> None:
    blocks = tuple(MapBlock(f"b{i}", 0, 4, i, i, None) for i in range(53))
    steps = tuple(MapStep("", "ADD", 4) for _ in blocks)
    lines = draw(MemoryMap("m", 4, 4, steps, blocks)).splitlines()
    assert lines[1][4:68] == lines[53][4:68] == "A" * 64
    assert lines[52][4:68] == "z" * 64


def test_long_names_are_cut() -> None:
    blocks = (MapBlock("x" * 500, 0, 4, 0, 0, "y" * 49),)
    cut = MemoryMap("m", 4, 4, (MapStep("", "ADD", 4),), blocks)
    said = f"{'x' * 45}...: 4 bytes at 0, steps 0 to 0, in place over {'y' * 45}..."
    assert draw(cut).splitlines()[-1] == f"A  {said}"


def test_peak_table_and_summary() -> None:
    assert peaks(MAP) == [
        ("0", "conv1", "CONV_2D", "112", "peak"),
        ("1", "", "SOFTMAX", "80", ""),
    ]
    assert summary(MAP) == "128 bytes of arena, 14.3% above the lower bound of 112."
    tight = dataclasses.replace(MAP, lower_bound=128)
    assert summary(tight) == "128 bytes of arena: no layout of these buffers needs fewer."


def test_names_are_escaped() -> None:
    name = 'a<b>&"|`\n```\x00\ud800'
    odd = dataclasses.replace(
        MAP,
        name=name,
        steps=(MapStep(name, "ADD|", 112), MAP.steps[1]),
        blocks=(MapBlock(name, 0, 4, 0, 1, name),),
    )
    shown = 'a<b>&"|`?```??'
    assert f"A  {shown}: 4 bytes at 0, steps 0 to 1, in place over {shown}" in draw(odd)
    report = dataclasses.replace(REPORT, memory=odd)
    cells = r'| 0 | a&lt;b&gt;&amp;"\|\`?\`\`\`?? | ADD\| | 112 | peak |'
    assert cells in markdown.render(report).splitlines()
    assert markdown.render(report).splitlines().count("```") == 1
    assert markdown.render(report).encode()


def test_the_report_keeps_and_shows_the_map() -> None:
    report = dataclasses.replace(REPORT, memory=MAP)
    assert Report.from_json(report.to_json()) == report
    text = markdown.render(report)
    for block in (
        summary(MAP),
        f"```text\n{draw(MAP)}\n```",
        "| 0 | conv1 | CONV_2D | 112 | peak |",
    ):
        assert block in text
    assert "<details>" not in text
    assert "Memory of" not in markdown.render(REPORT)


def test_a_long_map_is_folded_away() -> None:
    steps = tuple(MapStep(f"l{i}", "ADD", 4) for i in range(40))
    long = MemoryMap("m", 4, 4, steps, (MapBlock("b", 0, 4, 0, 39, None),))
    text = markdown.render(dataclasses.replace(REPORT, memory=long))
    before, folded = text.split("<details>")
    assert summary(long) in before
    assert "</details>" in folded.split("| 39 | l39 | ADD | 4 | peak |")[1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("arena"), "missing key memory.arena"),
        (lambda t: t.update(extra=1), "unknown key memory.extra; .*"),
        (lambda t: t.update(arena=111), "memory.arena = 111: it must be 112 or more"),
        (lambda t: t.update(lower_bound=-1), "memory.lower_bound = -1: it must be 0 or more"),
        (lambda t: t["steps"][0].update(live=129), "memory.live = 129: it is from 0 to 128, .*"),
        (lambda t: t["steps"].pop(), "memory.blocks: 'conv' lies outside the 128 bytes .* 1 steps"),
        (lambda t: t["blocks"][0].update(size=113), "memory.blocks: 'in' lies outside the 128 .*"),
        (
            lambda t: t["blocks"][0].update(offset=-1),
            r"memory.blocks\[0\].offset = -1: it must be 0 or more",
        ),
        (
            lambda t: t["blocks"][3].update(last=0),
            r"memory.blocks\[3\].last = 0: 'out' begins at step 1",
        ),
    ],
)
def test_reading_the_map_is_strict(edit: Any, message: str) -> None:
    table = json.loads(dataclasses.replace(REPORT, memory=MAP).to_json())
    edit(table["memory"])
    with pytest.raises(ReportError, match=f"^report.json: {message}$"):
        Report.from_json(json.dumps(table))
