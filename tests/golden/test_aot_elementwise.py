"""Element-wise operators, activations and conversions: the generated C has TFLM's bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress.backends import aot
from edgecompress.tflite import DTYPES, Program, Tensor
from tests.aot_harness import Case, case, check, draw, random_input
from tests.conftest import need, nightly
from tests.tflite_builder import one_op, quantized

Draw = Any
BYTES = np.arange(256, dtype=np.uint8)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
ZEROS = st.one_of(st.sampled_from((-128, 0, 127)), st.integers(-128, 127))


@pytest.fixture(autouse=True)
def _tools() -> None:
    need("cc")


def powers(low: float, high: float) -> st.SearchStrategy[float]:
    """2^x for x from `low` to `high`, as a float32; whole powers come often."""
    exponents = st.one_of(st.floats(low, high), st.integers(round(low), round(high)).map(float))
    return exponents.map(lambda x: float(np.float32(2.0**x)))


def zero(dtype: str) -> st.SearchStrategy[int]:
    """A zero point of an 8-bit or 16-bit type."""
    if dtype == "uint8":
        return st.integers(0, 255)
    return ZEROS if dtype == "int8" else st.just(0)


@st.composite
def two_shapes(draw: Draw, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast: equal, with ones, or of different rank; PRELU of TFLM has 4."""
    out = draw(st.lists(st.integers(1, 4), max_size=rank))
    if draw(st.booleans()):
        return tuple(out), tuple(out)
    sides = [
        tuple(1 if repeated else size for size, repeated in zip(out, ones, strict=True))
        for ones in draw(
            st.tuples(*[st.lists(st.booleans(), min_size=len(out), max_size=len(out))] * 2)
        )
    ]
    cut = draw(st.integers(0, len(out)))
    return (sides[0], sides[1][cut:]) if draw(st.booleans()) else (sides[1][cut:], sides[0])


@st.composite
def binary(
    draw: Draw, kind: str, dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
) -> tuple[Program, int]:
    """A program of one element-wise operator, and a seed for its rows."""
    other = "int8" if (kind, dtype) == ("PRELU", "int16") else dtype
    one, two = shapes or draw(two_shapes(4 if kind == "PRELU" else 5))
    scales = draw(powers(-9, 2)), draw(powers(-9, 2))
    if draw(st.integers(0, 3)) == 0:
        scales = scales[0], scales[0]
    product = {"MUL": scales[0] * scales[1], "PRELU": scales[0]}
    out_scale = product.get(kind, max(scales)) * draw(powers(-6, 6))
    inputs = [
        quantized("a", one, dtype, scales[0], draw(zero(dtype))),
        quantized("b", two, other, scales[1], draw(zero(other))),
    ]
    out = quantized("o", np.broadcast_shapes(one, two), dtype, out_scale, draw(zero(dtype)))
    seed = draw(st.integers(0, 1 << 30))
    constant = None if shapes else draw(st.sampled_from((None, None, 0, 1)))
    if constant is not None:
        inputs[constant] = filled(inputs[constant], seed)
    values = {}
    if kind in ("ADD", "SUB", "MUL"):
        values["fused_activation_function"] = draw(st.sampled_from(ACTIVATIONS))
    return one_op(kind, tuple(inputs), (out,), **values), seed


def filled(tensor: Tensor, seed: int) -> Tensor:
    """`tensor` as a constant of random values."""
    data = random_input(tensor, np.random.default_rng(seed)).astype(DTYPES[tensor.dtype].numpy)
    return dataclasses.replace(tensor, data=data.tobytes())


def cases(found: Sequence[tuple[Program, int]], *, rows: int = 2) -> list[Case]:
    """The programs with their rows; those that the backend does not have would be a bug here."""
    for program, _ in found:
        assert aot.supports(program) == []
    return [case(program, rows=rows, seed=seed) for program, seed in found]


ARITHMETIC = ("ADD", "SUB", "MUL", "PRELU")
TYPES = ("int8", "int16", "float32", "int32")


def test_two_inputs() -> None:
    """Random shapes, scales, zero points, activations and constants."""
    found = []
    for kind in (*ARITHMETIC, "MINIMUM", "MAXIMUM"):
        for dtype in TYPES[:3] if kind == "PRELU" else TYPES:
            count = nightly(24 if dtype == "int8" else 8, 240)
            found += draw(binary(kind, dtype), count, seed=len(found))
    check(cases(found))


def test_every_pair_of_int8_values() -> None:
    found = []
    for kind in ARITHMETIC:
        programs = draw(binary(kind, "int8", ((256, 1), (256,))), nightly(8, 100))
        found += [
            Case(program, [[BYTES.view("i1").reshape(256, 1), BYTES.view("i1")]])
            for program, _ in programs
        ]
    check(found)


def test_many_int16_values() -> None:
    """A multiplier that is off in its last bits shows in a few of 6,000 elements."""
    found = []
    for kind in ARITHMETIC:
        programs = draw(binary(kind, "int16", ((6000,), (6000,))), nightly(6, 100))
        for program, seed in programs:
            random = np.random.default_rng(seed)
            limits = [2 * (np.iinfo(DTYPES[t.dtype].numpy).max + 1) for t in program.tensors[:2]]
            row = [
                (random.integers(0, limit, 6000) - limit // 2).astype(DTYPES[t.dtype].numpy)
                for limit, t in zip(limits, program.tensors[:2], strict=True)
            ]
            found.append(Case(program, [row]))
    check(found)


# --- one input --------------------------------------------------------------------------------


def every_byte(program: Program) -> Case:
    """`program`, whose input has 256 elements of 8 bits, with all of them."""
    kind = DTYPES[program.tensors[program.inputs[0]].dtype].numpy
    return Case(program, [[BYTES.view(kind)]])


OUTPUTS = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}


@st.composite
def activation_s8(draw: Draw) -> Program:
    """A program of one int8 activation over 256 elements."""
    kinds = ("LOGISTIC", "TANH", "RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "ABS", "ELU")
    kind = draw(st.sampled_from(kinds))
    scale = draw(powers(-12, 5))
    fixed = OUTPUTS.get(kind)
    out = fixed or (scale * draw(powers(-6, 8)), draw(ZEROS))
    values = {"alpha": draw(st.floats(-2, 2, width=32))} if kind == "LEAKY_RELU" else {}
    source = quantized("x", (256,), "int8", scale, draw(ZEROS))
    return one_op(kind, (source,), (quantized("y", (256,), "int8", *out),), **values)


def test_every_value_of_an_int8_activation() -> None:
    check([every_byte(program) for program in draw(activation_s8(), nightly(200, 4000))])


WORDS = np.arange(-32768, 32768, nightly(5, 1)).astype(np.int16)
"""int16 values over the whole range: every fifth, or all."""


@st.composite
def activation_s16(draw: Draw) -> Program:
    """A program of one int16 activation over `WORDS`."""
    kind = draw(st.sampled_from(("LOGISTIC", "TANH", "RELU", "RELU6", "LEAKY_RELU")))
    scale = draw(powers(-16, -9 if kind == "RELU6" else 1))
    sigmoid = kind in OUTPUTS
    out = 2.0**-15 if sigmoid else scale * draw(powers(-4, 8))
    values = {"alpha": draw(st.floats(-2, 2, width=32))} if kind == "LEAKY_RELU" else {}
    source = quantized("x", WORDS.shape, "int16", scale)
    return one_op(kind, (source,), (quantized("y", WORDS.shape, "int16", out),), **values)


def test_values_of_an_int16_activation() -> None:
    found = draw(activation_s16(), nightly(12, 200))
    found += [
        one_op(
            kind,
            (quantized("x", WORDS.shape, "int16", 2.0**power),),
            (quantized("y", WORDS.shape, "int16", 2.0**-15),),
        )
        for kind in OUTPUTS
        for power in (-12, -11)
    ]
    check([Case(program, [[WORDS]]) for program in found])


FLOATS = np.concatenate(
    [
        np.linspace(-20, 20, 997),
        [0.0, -0.0, 3.0, -3.0, 6.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 3e38, -3e38],
        [16.61905, 16.6190471, -9.0, -9.000001],
    ]
).astype(np.float32)


def test_float_activations() -> None:
    """expf, tanhf and expm1f are those of this machine's libm in both; no tolerance is needed."""
    x, y = (quantized(name, FLOATS.shape, "float32") for name in "xy")
    kinds = ("RELU", "RELU6", "HARD_SWISH", "ABS", "LOGISTIC", "TANH", "ELU")
    programs = [one_op(kind, (x,), (y,)) for kind in kinds]
    programs += [one_op("LEAKY_RELU", (x,), (y,), alpha=alpha) for alpha in (0.1, -0.5, 0.0)]
    check([Case(program, [[FLOATS]]) for program in programs])


# --- conversions ------------------------------------------------------------------------------

PAIRS = [
    (one, other)
    for one, others in {
        "float32": ("int8", "int16"),
        "int8": ("int8", "uint8", "int16", "int32", "float32"),
        "uint8": ("int8", "float32"),
        "int16": ("int8", "int16", "int32", "float32"),
        "int32": ("int8", "int16"),
    }.items()
    for other in others
]


def scaled(name: str, dtype: str, scale: float, zero_point: int) -> Tensor:
    """A tensor of 300 elements; int32 has a scale too."""
    if dtype == "float32":
        return Tensor(name, (300,), dtype)
    return Tensor(name, (300,), dtype, (float(np.float32(scale)),), (zero_point,))


@st.composite
def conversion(draw: Draw) -> tuple[Program, int]:
    """A QUANTIZE or DEQUANTIZE between two types."""
    one, other = draw(st.sampled_from(PAIRS))
    scale = draw(powers(-9, 2))
    ratio = draw(powers(-6, 6))
    source = scaled("x", one, scale, draw(zero(one)))
    kind = "DEQUANTIZE" if other == "float32" else "QUANTIZE"
    target = scaled("y", other, scale * ratio, draw(zero(other)))
    return one_op(kind, (source,), (target,)), draw(st.integers(0, 1 << 30))


def test_quantize_and_dequantize() -> None:
    check(cases(draw(conversion(), nightly(150, 2000))))


def test_quantize_rounds_halves_away_from_zero_and_saturates() -> None:
    """Beyond 2^31 steps TFLM's conversion is undefined; there the C saturates."""
    steps = np.array(
        [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, -0.49999997, 126.5, 1e6, -1e6, 2.0**30]
    )
    for dtype, zero_point in (("int8", -3), ("int16", 0)):
        source = Tensor("x", steps.shape, "float32")
        target = quantized("y", steps.shape, dtype, 0.25, zero_point)
        program = one_op("QUANTIZE", (source,), (target,))
        check([Case(program, [[(steps * 0.25).astype(np.float32)]])])


def test_cast() -> None:
    types = ("float32", "int32", "int16", "int8", "bool")
    programs = [
        one_op("CAST", (Tensor("x", (70,), one),), (Tensor("y", (70,), other),))
        for one in types
        for other in types
    ]
    check([case(program, rows=2) for program in programs])


# --- what is refused --------------------------------------------------------------------------


def two(kind: str, first: Tensor, second: Tensor, out: Tensor, **values: Any) -> Program:
    return one_op(kind, (first, second), (out,), **values)


def renamed(tensor: Tensor) -> Tensor:
    """Another tensor like `tensor`."""
    return dataclasses.replace(tensor, name=f"{tensor.name}2")


S8 = quantized("a", (2, 3), "int8", 0.1)
REFUSED = {
    "do not broadcast": two("ADD", S8, quantized("b", (2, 4), "int8", 0.1), S8),
    "must have the shape": two("ADD", S8, S8, quantized("o", (3, 2), "int8", 0.1)),
    "supported: int8, int16, int32, float32": two("ADD", *[Tensor("a", (2,), "int64")] * 3),
    "needs one scale": two("MUL", S8, S8, Tensor("o", (2, 3), "int8")),
    "too small": two("ADD", S8, S8, quantized("o", (2, 3), "int8", 1e-9)),
    "fused activation TANH": two("SUB", S8, S8, renamed(S8), fused_activation_function="TANH"),
    "is a quantised int32": two("MUL", *[scaled("a", "int32", 0.1, 0)] * 3),
    "zero point is 0; supported: -128": one_op("LOGISTIC", (S8,), (renamed(S8),)),
    "int16 to int16; supported: int8, float32": one_op(
        "HARD_SWISH", *[(quantized("a", (2,), "int16"),)] * 2
    ),
    "6 elements become 4": one_op("RELU", (S8,), (quantized("o", (4,), "int8", 0.1),)),
    "'o' is empty": one_op("RELU", (S8,), (quantized("o", (0,), "int8", 0.1),)),
    "3 inputs and 1 outputs": one_op("ADD", (S8, S8, S8), (renamed(S8),)),
    "float32 to int32; supported: float32 to int8 or int16": one_op(
        "QUANTIZE", (Tensor("x", (300,), "float32"),), (scaled("y", "int32", 1.0, 0),)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_and_why(reason: str) -> None:
    found = aot.supports(REFUSED[reason])
    assert len(found) == 1 and reason in found[0]


# --- memory -----------------------------------------------------------------------------------

FLOAT = Tensor("x", (1600,), "float32")
BYTE = quantized("y", (1600,), "int8", 0.1)
SHORT = quantized("z", (1600,), "int16", 0.1)
OTHER = quantized("o", (1600,), "int8", 0.1)
ROW = quantized("r", (16,), "int8", 0.1)
MATRIX = quantized("m", (100, 16), "int8", 0.1)
ARENAS = {
    "a shrinking conversion": (one_op("QUANTIZE", (FLOAT,), (BYTE,)), 6400),
    "a growing conversion": (one_op("DEQUANTIZE", (BYTE,), (FLOAT,)), 6400),
    "8 bits to 16": (one_op("QUANTIZE", (BYTE,), (SHORT,)), 3200),
    "a table": (one_op("RELU", (BYTE,), (OTHER,)), 1600),
    "one input twice": (two("ADD", BYTE, BYTE, OTHER), 1600),
    "two inputs": (two("MUL", BYTE, renamed(BYTE), OTHER), 3200),
    "a repeated row": (two("SUB", ROW, MATRIX, quantized("o", (100, 16), "int8", 0.2)), 1616),
}


@pytest.mark.parametrize("what", ARENAS)
def test_the_output_lies_over_an_input_that_dies(what: str) -> None:
    """At most the 16 bytes of an alignment are lost; the bits are checked above, with overlaps."""
    program, least = ARENAS[what]
    assert least <= aot.schedule(program).plan.bytes < least + 16
