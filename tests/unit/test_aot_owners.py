"""Which operators the constants, functions and files of the ahead-of-time C are there for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edgecompress.backends import aot
from edgecompress.backends.aot.schedule import Schedule
from edgecompress.tflite import Op, Program
from edgecompress.vocabulary import Optimize
from tests.aot_graphs import graphs
from tests.aot_harness import SCHEDULE
from tests.conftest import nightly
from tests.golden.test_aot_separable import joined
from tests.tflite_builder import activation, constant, conv_net, options, with_file

OWN = re.compile(r"\b([wcp]_\d+(?:_unpacked)?)\b")
TEXT = re.compile(r"^\s*/\* (\d+): ")
"""The comment before an operator's calls, which has its number."""


def owned(
    program: Program, *, optimize: Optimize = "balanced"
) -> tuple[Schedule, dict[str, tuple[int, ...]], dict[str, str]]:
    """The schedule, its owners, and the generated files."""
    planned = aot.schedule(program, optimize=optimize)
    return planned, aot.owners(program, planned), aot.generate(program, name="m", planned=planned)


def said(text: str) -> dict[int, set[str]]:
    """Operator number -> the constants and functions that its calls in model.c name, and the
    constants within these."""
    body = text[text.index("ec_model_invoke(void) {") :]
    inside = {
        found[1]: set(OWN.findall(found[2]))
        for found in re.finditer(
            r"^static const .*?(\w+)(?:\[\d+\])? = \{(.*?)^\};", text, re.M | re.S
        )
    }
    calls: dict[int, set[str]] = {}
    number = -1
    for line in body.splitlines():
        if found := TEXT.match(line):
            number = int(found[1])
        elif number >= 0 and (call := re.match(r"\s*(ec_\w+)\(", line)):
            names = set(OWN.findall(line))
            names |= {inner for name in names for inner in inside.get(name, ())}
            calls.setdefault(number, set()).update(names | {call[1]})
    return calls


@pytest.mark.parametrize("optimize", ["balanced", "ram", "size"])
@pytest.mark.parametrize("seed", range(nightly(10, 100)))
def test_what_a_call_names_is_there_for_its_operator(seed: int, optimize: Optimize) -> None:
    program = graphs(seed)
    planned, owners, files = owned(program, optimize=optimize)
    places = aot.places(program, planned)
    calls = said(files["model.c"])
    for number, names in calls.items():
        for name in names - {"ec_model_hook"}:
            assert places[number] in owners[name], (number, name)
    named = set().union(*calls.values()) if calls else set()
    declared = set(
        re.findall(r"^static const .*?\b([wcp]_\d\w*)(?:\[\d+\])? =", files["model.c"], re.M)
    )
    assert declared <= named & set(owners)
    stems = {path[:-2] for path in files if path.startswith("ec_") and path.endswith(".c")}
    assert stems <= set(owners)
    for name, operators in owners.items():
        assert operators == tuple(sorted(set(operators))) and operators, name
        assert all(program.ops[place].outputs for place in operators)


def test_each_kernel_is_there_for_those_that_call_it() -> None:
    program = with_file(conv_net())
    _, owners, _ = owned(program)
    kinds = {place: op.kind for place, op in enumerate(program.ops)}
    for name, operators in owners.items():
        told = {kinds[place] for place in operators}
        for word, kind in (
            ("softmax", "SOFTMAX"),
            ("max_pool", "MAX_POOL_2D"),
            ("fully_connected", "FULLY_CONNECTED"),
            ("conv", "CONV_2D"),
        ):
            if name.startswith(f"ec_{word}"):
                assert told == {kind}, name
    assert 2 not in {place for operators in owners.values() for place in operators}  # RESHAPE


def test_equal_constants_are_there_for_all_that_read_them() -> None:
    matrix = constant("w", np.arange(-32, 32).reshape(8, 8), "int8", scales=(0.01,))
    tensors = (activation("x", 1, 8), matrix, activation("y", 1, 8), activation("z", 1, 8))
    dense = options("FULLY_CONNECTED")
    ops = (
        Op("FULLY_CONNECTED", (0, 1, -1), (2,), dense),
        Op("FULLY_CONNECTED", (2, 1, -1), (3,), dense),
    )
    _, owners, _ = owned(with_file(Program(tensors, ops, (0,), (3,))))
    shared = [name for name, operators in owners.items() if operators == (0, 1)]
    assert any(name.startswith("w_") for name in shared)


def test_operators_are_numbered_as_in_the_file_where_a_padding_is_fused() -> None:
    kernel = constant("k", np.arange(-36, 36).reshape(4, 3, 3, 2), "int8", scales=(0.01,))
    amounts = constant("amounts", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32")
    tensors = (
        activation("x", 1, 6, 6, 2),
        amounts,
        activation("padded", 1, 8, 8, 2),
        kernel,
        activation("y", 1, 6, 6, 4),
        activation("z", 1, 6, 6, 4),
    )
    window = options("CONV_2D", stride_w=1, stride_h=1, padding="VALID")
    ops = (
        Op("PAD", (0, 1), (2,), options("PAD")),
        Op("CONV_2D", (2, 3, -1), (4,), window),
        Op("ABS", (4,), (5,), options("ABS")),
    )
    program = with_file(Program(tensors, ops, (0,), (5,)))
    planned, owners, _ = owned(program)
    assert len(planned.ops) == 2
    assert aot.places(program, planned) == (1, 2)
    assert {place for operators in owners.values() for place in operators} == {1, 2}
    assert {owners[name] for name in owners if name.startswith("w_")} == {(1,)}


def test_a_call_for_two_operators_shares_its_code_and_not_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SCHEDULE, "join", joined(-1))
    random = np.random.default_rng(0)
    deep = constant("dw", random.integers(-127, 128, (1, 3, 3, 8)), "int8", scales=(0.01,))
    point = constant("pw", random.integers(-127, 128, (4, 1, 1, 8)), "int8", scales=(0.01,))
    maps = [activation(name, 1, 8, 8, 8) for name in "xy"]
    tensors = (maps[0], deep, maps[1], point, activation("z", 1, 8, 8, 4))
    window: dict[str, Any] = {"stride_w": 1, "stride_h": 1, "padding": "SAME"}
    ops = (
        Op(
            "DEPTHWISE_CONV_2D",
            (0, 1, -1),
            (2,),
            options("DEPTHWISE_CONV_2D", depth_multiplier=1, **window),
        ),
        Op("CONV_2D", (2, 3, -1), (4,), options("CONV_2D", **window)),
    )
    planned, owners, files = owned(with_file(Program(tensors, ops, (0,), (4,))))
    (step,) = planned.steps
    assert step.call.family == "ec_separable"
    assert owners[step.call.function] == owners["ec_separable"] == owners["p_0"] == (0, 1)
    arrays = [name for name in said(files["model.c"])[1] if name[:2] in ("w_", "c_")]
    assert {owners[name] for name in arrays} == {(0,), (1,)}
    own, inner = (
        set(re.findall(rf"(?m)^ {{{wide}}}\.weights = (w_\d+),", files["model.c"]))
        for wide in (4, 8)
    )
    assert ({owners[name] for name in own}, {owners[name] for name in inner}) == ({(1,)}, {(0,)})
