"""Row by row: which rows of its inputs an operator needs for some rows of its output, and in what
order a chain of operators can run band by band so that few rows are in memory at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgecompress.backends.aot.calls import Site
from edgecompress.backends.aot.fixedpoint import window_padding
from edgecompress.backends.aot.sliding import convolution_shape
from edgecompress.tflite import DTYPES, Op, Options, Program, Tensor

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
POINTWISE = (
    *("ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM", "PRELU", "RELU", "RELU6", "LEAKY_RELU", "ELU"),
    *("LOGISTIC", "TANH", "HARD_SWISH", "ABS", "QUANTIZE"),
)
"""Kinds whose elements depend on the elements at the same place alone."""


@dataclass(frozen=True)
class Slide:
    """Rows of an input under a window: output row r needs r * stride - pad and `reach` rows on."""

    size: int
    reach: int = 1
    stride: int = 1
    pad: int = 0

    def needs(self, first: int, end: int) -> tuple[int, int]:
        """The input rows [low, high) that output rows [first, end) need, paddings left out."""
        low = first * self.stride - self.pad
        return max(low, 0), min((end - 1) * self.stride - self.pad + self.reach, self.size)

    def pads(self, first: int, end: int) -> tuple[int, int]:
        """Rows of padding above and below those."""
        low = first * self.stride - self.pad
        high = (end - 1) * self.stride - self.pad + self.reach
        return max(-low, 0), max(high - self.size, 0)


@dataclass(frozen=True, eq=False)
class Rowwise:
    """An operator that can run on some rows: `slides` says for each input that is computed at run
    time which it needs, `height` counts the output's rows, `columns` are the paddings left and
    right where it has a window. One that `gathers` sums up its input: its rows are those that it
    has taken in, and its output is there after the last one."""

    number: int
    op: Op
    slides: Mapping[int, Slide]
    height: int
    columns: tuple[int, int] | None
    gathers: bool = False

    @property
    def target(self) -> int:
        """The tensor that it computes."""
        return self.op.outputs[0]

    def options(self, first: int, end: int) -> Options:
        """Its options for output rows [first, end): paddings are given, not computed."""
        if self.columns is None:
            return self.op.options
        top, bottom = self.slides[0].pads(first, end)
        left, right = self.columns
        pads = {"pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}
        return Options({**self.op.options, **pads})


def rowwise(program: Program, number: int) -> Rowwise | None:
    """Operator `number` of a program that can be lowered, None where it needs more than rows."""
    op = program.ops[number]
    if len(op.outputs) != 1 or not op.inputs:
        return None
    out = program.tensors[op.outputs[0]]
    computed = [i for i, index in enumerate(op.inputs) if _runs(program, index)]
    if not _is_map(out) or not all(_is_map(program.tensors[op.inputs[i]]) for i in computed):
        return None
    if op.kind in POINTWISE:
        alike = all(program.tensors[op.inputs[i]].shape == out.shape for i in computed)
        fixed = [t for i, t in enumerate(program.args(op)) if t is not None and i not in computed]
        if not computed or not alike or any(any(n != 1 for n in t.shape[:-2]) for t in fixed):
            return None
        if any(len(t.shape) > 4 for t in fixed):
            return None
        return Rowwise(number, op, {i: Slide(out.shape[1]) for i in computed}, out.shape[1], None)
    if computed != [0] or op.kind not in (*CONVOLUTIONS, *POOLS):
        return None
    slide, columns = _window(program, op)
    if _gathers(program, op):
        return Rowwise(number, op, {0: Slide(slide.size)}, slide.size, None, gathers=True)
    made = Rowwise(number, op, {0: slide}, out.shape[1], columns)
    bare = any(low >= high for low, high in (slide.needs(r, r + 1) for r in range(made.height)))
    return None if bare else made


def _gathers(program: Program, op: Op) -> bool:
    """Whether an operator is the average over a whole int8 map."""
    data, out = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    return (
        op.kind == "AVERAGE_POOL_2D"
        and data.dtype == out.dtype == "int8"
        and out.shape[1:3] == (1, 1)
        and op.options.get("padding") == "VALID"
        and (op.options["filter_height"], op.options["filter_width"]) == data.shape[1:3]
    )


def _runs(program: Program, index: int) -> bool:
    return index >= 0 and program.tensors[index].data is None


def _is_map(tensor: Tensor) -> bool:
    return (
        len(tensor.shape) == 4
        and tensor.shape[0] == 1
        and min(tensor.shape) >= 1
        and not tensor.variable
        and DTYPES[tensor.dtype].bits % 8 == 0
    )


def _window(program: Program, op: Op) -> tuple[Slide, tuple[int, int]]:
    """The rows of a convolution or a pooling, and the columns of padding."""
    data, out = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    if op.kind in CONVOLUTIONS:
        kernel = program.tensors[op.inputs[1]].shape[1:3]
        shape = convolution_shape(Site(program, op), data, out, (kernel[0], kernel[1]))
        axes = [
            Slide(axis.size, (axis.kernel - 1) * axis.dilation + 1, axis.stride, axis.pad)
            for axis in (shape.height, shape.width)
        ]
    else:
        axes = []
        for axis, name in ((1, "height"), (2, "width")):
            size, taps = data.shape[axis], int(op.options[f"filter_{name}"])  # type: ignore[arg-type]
            stride = int(op.options[f"stride_{name[0]}"])  # type: ignore[arg-type]
            _, pad = window_padding(
                op.options.get("padding"), size=size, kernel=taps, stride=stride
            )
            axes.append(Slide(size, taps, stride, pad))
    height, width = axes
    reached = (out.shape[2] - 1) * width.stride + width.reach
    return height, (width.pad, reached - width.size - width.pad)


# --- order ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Rows [first, end) of operator `number`; `reads` are (input place, first, end) of each."""

    number: int
    first: int
    end: int
    reads: tuple[tuple[int, int, int], ...]


def order(
    parts: Sequence[Rowwise],
    *,
    band: Fraction,
    whole: frozenset[int],
    eager: frozenset[int] = frozenset(),
) -> list[list[Piece]]:
    """The work in order, band after band: `band` rows of the last operator's output at a time.

    Every operator makes the rows that those behind it ask for, and no row twice; operators ahead
    start before, so that each makes about as many rows in every band. With less than a row, those
    behind a stride make a row every few bands. Operators of `eager` make all rows that they can. At
    the end the tensors of `whole` are there with all of their rows.
    """
    last, one = parts[-1], band.denominator
    stop = last.height * one
    goals = [_goals(parts, stop, one, whole)]
    while max(goals[-1].values()) > 0:
        goals.append(_goals(parts, stop - len(goals) * band.numerator, one, frozenset()))
    made = {part.target: 0 for part in parts}
    bands = []
    for goal in goals[-2::-1]:
        pieces = []
        for part in parts:
            first = made[part.target]
            end = min(goal.get(part.target, 0) // one, part.height)
            if part.number in eager:
                end = max(end, _possible(part, made))
            if first < end:
                reads = ((place, *slide.needs(first, end)) for place, slide in part.slides.items())
                pieces.append(Piece(part.number, first, end, tuple(reads)))
                made[part.target] = end
        if pieces:
            bands.append(pieces)
    return bands


def _goals(parts: Sequence[Rowwise], stop: int, one: int, whole: frozenset[int]) -> dict[int, int]:
    """How many rows of each tensor must be there for `stop` of the last one, all times `one`.

    Not limited to the rows that there are: less than 0 of the last tensor may need some of the
    first.
    """
    goals = {part.target: part.height * one for part in parts if part.target in whole}
    goals[parts[-1].target] = stop
    for part in reversed(parts):
        if part.target in goals:
            for place, slide in part.slides.items():
                high = (goals[part.target] - one) * slide.stride + (slide.reach - slide.pad) * one
                index = part.op.inputs[place]
                goals[index] = max(goals.get(index, high), high)
    return {part.target: goals[part.target] for part in parts if part.target in goals}


def _possible(part: Rowwise, made: Mapping[int, int]) -> int:
    """The rows that can be made of what is there."""
    ends = [part.height]
    for place, slide in part.slides.items():
        there = made.get(part.op.inputs[place], slide.size)
        if there < slide.size:
            ends.append((there + slide.pad - slide.reach) // slide.stride + 1)
    return max(min(ends), 0)


# --- windows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """The rows of a tensor that are in memory: `rows` at most, at piece number p (counted over
    all bands) from row `starts[p]` on. Before piece p, `moves[p]` are (from, rows) that are brought
    to the start of the window. `kept`: some rows stay from band to band."""

    rows: int
    starts: Mapping[int, int]
    moves: Mapping[int, tuple[int, int]]
    kept: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors of a chain lie in memory.

    `homes` gives for each tensor made by it the one whose memory it uses (itself, or the output of
    an operator that works in place), `windows` has those homes that are never there as a whole.
    """

    homes: Mapping[int, int]
    windows: Mapping[int, Window]


def layout(
    parts: Sequence[Rowwise],
    bands: Sequence[Sequence[Piece]],
    *,
    whole: frozenset[int],
    in_place: Mapping[int, Sequence[int]],
) -> Layout:
    """Windows as small as the order of the work permits.

    `in_place` names for an operator the inputs that its output may take the place of, row by row.
    """
    made = {part.number: part for part in parts}
    pieces = [piece for band in bands for piece in band]
    reads: dict[int, list[tuple[int, int]]] = {part.target: [] for part in parts}
    writes: dict[int, list[tuple[int, int, int]]] = {part.target: [] for part in parts}
    for at, piece in enumerate(pieces):
        op = made[piece.number].op
        writes[op.outputs[0]].append((at, piece.first, piece.end))
        for place, low, _ in piece.reads:
            if op.inputs[place] in reads:
                reads[op.inputs[place]].append((at, low))
    homes = _homes(parts, whole, in_place, reads, writes)
    groups: dict[int, list[int]] = {}
    for index, home in homes.items():
        groups.setdefault(home, []).append(index)
    ends = [sum(len(band) for band in bands[: i + 1]) for i in range(len(bands))]
    windows = {
        home: _windowed(group, reads, writes, ends)
        for home, group in groups.items()
        if home not in whole
    }
    return Layout(homes, windows)


def _homes(
    parts: Sequence[Rowwise],
    whole: frozenset[int],
    in_place: Mapping[int, Sequence[int]],
    reads: Mapping[int, list[tuple[int, int]]],
    writes: Mapping[int, list[tuple[int, int, int]]],
) -> dict[int, int]:
    """Tensor -> whose memory it uses: of the inputs whose rows nobody reads any more when they are
    written over, the one with the most in memory gives its place to the output."""

    def rows(index: int) -> int:
        return _windowed([index], reads, writes, []).rows

    homes = {part.target: part.target for part in parts}
    for part in reversed(parts):
        places = [p for p in in_place.get(part.number, ()) if part.op.inputs[p] in reads]
        for place in sorted(places, key=lambda p: -rows(part.op.inputs[p])):
            index = part.op.inputs[place]
            if index in whole or part.op.inputs.count(index) > 1:
                continue
            over = [
                (at, end)
                for other, home in homes.items()
                if home == homes[part.target]
                for at, _, end in writes[other]
            ]
            late = any(later > at and low < end for at, end in over for later, low in reads[index])
            if not late:
                homes[index] = homes[part.target]
                break
    return homes


def _windowed(
    group: Sequence[int],
    reads: Mapping[int, list[tuple[int, int]]],
    writes: Mapping[int, list[tuple[int, int, int]]],
    ends: Sequence[int],
) -> Window:
    """The window of tensors that share their rows; `ends` is the piece behind each band."""
    wanted = sorted(item for index in group for item in reads[index])
    makers = {at: end for index in group for at, _, end in writes[index]}
    low = max(makers.values())
    lows: dict[int, int] = {}  # at a piece: the first row that it, or a later one, still needs
    for at in sorted({*makers, *ends, *(at for at, _ in wanted)}, reverse=True):
        while wanted and wanted[-1][0] >= at:
            low = min(low, wanted.pop()[1])
        lows[at] = low
    first, high, rows, kept = 0, 0, 0, False
    starts: dict[int, int] = {}
    moves: dict[int, tuple[int, int]] = {}
    for at in sorted(lows):
        kept = kept or (at in ends and lows[at] < high)
        if makers.get(at, 0) > high:
            before, first = first, min(lows[at], high)
            if before < first < high:
                moves[at] = first - before, high - first
            high = makers[at]
            rows = max(rows, high - first)
        starts[at] = first
    return Window(rows, starts, moves, kept)
