"""The kernel chooser: what each goal picks, and what it says about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgecompress.backends.aot.calls import Array, Call, Choice, Struct, View
from edgecompress.backends.aot.choose import Picked, choose


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
