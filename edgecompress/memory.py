"""Memory plan: where each buffer lies in the one arena.

Offline dynamic storage allocation with controlled overlaps. Everything here is deterministic: the
search is limited by counted work, never by time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["apart", "forward", "backward"]

WORK = 1_000_000
"""Looks at a neighbour that `plan` spends per unit of effort: half a second to a second."""
MAX_PAIRS = 250_000
"""Pairs of buffers alive together up to which overlaps and orders are tried."""
MAX_GROUP = 32
"""Overlaps of one step up to which the step's lower bound looks at each."""
SMALL = 9
"""Buffers up to which every order is tried, within the work that is left."""
MOVES = 200
"""Moves per buffer that the local search makes at most."""
STALE = 200
"""Moves without a smaller arena after which the search goes on from a shuffled order."""


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that must be kept from step `first` to step `last`, both inclusive."""

    name: str
    size: int
    first: int
    last: int
    align: int = 4


@dataclass(frozen=True)
class Overlap:
    """Buffer `target` may lie over buffer `source`, which is read at the step where it is written.

    Allowed are: apart; offset(source) - offset(target) >= `forward`; or end(target) - end(source)
    >= `backward`, where end = offset + size. None rules a direction out. Bytes; may be negative.
    `source` and `target` are positions in the list of buffers; source.first <= target.first <=
    source.last <= target.last: the source is read for the last time there, or later, row by row
    behind the target.
    """

    source: int
    target: int
    forward: int | None
    backward: int | None


@dataclass(frozen=True)
class Peak:
    """What one step takes, in bytes: `bound` is the least that any layout of the buffers alive
    then needs (a true lower bound), `extent` the highest end of one of them in this plan."""

    bound: int
    extent: int


@dataclass(frozen=True)
class Plan:
    """Where the buffers lie: `offsets` as the buffers, `directions` as the overlaps were given.

    A direction is "apart" where source and target share no byte (either order of work is right),
    else the order in which the step must work; all overlaps of one step that are not apart go in
    one direction. `bytes` is the arena's size, `lower_bound` what no plan can undercut, `peaks`
    has one entry per step from 0 to the last.
    """

    offsets: tuple[int, ...]
    bytes: int
    lower_bound: int
    directions: tuple[Direction, ...]
    peaks: tuple[Peak, ...]

    @property
    def gap(self) -> float:
        """Bytes above the lower bound as a fraction of it; 0.0 where the plan is optimal."""
        return self.bytes / self.lower_bound - 1 if self.lower_bound else 0.0


def plan(buffers: Sequence[Buffer], overlaps: Sequence[Overlap] = (), *, effort: int = 1) -> Plan:
    """Offsets for `buffers` so that two that share a step share no byte, save as an overlap allows.

    Overlaps of one pair all hold at once (an operator that reads one tensor twice). A step has one
    direction of work, so overlaps of one step never mix forward and backward. `effort` scales the
    search that follows a handful of greedy orders (0: none); it ends early at the lower bound. Same
    input, same plan. Raises ValueError for a buffer or an overlap that contradicts itself.

    Greedy lowest fit by size, lifetime and breadth as in Pisarchyk and Lee, "Efficient Memory
    Management for Deep Neural Net Inference" (2020); then moves of the buffers that stack up to
    the arena's end, as the hill climbing of Arm's Vela compiler does; few buffers: all orders.
    """
    _check(buffers, overlaps)
    reuses = _merged(buffers, overlaps)
    bounds = _bounds(buffers, reuses)
    lower = max(bounds, default=0)
    if _count_pairs(buffers) > MAX_PAIRS:
        offsets = _by_time(buffers)
    else:
        offsets, lower = _search(_Problem.of(buffers, reuses, bounds), lower, WORK * effort)
    ends = [offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True)]
    extents = _highest(buffers, ends, len(bounds))
    return Plan(
        offsets=tuple(offsets),
        bytes=max(extents, default=0),
        lower_bound=lower,
        directions=_directions(buffers, overlaps, offsets),
        peaks=tuple(map(Peak, bounds, extents)),
    )


_Pair: TypeAlias = "tuple[int, int]"
_Reuse: TypeAlias = "tuple[int | None, int | None]"
_Reuses: TypeAlias = "Mapping[_Pair, _Reuse]"


def _check(buffers: Sequence[Buffer], overlaps: Sequence[Overlap]) -> None:
    for buffer in buffers:
        if buffer.size < 0 or buffer.align < 1 or not 0 <= buffer.first <= buffer.last:
            raise ValueError(f"{buffer}: size >= 0, align >= 1 and 0 <= first <= last must hold")
    pairs = set()
    for each in overlaps:
        if not (0 <= each.source < len(buffers) and 0 <= each.target < len(buffers)):
            raise ValueError(f"{each}: there are {len(buffers)} buffers")
        if each.source == each.target or (each.target, each.source) in pairs:
            raise ValueError(f"{each}: a buffer cannot be the source of its own source")
        pairs.add((each.source, each.target))
        source, target = buffers[each.source], buffers[each.target]
        if not source.first <= target.first <= source.last <= target.last:
            raise ValueError(
                f"{each}: the source is there from step {source.first} to {source.last}, the target"
                f" from {target.first} to {target.last}"
            )


def _merged(buffers: Sequence[Buffer], overlaps: Sequence[Overlap]) -> _Reuses:
    """(source, target) -> (forward, backward): the strictest of the overlaps of each pair."""
    merged: dict[_Pair, _Reuse] = {}
    for each in overlaps:
        if buffers[each.source].size and buffers[each.target].size:
            pair, leads = (each.source, each.target), (each.forward, each.backward)
            forward, backward = (
                None if one is None or other is None else max(one, other)
                for one, other in zip(merged.get(pair, leads), leads, strict=True)
            )
            merged[pair] = forward, backward
    return merged


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def _bounds(buffers: Sequence[Buffer], reuses: _Reuses) -> list[int]:
    """The least bytes that each step needs.

    Offsets are multiples of `grain`, so buffers apart share no cell of `grain` bytes: the cells
    add up, and only the last of them may be partly empty (`slack`). Overlaps relax the sum: at
    such a step buffers that must be apart are added, at best with one pair laid over each other.
    """
    steps = max((buffer.last for buffer in buffers), default=-1) + 1
    grain = math.gcd(*(buffer.align for buffer in buffers if buffer.size)) or 1
    cells = [_up(buffer.size, grain) // grain for buffer in buffers]
    change = [0] * (steps + 1)
    for buffer, count in zip(buffers, cells, strict=True):
        change[buffer.first] += count
        change[buffer.last + 1] -= count
    needed = list(itertools.accumulate(change[:steps]))
    for step, pairs in _by_step(buffers, reuses, whole=True).items():
        needed[step] = _least_cells(needed[step], pairs, reuses, buffers, cells, grain)
    slack = _highest(buffers, [_up(b.size, grain) - b.size for b in buffers], steps)
    return [max(0, count * grain - spare) for count, spare in zip(needed, slack, strict=True)]


def _by_step(
    buffers: Sequence[Buffer], reuses: _Reuses, *, whole: bool = False
) -> dict[int, list[_Pair]]:
    """The pairs by the step at which the target is written first; `whole`: by every step at which
    both are there."""
    found: dict[int, list[_Pair]] = {}
    for source, target in reuses:
        first = buffers[target].first
        for step in range(first, buffers[source].last + 1 if whole else first + 1):
            found.setdefault(step, []).append((source, target))
    return found


def _least_cells(
    total: int,
    pairs: list[_Pair],
    reuses: _Reuses,
    buffers: Sequence[Buffer],
    cells: list[int],
    grain: int,
) -> int:
    """Cells that a step needs whose buffers take `total` apart and may overlap as `pairs` say."""
    sources, targets = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    others = total - sum(cells[index] for index in sources | targets)
    least = others
    for side in (sources - targets, targets - sources):  # no two of one side may overlap
        least = max(least, others + sum(cells[index] for index in side))
        for pair in pairs[:MAX_GROUP]:
            covered = _pair_cells(buffers[pair[0]], buffers[pair[1]], reuses[pair], grain)
            linked = {one for link in pairs for one in link if set(link) & set(pair)}
            apart = sum(cells[index] for index in side - linked)
            least = max(least, others + covered + apart)
    return least


def _pair_cells(source: Buffer, target: Buffer, reuse: _Reuse, grain: int) -> int:
    """The fewest cells that source and target can cover together."""
    size, written = _up(source.size, grain) // grain, _up(target.size, grain) // grain
    common = math.gcd(source.align, target.align)
    least = size + written
    forward, backward = reuse
    if forward is not None:
        lead = _up(forward, common) // grain
        least = min(least, max(size, written, lead + size))
    if backward is not None:
        lead = _up(source.size + backward - target.size, common) // grain
        least = min(least, max(size, written, lead + written))
    return least


def _highest(buffers: Sequence[Buffer], values: Sequence[int], steps: int) -> list[int]:
    """The largest of the buffers' `values` among those alive at each step, 0 where none is."""
    order = sorted(range(len(buffers)), key=lambda index: buffers[index].first)
    alive: list[tuple[int, int]] = []
    found, place = [], 0
    for step in range(steps):
        while place < len(order) and buffers[order[place]].first == step:
            index = order[place]
            heapq.heappush(alive, (-values[index], buffers[index].last))
            place += 1
        while alive and alive[0][1] < step:
            heapq.heappop(alive)
        found.append(-alive[0][0] if alive else 0)
    return found


_Links: TypeAlias = "list[list[tuple[int, int, int]]]"
"""For each buffer x its neighbours (y, below, above): offset x <= offset y - below, or offset x >=
offset y + above."""
_Steps: TypeAlias = frozenset[int]


@dataclass(frozen=True)
class _Problem:
    """Buffers of a size (`live`, by number), the pairs of them alive together, and what may
    overlap.

    At the steps of `shared` several overlaps begin, which must agree on a direction: it is given
    before placing, as the set of steps that work backward; `open` are those where both can be.
    """

    buffers: Sequence[Buffer]
    live: tuple[int, ...]
    pairs: tuple[_Pair, ...]
    reuses: _Reuses
    shared: _Steps
    open: tuple[int, ...]
    start: _Steps
    bounds: Sequence[int]

    @classmethod
    def of(cls, buffers: Sequence[Buffer], reuses: _Reuses, bounds: Sequence[int]) -> _Problem:
        groups = {s: p for s, p in _by_step(buffers, reuses).items() if len(p) > 1}
        onward = {s for s, group in groups.items() if any(reuses[p][0] is not None for p in group)}
        back = {s for s, group in groups.items() if any(reuses[p][1] is not None for p in group)}
        return cls(
            buffers=buffers,
            live=tuple(index for index, buffer in enumerate(buffers) if buffer.size),
            pairs=tuple(_pairs(buffers)),
            reuses=reuses,
            shared=frozenset(groups),
            open=tuple(sorted(onward & back)),
            start=frozenset(back - onward),
            bounds=bounds,
        )

    def part(self, members: Sequence[int]) -> _Problem:
        """The problem of the buffers `members` alone, which are numbered anew."""
        number = {x: place for place, x in enumerate(members)}
        reuses = {
            (number[source], number[target]): reuse
            for (source, target), reuse in self.reuses.items()
            if source in number and target in number
        }
        return _Problem.of([self.buffers[x] for x in members], reuses, self.bounds)

    @property
    def cost(self) -> int:
        """Looks at a neighbour, about, that placing all buffers takes."""
        return 2 * len(self.pairs) + 4 * len(self.live) + 1

    def links(self, reverse: _Steps) -> _Links:
        """The neighbours where the steps of `reverse` work backward."""
        links: _Links = [[] for _ in self.buffers]
        for one, other in self.pairs:
            source, target = (other, one) if (other, one) in self.reuses else (one, other)
            below, above = self._distances(source, target, reverse)
            links[target].append((source, below, above))
            links[source].append((target, above, below))
        return links

    def _distances(self, source: int, target: int, reverse: _Steps) -> _Pair:
        """How far the target must begin below, or above, the beginning of the source."""
        forward, backward = self.reuses.get((source, target), (None, None))
        size, written = self.buffers[source].size, self.buffers[target].size
        step = self.buffers[target].first
        if step in self.shared:
            forward, backward = (None, backward) if step in reverse else (forward, None)
        below = written if forward is None else min(written, forward)
        above = size if backward is None else min(size, size + backward - written)
        return below, above


def _pairs(buffers: Sequence[Buffer]) -> Iterator[_Pair]:
    """Every two buffers of a size that share a step."""
    alive: list[int] = []
    for index in sorted(range(len(buffers)), key=lambda index: buffers[index].first):
        if buffers[index].size:
            alive = [other for other in alive if buffers[other].last >= buffers[index].first]
            yield from ((other, index) for other in alive)
            alive.append(index)


def _count_pairs(buffers: Sequence[Buffer]) -> int:
    """How many pairs `_pairs` would give."""
    used = [buffer for buffer in buffers if buffer.size]
    lasts = sorted(buffer.last for buffer in used)
    dead = sum(bisect_left(lasts, buffer.first) for buffer in used)
    return len(used) * (len(used) - 1) // 2 - dead


def _lowest(x: int, links: _Links, offsets: list[int], align: int) -> int:
    """The lowest offset where buffer `x` agrees with its neighbours placed so far (not -1)."""
    at = 0
    for low, high in sorted(
        (offsets[y] - below, offsets[y] + above) for y, below, above in links[x] if offsets[y] >= 0
    ):
        if at <= low:
            break
        if at < high:
            at = _up(high, align)
    return at


@dataclass(frozen=True)
class _Layout:
    """A way to place: the order, the steps that work backward, and where that put the buffers."""

    order: tuple[int, ...]
    reverse: _Steps
    links: _Links
    offsets: list[int]
    bytes: int


def _place(
    problem: _Problem, order: tuple[int, ...], reverse: _Steps, links: _Links, most: float
) -> _Layout | None:
    """Each buffer of `order` at its lowest fit; None as soon as one ends above `most`."""
    offsets = [-1] * len(problem.buffers)
    top = 0
    for x in order:
        buffer = problem.buffers[x]
        offsets[x] = _lowest(x, links, offsets, buffer.align)
        top = max(top, offsets[x] + buffer.size)
        if top > most:
            return None
    return _Layout(order, reverse, links, offsets, top)


def _search(problem: _Problem, lower: int, work: int) -> tuple[list[int], int]:
    """The offsets of the smallest layout found, and the lower bound, raised where it was proven."""
    best = _greedy(problem, lower, work)
    if best.bytes > lower and work:
        if len(problem.live) <= SMALL:
            better, complete, _ = _all_orders(problem, best.bytes, lower, work)
            best = better or best
            lower = best.bytes if complete else lower
        else:
            lower = _windows(problem, best.bytes, lower, work // 2)
    best = _climb(problem, best, lower, min(work // problem.cost, MOVES * len(problem.live)))
    return [max(offset, 0) for offset in best.offsets], lower


_Key: TypeAlias = "Callable[[int], tuple[int, ...]]"


def _greedy(problem: _Problem, lower: int, work: int) -> _Layout:
    """The best of the greedy orders; the first of them only, where `work` does not reach."""
    buffers, bounds = problem.buffers, problem.bounds
    spans = {x: buffers[x].last - buffers[x].first + 1 for x in problem.live}
    tries = max(1, work // problem.cost) if work else math.inf
    keys: list[_Key] = [
        lambda x: (-buffers[x].size, buffers[x].first),
        lambda x: (-buffers[x].size * spans[x], buffers[x].first),
        lambda x: (-spans[x], -buffers[x].size),
        lambda x: (-max(bounds[buffers[x].first : buffers[x].last + 1]), -buffers[x].size),
        lambda x: (buffers[x].first, -buffers[x].size),
        lambda x: (-buffers[x].last, -buffers[x].size),
    ]
    best: _Layout | None = None
    for reverse in dict.fromkeys((problem.start, problem.start | set(problem.open))):
        links = problem.links(reverse)
        for key in keys:
            if best is not None and (tries <= 0 or best.bytes <= lower):
                return best
            order = tuple(sorted(problem.live, key=key))
            most = math.inf if best is None else best.bytes - 1
            best = _place(problem, order, reverse, links, most) or best
            tries -= 1
    assert best is not None
    return best


def _climb(problem: _Problem, start: _Layout, lower: int, tries: int) -> _Layout:
    """Local search over orders: `tries` times exchange a buffer of the stack that reaches the
    arena's end with one of its neighbours, or turn a step round; keep what is not larger."""
    draw = random.Random(0).random
    best = now = start
    stale = 0
    for _ in range(tries):
        if best.bytes <= lower:
            break
        order, reverse, links = list(now.order), now.reverse, now.links
        if problem.open and draw() < 0.1:
            reverse = reverse ^ {problem.open[int(draw() * len(problem.open))]}
            links = problem.links(reverse)
        stack = _stack(problem, now)
        for _ in range(1 if stale < STALE else 4):
            _exchange(order, stack, links, draw)
        most = now.bytes if stale < STALE else math.inf
        moved = _place(problem, tuple(order), reverse, links, most)
        stale = 0 if stale >= STALE else stale + 1
        now = moved or now
        if now.bytes < best.bytes:
            best, stale = now, 0
    return best


def _stack(problem: _Problem, layout: _Layout) -> list[int]:
    """The buffers, from the arena's end down, each of which rests on the next."""
    offsets, buffers = layout.offsets, problem.buffers
    top = [x for x in problem.live if offsets[x] + buffers[x].size == layout.bytes]
    stack, seen = list(top), set(top)
    for x in stack:
        for y, _, above in layout.links[x]:
            if y not in seen and _up(offsets[y] + above, buffers[x].align) == offsets[x]:
                seen.add(y)
                stack.append(y)
    return stack


def _exchange(order: list[int], stack: list[int], links: _Links, draw: Callable[[], float]) -> None:
    """Exchange one buffer of `stack`, or move it before, a neighbour (or any) in `order`."""
    x = stack[int(draw() * len(stack))]
    near = [y for y, _, _ in links[x]] or order
    y = near[int(draw() * len(near))]
    one, other = order.index(x), order.index(y)
    if draw() < 0.5:
        order[one], order[other] = order[other], order[one]
    else:
        order.insert(min(one, other), order.pop(max(one, other)))


def _all_orders(
    problem: _Problem, most: int, lower: int, work: int
) -> tuple[_Layout | None, bool, int]:
    """The smallest layout below `most` bytes (None: none was found), whether that is proven, and
    the work done; branch and bound over orders and directions, ended at `lower` or by `work`.

    A smallest layout is found by lowest fit in the order of its own offsets, so offsets never fall
    along an order: that needs distances of 0 or more, else nothing is proven.
    """
    buffers, live = problem.buffers, problem.live
    best: _Layout | None = None
    spent, complete = 0, True

    def extend(order: tuple[int, ...], offsets: list[int], level: int) -> None:
        nonlocal best, spent, most, complete
        spent += problem.cost
        lows = [(_lowest(x, links, offsets, buffers[x].align), x) for x in live if offsets[x] < 0]
        if not lows:
            most = max(offsets[x] + buffers[x].size for x in live)
            best = _Layout(order, reverse, links, list(offsets), most)
        for low, x in sorted(lows):
            if most <= lower or any(max(at, level) + buffers[y].size >= most for at, y in lows):
                return
            if spent >= work:
                complete = False
            elif low >= level:
                offsets[x] = low
                extend((*order, x), offsets, low)
                offsets[x] = -1

    for count in range(len(problem.open) + 1):
        for turned in itertools.combinations(problem.open, count):
            reverse = problem.start | set(turned)
            links = problem.links(reverse)
            complete &= all(min(near[1:]) >= 0 for nears in links for near in nears)
            extend((), [-1] * len(buffers), 0)
    return best, complete, spent


def _windows(problem: _Problem, most: int, lower: int, work: int) -> int:
    """A lower bound between `lower` and `most`: what the buffers of a few steps in a row need."""
    steps = len(problem.bounds)
    seen: set[tuple[int, ...]] = {()}
    for width in range(2, SMALL):
        for first in range(steps - width + 1):
            members = tuple(
                x
                for x in problem.live
                if problem.buffers[x].first < first + width and problem.buffers[x].last >= first
            )
            if len(members) > SMALL or members in seen:
                continue
            seen.add(members)
            part = problem.part(members)
            found, complete, spent = _all_orders(part, most, lower, min(work, WORK // 10))
            if complete:
                lower = max(lower, found.bytes if found else most)
            work -= spent
            if lower >= most or work <= 0:
                return lower
    return lower


def _by_time(buffers: Sequence[Buffer]) -> list[int]:
    """First fit in the order of time, all apart: for many buffers alive at once."""
    offsets = [0] * len(buffers)
    free: list[tuple[int, float]] = [(0, math.inf)]
    alive: list[tuple[int, int]] = []
    used = [x for x, buffer in enumerate(buffers) if buffer.size]
    for x in sorted(used, key=lambda x: (buffers[x].first, -buffers[x].size)):
        buffer = buffers[x]
        while alive and alive[0][0] < buffer.first:
            dead = heapq.heappop(alive)[1]
            _release(free, offsets[dead], offsets[dead] + buffers[dead].size)
        place = next(
            place
            for place, (low, high) in enumerate(free)
            if _up(low, buffer.align) + buffer.size <= high
        )
        low, high = free.pop(place)
        offsets[x] = _up(low, buffer.align)
        end = offsets[x] + buffer.size
        free[place:place] = [hole for hole in ((low, offsets[x]), (end, high)) if hole[0] < hole[1]]
        heapq.heappush(alive, (buffer.last, x))
    return offsets


def _release(free: list[tuple[int, float]], low: int, high: float) -> None:
    """Give [low, high) back to the sorted holes and join it with those it touches."""
    place = bisect_left(free, (low, high))
    if place < len(free) and free[place][0] == high:
        high = free.pop(place)[1]
    if place and free[place - 1][1] == low:
        low = free.pop(place - 1)[0]
    insort(free, (low, high))


def _directions(
    buffers: Sequence[Buffer], overlaps: Sequence[Overlap], offsets: Sequence[int]
) -> tuple[Direction, ...]:
    """What the offsets made of each overlap; forward wins where both directions hold."""

    def room(each: Overlap) -> tuple[int, int]:
        source, target = buffers[each.source], buffers[each.target]
        lead = offsets[each.source] - offsets[each.target]
        return lead, target.size - source.size - lead

    def apart(each: Overlap) -> bool:
        source, target = buffers[each.source], buffers[each.target]
        low, high = offsets[each.source], offsets[each.target]
        if not source.size or not target.size:
            return True
        return low + source.size <= high or high + target.size <= low

    backward = {
        buffers[each.target].first
        for each in overlaps
        if not apart(each) and (each.forward is None or room(each)[0] < each.forward)
    }

    def direction(each: Overlap) -> Direction:
        if apart(each):
            return "apart"
        if buffers[each.target].first not in backward:
            return "forward"
        assert each.backward is not None and room(each)[1] >= each.backward
        return "backward"

    return tuple(direction(each) for each in overlaps)
