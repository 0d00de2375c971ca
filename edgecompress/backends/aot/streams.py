"""Chains of operators that run band by band: rows of the tensors between them, not whole tensors.

A stream is a run of operators. Its inputs and what others read of it lie in the arena as a whole;
every other tensor has a window of rows. A band of an operator is a call of the same kernel as for
the whole map, with fewer rows and paddings of its own, on slices of those tensors: no kernel knows
of it, and nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeAlias

from edgecompress.backends.aot.calls import Call, Choice, Lowered, Struct, View
from edgecompress.backends.aot.rows import Layout, Piece, Rowwise, layout, order, rowwise
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program, Tensor

Lower: TypeAlias = Callable[[Program, Op], Lowered]
Slices: TypeAlias = "Mapping[int, tuple[int, int]]"
"""Tensor -> the tensor in whose memory it lies, and at which byte of it."""

ALIGNMENT = 4
"""Bytes: kernels read words at the start of a tensor."""
MOVE_INSTRUCTIONS = (25, 0.75)
"""Of a move of rows on a Cortex-M4, about: per call and per byte."""


@dataclass(frozen=True, eq=False)
class Bands(Call):
    """The calls of an operator that runs in pieces, in their order; the fields of a Call say what
    they take together."""

    pieces: tuple[Call, ...] = ()


@dataclass(frozen=True, eq=False)
class Stream:
    """Operators `first` to `end` - 1 as one stream, `band` rows of the last one at a time.

    `order` is the work: operators, each with the number of its piece or a call that moves rows.
    `held` are the tensors that lie in the arena all the time. `reuses` are (source, target,
    forward): how far the rows of `target` may lie over those of `source` (see Reuse).
    """

    first: int
    end: int
    band: Fraction
    order: tuple[tuple[int, int | Call], ...]
    held: tuple[int, ...]
    reuses: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be placed and run: `lowered` has an entry for each operator of `program`, those
    in `streams` as Bands. `slices` are tensors of the program that are rows of another one."""

    program: Program
    lowered: tuple[Lowered, ...]
    streams: tuple[Stream, ...] = ()
    slices: Slices = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Segment:
    """Operators `first` to `end` - 1, to run in bands of `band` rows of the last one's output."""

    first: int
    end: int
    band: Fraction


@dataclass(frozen=True, eq=False)
class Outline:
    """A stream before its kernels are called: its operators, bands, and where its rows lie.

    `sources` are the tensors that it reads, `whole` those it makes that others read."""

    parts: tuple[Rowwise, ...]
    bands: tuple[tuple[Piece, ...], ...]
    layout: Layout
    sources: tuple[int, ...]
    whole: frozenset[int]

    def work(self) -> Iterator[tuple[Piece, list[tuple[int, int, int]]]]:
        """The pieces in order, with (tensor, first, rows) of the input of each read, and last of
        the output: rows are counted from the start of the memory of the tensor's home."""
        parts = {part.number: part for part in self.parts}
        bases = dict.fromkeys(self.layout.windows, 0)
        for at, piece in enumerate(piece for band in self.bands for piece in band):
            part = parts[piece.number]
            home = self.layout.homes[part.target]
            if home in bases:
                bases[home] = self.layout.windows[home].starts[at]
            rows = [(part.op.inputs[place], low, end) for place, low, end in piece.reads]
            rows.append((part.target, *((0, 1) if part.gathers else (piece.first, piece.end))))
            yield (
                piece,
                [
                    (index, first - bases.get(self.layout.homes.get(index, index), 0), end - first)
                    for index, first, end in rows
                ],
            )


def outline(
    program: Program,
    lowered: Sequence[Lowered],
    parts: Sequence[Rowwise | None],
    segment: Segment,
) -> Outline | None:
    """How a segment would run; `parts` are those of `streamable`.

    None where some operator of it cannot run on rows, or rows would not begin at words.
    """
    known = tuple(part for part in parts[segment.first : segment.end] if part is not None)
    if len(known) < segment.end - segment.first or segment.band > known[-1].height:
        return None
    if any(part.gathers for part in known[:-1]):
        return None
    made = {part.target for part in known}
    inside = {number for number in range(segment.first, segment.end)}
    read = {i for n, op in enumerate(program.ops) if n not in inside for i in op.inputs}
    used = {part.op.inputs[place] for part in known for place in part.slides}
    whole = frozenset(i for i in made if i in read or i in program.outputs or i not in used)
    eager = frozenset(part.number for part in known if _shrinks(program, known, part))
    bands = order(known, band=segment.band, whole=whole, eager=eager)
    in_place = {part.number: _in_place(program, lowered[part.number], part) for part in known}
    found = Outline(
        parts=known,
        bands=tuple(map(tuple, bands)),
        layout=layout(known, bands, whole=whole, in_place=in_place),
        sources=tuple(sorted(used - made)),
        whole=whole,
    )
    return found if _at_words(program, found) else None


def _at_words(program: Program, found: Outline) -> bool:
    """Whether all rows that are read or written begin at words."""
    sizes = {index: row_bytes(program.tensors[index]) for index in found.layout.homes}
    sizes |= {index: row_bytes(program.tensors[index]) for index in found.sources}
    odd = {index for index, size in sizes.items() if size % ALIGNMENT}
    return not odd or all(
        first * sizes[index] % ALIGNMENT == 0
        for _, rows in found.work()
        for index, first, _ in rows
        if index in odd
    )


def streamable(program: Program, lowered: Sequence[Lowered]) -> list[Rowwise | None]:
    """The operators that are one call and can run on some rows, None for the others."""
    return [
        rowwise(program, number)
        if isinstance(part, Choice) or (not isinstance(part, View) and len(part) == 1)
        else None
        for number, part in enumerate(lowered)
    ]


def _shrinks(program: Program, parts: Sequence[Rowwise], part: Rowwise) -> bool:
    """Whether an operator of one input makes less of rows that others of the stream read too."""
    if len(part.slides) != 1 or 0 not in part.slides:
        return False
    index = part.op.inputs[0]
    readers = sum(index in other.op.inputs for other in parts)
    return readers > 1 and program.tensors[part.target].nbytes < program.tensors[index].nbytes


def _options(part: Lowered) -> tuple[Call, ...]:
    """The calls that may run in bands: not those that would unpack their weights for each."""
    assert not isinstance(part, View)
    calls = part.alternatives if isinstance(part, Choice) else part
    return tuple(call for call in calls if not call.is_packed)


def _in_place(program: Program, lowered: Lowered, part: Rowwise) -> tuple[int, ...]:
    """The inputs that the output may take the place of, row by row, whatever kernel runs."""
    out = program.tensors[part.target]
    return tuple(
        place
        for place, slide in part.slides.items()
        if slide.reach == slide.stride == 1
        and not slide.pad
        and not part.gathers
        and program.tensors[part.op.inputs[place]].nbytes == out.nbytes
        and program.tensors[part.op.inputs[place]].shape[1] == out.shape[1]
        and all(_over(call, part.op.inputs[place]) for call in _options(lowered))
    )


def _over(call: Call, index: int) -> bool:
    """Whether the output of a call may lie exactly over its input `index`."""
    found = [reuse for reuse in call.reuses if call.inputs[reuse.input] == index]
    return bool(found) and all(
        reuse.exact or (reuse.forward is not None and reuse.forward <= 0) for reuse in found
    )


def row_bytes(tensor: Tensor) -> int:
    """Bytes of a row of an NHWC tensor with a batch of 1."""
    return tensor.nbytes // tensor.shape[1]


# --- calls ------------------------------------------------------------------------------------


def streamed(
    program: Program, lowered: Sequence[Lowered], lower: Lower, segments: Sequence[Segment]
) -> Work | None:
    """The program with `segments` as streams, None where one of them cannot be.

    `program` has further tensors then: windows and slices; its operators are the same.
    """
    made, parts = _Maker(program, lowered, lower), streamable(program, lowered)
    for segment in segments:
        found = outline(program, lowered, parts, segment)
        if found is None or not made.add(segment, found):
            return None
    return Work(
        program.edit(tensors=(*program.tensors, *made.tensors)),
        tuple(made.lowered),
        tuple(made.streams),
        made.slices,
    )


class _Maker:
    """Collects the tensors, slices and calls of streams."""

    def __init__(self, program: Program, lowered: Sequence[Lowered], lower: Lower) -> None:
        self.program, self.lower = program, lower
        self.lowered = list(lowered)
        self.tensors: list[Tensor] = []
        self.slices: dict[int, tuple[int, int]] = {}
        self.streams: list[Stream] = []
        self._cut: dict[tuple[int, int, int, int], int] = {}
        self._options: dict[tuple[object, ...], tuple[Call, ...]] = {}

    def add(self, segment: Segment, found: Outline) -> bool:
        """Take in a stream; False where a piece of it has no kernel."""
        program, layout_ = self.program, found.layout
        parts = {part.number: part for part in found.parts}
        windows = {
            home: self._new(self._titled(home, "rows"), window.rows)
            for home, window in layout_.windows.items()
        }
        sums = {
            part.number: self._new(
                replace(
                    self._titled(part.target, "sums"), dtype="int32", scales=(), zero_points=()
                ),
                1,
            )
            for part in found.parts
            if part.gathers
        }
        work: list[tuple[int, int | Call]] = []
        calls: dict[int, list[_Piece]] = {}
        for at, (piece, rows) in enumerate(found.work()):
            part, home = parts[piece.number], layout_.homes[parts[piece.number].target]
            if home in windows and at in layout_.windows[home].moves:
                move = self._move(windows[home], *layout_.windows[home].moves[at])
                work.append((piece.number, move))
            homes = [layout_.homes.get(index, index) for index, _, _ in rows]
            cut = [
                self._slice(index, windows.get(root, root), first, count)
                for root, (index, first, count) in zip(homes, rows, strict=True)
            ]
            names = {INPUTS - read[0]: index for read, index in zip(piece.reads, cut, strict=False)}
            names[OUTPUT] = cut[-1]
            if part.gathers:
                names |= {SUMS: sums[part.number], OUTPUT: part.target}
            in_place = [
                INPUTS - place
                for place, _, _ in piece.reads
                if layout_.homes.get(part.op.inputs[place]) == home
            ]
            options = self._lowered(part, piece)
            options = tuple(call for call in options if all(_over(call, i) for i in in_place))
            if not options:
                return False
            mine = calls.setdefault(piece.number, [])
            work.append((piece.number, len(mine)))
            mine.append((options, names))
        for number, pieces in calls.items():
            self.lowered[number] = Choice(tuple(_ways(parts[number], pieces)))
        kept = [windows[home] for home, window in found.layout.windows.items() if window.kept]
        self.streams.append(
            Stream(
                segment.first,
                segment.end,
                segment.band,
                tuple(work),
                (*found.sources, *sorted(found.whole), *kept, *sums.values()),
                tuple(reuses(program, found, self._reach)),
            )
        )
        return True

    def _new(self, tensor: Tensor, rows: int) -> int:
        """A further tensor, like `tensor` but for its rows."""
        shape = (1, rows, *tensor.shape[2:])
        self.tensors.append(replace(tensor, shape=shape, signature=()))
        return len(self.program.tensors) + len(self.tensors) - 1

    def _titled(self, index: int, title: str) -> Tensor:
        """Tensor `index` under the name of the layer that makes it."""
        tensor = self.program.tensors[index]
        layer = self.program.layer_of(self.program.producer[index])
        return replace(tensor, name=f"{title} of {layer or tensor.name}")

    def _slice(self, index: int, root: int, first: int, rows: int) -> int:
        """Rows `first` and on of `root`, read or written as tensor `index`."""
        like = self.program.tensors[index]
        key = index, root, first, rows
        if key not in self._cut:
            self._cut[key] = self._new(like, rows)
            self.slices[self._cut[key]] = root, first * row_bytes(like)
        return self._cut[key]

    def _move(self, window: int, first: int, rows: int) -> Call:
        """The call that brings `rows` rows from row `first` of a window to its start."""
        size = row_bytes(self.tensors[window - len(self.program.tensors)])
        call, each = MOVE_INSTRUCTIONS
        return Call(
            "ec_move",
            "ec_move",
            Struct("ec_move_t", {"from": first * size, "bytes": rows * size}),
            (),
            (window,),
            instructions=round(call + each * rows * size),
        )

    def _lowered(self, part: Rowwise, piece: Piece) -> tuple[Call, ...]:
        """The calls that can make a piece; tensors INPUTS - place and OUTPUT stand for its own."""
        sizes = tuple((place, end - low) for place, low, end in piece.reads)
        options = part.options(piece.first, piece.end)
        ends = (piece.first == 0, piece.end == part.height) if part.gathers else ()
        key = part.number, piece.end - piece.first, sizes, str(sorted(options.items())), ends
        if key not in self._options:
            self._options[key] = tuple(self._lower(part, piece, dict(sizes)))
        return self._options[key]

    def _reach(self, part: Rowwise, piece: Piece, place: int) -> int | None:
        return _reach(self._lowered(part, piece), place)

    def _lower(self, part: Rowwise, piece: Piece, sizes: Mapping[int, int]) -> Iterator[Call]:
        if part.gathers:
            yield _gathered(self.program, part, piece, _options(self.lowered[part.number])[0])
            return
        tensors = list(self.program.tensors)
        names: dict[int, int] = {}

        def cut(index: int, rows: int, name: int) -> int:
            old = tensors[index]
            tensors.append(replace(old, shape=(1, rows, *old.shape[2:]), signature=()))
            names[len(tensors) - 1] = name
            return len(tensors) - 1

        inputs = tuple(
            cut(index, sizes[i], INPUTS - i) if i in sizes else index
            for i, index in enumerate(part.op.inputs)
        )
        outputs = (cut(part.target, piece.end - piece.first, OUTPUT),)
        options = part.options(piece.first, piece.end)
        op = replace(part.op, inputs=inputs, outputs=outputs, options=options)
        try:
            found = self.lower(self.program.edit(tensors=tuple(tensors)), op)
        except UnsupportedError:
            return
        for call in () if isinstance(found, View) else _options(found):
            yield replace(
                call,
                inputs=tuple(names.get(i, i) for i in call.inputs),
                outputs=tuple(names.get(i, i) for i in call.outputs),
            )


INPUTS, OUTPUT, SUMS = -100, -10, -11
"""Stand for input 0, the output and the sums in the calls of a piece; input n is INPUTS - n."""

_Piece: TypeAlias = "tuple[tuple[Call, ...], dict[int, int]]"
"""The calls that can make a piece, and the tensors behind INPUTS, OUTPUT and SUMS."""


def _gathered(program: Program, part: Rowwise, piece: Piece, whole: Call) -> Call:
    """The call that adds rows of a map to the sums of its average; `whole` is that of the map."""
    assert whole.params is not None
    _, height, width, channels = program.tensors[part.op.inputs[0]].shape
    fields = {
        "channels": channels,
        "pixels": (piece.end - piece.first) * width,
        "count": height * width,
        "low": whole.params.fields["low"],
        "high": whole.params.fields["high"],
        "first": int(piece.first == 0),
        "last": int(piece.end == height),
    }
    return Call(
        "ec_average_pool_rows_s8",
        "ec_pool_rows",
        Struct("ec_pool_rows_t", fields),
        (INPUTS,),
        (SUMS, OUTPUT),
    )


def _ways(part: Rowwise, pieces: Sequence[_Piece]) -> Iterator[Bands]:
    """An operator's pieces with the kernels of one family, in several amounts of scratch each."""
    families = [{call.family for call in options} for options, _ in pieces]
    common = sorted(set.intersection(*families)) or [""]
    seen: set[tuple[int, ...]] = set()
    for family in common:
        fitting = [[c for c in options if family in ("", c.family)] for options, _ in pieces]
        least = max(min(c.scratch or 0 for c in options) for options in fitting)
        for most in sorted({c.scratch or 0 for options in fitting for c in options}):
            if most < least:
                continue
            picked = [
                min((c for c in options if (c.scratch or 0) <= most), key=_speed)
                for options in fitting
            ]
            if tuple(map(id, picked)) not in seen:
                seen.add(tuple(map(id, picked)))
                yield _banded(part, picked, pieces)


def _speed(call: Call) -> tuple[float, int]:
    return (float("inf") if call.instructions is None else call.instructions, call.scratch or 0)


def _banded(part: Rowwise, picked: Sequence[Call], pieces: Sequence[_Piece]) -> Bands:
    calls = []
    for call, (_, names) in zip(picked, pieces, strict=True):
        calls.append(
            replace(
                call,
                inputs=tuple(names.get(i, i) for i in call.inputs),
                outputs=tuple(names[i] for i in call.outputs),
                reuses=(),
            )
        )
    taken = [call.scratch for call in calls if call.scratch is not None]
    counts = [call.instructions for call in calls]
    return Bands(
        function=calls[0].function,
        family=calls[0].family,
        params=calls[0].params,
        inputs=part.op.inputs,
        outputs=part.op.outputs,
        scratch=max(taken, default=None),
        instructions=None if None in counts else sum(n for n in counts if n is not None),
        pieces=tuple(calls),
    )


# --- whole tensors over each other ------------------------------------------------------------


def reuses(
    program: Program, found: Outline, reach: Callable[[Rowwise, Piece, int], int | None]
) -> Iterator[tuple[int, int, int]]:
    """How far each tensor that a stream makes as a whole may lie over one that it reads.

    (source, target, forward): what is written may reach no row that is still to be read. Within one
    piece, `reach` says how far its rows may lie over those of an input (None: apart).
    """
    parts = {part.number: part for part in found.parts}
    pieces = [piece for band in found.bands for piece in band]
    for target in sorted(found.whole):
        size = row_bytes(program.tensors[target])
        for source in found.sources:
            row = row_bytes(program.tensors[source])
            low: float = math.inf  # the first row that later pieces read
            forward = 0.0
            for piece in reversed(pieces):
                part = parts[piece.number]
                mine = [r for r in piece.reads if part.op.inputs[r[0]] == source]
                if found.layout.homes[part.target] == target:
                    begin, end = (0, 1) if part.gathers else (piece.first, piece.end)
                    forward = max(forward, end * size - low * row)
                    for place, first, _ in mine:
                        lead = reach(part, piece, place)
                        lead = (end - begin) * size if lead is None else lead
                        forward = max(forward, lead + begin * size - first * row)
                low = min([low, *(first for _, first, _ in mine)])
            yield source, target, int(forward)


def _reach(options: Sequence[Call], place: int) -> int | None:
    """The least offset(input) - offset(output) that each of `options` allows, None: apart."""
    found: list[int] = []
    for call in options:
        mine = [reuse for reuse in call.reuses if call.inputs[reuse.input] == INPUTS - place]
        if not mine or any(reuse.exact or reuse.forward is None for reuse in mine):
            return None
        found += [reuse.forward for reuse in mine if reuse.forward is not None]
    return max(found, default=None)
