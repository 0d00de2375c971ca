"""Program -> the calls in order, and where every tensor and scratch buffer lies in the arena."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from edgecompress import memory
from edgecompress.backends import describe
from edgecompress.backends.aot.calls import Call, Choice, Lowered, Site, View
from edgecompress.backends.aot.choose import SLACK, Chosen, Picked, arrays, choose, join
from edgecompress.backends.aot.fuse import fuse_pads
from edgecompress.backends.aot.operators import OPERATORS
from edgecompress.backends.aot.segments import Need, Search
from edgecompress.backends.aot.separable import joins
from edgecompress.backends.aot.streams import Bands, Stream, Work, streamed
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program
from edgecompress.vocabulary import Core, Optimize

_SEVERAL_OUTPUTS = ("SPLIT", "SPLIT_V", "UNPACK")
MAX_ARENA = 256 << 20
"""Bytes; a model whose activations need more is none for a microcontroller."""
LESS, MORE = 0.85, 1.02
"""`balanced` runs operators in bands where the arena falls to this fraction or less, and the
instructions rise to this one at most."""
LIMITS: dict[str, tuple[float, ...]] = {"ram": (0.0,), "balanced": (0.0, 0.25, 0.5, 0.65, LESS)}
"""Arenas that are aimed at, as fractions of that without bands; 0: the smallest."""
LEAST = 2048
"""Bytes of an arena below which that is not tried."""
CALL_BYTES = 36
"""Of flash that a further call takes, about; `balanced` pays no more of them than it saves RAM."""


@dataclass(frozen=True, eq=False)
class Step:
    """A call, the number of its operator in the schedule, and where its scratch lies (bytes).

    `time` is the step of the memory plan: operators of a stream have one each, whatever the order
    of their bands. `why` says why this kernel was chosen, "" where there was no choice.
    """

    call: Call
    op: int
    time: int
    why: str
    scratch: int | None
    reverse: bool


@dataclass(frozen=True, eq=False)
class Schedule:
    """What runs, in order, and where: offsets are bytes from the start of the arena.

    `program` is the program after the backend's own fusions; `ops` are its operators, `steps` the
    calls they became (an operator that moves nothing has none, those of `streams` have several and
    take turns). `offsets` maps every activation to its place, views and slices included. `buffers`
    and `plan` are the memory plan behind it.
    """

    program: Program
    steps: tuple[Step, ...]
    offsets: dict[int, int]
    buffers: tuple[memory.Buffer, ...]
    plan: memory.Plan
    streams: tuple[Stream, ...] = ()

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators, in the order of their numbers."""
        return self.program.ops


def reasons(program: Program) -> list[str]:
    """Why this program cannot be lowered: one line each, none if it can."""
    return _lowered(program, "dsp")[2]


def schedule(
    program: Program,
    *,
    core: Core = "dsp",
    optimize: Optimize = "balanced",
    dense: bool = False,
) -> Schedule:
    """Lower every operator, choose its kernel and plan the arena.

    The C runs on any core with the same bits; `core` is the one whose kernels are chosen, and
    `optimize` what for (see `choose`); `dense` does without those that leave out weights of 0.
    Raises UnsupportedError for what `reasons` lists.
    """
    fused, lowered, found = _lowered(program, core)
    lowered = [_dense(part) for part in lowered] if dense else lowered
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnsupportedError(f"aot: {found[0]}{more}")
    plain = Work(fused, tuple(lowered))
    made = _chosen(plain, core, optimize)
    for work, limit in _in_bands(plain, made, core, optimize):
        banded = _chosen(work, core, optimize, limit)
        if _is_better(banded, made, optimize):
            return banded
    return made


def _chosen(work: Work, core: Core, optimize: Optimize, limit: float = 0.0) -> Schedule:
    """`work` with the kernels chosen and the arena planned; `balanced` may use `limit` bytes."""

    def arena(parts: Sequence[Picked]) -> int:
        needed = _placed(work, [Chosen(part) for part in parts], effort=0).plan.bytes
        return max(needed, int(limit / SLACK))

    chosen = choose(work.lowered, optimize=optimize, arena=arena)

    def least() -> int:
        return arena([one.part for one in choose(work.lowered, optimize="ram", arena=arena)])

    banded = {op for stream in work.streams for op in range(stream.first, stream.end)}
    pairs = [one for one in joins(work.program, core) if banded.isdisjoint((one.first, one.second))]
    chosen = join(chosen, pairs, optimize=optimize, arena=arena, least=least)
    return _placed(work, chosen, effort=1)


def _lowered(program: Program, core: Core) -> tuple[Program, list[Lowered], list[str]]:
    """The program after fusion, what each operator became, and what is in the way."""
    found = describe.boundary(program)
    found += [
        f"{side} {program.tensors[index].name!r} is a constant; leave it out of the model"
        for side, indexes in (("input", program.inputs), ("output", program.outputs))
        for index in indexes
        if program.tensors[index].data is not None
    ]
    found += [
        f"the state {tensor.name!r} has a zero point and more than 8 bits; use zero point 0"
        for tensor in program.tensors
        if tensor.variable and tensor.dtype != "int8" and any(tensor.zero_points)
    ]
    found += [
        f"{tensor.name!r} is a state with a value of its own; states start at zero"
        for tensor in program.tensors
        if tensor.variable and tensor.data is not None
    ]
    if sum(tensor.nbytes for tensor in program.tensors if tensor.data is None) > MAX_ARENA:
        found.append(f"the activations need more than {MAX_ARENA >> 20} MiB; use a smaller model")
    if found:
        return program, [], found
    fused = fuse_pads(program)
    lowered: list[Lowered] = []
    for op in fused.ops:
        try:
            lowered.append(_lower(fused, op, core))
        except UnsupportedError as error:
            found.append(f"{describe.where(fused, op)}: {error}")
    return fused, lowered, found


def _dense(part: Lowered) -> Lowered:
    """`part` without the calls that leave out weights of 0."""
    if not isinstance(part, Choice):
        return part
    return Choice(tuple(call for call in part.alternatives if not call.is_sparse))


def _lower(program: Program, op: Op, core: Core) -> Lowered:
    lowering = OPERATORS.get(op.kind)
    if lowering is None:
        raise UnsupportedError(
            f"no such operator in the aot backend; it has {', '.join(sorted(OPERATORS))}"
        )
    site = Site(program, op, core)
    site.require(
        len(op.outputs) == 1 or op.kind in _SEVERAL_OUTPUTS,
        f"{len(op.outputs)} outputs; one is supported",
    )
    site.require(
        not any(tensor.variable for tensor in program.results(op)),
        "the output is a state; those of UNIDIRECTIONAL_SEQUENCE_LSTM are supported",
    )
    return lowering(site)


def _roots(work: Work) -> dict[int, int]:
    """Tensor -> the tensor whose memory it shares (itself where it is no view, no slice)."""
    roots = {index: index for index in range(len(work.program.tensors))}
    for part in work.lowered:
        if isinstance(part, View):
            roots[part.target] = roots[part.source]
    return roots | {index: roots[root] for index, (root, _) in work.slices.items()}


class _Timed(NamedTuple):
    """A call, its operator, and its step in the memory plan."""

    time: int
    op: int
    call: Call


def _in_time(work: Work, chosen: Sequence[Chosen]) -> list[_Timed]:
    """All calls in the order in which they run; an operator may have none yet."""
    calls: list[_Timed] = []
    streams = {stream.first: stream for stream in work.streams}
    time = number = 0
    while number < len(chosen):
        stream = streams.get(number)
        if stream is None:
            part = chosen[number].part
            for call in () if isinstance(part, View) else part:
                calls.append(_Timed(time, number, call))
                time += 1
            number += 1
            continue
        for op, piece in stream.order:
            if isinstance(piece, int):
                part = chosen[op].part
                if isinstance(part, View) or not part:
                    continue
                assert isinstance(part[0], Bands)
                piece = part[0].pieces[piece]
            calls.append(_Timed(time + op - number, op, piece))
        time += stream.end - stream.first
        number = stream.end
    return calls


def _in_bands(
    plain: Work, made: Schedule, core: Core, optimize: Optimize
) -> Iterator[tuple[Work, float]]:
    """The work with chains of operators in bands, and the bytes that it may use: the smallest
    arena first. Nothing where there is nothing to gain on `made`, how it runs without."""
    if optimize not in LIMITS or (optimize == "balanced" and made.plan.bytes < LEAST):
        return

    def lower(program: Program, op: Op) -> Lowered:
        return _lower(program, op, core)

    search = Search(plain.program, plain.lowered, _need(plain))
    seen: list[object] = [[]]
    for limit in (made.plan.bytes * part for part in LIMITS[optimize]):
        found = search.segments(limit)
        if found not in seen:
            seen.append(found)
            work = streamed(plain.program, plain.lowered, lower, found)
            if work is not None:
                yield work, limit


def _need(plain: Work) -> Need:
    """What the operators need as they are, with the least scratch."""
    least = [
        part
        if not isinstance(part, Choice)
        else (min(part.alternatives, key=lambda call: call.scratch or 0),)
        for part in plain.lowered
    ]
    chosen = [Chosen(part) for part in least]
    calls = _in_time(plain, chosen)
    roots = _laid_over(plain, calls, _roots(plain))
    bounds = _placed(plain, chosen, effort=0).plan.peaks
    peaks = [0] * len(least)
    for time, op, _ in calls:
        peaks[op] = max(peaks[op], bounds[time].bound)
    ops = {time: op for time, op, _ in calls}
    spans = {
        root: (ops[first], ops[last]) for root, (first, last) in _spans(plain, calls, roots).items()
    }
    return Need(tuple(peaks), spans, roots)


def _is_better(banded: Schedule, plain: Schedule, optimize: Optimize) -> bool:
    """`ram`: a smaller arena, or fewer instructions in the same; `balanced`: see LESS, MORE and
    CALL_BYTES; operators in bands have no packed weights, which counts as flash too."""
    arena, count = plain.plan.bytes, _instructions(plain)
    less, more = banded.plan.bytes, _instructions(banded)
    if optimize == "ram":
        return (less, more) < (arena, count)
    if less > LESS * arena or more > MORE * count:
        return False
    flash = CALL_BYTES * (len(banded.steps) - len(plain.steps))
    unpacked, packed = (arrays(step.call for step in made.steps) for made in (banded, plain))
    return arena - less >= flash + max(unpacked - packed, 0)


def _instructions(made: Schedule) -> int:
    return sum(step.call.instructions or 0 for step in made.steps)


def _placed(work: Work, chosen: Sequence[Chosen], *, effort: int) -> Schedule:
    program, calls = work.program, _in_time(work, chosen)
    roots = _laid_over(work, calls, _roots(work))
    spans = _spans(work, calls, roots)
    places = {index: place for place, index in enumerate(spans)}
    buffers = [
        memory.Buffer(_label(program, index), program.tensors[index].nbytes, first, last, 16)
        for index, (first, last) in spans.items()
    ]
    needed: dict[int, tuple[int, int]] = {}
    for time, number, call in calls:
        if call.scratch is not None:
            needed[time] = number, max(call.scratch, needed.get(time, (0, 0))[1])
    scratch: dict[int, int] = {}
    for time, (number, size) in needed.items():
        scratch[time] = len(buffers)
        op = program.ops[number]
        title = f"scratch of {program.layer_of(op) or op.title}"
        buffers.append(memory.Buffer(title, size, time, time, 16))
    kept = _kept(program, roots)
    overlaps = [
        (time, memory.Overlap(places[source], places[target], forward, backward))
        for time, last, pairs in _shared(work, calls, roots)
        for (source, target), (forward, backward) in pairs.items()
        if source in places
        and target in places
        and source not in kept
        and spans[source][1] == last
        and spans[target][0] == time
    ]
    plan = memory.plan(buffers, [overlap for _, overlap in overlaps], effort=effort)
    reverse = {
        time
        for (time, _), direction in zip(overlaps, plan.directions, strict=True)
        if direction == "backward"
    }
    steps = tuple(
        Step(
            call,
            number,
            time,
            chosen[number].why,
            None if call.scratch is None else plan.offsets[scratch[time]],
            time in reverse,
        )
        for time, number, call in calls
    )
    offsets = {
        index: plan.offsets[places[root]] + work.slices.get(index, (0, 0))[1]
        for index, root in roots.items()
        if root in places
    }
    return Schedule(program, steps, offsets, tuple(buffers), plan, work.streams)


def _shared(
    work: Work, calls: Sequence[_Timed], roots: dict[int, int]
) -> Iterator[tuple[int, int, dict[tuple[int, int], tuple[int | None, int | None]]]]:
    """What may lie over what: the step at which the target is written first, the one at which the
    source is read last, and the (source, target) roots with how far (forward, backward)."""
    for time, _, call in calls:
        yield time, time, _pairs(call, roots)
    for stream in work.streams:
        time = _start(stream, calls)
        pairs = {
            (roots[source], roots[target]): (forward, None)
            for source, target, forward in stream.reuses
        }
        yield time, time + stream.end - stream.first - 1, pairs  # type: ignore[misc]


def _start(stream: Stream, calls: Sequence[_Timed]) -> int:
    """The step of the first operator of a stream, whichever of its calls there are; -1: none."""
    inside = (one for one in calls if stream.first <= one.op < stream.end)
    return next((one.time - one.op + stream.first for one in inside), -1)


def _kept(program: Program, roots: dict[int, int]) -> set[int]:
    return {roots[index] for index in (*program.outputs, *_variables(program))}


def _laid_over(work: Work, calls: Sequence[_Timed], roots: dict[int, int]) -> dict[int, int]:
    """`roots`, with one root for the input and the output of a call that may be exactly in place.

    Only where the input dies there, and the output has the input's size and its first value there.
    """
    program, merged = work.program, dict(roots)
    for step, _, call in calls:
        for item in call.reuses:
            if not item.exact:
                continue
            spans = _spans(work, calls, merged)
            source, target = (
                merged[i] for i in (call.inputs[item.input], call.outputs[item.output])
            )
            if (
                source in spans
                and target in spans
                and source not in _kept(program, merged)
                and spans[source][1] == step == spans[target][0]
                and program.tensors[source].nbytes == program.tensors[target].nbytes
            ):
                merged = {i: source if root == target else root for i, root in merged.items()}
    return merged


def _label(program: Program, index: int) -> str:
    """The layer that computes a tensor, or the tensor's own name."""
    maker = program.producer.get(index)
    return (program.layer_of(maker) if maker else "") or program.tensors[index].name


def _variables(program: Program) -> Iterator[int]:
    return (index for index, tensor in enumerate(program.tensors) if tensor.variable)


def _spans(
    work: Work, calls: Sequence[_Timed], roots: dict[int, int]
) -> dict[int, tuple[int, int]]:
    """Root tensor -> (first, last) step at which it must be in memory; constants are left out."""
    program = work.program
    end = max((one.time for one in calls), default=0)
    spans: dict[int, tuple[int, int]] = {}

    def touch(index: int, first: int, last: int) -> None:
        if index < 0 or program.tensors[roots[index]].data is not None:
            return
        old = spans.get(roots[index], (first, last))
        spans[roots[index]] = (min(first, old[0]), max(last, old[1]))

    for index in program.inputs:
        touch(index, 0, 0)
    for time, _, call in calls:
        for index in (*call.inputs, *call.outputs):
            touch(index, time, time)
    for stream in work.streams:
        start = _start(stream, calls)
        for index in stream.held if start >= 0 else ():
            touch(index, start, start + stream.end - stream.first - 1)
    for index in program.outputs:
        touch(index, end, end)
    for index in _variables(program):
        touch(index, 0, end)
    return spans


def _pairs(
    call: Call, roots: dict[int, int]
) -> dict[tuple[int, int], tuple[int | None, int | None]]:
    """(source, target) roots -> (forward, backward), the strictest where a tensor comes twice.

    Never less than 0: what a distance below that could save is little, and the planner proves its
    plan only without them.
    """
    allowed = {
        (item.input, item.output): (item.forward, item.backward)
        for item in call.reuses
        if not item.exact
    }
    pairs: dict[tuple[int, int], tuple[int | None, int | None]] = {}
    for i, source in enumerate(call.inputs):
        for j, target in enumerate(call.outputs):
            if source < 0 or roots[source] == roots[target]:
                continue
            key = roots[source], roots[target]
            given = allowed.get((i, j), (None, None))
            old = pairs.get(key, (-math.inf, -math.inf))
            pairs[key] = tuple(  # type: ignore[assignment]
                None if a is None or b is None else max(a, b, 0)
                for a, b in zip(given, old, strict=True)
            )
    return {key: pair for key, pair in pairs.items() if pair != (None, None)}


def reversed_call(call: Call) -> Call:
    """`call` with its field `reverse` set."""
    assert call.params is not None and "reverse" in call.params.fields
    fields = {**call.params.fields, "reverse": 1}
    return replace(call, params=replace(call.params, fields=fields))
