"""Program -> the calls in order, and where every tensor and scratch buffer lies in the arena."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgecompress import memory
from edgecompress.backends import describe
from edgecompress.backends.aot.calls import Call, Lowered, Site, View
from edgecompress.backends.aot.choose import Chosen, Picked, choose
from edgecompress.backends.aot.fuse import fuse_pads
from edgecompress.backends.aot.operators import OPERATORS
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program
from edgecompress.vocabulary import Core, Optimize

_SEVERAL_OUTPUTS = ("SPLIT", "SPLIT_V", "UNPACK")
MAX_ARENA = 256 << 20
"""Bytes; a model whose activations need more is none for a microcontroller."""


@dataclass(frozen=True, eq=False)
class Step:
    """A call, the number of its operator in the schedule, and where its scratch lies (bytes).

    `why` says why this kernel was chosen, "" where there was no choice.
    """

    call: Call
    op: int
    why: str
    scratch: int | None
    reverse: bool


@dataclass(frozen=True, eq=False)
class Schedule:
    """What runs, in order, and where: offsets are bytes from the start of the arena.

    `program` is the program after the backend's own fusions; `ops` are its operators, `steps` the
    calls they became (an operator that moves nothing has none). `offsets` maps every activation
    to its place, views included. `buffers` and `plan` are the memory plan behind it.
    """

    program: Program
    steps: tuple[Step, ...]
    offsets: dict[int, int]
    buffers: tuple[memory.Buffer, ...]
    plan: memory.Plan

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators, in the order of their numbers."""
        return self.program.ops


def reasons(program: Program) -> list[str]:
    """Why this program cannot be lowered: one line each, none if it can."""
    return _lowered(program, "dsp")[2]


def schedule(program: Program, *, core: Core = "dsp", optimize: Optimize = "balanced") -> Schedule:
    """Lower every operator, choose its kernel and plan the arena.

    The C runs on any core with the same bits; `core` is the one whose kernels are chosen, and
    `optimize` what for (see `choose`). Raises UnsupportedError for what `reasons` lists.
    """
    fused, lowered, found = _lowered(program, core)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnsupportedError(f"aot: {found[0]}{more}")
    roots = _roots(fused, lowered)

    def arena(parts: Sequence[Picked]) -> int:
        return _placed(fused, [Chosen(part) for part in parts], roots, effort=0).plan.bytes

    chosen = choose(lowered, optimize=optimize, arena=arena)
    return _placed(fused, chosen, roots, effort=1)


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


def _roots(program: Program, lowered: Sequence[Lowered]) -> dict[int, int]:
    """Tensor -> the tensor whose memory it shares (itself where it is no view)."""
    roots = {index: index for index in range(len(program.tensors))}
    for part in lowered:
        if isinstance(part, View):
            roots[part.target] = roots[part.source]
    return roots


def _placed(
    program: Program, chosen: Sequence[Chosen], roots: dict[int, int], *, effort: int
) -> Schedule:
    calls = [
        (number, call)
        for number, one in enumerate(chosen)
        if not isinstance(one.part, View)
        for call in one.part
    ]
    roots = _laid_over(program, calls, roots)
    spans = _spans(program, calls, roots)
    places = {index: place for place, index in enumerate(spans)}
    buffers = [
        memory.Buffer(_label(program, index), program.tensors[index].nbytes, first, last, 16)
        for index, (first, last) in spans.items()
    ]
    scratch: dict[int, int] = {}
    for step, (number, call) in enumerate(calls):
        if call.scratch is not None:
            scratch[step] = len(buffers)
            op = program.ops[number]
            title = f"scratch of {program.layer_of(op) or op.title}"
            buffers.append(memory.Buffer(title, call.scratch, step, step, 16))
    kept = _kept(program, roots)
    overlaps = [
        (step, memory.Overlap(places[source], places[target], forward, backward))
        for step, (_, call) in enumerate(calls)
        for (source, target), (forward, backward) in _pairs(call, roots).items()
        if source in places
        and target in places
        and source not in kept
        and spans[source][1] == step == spans[target][0]
    ]
    plan = memory.plan(buffers, [overlap for _, overlap in overlaps], effort=effort)
    reverse = {
        step
        for (step, _), direction in zip(overlaps, plan.directions, strict=True)
        if direction == "backward"
    }
    steps = tuple(
        Step(
            call,
            number,
            chosen[number].why,
            plan.offsets[scratch[i]] if i in scratch else None,
            i in reverse,
        )
        for i, (number, call) in enumerate(calls)
    )
    offsets = {index: plan.offsets[places[root]] for index, root in roots.items() if root in places}
    return Schedule(program, steps, offsets, tuple(buffers), plan)


def _kept(program: Program, roots: dict[int, int]) -> set[int]:
    return {roots[index] for index in (*program.outputs, *_variables(program))}


def _laid_over(
    program: Program, calls: Sequence[tuple[int, Call]], roots: dict[int, int]
) -> dict[int, int]:
    """`roots`, with one root for the input and the output of a call that may be exactly in place.

    Only where the input dies there, and the output has the input's size and its first value there.
    """
    merged = dict(roots)
    for step, (_, call) in enumerate(calls):
        for item in call.reuses:
            if not item.exact:
                continue
            spans = _spans(program, calls, merged)
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
    program: Program, calls: Sequence[tuple[int, Call]], roots: dict[int, int]
) -> dict[int, tuple[int, int]]:
    """Root tensor -> (first, last) call at which it must be in memory; constants are left out."""
    end = max(len(calls) - 1, 0)
    spans: dict[int, tuple[int, int]] = {}

    def touch(index: int, first: int, last: int) -> None:
        if index < 0 or program.tensors[roots[index]].data is not None:
            return
        old = spans.get(roots[index], (first, last))
        spans[roots[index]] = (min(first, old[0]), max(last, old[1]))

    for index in program.inputs:
        touch(index, 0, 0)
    for step, (_, call) in enumerate(calls):
        for index in (*call.inputs, *call.outputs):
            touch(index, step, step)
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
