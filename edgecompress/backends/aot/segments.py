"""Which operators of a program are worth to be run band by band: a search over its segments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgecompress.backends.aot.calls import Choice, Lowered, View
from edgecompress.backends.aot.rows import Piece, Rowwise
from edgecompress.backends.aot.streams import Outline, Segment, outline, reuses, streamable
from edgecompress.tflite import Program

BANDS = tuple(Fraction(n, 4) for n in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128))
"""Heights of bands that are tried, in rows of the last operator's output."""
LONGEST = 40
"""Operators that a stream has at most."""
WORK = 400_000
"""Rows of operators up to which segments are looked at: a few seconds."""


@dataclass(frozen=True)
class Need:
    """What the program needs without streams: `peaks` the bytes of each operator, `spans` from a
    tensor that lies in memory to the first and the last operator that it is there for, `roots`
    from a tensor to the one whose memory it uses."""

    peaks: tuple[int, ...]
    spans: Mapping[int, tuple[int, int]]
    roots: Mapping[int, int]


class Search:
    """A search for the segments of a program; what they need is worked out when asked for."""

    def __init__(self, program: Program, lowered: Sequence[Lowered], need: Need) -> None:
        self.program, self.lowered, self.need = program, lowered, need
        self._parts = streamable(program, lowered)
        self._runs = runs(self._parts)
        self._known: dict[Segment, tuple[float, int]] = {}
        self._left = WORK

    def segments(self, most: float = 0.0) -> list[Segment]:
        """The segments that bring the arena to its least, or to `most` bytes if that is more.

        Of those that do, the ones with the fewest calls; the other operators run as they are.
        Bytes are an estimate: see `estimate`.
        """
        count, peaks = len(self.program.ops), self.need.peaks
        best = [0.0] + [math.inf] * count
        for end in range(1, count + 1):
            for first in reversed(range(end)):
                gains = end - first == 1 or max(peaks[first:end]) > best[first]
                if gains and best[first] < best[end]:
                    best[end] = min(best[end], max(best[first], self._least(first, end)))
        return self._fewest(max(best[count], most))

    def _fewest(self, limit: float) -> list[Segment]:
        """The segments with the fewest calls of which none needs more than `limit` bytes."""
        count = len(self.program.ops)
        calls: list[tuple[float, list[Segment]]] = [(0, [])] + [(math.inf, [])] * count
        for end in range(1, count + 1):
            for first in reversed(range(end)):
                before, kept = calls[first]
                streams = end - first > 1
                if before + 2 * streams >= calls[end][0] or self._least(first, end) > limit:
                    continue
                more, segment = self._within(first, end, limit) if streams else (0, None)
                if before + more < calls[end][0]:
                    calls[end] = before + more, kept if segment is None else [*kept, segment]
        return calls[count][1]

    def _least(self, first: int, end: int) -> float:
        """Bytes of operators `first` to `end` - 1: of one as it is, of several in narrow bands."""
        if end - first == 1:
            return self.need.peaks[first]
        if end > self._runs[first]:
            return math.inf
        return self._cost(Segment(first, end, BANDS[0]))[0]

    def _within(self, first: int, end: int, limit: float) -> tuple[int, Segment]:
        """The calls that are added, and the segment with the highest bands, in `limit` bytes."""
        best = Segment(first, end, BANDS[0])
        for band in BANDS[1:]:
            segment = Segment(first, end, band)
            if self._cost(segment)[0] > limit:
                break
            best = segment
        return self._cost(best)[1], best

    def _cost(self, segment: Segment) -> tuple[float, int]:
        if segment not in self._known:
            parts = self._parts[segment.first : segment.end]
            self._left -= sum(part.height for part in parts if part is not None)
            if self._left < 0:
                return math.inf, 0
            made = outline(self.program, self.lowered, self._parts, segment)
            if made is None or made.parts[-1].height <= segment.band:
                self._known[segment] = math.inf, 0
            else:
                pieces = sum(map(len, made.bands))
                bytes_ = estimate(self.program, self.lowered, made, self.need)
                self._known[segment] = bytes_, pieces - len(made.parts) + 1
        return self._known[segment]


def runs(parts: Sequence[Rowwise | None]) -> list[int]:
    """For each operator the end of the longest run from it on that may be a stream."""
    ends = [number + 1 for number in range(len(parts))]
    for number in reversed(range(len(parts) - 1)):
        if parts[number] is not None and parts[number + 1] is not None:
            ends[number] = min(ends[number + 1], number + LONGEST)
    return ends


def estimate(program: Program, lowered: Sequence[Lowered], made: Outline, need: Need) -> int:
    """Bytes that the arena needs while a stream runs, about: with the least scratch, and each whole
    output over one input at most."""
    first, end = made.parts[0].number, made.parts[-1].number + 1
    sources = {need.roots[index] for index in made.sources}
    inside = {need.roots[part.target] for part in made.parts}
    fixed = sum(
        _up(program.tensors[index].nbytes)
        for index, (born, dead) in need.spans.items()
        if index not in sources and index not in inside and born < end and dead >= first
    )
    fixed += _ends(program, made, need, end)
    fixed += sum(4 * program.tensors[part.target].elements for part in made.parts if part.gathers)
    moving = [0] * len(made.parts)
    touched: dict[int, list[int]] = {}
    for place, part in enumerate(made.parts):
        moving[place] += _scratch(lowered[part.number])
        for index in (part.target, *(part.op.inputs[i] for i in part.slides)):
            if index in made.layout.homes:
                touched.setdefault(made.layout.homes[index], []).append(place)
    for home, window in made.layout.windows.items():
        like = program.tensors[home]
        size = _up(window.rows * (like.nbytes // like.shape[1]))
        if window.kept:
            fixed += size
        else:
            for place in range(min(touched[home]), max(touched[home]) + 1):
                moving[place] += size
    return fixed + max(moving)


def _ends(program: Program, made: Outline, need: Need, end: int) -> int:
    """Bytes of the tensors that are there as a whole, outputs laid over inputs where that saves."""

    def reach(part: Rowwise, piece: Piece, place: int) -> int | None:
        return 0 if part.slides[place].reach == 1 and not part.gathers else None

    sizes = {index: _up(program.tensors[index].nbytes) for index in (*made.sources, *made.whole)}
    gains = []
    for source, target, forward in reuses(program, made, reach):
        root = need.roots[source]
        if need.spans[root][1] < end:
            both = max(_up(forward) + sizes[source], sizes[target])
            gains.append((sizes[source] + sizes[target] - both, source, target))
    used: set[int] = set()
    total = sum(sizes.values())
    for gain, source, target in sorted(gains, reverse=True):
        if gain > 0 and not used & {source, target}:
            used |= {source, target}
            total -= gain
    return total


def _scratch(part: Lowered) -> int:
    assert not isinstance(part, View)
    options = part.alternatives if isinstance(part, Choice) else part
    return _up(min(call.scratch or 0 for call in options))


def _up(size: int) -> int:
    return -(-size // 16) * 16
