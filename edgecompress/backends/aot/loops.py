"""Calls that come again and again, a step further in the arena each time, as loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Line: TypeAlias = "tuple[str | int, ...]"
"""A call: the function and its arguments; an int is an offset in the arena (bytes)."""


class Turn(NamedTuple):
    """The calls of operator `op` until another one's turn comes."""

    op: int
    lines: tuple[Line, ...]


class Loop(NamedTuple):
    """`turns`, run `times` times; `steps` are what is added to each argument after every time, 0
    for those that stay."""

    times: int
    turns: tuple[Turn, ...]
    steps: tuple[tuple[tuple[int, ...], ...], ...]


def rolled(turns: Sequence[Turn]) -> list[Loop]:
    """`turns` in their order, as loops where they repeat and as loops of 1 elsewhere."""
    found: list[Loop] = []
    at = 0
    while at < len(turns):
        best = 1, 1
        for period in range(1, (len(turns) - at) // 2 + 1):
            times = _times(turns, at, period)
            if period * (times - 1) > best[0] * (best[1] - 1):
                best = period, times
        period, times = best
        body = tuple(turns[at : at + period])
        again = turns[at + period : at + 2 * period] if times > 1 else body
        steps = tuple(_steps(one, other) or () for one, other in zip(body, again, strict=True))
        found.append(Loop(times, body, steps))
        at += period * times
    return found


def _times(turns: Sequence[Turn], at: int, period: int) -> int:
    """How often the `period` turns from `at` on come, one time behind the other."""
    steps = [_steps(turns[at + i], turns[at + period + i]) for i in range(period)]
    if None in steps:
        return 1
    place = at + 2 * period
    while place < len(turns):
        i = (place - at) % period
        if _steps(turns[place - period], turns[place]) != steps[i]:
            break
        place += 1
    return (place - at) // period


def _steps(one: Turn, other: Turn) -> tuple[tuple[int, ...], ...] | None:
    """What is added to the arguments of `one` to get `other`; None where more differs."""
    if one.op != other.op or list(map(len, one.lines)) != list(map(len, other.lines)):
        return None
    found = []
    for left, right in zip(one.lines, other.lines, strict=True):
        steps = []
        for a, b in zip(left, right, strict=True):
            if isinstance(a, int) and isinstance(b, int):
                steps.append(b - a)
            elif a == b:
                steps.append(0)
            else:
                return None
        found.append(tuple(steps))
    return tuple(found)
