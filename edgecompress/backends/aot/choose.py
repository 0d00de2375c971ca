"""Which kernel runs an operator, where several compute the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Choice, Lowered, Struct, Value, View
from edgecompress.vocabulary import Optimize

Picked: TypeAlias = "tuple[Call, ...] | View"
Arena: TypeAlias = Callable[[Sequence[Picked]], int]
"""The arena, in bytes, that a way to run the operators needs."""

SLACK = 1.25
"""`balanced` lets the arena grow to this many times the least one, for fewer instructions."""

WORTH = 0.01
"""`balanced` brings in the code of a kernel family only for this fraction of all instructions."""

CODE = {
    "ec_conv": 2600,
    "ec_conv_pairs": 2200,
    "ec_conv_plain": 700,
    "ec_depthwise": 1200,
    "ec_depthwise_pairs": 2600,
    "ec_fully_connected": 1050,
    "ec_fully_connected_pairs": 1120,
    "ec_winograd": 3700,
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

    `speed`: the fewest instructions; `size`: the fewest bytes of flash; `ram`: the smallest arena,
    then the fewest instructions; `balanced`: the fewest instructions within SLACK times the
    smallest arena, of the kernels that are worth their code. Instructions are those the lowerings
    estimate for a Cortex-M4; a call without an estimate counts as slower than one with. `arena` is
    called a few times for each choice.
    """
    choices = [part.alternatives if isinstance(part, Choice) else () for part in lowered]
    if not any(choices):
        picks = [0] * len(lowered)
    elif optimize == "speed":
        picks = _fastest(choices)
    elif optimize == "size":
        picks = _smallest(choices)
    elif optimize == "ram":
        picks = _frugal(lowered, choices, arena, slack=1.0)
    else:
        choices, picks = _balanced(lowered, choices, arena)
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


def _smallest(choices: Sequence[tuple[Call, ...]]) -> list[int]:
    """The set of kernel families whose code and constants together take the least flash."""
    families = sorted({call.family for options in choices for call in options})
    best: tuple[float, list[int]] | None = None
    for count in range(1, len(families) + 1):
        for kept in combinations(families, count):
            found = [_least(options, kept) for options in choices]
            if any(one is None for one in found):
                continue
            cost = sum(CODE.get(family, UNKNOWN_CODE) for family in kept)
            cost += sum(size for size, _ in filter(None, found))
            if best is None or cost < best[0]:
                best = cost, [one[1] for one in found if one is not None]
    assert best is not None
    return best[1]


def _least(options: tuple[Call, ...], families: Sequence[str]) -> tuple[int, int] | None:
    """(bytes of constants, number) of the smallest of `options` that is of `families`."""
    if not options:
        return 0, 0
    found = [(_constants(c.params), i) for i, c in enumerate(options) if c.family in families]
    return min(found, default=None)


def _constants(value: Value) -> int:
    """Bytes of flash of a parameter and what it points to."""
    if isinstance(value, Struct):
        return sum(_constants(field) for field in value.fields.values())
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
    least = [
        min(range(len(o)), key=lambda i, o=o: (o[i].scratch or 0, _speed(o[i]))) if o else 0  # type: ignore[misc]
        for o in choices
    ]
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
    return f"~{count} instructions, {call.scratch or 0:,} B scratch"
