"""Memory plan: the law of the layout, optimality on small cases, and the MLPerf Tiny shapes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.memory import Buffer, Overlap, Peak, Plan, plan


def legal(buffers: Sequence[Buffer], overlaps: Sequence[Overlap], offsets: Sequence[int]) -> bool:
    """The law, by bytes (bits of a number each): what lives together is apart, or over each other
    as one direction of the step allows."""
    placed = [((1 << b.size) - 1) << at for at, b in zip(offsets, buffers, strict=True)]
    given_ = {frozenset((o.source, o.target)) for o in overlaps}
    for i, j in itertools.combinations(range(len(buffers)), 2):
        together = buffers[i].first <= buffers[j].last and buffers[j].first <= buffers[i].last
        if together and placed[i] & placed[j] and frozenset((i, j)) not in given_:
            return False
    steps = {buffers[o.target].first for o in overlaps}
    return all(
        any(
            all(
                not placed[o.source] & placed[o.target] or holds(buffers, o, offsets, direction)
                for o in overlaps
                if buffers[o.target].first == step
            )
            for direction in ("forward", "backward")
        )
        for step in steps
    )


def holds(buffers: Sequence[Buffer], o: Overlap, offsets: Sequence[int], direction: str) -> bool:
    source, target = offsets[o.source], offsets[o.target]
    if direction == "forward":
        return o.forward is not None and source - target >= o.forward
    ends = target + buffers[o.target].size - source - buffers[o.source].size
    return o.backward is not None and ends >= o.backward


def check(buffers: Sequence[Buffer], overlaps: Sequence[Overlap], got: Plan) -> None:
    """Everything that a plan promises."""
    assert legal(buffers, overlaps, got.offsets)
    assert all(at >= 0 and at % b.align == 0 for at, b in zip(got.offsets, buffers, strict=True))
    ends = [at + b.size for at, b in zip(got.offsets, buffers, strict=True)]
    steps = max((b.last for b in buffers), default=-1) + 1
    alive = [[i for i, b in enumerate(buffers) if b.first <= s <= b.last] for s in range(steps)]
    assert [p.extent for p in got.peaks] == [max((ends[i] for i in a), default=0) for a in alive]
    assert got.bytes == max((p.extent for p in got.peaks), default=0)
    assert all(peak.bound <= peak.extent for peak in got.peaks)
    assert max((p.bound for p in got.peaks), default=0) <= got.lower_bound <= got.bytes
    directions: dict[int, set[str]] = {}
    for o, direction in zip(overlaps, got.directions, strict=True):
        source, target = buffers[o.source], buffers[o.target]
        low, high = got.offsets[o.source], got.offsets[o.target]
        shared = min(low + source.size, high + target.size) > max(low, high)
        shared = shared and bool(source.size and target.size)
        assert (direction != "apart") == shared
        if shared:
            assert holds(buffers, o, got.offsets, direction)
            directions.setdefault(target.first, set()).add(direction)
    assert all(len(each) == 1 for each in directions.values())


Case = tuple[list[Buffer], list[Overlap]]


@st.composite
def cases(draw: st.DrawFn, most: int = 12, least_lead: int = -6, largest: int = 12) -> Case:
    """Buffers with short lives (so that overlaps are possible) and overlaps of some pairs."""
    span = st.tuples(st.integers(0, 6), st.sampled_from((0, 1, 1, 1, 2, 4)))
    sizes = st.integers(0, largest)
    buffers = [
        Buffer(f"b{i}", draw(sizes), first, first + more, draw(st.sampled_from((1, 1, 2, 4))))
        for i, (first, more) in enumerate(draw(st.lists(span, max_size=most)))
    ]
    pairs = [
        (s, t)
        for s, t in itertools.permutations(range(len(buffers)), 2)
        if buffers[s].first <= buffers[t].first <= buffers[s].last <= buffers[t].last
        and ((buffers[s].first, buffers[s].last) != (buffers[t].first, buffers[t].last) or s < t)
    ]
    leads = st.none() | st.integers(least_lead, largest + 2)
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=8)) if pairs else []
    if least_lead >= 0:  # distances of 0 or more: what the proof of optimality covers
        chosen = [p for p in chosen if buffers[p[0]].size >= buffers[p[1]].size]
    return buffers, [Overlap(s, t, draw(leads), draw(leads)) for s, t in chosen]


@settings(max_examples=200, deadline=None)
@given(cases())
def test_live_buffers_share_no_byte_save_as_an_overlap_allows(case: Case) -> None:
    buffers, overlaps = case
    got = plan(buffers, overlaps)
    check(buffers, overlaps, got)
    check(buffers, overlaps, plan(buffers, overlaps, effort=0))
    assert plan(buffers, overlaps) == got


def test_a_source_may_be_read_for_several_steps() -> None:
    """As rows are, behind those of the target that are written."""
    buffers = [Buffer("in", 100, 0, 4), Buffer("out", 100, 1, 4), Buffer("rows", 20, 1, 4)]
    overlaps = [Overlap(0, 1, 30, None)]
    got = plan(buffers, overlaps)
    check(buffers, overlaps, got)
    assert got.bytes == got.lower_bound == 152  # offsets are multiples of 4
    assert [peak.bound for peak in got.peaks] == [100, 152, 152, 152, 152]


@settings(max_examples=30, deadline=None)
@given(cases(most=40, largest=60))
def test_the_law_holds_for_more_buffers(case: Case) -> None:
    check(*case, plan(*case))


def optimum(buffers: Sequence[Buffer], overlaps: Sequence[Overlap], most: int) -> int:
    """The smallest arena of all layouts, by trying every offset, `most` at most."""
    linked = {frozenset((o.source, o.target)) for o in overlaps}
    foes = [
        [
            i
            for i, other in enumerate(buffers[:j])
            if other.first <= b.last and b.first <= other.last and frozenset((i, j)) not in linked
        ]
        for j, b in enumerate(buffers)
    ]

    def layouts(offsets: list[int], masks: list[int], limit: int) -> Iterator[int]:
        count = len(offsets)
        if count == len(buffers):
            if legal(buffers, overlaps, offsets):
                yield max((mask.bit_length() for mask in masks), default=0)
            return
        buffer = buffers[count]
        taken = 0
        for foe in foes[count]:
            taken |= masks[foe]
        for at in range(0, limit - buffer.size + 1 if buffer.size else 1, buffer.align):
            mask = ((1 << buffer.size) - 1) << at
            if not mask & taken:
                yield from layouts([*offsets, at], [*masks, mask], limit)

    while most and (smaller := next(layouts([], [], most - 1), None)) is not None:
        most = smaller
    return most


@settings(max_examples=100, deadline=None)
@given(cases(most=4, least_lead=0, largest=4))
def test_few_buffers_are_placed_optimally(case: Case) -> None:
    got = plan(*case)
    check(*case, got)
    assert got.bytes == got.lower_bound == optimum(*case, got.bytes)


@settings(max_examples=60, deadline=None)
@given(cases(most=4, largest=4))
def test_the_lower_bound_is_one(case: Case) -> None:
    got = plan(*case)
    assert got.lower_bound <= optimum(*case, got.bytes)


def test_nothing_to_place() -> None:
    assert plan([]) == Plan((), 0, 0, (), ())
    empty = [Buffer("a", 0, 0, 1), Buffer("b", 8, 1, 2, align=8), Buffer("c", 0, 1, 1)]
    got = plan(empty, [Overlap(0, 1, None, None)])
    assert (got.bytes, got.directions) == (8, ("apart",))
    assert got.peaks == (Peak(0, 0), Peak(8, 8), Peak(8, 8))
    assert got.gap == 0


@pytest.mark.parametrize(
    ("buffers", "overlaps", "message"),
    [
        ([Buffer("a", -1, 0, 0)], [], "size >= 0"),
        ([Buffer("a", 1, 2, 1)], [], "0 <= first <= last"),
        ([Buffer("a", 1, -1, 1)], [], "0 <= first <= last"),
        ([Buffer("a", 1, 0, 1, align=0)], [], "align >= 1"),
        ([Buffer("a", 1, 0, 1)], [Overlap(0, 1, 0, 0)], "there are 1 buffers"),
        ([Buffer("a", 1, 0, 0)], [Overlap(0, 0, 0, 0)], "source of its own source"),
        (
            [Buffer("a", 1, 0, 0), Buffer("b", 1, 0, 0)],
            [Overlap(0, 1, 0, 0), Overlap(1, 0, 0, 0)],
            "source of its own source",
        ),
        (
            [Buffer("a", 1, 0, 3), Buffer("b", 1, 1, 2)],
            [Overlap(0, 1, 0, 0)],
            "the source is there from step 0 to 3, the target from 1 to 2",
        ),
    ],
)
def test_input_that_contradicts_itself(
    buffers: list[Buffer], overlaps: list[Overlap], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(buffers, overlaps)


def test_scratch_lies_over_neither_side_of_an_overlap() -> None:
    buffers = [Buffer("in", 64, 0, 0), Buffer("out", 64, 0, 1), Buffer("scratch", 16, 0, 0)]
    got = plan(buffers, [Overlap(0, 1, 0, None)])
    assert (got.bytes, got.lower_bound, got.directions) == (80, 80, ("forward",))


def test_a_tensor_read_twice_obeys_both_overlaps() -> None:
    buffers = [Buffer("in", 64, 0, 0), Buffer("out", 64, 0, 1)]
    got = plan(buffers, [Overlap(0, 1, 0, None), Overlap(0, 1, 8, 0)])
    assert (got.bytes, got.directions) == (72, ("forward", "forward"))
    got = plan(buffers, [Overlap(0, 1, 0, None), Overlap(0, 1, None, 0)])
    assert (got.bytes, got.directions) == (128, ("apart", "apart"))


def test_one_step_works_in_one_direction() -> None:
    """The output must pass below input 0 and above input 1: over both it would fit into 64."""
    buffers = [Buffer("low", 32, 0, 1), Buffer("high", 32, 0, 1), Buffer("out", 64, 1, 2)]
    one = plan(buffers, [Overlap(0, 2, 0, None), Overlap(1, 2, None, 32)])
    assert (one.bytes, one.lower_bound) == (96, 96)
    assert sorted(one.directions) in (["apart", "forward"], ["apart", "backward"])
    both = plan(buffers, [Overlap(0, 2, 0, None), Overlap(1, 2, 0, None)])
    assert (both.bytes, both.directions) == (64, ("forward", "forward"))


def test_a_chain_alternates_instead_of_drifting() -> None:
    """20 operators that each need a lead of 100 bytes: one lead in all, not 20."""
    buffers = [Buffer(f"t{i}", 1000, max(0, i - 1), i) for i in range(21)]
    chain = [Overlap(i, i + 1, 100, 100) for i in range(20)]
    got = plan(buffers, chain, effort=0)
    assert got.bytes == got.lower_bound == 1100
    assert set(got.directions) == {"forward", "backward"}
    drifting = plan(buffers, [Overlap(i, i + 1, 100, None) for i in range(20)])
    assert 1100 < drifting.bytes <= 2000


def test_the_proof_raises_the_bound_above_every_step() -> None:
    """A pointwise step with scratch between two steps that need the whole arena's lead."""
    spans = [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    buffers = [Buffer(f"t{i}", 8000, *span) for i, span in enumerate(spans)]
    buffers += [Buffer(f"s{step}", 256, step, step) for step in (1, 3)]
    buffers += [Buffer(f"small{step}", 4, step, step) for step in range(6, 9)]
    leads = (640, 320, 640, 320, 640)
    got = plan(buffers, [Overlap(i, i + 1, lead, lead) for i, lead in enumerate(leads)])
    assert max(peak.bound for peak in got.peaks) == 8640
    assert got.bytes == got.lower_bound == 8896


def test_many_buffers() -> None:
    draw = random.Random(1)
    crowd = [Buffer(f"b{i}", draw.randint(1, 999), i, i + draw.randint(0, 9)) for i in range(2000)]
    ordered = sorted((b.first, i) for i, b in enumerate(crowd))
    chain = [
        Overlap(s, t, 0, 0)
        for (_, s), (_, t) in itertools.pairwise(ordered)
        if crowd[s].last == crowd[t].first
    ]
    assert plan(crowd, chain).gap < 0.1
    crowded = [Buffer(f"b{i}", 1 + i % 7, i // 3, 600 - i // 3, 1) for i in range(900)]
    got = plan(crowded, [Overlap(i, j, 0, 0) for i, j in ((898, 899),) if crowded[i].last == 1])
    assert got.lower_bound == sum(b.size for b in crowded)
    check(crowded, [], got)


# -- the MLPerf Tiny models, with the leads of kernels that work row after row --------------------


class Net:
    """Builds the buffers and overlaps of a network, one operator a step."""

    def __init__(self, *shape: int) -> None:
        self.shapes = [shape]
        self.spans = [[0, 0]]
        self.reuses: list[tuple[int, Overlap]] = []
        self.scratch: list[Buffer] = []
        self.steps = 0

    def op(self, inputs: Sequence[int], *shape: int, scratch: int = 0) -> int:
        """An operator; its result's number."""
        for index in inputs:
            self.spans[index][1] = self.steps
        self.shapes.append(shape)
        self.spans.append([self.steps, self.steps])
        if scratch:
            self.scratch.append(Buffer(f"scratch{self.steps}", scratch, self.steps, self.steps))
        self.steps += 1
        return len(self.shapes) - 1

    def reuse(self, source: int, target: int, forward: int | None, backward: int | None) -> None:
        self.reuses.append((self.steps - 1, Overlap(source, target, forward, backward)))

    def rows(
        self, x: int, channels: int, kernel: int, stride: int = 1, scratch: int = 0, width: int = 0
    ) -> int:
        """A SAME convolution (`kernel` rows, stride both ways) that works row after row."""
        height, across, depth = self.shapes[x]
        down, right = -(-height // stride), -(-across // stride)
        pad = max(0, (down - 1) * stride + kernel - height) // 2
        taken, made = across * depth, right * channels
        y = self.op([x], down, right, channels, scratch=scratch)
        first = [max(0, row * stride - pad) for row in range(down)]
        behind = [min(height, row * stride - pad + kernel) for row in range(down)]
        forward = max((row + 1) * made - first[row] * taken for row in range(down))
        above = max(behind[row] * taken - row * made for row in range(down))
        self.reuse(x, y, forward, above + down * made - height * taken)
        return y

    def tail(self, x: int, classes: int) -> None:
        """Global average pooling, dense, softmax."""
        pooled = self.op([x], self.shapes[x][-1])
        logits = self.op([pooled], classes)
        self.reuse(logits, self.op([logits], classes), 0, 0)

    def done(self) -> tuple[list[Buffer], list[Overlap]]:
        buffers = [
            Buffer(f"t{i}", int(np.prod(shape)), first, last)
            for i, (shape, (first, last)) in enumerate(zip(self.shapes, self.spans, strict=True))
        ]
        overlaps = [o for step, o in self.reuses if self.spans[o.source][1] == step]
        return buffers + self.scratch, overlaps


def kws(scratch: int) -> Net:
    net = Net(49, 10, 1)
    x = net.rows(0, 64, 10, 2, scratch)
    for _ in range(4):
        x = net.rows(net.rows(x, 64, 3), 64, 1, scratch=scratch)
    net.tail(x, 12)
    return net


def image(scratch: int) -> Net:
    net = Net(32, 32, 3)
    x = net.rows(0, 16, 3, scratch=scratch)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.rows(x, channels, 3, stride, scratch)
        y = net.rows(y, channels, 3, 1, scratch)
        x = x if stride == 1 else net.rows(x, channels, 1, stride, scratch)
        total = net.op([x, y], *net.shapes[y])
        net.reuse(x, total, 0, 0)
        net.reuse(y, total, 0, 0)
        x = total
    net.tail(x, 10)
    return net


def anomaly(scratch: int) -> Net:
    net, x = Net(640), 0
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        x = net.op([x], units, scratch=scratch)
    return net


def person(scratch: int) -> Net:
    net = Net(96, 96, 3)
    x, depth = net.rows(0, 8, 3, 2, scratch), 8
    plan_of = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5]
    for channels, stride in [*plan_of, (256, 2), (256, 1)]:
        x = net.rows(net.rows(x, depth, 3, stride), channels, 1, scratch=scratch)
        depth = channels
    net.tail(x, 2)
    return net


@pytest.mark.parametrize(
    ("build", "scratch", "apart", "arena"),
    [
        (kws, 0, 16000, 8640),
        (kws, 256, 16256, 8896),
        (image, 0, 49152, 33792),
        (image, 2048, 51200, 35840),
        (anomaly, 0, 768, 768),
        (anomaly, 64, 832, 832),
        (person, 0, 55296, 37248),
        (person, 256, 55552, 37504),
    ],
)
def test_mlperf_tiny_models_reach_the_lower_bound(
    build: object, scratch: int, apart: int, arena: int
) -> None:
    buffers, overlaps = build(scratch).done()  # type: ignore[operator]
    got = plan(buffers, overlaps)
    check(buffers, overlaps, got)
    assert (got.bytes, got.lower_bound) == (arena, arena)
    assert plan(buffers).bytes == apart


def test_rows_survive_when_a_chain_runs_in_its_plan() -> None:
    """3-row and 1-row operators run in one arena in the planned directions: nothing that is still
    to be read is overwritten."""
    net = Net(12, 5, 2)
    layers = [(3, 3), (1, 3), (3, 6), (1, 2), (3, 2), (3, 4), (1, 1)]
    for x, (kernel, channels) in enumerate(layers):
        net.rows(x, channels, kernel)
    buffers, overlaps = net.done()
    got = plan(buffers, overlaps)
    assert got.bytes < plan(buffers).bytes
    assert {"forward", "backward"} <= set(got.directions)
    arena = np.zeros(got.bytes, np.uint8)
    expected = np.arange(120, dtype=np.uint8).reshape(12, 10)
    arena[got.offsets[0] :][:120] = expected.ravel()
    for x, (kernel, channels) in enumerate(layers):
        wide = 5 * channels
        source = arena[got.offsets[x] :][: expected.size].reshape(expected.shape)
        target = arena[got.offsets[x + 1] :][: 12 * wide].reshape(12, wide)
        after = np.zeros((12, wide), np.uint8)
        rows = range(11, -1, -1) if got.directions[x] == "backward" else range(12)
        for row in rows:
            window = slice(max(0, row - kernel // 2), row + kernel // 2 + 1)
            after[row] = np.resize(expected[window].sum(0) * 7 + 1, wide)
            target[row] = np.resize(source[window].sum(0) * 7 + 1, wide)
        expected = after
        assert np.array_equal(target, expected), x
