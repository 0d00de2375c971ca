"""Chains in bands of rows: the order of the work, the windows, outputs over inputs, loops."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.backends.aot.loops import Line, Turn, rolled
from edgecompress.backends.aot.rows import Piece, Rowwise, Slide
from edgecompress.backends.aot.schedule import schedule
from edgecompress.backends.aot.segments import runs
from edgecompress.backends.aot.streams import (
    Outline,
    Segment,
    outline,
    reuses,
    row_bytes,
    streamable,
)
from edgecompress.tflite import Program
from tests.aot_chains import BANDS, chains, mobilenet
from tests.aot_harness import SCHEDULE
from tests.conftest import nightly

SEEDS = range(nightly(25, 3000))


def outlines(seed: int) -> Iterator[tuple[Program, Outline]]:
    """Runs of a random chain, in bands of several heights."""
    program = chains(seed)
    lowered = SCHEDULE._lowered(program, "dsp")[1]
    parts = streamable(program, lowered)
    ends = runs(parts)
    random = Random(seed)
    for first in range(len(parts)):
        for end in range(first + 2, ends[first] + 1):
            found = outline(program, lowered, parts, Segment(first, end, random.choice(BANDS)))
            if found is not None:
                yield program, found


def pieces(found: Outline) -> list[tuple[Rowwise, Piece]]:
    """The work in order."""
    parts = {part.number: part for part in found.parts}
    return [(parts[piece.number], piece) for band in found.bands for piece in band]


def test_every_row_is_made_once_and_before_it_is_read() -> None:
    seen = 0
    for seed in SEEDS:
        for _, found in outlines(seed):
            made = {part.target: 0 for part in found.parts}
            for part, piece in pieces(found):
                assert piece.first == made[part.target] < piece.end <= part.height
                made[part.target] = piece.end
                for place, low, end in piece.reads:
                    index = part.op.inputs[place]
                    assert 0 <= low < end <= made.get(index, part.slides[place].size)
            height = {part.target: part.height for part in found.parts}
            assert all(made[index] == height[index] for index in found.whole)
            seen += 1
    assert seen > len(SEEDS)


def test_windows_hold_the_rows_that_are_read() -> None:
    kept = moved = placed = 0
    for seed in SEEDS:
        for _, found in outlines(seed):
            layout = found.layout
            cells: dict[int, dict[int, tuple[int, int]]] = {h: {} for h in layout.windows}
            base = dict.fromkeys(layout.windows, 0)
            for at, (part, piece) in enumerate(pieces(found)):
                home = layout.homes[part.target]
                if home in layout.windows:
                    start = layout.windows[home].starts[at]
                    assert start >= base[home]
                    moved += start > base[home]
                    cells[home] = {
                        slot - start + base[home]: cell for slot, cell in cells[home].items()
                    }
                    base[home] = start
                for place, low, end in piece.reads:
                    index = part.op.inputs[place]
                    from_ = layout.homes.get(index)
                    if from_ in layout.windows:
                        for row in range(low, end):
                            assert cells[from_].get(row - base[from_]) == (index, row)
                if home in layout.windows:
                    for row in range(piece.first, piece.end):
                        assert 0 <= row - base[home] < layout.windows[home].rows
                        cells[home][row - base[home]] = part.target, row
            kept += sum(window.kept for window in layout.windows.values())
            placed += sum(home != index for index, home in layout.homes.items())
    assert kept and moved and placed


def test_rows_that_do_not_stay_are_read_in_their_band() -> None:
    for seed in SEEDS:
        for _, found in outlines(seed):
            parts = {part.number: part for part in found.parts}
            for band in found.bands:
                fresh = {(p.number, row) for p in band for row in range(p.first, p.end)}
                made = {parts[number].target: number for number, _ in fresh}
                for piece in band:
                    for place, low, end in piece.reads:
                        index = parts[piece.number].op.inputs[place]
                        home = found.layout.homes.get(index)
                        if home in found.layout.windows and not found.layout.windows[home].kept:
                            rows = {(made[index], row) for row in range(low, end)}
                            assert rows <= fresh


def test_outputs_over_inputs_by_the_distance() -> None:
    tight = 0
    for seed in SEEDS:
        for program, found in outlines(seed):
            for source, target, forward in reuses(program, found, lambda *_: None):
                size, row = (row_bytes(program.tensors[index]) for index in (target, source))
                written, least = 0, forward
                for part, piece in pieces(found):
                    if found.layout.homes[part.target] == target:
                        written = max(written, piece.end * size)
                    for place, low, _ in piece.reads:
                        if part.op.inputs[place] == source:
                            assert written <= forward + low * row
                            least = min(least, forward + low * row - written)
                tight += forward > 0 and least == 0
                assert forward == 0 or least == 0
    assert tight


def test_a_slide() -> None:
    slide = Slide(size=9, reach=3, stride=2, pad=1)
    assert [slide.needs(row, row + 1) for row in range(5)] == [
        *[(0, 2), (1, 4), (3, 6), (5, 8), (7, 9)],
    ]
    assert slide.needs(0, 5) == (0, 9)
    assert [slide.pads(row, row + 1) for row in (0, 2, 4)] == [(1, 0), (0, 0), (0, 1)]


def test_buffers_are_named_after_their_layers() -> None:
    made = schedule(mobilenet(), optimize="ram")
    assert made.streams
    assert any(buffer.name.startswith("rows of ") for buffer in made.buffers)
    assert len(made.plan.peaks) == 1 + max(step.time for step in made.steps)
    first = {step.time: step.op for step in made.steps}
    assert list(first.values()) == sorted(set(first.values()))


def _unrolled(turns: list[Turn]) -> list[Turn]:
    found = []
    for loop in rolled(turns):
        for time in range(loop.times):
            for turn, steps in zip(loop.turns, loop.steps, strict=True):
                lines: list[Line] = []
                for line, added in zip(turn.lines, steps, strict=True):
                    lines.append(
                        tuple(
                            part + time * step if isinstance(part, int) else part
                            for part, step in zip(line, added, strict=True)
                        )
                    )
                found.append(Turn(turn.op, tuple(lines)))
    return found


LINES = st.tuples(st.sampled_from("fg"), st.integers(0, 3), st.sampled_from("ab"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(LINES, max_size=2)), max_size=20))
def test_loops_do_the_same_work(drawn: list[tuple[int, list[Line]]]) -> None:
    turns = [Turn(op, tuple(lines)) for op, lines in drawn]
    assert _unrolled(turns) == turns


@pytest.mark.parametrize("times", [2, 3, 10])
def test_bands_become_a_loop(times: int) -> None:
    turns = [Turn(0, (("start", 5),))]
    for i in range(times):
        turns += [Turn(1, (("f", "&p", 100 + 8 * i, 7),)), Turn(2, (("g", 3), ("h", 90 - i)))]
    turns.append(Turn(3, ()))
    loops = rolled(turns)
    assert [loop.times for loop in loops] == [1, times, 1]
    assert loops[1].steps == (((0, 0, 8, 0),), ((0, 0), (0, -1)))
    assert _unrolled(turns) == turns
