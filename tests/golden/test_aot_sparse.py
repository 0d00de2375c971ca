"""Weights of which many are 0: TFLM's bits from the kernels that skip them, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress import memory
from edgecompress.backends.aot import (
    conv_sparse,
    decoding,
    fully_connected_sparse,
    pairs,
    sparse,
)
from edgecompress.backends.aot.calls import Call, Choice, Lowered
from edgecompress.backends.aot.choose import Chosen, arrays
from edgecompress.backends.aot.density import dense_against_sparse, gzip_bytes
from edgecompress.backends.aot.schedule import schedule
from edgecompress.pipeline import pipeline
from edgecompress.tflite import Program
from edgecompress.vocabulary import Core, Optimize
from tests.aot_harness import SCHEDULE, Case, at_limit, case, check, run_guarded
from tests.conftest import need, nightly
from tests.golden import test_aot_fully_connected_pairs as matrices
from tests.golden.test_aot_convolution import ACTIVATIONS, Draw, spread
from tests.golden.test_aot_pairs import conv, extreme
from tests.tflite_builder import conv_net

CONVOLUTION = "ec_conv_sparse_s8"
MATRIX = "ec_fully_connected_sparse_s8"
CODED = "ec_fully_connected_sparse_coded_s8"
MASKED = "ec_fully_connected_sparse_masked_s8"
DECODED = (
    "ec_conv_pairs_s8",
    "ec_conv_s8",
    "ec_fully_connected_s8",
    "ec_conv_pairs_decoded_s8",
    "ec_fully_connected_pairs_decoded_s8",
)
"""Kernels whose weights are decoded to scratch first, all of them or part by part."""
ZEROS = (0.0, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Shares of weights of 0."""


@pytest.fixture(autouse=True)
def _compiler() -> None:
    need("cc")


def force(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    """The kernels under test, the first ones first, wherever they can be taken."""
    monkeypatch.setattr(pairs, "PARTS", (1 << 8, 3 << 10))
    monkeypatch.setattr(conv_sparse, "_saves", lambda *_: True)
    monkeypatch.setattr(fully_connected_sparse, "_may_save", lambda *_: True)
    monkeypatch.setattr(fully_connected_sparse, "_saves", lambda *_: True)

    def chosen(lowered: Sequence[Lowered], **_: Any) -> list[Chosen]:
        return [Chosen(_picked(part, functions)) for part in lowered]

    monkeypatch.setattr(SCHEDULE, "choose", chosen)


def _picked(part: Lowered, functions: Sequence[str]) -> Any:
    if not isinstance(part, Choice):
        return part
    sparse = [call for call in part.alternatives if call.is_sparse]
    found = [call for one in functions for call in sparse if call.function == one]
    return (found or list(part.alternatives))[:1]


def weights(
    random: np.random.Generator, shape: tuple[int, ...], share: float, distinct: int = 0
) -> Any:
    """Weights of which `share` are 0: any others (of `distinct` values, where that is not 0), or
    one end alone; some channels are all 0."""
    kind = int(random.integers(0, 4))
    found = np.full(shape, -128 if kind == 1 else 127)
    if kind > 1:
        found = random.integers(-128, 128, shape)
    if kind > 1 and distinct:
        found = random.choice(np.r_[-128, random.integers(-128, 128, distinct - 1)], shape)
    found[random.random(shape) < share] = 0
    found[random.random(len(found)) < 0.1] = 0
    return found


@st.composite
def convolutions(draw: Draw, share: float, distinct: int = 0) -> Program:
    """Convolutions of every form that the kernel takes."""
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    depth = draw(st.one_of(st.sampled_from([1, 2, 3, 4, 8, 16, 32]), st.integers(1, 19)))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    strides = [draw(st.sampled_from([1, 1, 2, 3])) for _ in "hw"]
    dilations = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in "hw"]
    size = [0, 0]
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        size[axis] = draw(st.integers(reach if padding == "VALID" else 1, reach + 8))
    count = draw(st.one_of(st.sampled_from([1, 4, 16]), st.integers(1, 19)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    taps = depth * kernel[0] * kernel[1]
    factor = random.uniform(0.3, 3.0, count if draw(st.booleans()) else 1) / np.sqrt(taps) / 64
    ends = st.sampled_from([-128, -128, 0, 127, 5, -77])
    return conv(
        weights(random, (count, *kernel, depth), share, distinct),
        size=(size[0], size[1]),
        batch=draw(st.sampled_from([1, 1, 2])),
        bias=random.integers(-4096, 4096, count) if draw(st.booleans()) else None,
        factor=factor * float(random.choice([1e-3, 0.3, 1.0])),
        zeros=(draw(ends), draw(ends)),
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h_factor=dilations[0],
        dilation_w_factor=dilations[1],
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )


@st.composite
def fully_connected(draw: Draw, share: float, distinct: int = 0) -> Program:
    """Matrices of every form that the kernel takes, with distances above 255 among them."""
    inputs = draw(st.one_of(st.sampled_from([4, 32, 300, 700]), st.integers(1, 90)))
    count = draw(st.one_of(st.sampled_from([8, 10]), st.integers(1, 19)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    each = count if draw(st.booleans()) else 1
    ends = st.sampled_from([-128, -128, 0, 127, 5, -77])
    return matrices.matrix(
        weights(random, (count, inputs), share, distinct),
        batch=draw(st.sampled_from([1, 1, 2, 3])),
        bias=random.integers(-4096, 4096, count) if draw(st.booleans()) else None,
        factor=random.uniform(0.3, 3.0, each) / np.sqrt(inputs) / 64,
        zeros=(draw(ends), draw(ends)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


FORMS: dict[str, Callable[[float], st.SearchStrategy[Program]]] = {
    CONVOLUTION: convolutions,
    MATRIX: fully_connected,
    MASKED: fully_connected,
    CODED: partial(fully_connected, distinct=15),
}


def call_of(program: Program, *, core: Core = "dsp") -> Call:
    return schedule(program, core=core).steps[-1].call


def taken(function: str, count: int, *, seed: int) -> list[Case]:
    """Cases that the kernel takes, with every share of zeros."""
    programs: list[Program] = []
    for number, share in enumerate(ZEROS):
        made = spread(FORMS[function](share), count // len(ZEROS), seed=10 * seed + number)
        found = [p for p in made if call_of(p).function == function]
        assert len(found) >= 0.7 * len(made)
        programs += found
    return [case(program, seed=seed) for seed, program in enumerate(programs)]


@pytest.mark.parametrize("function", FORMS)
def test_gives_tflm_bits(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, function)
    check(taken(function, nightly(48, 2400), seed=51), run=run_guarded)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_output_over_input_gives_the_same_bits(
    direction: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, CONVOLUTION)
    monkeypatch.setattr(memory, "plan", at_limit(direction))
    check(taken(CONVOLUTION, nightly(24, 1200), seed=52))


@st.composite
def encoded(draw: Draw, function: str) -> Program:
    """Weights that take less flash encoded: few other than 0, or of few values, or both."""
    share, distinct = draw(st.sampled_from([(0.9, 0), (0.6, 0), (0.5, 15), (0.0, 30), (0.0, 2)]))
    made = convolutions if function.startswith("ec_conv") else fully_connected
    return draw(made(share, distinct))


@pytest.mark.parametrize("function", DECODED)
def test_decoded_weights_give_tflm_bits(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, function)
    check(decoded(function, nightly(16, 720), seed=54), run=run_guarded)


def decoded(function: str, count: int, *, seed: int) -> list[Case]:
    """Cases in which the kernel has its weights decoded first."""
    programs = spread(encoded(function), 2 * count, seed=seed)
    found = [p for p in programs if call_of(p).is_sparse and call_of(p).function == function]
    assert len(found) >= count // 2
    return [case(program, seed=seed) for seed, program in enumerate(found[:count])]


ROWS = st.lists(st.tuples(st.integers(0, 600), st.integers(-128, 127)), max_size=12)
"""Distances and weights behind them."""


def row_of(parts: Sequence[tuple[int, int]]) -> Any:
    return np.array([v for zeros, weight in parts for v in (*[0] * zeros, weight)] + [0], np.int8)


def rebuilt(size: int, gaps: Any, values: Any) -> Any:
    """A row from its entries; what fills up may meet a weight again, with 0."""
    row = np.zeros(size, np.int64)
    np.add.at(row, np.cumsum(gaps), values)
    return row


@given(ROWS)
def test_entries_hold_every_weight(parts: list[tuple[int, int]]) -> None:
    row = row_of(parts)
    halves = sparse.entries(row, multiple=4).view(np.uint16)
    assert len(halves) % 4 == 0
    values = (halves >> 8).astype(np.uint8).view(np.int8)
    assert np.array_equal(rebuilt(len(row), halves & 255, values), row)


@given(ROWS)
def test_coded_entries_hold_every_weight(parts: list[tuple[int, int]]) -> None:
    row = row_of(parts)
    known = sparse.codebook(row)
    assert known is not None and 0 in known
    found = sparse.coded(row, known, multiple=4).view(np.uint8)
    assert len(found) % 4 == 0
    assert np.array_equal(rebuilt(len(row), found >> 4, known[found & 15]), row)


def test_a_list_of_values_is_short() -> None:
    assert sparse.codebook(np.arange(1, 16)) is not None
    assert sparse.codebook(np.arange(1, 17)) is None


@given(ROWS)
def test_encodings_hold_every_weight(parts: list[tuple[int, int]]) -> None:
    row = row_of(parts)
    row = np.append(row, np.zeros(-len(row) % 4, np.int8))
    for how in decoding.encodings(row[None]):
        bits = np.unpackbits(how(row).view(np.uint8), bitorder="little")
        kept = np.ones(len(row), bool)
        if how.masked:
            kept, bits = bits[: len(row)].astype(bool), bits[-(-len(row) // 32) * 32 :]
        fields = bits[: how.bits * kept.sum()].reshape(-1, how.bits) @ (1 << np.arange(how.bits))
        values = how.values[fields] if how.bits < 8 else fields.astype(np.uint8).view(np.int8)
        made = np.zeros(len(row), np.int64)
        made[kept] = values
        assert np.array_equal(made, row)


def few(shape: tuple[int, ...], share: float, *, seed: int = 6) -> Any:
    """Random weights of which `share` are 0."""
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < share, 0, random.integers(1, 128, shape))


LARGE = (1 << 30) - (1 << 14) - 128 * 127 * 4
"""A bias with which four weights of 127 just keep the bound on sums; greater by 1, they do not."""
FULL = np.full((8, 1, 1, 500), 127)
BOUNDS = {
    "sum, matrix": (
        matrices.matrix(np.full((1, 4), 127), bias=[LARGE - 1], factor=2e-7),
        matrices.matrix(np.full((1, 4), 127), bias=[LARGE], factor=2e-7),
    ),
    "factor, matrix": (
        matrices.matrix([[100]], factor=0.499),
        matrices.matrix([[100]], factor=0.5),
    ),
    "least factor, matrix": (
        matrices.matrix([[100]], factor=2.0**-23 * 1.01),
        matrices.matrix([[100]], factor=2.0**-23 * 0.49),
    ),
    "result before saturation": (conv(FULL, factor=0.0039), conv(FULL, factor=0.0041)),
    "factor": (conv([[[[100]]]], factor=0.499), conv([[[[100]]]], factor=0.5)),
    "sum": (
        conv(np.full((1, 1, 1, 4), 127), bias=[LARGE - 1], factor=2e-7),
        conv(np.full((1, 1, 1, 4), 127), bias=[LARGE], factor=2e-7),
    ),
    "least factor": (
        conv([[[[100]]]], factor=2.0**-23 * 1.01),
        conv([[[[100]]]], factor=2.0**-23 * 0.49),
    ),
}
"""What bounds the kernels: a layer that is just taken, one that no longer is."""


def test_bounds_are_met_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (inside, outside) in BOUNDS.items():
        force(monkeypatch, MATRIX if "matrix" in name else CONVOLUTION)
        assert call_of(inside).is_sparse, name
        assert not call_of(outside).is_sparse, name
    check([extreme(program) for pair in BOUNDS.values() for program in pair])


def alternatives(program: Program, core: Core = "dsp") -> list[Call]:
    (part,) = SCHEDULE._lowered(program, core)[1]
    return list(part.alternatives) if isinstance(part, Choice) else list(part)


def functions(program: Program, core: Core = "dsp") -> set[str]:
    """Of the calls that leave out weights of 0, or store them as places in a list."""
    return {call.function for call in alternatives(program, core) if call.is_sparse}


def test_dense_weights_are_left_alone() -> None:
    assert not functions(conv(few((16, 3, 3, 16), 0.0), size=(6, 6)))
    assert not functions(matrices.matrix(few((16, 64), 0.0)))


def test_what_is_offered_where() -> None:
    """Pairs need SMLAD; a single weight does not."""
    point = conv(few((32, 1, 1, 64), 0.9), size=(6, 6), factor=1e-3)
    matrix = matrices.matrix(few((32, 64), 0.9), factor=1e-3)
    assert functions(point) == {CONVOLUTION, DECODED[0], DECODED[1], DECODED[3]}
    assert functions(point, "plain") == functions(point, "mve") == {"ec_conv_s8"}
    assert functions(matrix, "plain") == {MATRIX, MASKED, DECODED[2]}
    assert functions(matrix) == {MATRIX, MASKED, DECODED[2], DECODED[4]}
    counts = [
        next(c.instructions for c in alternatives(matrix, core) if c.function == MATRIX)
        for core in ("dsp", "mve")
    ]
    assert counts[0] is not None and counts[1] == 4 * counts[0]
    written = [
        [c.instructions or 0 for c in alternatives(matrix, core) if c.function == DECODED[2]]
        for core in ("plain", "mve")
    ]
    (dense, once), (same, slower) = written
    assert dense == same and slower - dense == 4 * (once - dense) > 0


GOALS: tuple[Optimize, ...] = ("speed", "balanced", "size")


@pytest.mark.parametrize("optimize", GOALS)
@pytest.mark.parametrize("share", [0.0, 0.9, 0.95])
def test_many_zeros_pay(optimize: Optimize, share: float) -> None:
    """At 90 % a quarter of the flash and half the instructions; without zeros nothing changes."""
    program = matrices.matrix(few((100, 784), share), factor=1e-4)
    (row,) = dense_against_sparse(program, optimize)
    assert row.zeros == pytest.approx(share * 78400, abs=500) and row.weights == 78400
    if share:
        assert row.chosen.kernel == MATRIX and row.dense.kernel != MATRIX
        assert row.chosen.flash < 2.1 * (1 - share) * 78400 + 1200
        assert row.chosen.flash <= 0.25 * row.dense.flash
        assert row.chosen.instructions is not None and row.dense.instructions is not None
        assert row.chosen.instructions < (0.5, 0.3)[share > 0.9] * row.dense.instructions
    else:
        assert row.chosen == row.dense


def test_zero_pairs_of_channels_pay() -> None:
    """Half of the pairs of neighbouring channels: unstructured zeros at that share do not."""
    weights = few((64, 1, 1, 64), 0.0)
    weights.reshape(64, 32, 2)[np.random.default_rng(1).random((64, 32)) < 0.5] = 0
    programs = [conv(made, size=(8, 8), factor=1e-4) for made in (weights, few(weights.shape, 0.5))]
    rows = [dense_against_sparse(program, "speed")[0] for program in programs]
    assert [row.chosen.kernel for row in rows] == [CONVOLUTION, "ec_conv_pairs_s8"]


@pytest.mark.parametrize(("share", "most"), [(0.0, 0.5), (0.9, 0.19)])
def test_few_values_take_few_bits(share: float, most: float) -> None:
    """A list of 16 values: 4 bits of 8 without zeros; a bit and 4 of each weight that is not 0."""
    random = np.random.default_rng(3)
    values = random.choice(np.arange(-120, 121, 16), (64, 1, 1, 64))
    values[random.random(values.shape) < share] = 0
    program = conv(values, size=(4, 4), factor=1e-4)
    found = [c for c in alternatives(program) if c.unpacked and "ec_decode" in c.uses]
    assert {call.function for call in found} == {*DECODED[:2]}
    for call in found:
        assert call.unpacked is not None
        flash = arrays([replace(call, params=call.unpacked.params)])
        assert flash <= most * 4096 + 64 * 9 * (call.function == DECODED[0])


def test_what_fills_up_a_matrix_is_no_further_value() -> None:
    """60 outputs in blocks of 8, 98 inputs in steps of 4; 16 values, none of them 0."""
    values = np.random.default_rng(3).choice(np.arange(-119, 121, 16), (60, 98))
    program = matrices.matrix(values, factor=1e-4)
    (call,) = (c for c in alternatives(program) if c.function == DECODED[4])
    assert arrays([call]) <= 64 * (100 / 2 + 4 + 12)


def test_a_report_compares_where_zeros_or_few_values_are() -> None:
    """Few values without a zero; zeros that do not pay; neither."""
    random = np.random.default_rng(3)
    odd = random.choice(np.arange(-119, 121, 16), (64, 1, 1, 64))
    for weights, kernels in ((odd, 1), (few(odd.shape, 0.4), 1), (few(odd.shape, 0.0), 0)):
        program = conv(weights, size=(4, 4), factor=1e-4)
        found = pipeline._density(program, schedule(program, optimize="size"), "size")
        assert len(found) == kernels
    assert 0 not in odd


def test_rows_are_places_in_the_program() -> None:
    first = conv(few((8, 1, 1, 8), 0.5), size=(2, 2), kind="int4")
    (row,) = dense_against_sparse(first, "size")
    assert (row.op, row.kind, row.weights) == (0, "CONV_2D", 64)
    assert not dense_against_sparse(conv_net(weights="float32", dtype="float32"), "size")
    rows = dense_against_sparse(conv_net(), "size")
    assert [row.kind for row in rows] == ["CONV_2D", "FULLY_CONNECTED"]
    assert [row.op for row in rows] == [0, 3]


def test_gzip_sees_the_weights_alone() -> None:
    dense, mostly = (matrices.matrix(few((64, 64), share)) for share in (0.0, 0.95))
    assert gzip_bytes(mostly) < 0.3 * gzip_bytes(dense)
    assert 3000 < gzip_bytes(dense) < 4300
