"""The kernel chooser: what each goal picks, and what it says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgecompress.backends.aot.calls import Array, Call, Choice, Struct, View
from edgecompress.backends.aot.choose import Chosen, Picked, choose, join
from edgecompress.backends.aot.separable import Join
from edgecompress.vocabulary import Optimize


def call(name: str, instructions: int | None, scratch: int, constants: int = 0) -> Call:
    params = Struct("t", {"weights": Array("int8_t", np.zeros(constants, np.int8))})
    return Call(name, name, params, (0,), (1,), scratch, instructions=instructions)


SLOW, FAST, LARGE = call("slow", 1000, 0), call("fast", 500, 300), call("large", 400, 5000)
CHOICE = Choice((SLOW, FAST, LARGE))
FIXED = (call("fixed", None, 0),)


def arena(parts: Sequence[Picked]) -> int:
    """One buffer of 1,000 bytes and the largest scratch."""
    calls = [one for part in parts if not isinstance(part, View) for one in part]
    return 1000 + max(one.scratch or 0 for one in calls)


def names(optimize: str, *lowered: object) -> list[str]:
    chosen = choose(list(lowered), optimize=optimize, arena=arena)  # type: ignore[arg-type]
    return [part.part[0].function for part in chosen if not isinstance(part.part, View)]


def test_each_goal() -> None:
    lowered = (FIXED, View(0, 1), CHOICE)
    assert names("speed", *lowered) == ["fixed", "large"]
    assert names("ram", *lowered) == ["fixed", "slow"]
    assert names("balanced", *lowered) == ["fixed", "slow"]
    roomy = (call("fixed", None, 3000),)
    assert names("balanced", roomy, CHOICE) == ["fixed", "fast"]
    assert names("ram", roomy, CHOICE) == ["fixed", "fast"]


def test_balanced_takes_the_best_that_fits() -> None:
    roomy = (call("fixed", None, 4000),)
    assert names("balanced", roomy, CHOICE) == ["fixed", "large"]


def test_balanced_leaves_out_what_is_not_worth_its_code() -> None:
    little = Choice((call("slow", 1000, 0), call("new", 995, 0)))
    much = Choice((call("slow", 10_000, 0), call("other", 5000, 0)))
    assert names("balanced", little, much) == ["slow", "other"]
    assert names("speed", little, much) == ["new", "other"]


def test_size_shares_code() -> None:
    both = Choice((call("a", 10, 0, 100), call("b", 20, 0, 90)))
    only = (call("c", 1, 0),)
    alone = Choice((call("b", 5, 0, 50),))
    assert names("size", both, only) == ["b", "c"]
    assert names("size", Choice((call("a", 10, 0, 0), call("b", 20, 0, 9000)))) == ["a"]
    assert names("size", Choice((call("a", 10, 0, 50), call("b", 20, 0, 100))), alone) == ["b", "b"]


def lighter(*, instructions: int = 10_400, scratch: int = 0, constants: int = 6000) -> Choice:
    """A layer with 10,000 bytes of constants, or with fewer for some more instructions."""
    packed = replace(call("same", instructions, scratch, constants), uses=("ec_unpack",))
    return Choice((call("same", 10_000, 0, 10_000), packed))


@pytest.mark.parametrize(
    ("layer", "taken"),
    [
        (lighter(), True),
        (lighter(instructions=10_500), True),
        (lighter(instructions=10_501), False),
        (lighter(constants=8200), True),  # 1,200 bytes less, with the code that unpacks
        (lighter(constants=8400), False),
        (lighter(scratch=3300), True),
        (lighter(scratch=3500), False),
    ],
)
def test_balanced_gives_some_instructions_for_flash(layer: Choice, taken: bool) -> None:
    for goal, expected in (("balanced", taken), ("speed", False), ("size", True)):
        (chosen,) = choose([layer], optimize=goal, arena=arena)  # type: ignore[arg-type]
        assert (chosen.part == (layer.alternatives[1],)) == expected


def test_balanced_gives_the_cheapest_instructions() -> None:
    dear, cheap = lighter(instructions=10_900), lighter(instructions=10_100)
    chosen = choose([dear, cheap], optimize="balanced", arena=arena)
    parts = [one.part for one in chosen]
    assert parts == [(dear.alternatives[1],), (cheap.alternatives[1],)]
    dearer = lighter(instructions=10_901)
    chosen = choose([dearer, cheap], optimize="balanced", arena=arena)
    parts = [one.part for one in chosen]
    assert parts == [(dearer.alternatives[0],), (cheap.alternatives[1],)]


def test_size_minds_the_arena_of_nearly_equal_calls() -> None:
    same = Choice((call("k", 1000, 5000, 100), call("k", 1500, 0, 160), call("k", 900, 0, 900)))
    chosen = choose([same], optimize="size", arena=arena)
    assert chosen[0].part == (same.alternatives[1],)
    roomy = (call("fixed", None, 5000),)
    chosen = choose([roomy, same], optimize="size", arena=arena)
    assert chosen[1].part == (same.alternatives[0],)


def test_a_call_without_an_estimate_comes_last() -> None:
    assert names("speed", Choice((call("unknown", None, 0), SLOW))) == ["slow"]


@pytest.mark.parametrize("optimize", ["balanced", "ram", "size", "speed"])
def test_says_why(optimize: str) -> None:
    chosen = choose([FIXED, CHOICE], optimize=optimize, arena=arena)  # type: ignore[arg-type]
    assert chosen[0].why == ""
    picked = chosen[1].part
    assert not isinstance(picked, View)
    assert chosen[1].why.startswith(f"{optimize}: ~{picked[0].instructions:,} instructions")
    others = {"slow", "fast", "large"} - {picked[0].function}
    assert all(name in chosen[1].why for name in others)


APART = [Chosen((call("deep", 600, 0),)), Chosen((call("point", 400, 100),)), Chosen(FIXED)]


def joined(optimize: Optimize, *calls: Call, least: int = 1100) -> list[str]:
    found = join(APART, [Join(0, 1, calls)], optimize=optimize, arena=arena, least=lambda: least)
    return [one.function for part in found if not isinstance(part.part, View) for one in part.part]


def test_two_operators_become_one_call_where_that_pays() -> None:
    fast, lean, slow = call("fast", 700, 2000), call("lean", 900, 100), call("slow", 1100, 0)
    apart = ["deep", "point", "fixed"]
    assert joined("speed", lean, fast) == ["fast", "fixed"]
    assert joined("speed", slow) == apart
    assert joined("size", fast, lean) == apart
    assert joined("balanced", fast, lean) == ["lean", "fixed"]
    assert joined("balanced", fast, lean, least=2500) == ["fast", "fixed"]
    assert joined("balanced", call("little", 995, 0)) == apart
    assert joined("ram", fast, lean) == ["lean", "fixed"]
    assert joined("ram", fast, slow) == ["slow", "fixed"]
    assert joined("ram", fast) == apart


def test_balanced_keeps_packed_weights_apart() -> None:
    packed = Chosen((replace(call("point", 400, 100), uses=("ec_unpack",)),))
    pair = [Join(0, 1, (call("both", 700, 100),))]
    for optimize, count in (("balanced", 2), ("ram", 1), ("speed", 1)):
        chosen = [Chosen((call("deep", 600, 0),)), packed]
        found = join(chosen, pair, optimize=optimize, arena=arena, least=lambda: 1100)  # type: ignore[arg-type]
        assert sum(bool(one.part) for one in found) == count
