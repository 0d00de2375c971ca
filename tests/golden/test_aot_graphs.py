"""Whole graphs in ahead-of-time C: shared tensors, views, states, several outputs, one arena."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from edgecompress import memory
from edgecompress.backends import aot
from edgecompress.errors import EdgeCompressError
from edgecompress.tflite import Op, Program, Tensor, read
from tests import fuzz
from tests.aot_graphs import Graph, graphs, lstm
from tests.aot_harness import Case, at_limit, case, check, draw, run_guarded, run_host
from tests.conftest import need, nightly
from tests.golden import test_aot_convolution as convolution
from tests.golden import test_aot_elementwise as elementwise
from tests.golden import test_aot_matrix as matrix
from tests.golden import test_aot_shapes as shapes
from tests.tflite_builder import constant, one_op, options, quantized, with_file


@pytest.fixture(autouse=True)
def _compiler() -> None:
    need("cc")


@pytest.mark.parametrize("run", [run_host, run_guarded])
def test_graphs_have_the_bits_of_tflm(run: Callable[..., Any]) -> None:
    """Three rows each, so that a state, or an input overwritten too early, shows."""
    first = 0 if run is run_host else 1_000_000
    seeds = range(first, first + nightly(60, 2000))
    check([case(graphs(seed), rows=3, seed=seed) for seed in seeds], run=run)


# --- odd ones ---------------------------------------------------------------------------------


def _byte(name: str, *shape: int) -> Tensor:
    return quantized(name, shape, "int8", 0.1, 3)


def _net(tensors: Sequence[Tensor], *ops: Op, outputs: Sequence[int], inputs: int = 1) -> Program:
    """A program whose first `inputs` tensors go in."""
    return with_file(Program(tuple(tensors), ops, tuple(range(inputs)), tuple(outputs)))


def _op(kind: str, inputs: Sequence[int], *outputs: int, **values: Any) -> Op:
    return Op(kind, tuple(inputs), outputs, options(kind, **values))


def _row(kind: str, values: Any, dtype: str = "float32") -> Program:
    """`kind` of an input and the constant `values`."""
    shape = np.shape(values)
    x, y = quantized("x", shape, dtype), quantized("y", shape, dtype)
    fixed = constant("fixed", values, dtype)
    if kind == "CONCATENATION":
        return one_op(kind, (x, fixed), (quantized("y", (2 * shape[0],), dtype),), axis=0)
    return one_op(kind, (x, fixed), (y,))


def _states() -> Program:
    """A state seen through a RESHAPE before and after the LSTM that changes it."""
    graph = Graph(Random(5))
    lstm(graph)
    state = graph.ops[-1].inputs[18]
    size = (graph.tensors[state].elements,)
    before, after = graph.add(graph.like(size)), graph.add(graph.like(size))
    views = [
        Op("RESHAPE", (state,), (i,), options("RESHAPE", new_shape=size)) for i in (before, after)
    ]
    ops = (views[0], *graph.ops, views[1])
    outputs = (before, *graph.ops[-1].outputs, after)
    return with_file(Program(tuple(graph.tensors), ops, tuple(graph.inputs), outputs))


X, Y, Z = _byte("x", 1, 6), _byte("y", 6), _byte("z", 2, 3)
RELU = replace(X, name="y")
INT = quantized("x", (3,), "int32")
FIXED = constant("fixed", [1, -(2**31), 2**31 - 1], "int32")
INFINITE = [np.inf, -np.inf, np.nan, -0.0, 1e-45, 3.4028235e38]
GRAPHS = {
    "constants that are not finite": _row("MAXIMUM", INFINITE),
    "adding infinity": _row("ADD", INFINITE),
    "infinity moved": _row("CONCATENATION", INFINITE),
    "the least integers": _row("CONCATENATION", [-(2**63), 2**63 - 1, 0], "int64"),
    "flags": _row("CONCATENATION", [True, False], "bool"),
    "a cast that changes nothing, of a constant": _net(
        (INT, FIXED, replace(INT, name="c"), replace(INT, name="y")),
        _op("CAST", (1,), 2),
        _op("ADD", (0, 2), 3),
        outputs=(3, 2),
    ),
    "views alone": _net(
        (X, Y, Z),
        _op("RESHAPE", (0,), 1, new_shape=(6,)),
        _op("RESHAPE", (1,), 2, new_shape=(2, 3)),
        outputs=(2, 1),
    ),
    "an input that is an output": _net((X, RELU), _op("RELU", (0,), 1), outputs=(1, 0)),
    "an output twice": _net((X, RELU), _op("RELU", (0,), 1), outputs=(1, 1)),
    "an input that nobody reads": _net(
        (X, replace(Y, name="unread"), RELU), _op("RELU", (0,), 2), outputs=(2,), inputs=2
    ),
    "an input that is empty": _net(
        (X, _byte("empty", 0, 4), RELU), _op("RELU", (0,), 2), outputs=(2,), inputs=2
    ),
    "names": _net(
        (replace(X, name='*/ ??/ "\\\n\u2028é%s'), replace(RELU, name="*/ int x; /*")),
        _op("RELU", (0,), 1),
        outputs=(1,),
    ),
    "a scalar": one_op("RELU", (_byte("x"),), (_byte("y"),)),
    "a state seen through views": _states(),
}


def test_odd_graphs_have_the_bits_of_tflm() -> None:
    cases = [case(program, rows=3, seed=seed) for seed, program in enumerate(GRAPHS.values())]
    check(cases)
    check(cases, run=run_guarded)


STATE = replace(X, name="state", variable=True)
DENSE = constant("w", np.ones((6, 6)), "int8", scales=(0.1,))
FIVE = constant("five", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32")
REFUSED = {
    "8 paddings for 5 axes": one_op(
        "PAD", (_byte("x", 1, 2, 2, 1, 1), FIVE), (_byte("y", 1, 4, 4, 1),)
    ),
    "input 1 is bfloat16; supported: int32, int64": one_op(
        "PAD",
        (_byte("x", 1, 2, 2, 1), replace(FIVE, dtype="bfloat16", data=bytes(16))),
        (_byte("y", 1, 4, 4, 1),),
    ),
    "is a state with a value of its own": one_op(
        "ADD", (X, replace(X, name="y", variable=True, data=bytes(6))), (replace(X, name="z"),)
    ),
    "2 outputs; one is supported": _net(
        (X, DENSE, RELU, replace(X, name="z")),
        _op("FULLY_CONNECTED", (0, 1, -1), 2, 3),
        outputs=(2, 3),
    ),
    "the output is a state": _net((X, STATE), _op("ADD", (0, 1), 1), outputs=(1,)),
    "one above is supported": one_op(
        "QUANTIZE", (Tensor("x", (3,), "int32", (0.1,), (-(2**31),)),), (_byte("y", 3),)
    ),
    "no such operator in the aot backend; it has ABS, ADD,": one_op(
        "SIN", (quantized("x", (3,), "float32"),), (quantized("y", (3,), "float32"),)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_and_why(reason: str) -> None:
    (line,) = aot.supports(REFUSED[reason])
    assert reason in line


def test_odd_programs_that_are_accepted_become_sound_c() -> None:
    """It compiles without a warning, and runs under the sanitizers."""
    files = fuzz.sources([])
    cases = []
    for number in range(nightly(400, 8000)):
        random = Random(number)
        with contextlib.suppress(EdgeCompressError):
            program = read(fuzz.odd(random, random.choice(files), b""))
            small = max(sum(t.nbytes for t in program.tensors), program.macs) < 1 << 20
            if small and not aot.supports(program):
                cases.append(case(program, seed=number))
    assert len(cases) > 30
    run_host(cases)


# --- every operator family: its bounds, and in place ------------------------------------------


def families(count: int, *, libm: bool = True) -> list[Case]:
    """`count` cases, about, of every kind of operator; with or without those that need `libm`."""
    made = [
        *(p for kind in convolution.KINDS.values() for p in convolution.spread(kind(), count)),
        *(p for kind in _SHAPES for p in draw(kind(), count)),
        *(p for kind in _ELEMENTWISE for p, _ in draw(kind, count)),
        *draw(elementwise.activation_s8(), count),
        *draw(elementwise.activation_s16(), 2),
    ]
    cases = [case(program, rows=1, seed=seed) for seed, program in enumerate(made)]
    kinds = [*matrix.KINDS.values()]
    if libm:
        kinds += [matrix.softmax_f32(), matrix.lstm(("float32",))]
    return [*cases, *(one for kind in kinds for one in draw(kind, count))]


_SHAPES = (shapes.in_place, shapes.resizes, shapes.pads)
_ELEMENTWISE = (
    *(elementwise.binary(kind, "int8") for kind in ("ADD", "MUL", "PRELU", "MINIMUM")),
    *(elementwise.binary("ADD", dtype) for dtype in ("int16", "int32", "float32")),
    elementwise.conversion(),
)


def test_no_kernel_leaves_its_buffers() -> None:
    """With a fault on each byte of the arena that belongs to no buffer."""
    check(families(nightly(8, 200)), run=run_guarded)


def test_every_kernel_works_in_place_as_far_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "plan", at_limit("forward"))
    check(families(nightly(8, 200)))
