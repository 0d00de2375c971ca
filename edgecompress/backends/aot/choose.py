"""Which kernel runs an operator, where several compute the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from edgecompress.backends.aot.calls import (
    Array,
    Call,
    Choice,
    Lowered,
    Struct,
    Unpacked,
    Value,
    View,
)
from edgecompress.backends.aot.separable import Join
from edgecompress.vocabulary import Optimize

Picked: TypeAlias = "tuple[Call, ...] | View"
Arena: TypeAlias = Callable[[Sequence[Picked]], int]
"""The arena, in bytes, that a way to run the operators needs."""

SLACK = 1.25
"""`balanced` lets the arena grow to this many times the least one, for fewer instructions."""

WORTH = 0.01
"""`balanced` brings in the code of a kernel family only for this fraction of all instructions."""

NEAR = 64
"""Bytes of flash per operator that `size` lets go for fewer instructions or a smaller arena."""

LIGHTER = 0.10
DEARER = 0.05
"""`balanced` then gives up to DEARER of the instructions for at least LIGHTER of the flash, as long
as that saves more flash than it takes arena."""

CODE = {
    "ec_conv": 2600,
    "ec_conv_pairs": 2200,
    "ec_conv_plain": 700,
    "ec_conv_rows_s16": 1700,
    "ec_conv_s16": 3900,
    "ec_conv_sparse": 1800,
    "ec_decode": 740,
    "ec_depthwise": 1200,
    "ec_depthwise_pairs": 2700,
    "ec_depthwise_s16": 2500,
    "ec_fully_connected": 1050,
    "ec_fully_connected_pairs": 1120,
    "ec_fully_connected_pairs_s16": 910,
    "ec_fully_connected_sparse": 500,
    "ec_separable": 3900,
    "ec_softmax": 1020,
    "ec_softmax_table": 430,
    "ec_unpack": 600,
    "ec_winograd": 4300,
    "ec_winograd_1x4": 3700,
    "ec_winograd_4x4": 7200,
}
"""Bytes of code of a family on a Cortex-M4, about; what is not here counts as UNKNOWN_CODE."""
UNKNOWN_CODE = 1500


@dataclass(frozen=True, eq=False)
class Chosen:
    """How an operator runs, and why ("" where there was no choice)."""

    part: Picked
    why: str = ""


def choose(lowered: Sequence[Lowered], *, optimize: Optimize, arena: Arena) -> list[Chosen]:
    """One way to run each operator, in their order.

    `speed`: the fewest instructions; `size`: the fewest bytes of flash (but for NEAR), then as
    `balanced`; `ram`: the smallest arena, then the fewest instructions; `balanced`: the fewest
    instructions within SLACK times the smallest arena, of the kernels that are worth their code,
    but less flash where that is worth it (LIGHTER). Instructions are those the lowerings estimate
    for a Cortex-M4; a call without an estimate counts as slower than one with. `arena` is called a
    few times for each choice.
    """
    choices = [part.alternatives if isinstance(part, Choice) else () for part in lowered]
    if not any(choices):
        picks = [0] * len(lowered)
    elif optimize == "speed":
        picks = _fastest(choices)
    elif optimize == "size":
        choices = _smallest(choices)
        picks = _frugal(lowered, choices, arena, slack=SLACK)
    elif optimize == "ram":
        picks = _frugal(lowered, choices, arena, slack=1.0)
    else:
        choices, picks = _balanced(lowered, choices, arena)
        picks = _lighter(lowered, choices, picks, arena)
    return [
        Chosen(_picked(part, options, pick), _why(part, options, pick, optimize))
        for part, options, pick in zip(lowered, choices, picks, strict=True)
    ]


def _picked(part: Lowered, options: tuple[Call, ...], pick: int) -> Picked:
    return (options[pick],) if isinstance(part, Choice) else part


def _speed(call: Call) -> float:
    return np.inf if call.instructions is None else call.instructions


def _fastest(choices: Sequence[tuple[Call, ...]]) -> list[int]:
    return [
        min(range(len(options)), key=lambda i, o=options: _speed(o[i])) if options else 0  # type: ignore[misc]
        for options in choices
    ]


def _smallest(choices: Sequence[tuple[Call, ...]]) -> list[tuple[Call, ...]]:
    """The calls that need no more than NEAR of the least flash: of the set of kernel families whose
    code and constants together take the least."""
    sized = [
        [(_constants(call.params), set(call.families), call) for call in options]
        for options in choices
    ]
    families = sorted(set().union(*(needed for options in sized for _, needed, _ in options)))
    best: tuple[float, list[tuple[Call, ...]]] | None = None
    for count in range(1, len(families) + 1):
        for kept in combinations(families, count):
            found = [[one for one in options if one[1] <= {*kept}] for options in sized]
            if any(options and not rest for options, rest in zip(sized, found, strict=True)):
                continue
            least = [min((size for size, _, _ in rest), default=0) for rest in found]
            cost = sum(CODE.get(family, UNKNOWN_CODE) for family in kept) + sum(least)
            if best is None or cost < best[0]:
                near = [
                    tuple(call for size, _, call in rest if size <= most + NEAR)
                    for rest, most in zip(found, least, strict=True)
                ]
                best = cost, near
    assert best is not None
    return best[1]


def arrays(calls: Iterable[Call]) -> int:
    """Bytes of the arrays in flash that `calls` read, equal ones once."""
    found: dict[tuple[str, bytes], int] = {}
    for call in calls:
        for array in _arrays(call.params):
            values = np.asarray(array.values)
            found[array.ctype, values.tobytes()] = values.size * _WIDTHS[array.ctype]
    return sum(found.values())


def flash(calls: Sequence[Call]) -> int:
    """Bytes of flash, about, of the arrays that `calls` read and of the code of their kernels."""
    families = {family for call in calls for family in call.families}
    return arrays(calls) + sum(CODE.get(family, UNKNOWN_CODE) for family in families)


def _arrays(value: Value) -> Iterator[Array]:
    if isinstance(value, Array):
        yield value
    if isinstance(value, Unpacked):
        yield from _arrays(value.params)
    if isinstance(value, Struct):
        for field in value.fields.values():
            yield from _arrays(field)


def _constants(value: Value) -> int:
    """Bytes of flash of a parameter and what it points to."""
    if isinstance(value, Struct):
        return sum(_constants(field) for field in value.fields.values())
    if isinstance(value, Unpacked):
        return 4 + _constants(value.params)
    if isinstance(value, Array):
        return 4 + np.asarray(value.values).size * _WIDTHS[value.ctype]
    return 4 * (len(value) if isinstance(value, tuple) else 1)


_WIDTHS = {
    **{f"{sign}int{bits}_t": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float": 4,
}


def _balanced(
    lowered: Sequence[Lowered], choices: list[tuple[Call, ...]], arena: Arena
) -> tuple[list[tuple[Call, ...]], list[int]]:
    """The choices without the families that are not worth their code, and what is picked."""
    picks = _frugal(lowered, choices, arena, slack=SLACK)
    families = sorted({call.family for options in choices for call in options})
    for family in sorted(families, key=lambda one: -CODE.get(one, UNKNOWN_CODE)):
        others = [tuple(call for call in o if call.family != family) for o in choices]
        if any(options and not rest for options, rest in zip(choices, others, strict=True)):
            continue
        without = _frugal(lowered, others, arena, slack=SLACK)
        total = _total(choices, picks)
        if _total(others, without) <= (1 + WORTH) * total:
            choices, picks = others, without
    return choices, picks


def _lighter(
    lowered: Sequence[Lowered],
    choices: Sequence[tuple[Call, ...]],
    picks: list[int],
    arena: Arena,
) -> list[int]:
    """`picks`, or others that take less flash: see LIGHTER."""

    def needs(tried: Sequence[int]) -> int:
        return arena([_picked(*one) for one in zip(lowered, choices, tried, strict=True)])

    flash, total, most = _flash(lowered, choices, picks), _total(choices, picks), needs(picks)
    found = []
    for i, (options, pick) in enumerate(zip(choices, picks, strict=True)):
        for j, call in enumerate(options):
            saved = _constants(options[pick].params) - _constants(call.params)
            more = _speed(call) - _speed(options[pick])
            if saved > 0 and 0 <= more <= DEARER * total:
                found.append((more / saved, more, needs([*picks[:i], j, *picks[i + 1 :]]), i, j))
    best, gain = picks, 0
    for limit in sorted({place[2] for place in found}):
        tried, left = list(picks), DEARER * total
        for _, more, bytes_, i, j in sorted(found):
            if tried[i] == picks[i] and bytes_ <= limit and more <= left:
                tried[i], left = j, left - more
        saved = flash - _flash(lowered, choices, tried)
        if saved >= LIGHTER * flash and saved - (needs(tried) - most) > gain:
            best, gain = tried, saved - (needs(tried) - most)
    return best


def _flash(
    lowered: Sequence[Lowered], choices: Sequence[tuple[Call, ...]], picks: Sequence[int]
) -> int:
    """Bytes of constants and code, about."""
    parts = [_picked(*one) for one in zip(lowered, choices, picks, strict=True)]
    calls = [call for part in parts if not isinstance(part, View) for call in part]
    families = {family for call in calls for family in call.families}
    code = sum(CODE.get(family, UNKNOWN_CODE) for family in families)
    return code + sum(_constants(call.params) for call in calls)


def _total(choices: Sequence[tuple[Call, ...]], picks: Sequence[int]) -> float:
    return sum(_speed(o[pick]) for o, pick in zip(choices, picks, strict=True) if o)


def _frugal(
    lowered: Sequence[Lowered], choices: Sequence[tuple[Call, ...]], arena: Arena, *, slack: float
) -> list[int]:
    """The fewest instructions within `slack` times the smallest arena that was found."""

    def needs(picks: Sequence[int]) -> int:
        return arena(
            [
                _picked(part, options, pick)
                for part, options, pick in zip(lowered, choices, picks, strict=True)
            ]
        )

    picks = _fastest(choices)
    if all(len(options) < 2 for options in choices):
        return picks
    scratch = [[(one.scratch or 0, _speed(one)) for one in options] for options in choices]
    alone = [
        [
            (arena([(one,) if k == i else () for k in range(len(choices))]), one.scratch or 0)
            for one in options
        ]
        for i, options in enumerate(choices)
    ]
    least = min(([_first(one) for one in costs] for costs in (scratch, alone)), key=needs)
    most = needs(picks)
    limit = int(min(needs(least), most) * slack)
    if most <= limit:
        return picks
    current = list(least)
    gains = sorted(
        (_speed(options[pick]) - _speed(options[current[i]]), i, pick)
        for i, options in enumerate(choices)
        for pick in range(len(options))
        if _speed(options[pick]) < _speed(options[current[i]])
    )
    for _, i, pick in gains:
        if _speed(choices[i][pick]) < _speed(choices[i][current[i]]):
            tried = [*current[:i], pick, *current[i + 1 :]]
            if needs(tried) <= limit:
                current = tried
    return current


def _first(costs: Sequence[tuple[float, float]]) -> int:
    """The place of the least, 0 where there is none."""
    return min(range(len(costs)), key=lambda i: costs[i], default=0)


def _why(part: Lowered, options: tuple[Call, ...], pick: int, optimize: Optimize) -> str:
    """Why alternative `pick`: what the others would take."""
    if not isinstance(part, Choice) or len(part.alternatives) < 2:
        return ""
    others = ", ".join(
        f"{call.function} {_told(call)}" for call in part.alternatives if call is not options[pick]
    )
    return f"{optimize}: {_told(options[pick])}; else {others}"


def _told(call: Call) -> str:
    count = "?" if call.instructions is None else f"{call.instructions:,}"
    size = _constants(call.params)
    return f"~{count} instructions, {call.scratch or 0:,} B scratch, {size:,} B constants"


def join(
    chosen: Sequence[Chosen],
    joins: Sequence[Join],
    *,
    optimize: Optimize,
    arena: Arena,
    least: Callable[[], int],
) -> list[Chosen]:
    """`chosen`, with pairs of operators in one call where that is better.

    `speed`: where that takes fewer instructions. `ram`: where that makes the arena smaller, or no
    larger with fewer instructions. `balanced`: where that takes fewer instructions within SLACK
    times `least` (the smallest arena, in bytes), if all such pairs together are worth the code, but
    none with packed weights, which were chosen for their flash.
    `size`: nowhere. The call stands at the second operator of a pair; the first has none.
    """
    joins = [] if optimize == "size" else [one for one in joins if _runs(chosen, one)]
    if optimize == "balanced":
        joins = [one for one in joins if not _is_packed(chosen, one)]
    if not joins:
        return list(chosen)
    limit = int(SLACK * least()) if optimize == "balanced" else 0
    current = list(chosen)
    for one in joins:
        before = current[one.first].part, current[one.second].part
        apart = sum(_speed(call) for part in before for call in _calls(part))
        need = np.inf if optimize == "speed" else arena([item.part for item in current])
        best = current
        for call in one.calls:
            gain = apart - _speed(call)
            tried = list(current)
            why = f"{optimize}: {_told(call)}; else ~{apart:,.0f} instructions in two calls"
            tried[one.first], tried[one.second] = Chosen(()), Chosen((call,), why)
            if optimize == "speed":
                better = gain > 0
            else:
                wants = arena([item.part for item in tried])
                better = gain > 0 and wants <= max(need, limit)
                better |= optimize == "ram" and wants < need
                need = wants if better and optimize == "ram" else need
            if better:
                best, apart = tried, _speed(call)
        current = best
    old, new = (
        sum(_speed(call) for item in all for call in _calls(item.part) if call.instructions)
        for all in (chosen, current)
    )
    return list(chosen) if optimize == "balanced" and old - new <= WORTH * old else current


def _calls(part: Picked) -> tuple[Call, ...]:
    return () if isinstance(part, View) else part


def _runs(chosen: Sequence[Chosen], one: Join) -> bool:
    """Whether both operators are calls."""
    return all(_calls(chosen[place].part) for place in (one.first, one.second))


def _is_packed(chosen: Sequence[Chosen], one: Join) -> bool:
    """Whether an operator of the two has packed weights."""
    places = one.first, one.second
    return any(call.is_packed for place in places for call in _calls(chosen[place].part))
