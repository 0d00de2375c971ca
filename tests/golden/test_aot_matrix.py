"""Matrix products, softmax and LSTM of the ahead-of-time backend have TFLM's bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from edgecompress.backends import aot
from edgecompress.backends.aot.schedule import schedule
from edgecompress.tflite import Program, Tensor
from tests.aot_harness import SCHEDULE, Case, case, check, draw, prefer
from tests.conftest import need, nightly
from tests.tflite_builder import constant, one_op, quantized

LIMITS = {"int8": 127, "int4": 7, "float32": 100}
BIAS = {"int8": "int32", "int16": "int64", "float32": "float32"}
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
SCALES = st.sampled_from((0.003, 0.0173, 0.05, 0.11, 0.5))


@pytest.fixture(autouse=True)
def _compiler() -> None:
    need("cc")


@pytest.fixture(autouse=True)
def _general(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for all matrices, with the weights as they are."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_fully_connected"))


def zero_points(dtype: str) -> st.SearchStrategy[int]:
    return st.sampled_from((-128, -3, 0, 5, 127)) if dtype == "int8" else st.just(0)


@st.composite
def fully_connected(draw_: Any) -> Case:
    dtype, stored = draw_(
        st.sampled_from(
            (("int8", "int8"), ("int8", "int4"), ("int16", "int8"), ("float32", "float32"))
        )
    )
    batches, inputs = draw_(st.integers(1, 4)), draw_(st.integers(1, 70))
    outputs = draw_(st.integers(1, 20))
    random = np.random.default_rng(draw_(st.integers(0, 1 << 30)))
    per_channel = dtype == stored == "int8" and draw_(st.booleans())
    limit = LIMITS[stored]
    values = random.integers(-limit, limit + 1, (outputs, inputs))
    if stored == "float32":
        values = random.standard_normal((outputs, inputs))
    count = outputs if per_channel else 1
    in_scale, scales = draw_(SCALES), tuple(random.uniform(0.002, 0.04, count))
    weights = constant("w", values, stored, scales=() if stored == "float32" else scales)
    if stored == "int8" and not per_channel:
        weights = replace(weights, zero_points=(draw_(st.sampled_from((0, 0, 3, -128))),))
    bias = None
    if draw_(st.booleans()):
        spread = 3 if dtype == "float32" else 4000
        numbers = random.integers(-spread, spread + 1, outputs)
        bias_scales = () if dtype == "float32" else tuple(in_scale * s for s in scales)
        bias = constant("b", numbers, BIAS[dtype], scales=bias_scales)
    wide = draw_(st.booleans())
    out_scale = in_scale * scales[0] * inputs**0.5 * (30 if dtype == "int8" else 0.2)
    shape = (batches, outputs) if not wide else (1, batches, outputs)
    program = one_op(
        "FULLY_CONNECTED",
        (
            quantized("x", (batches, inputs), dtype, in_scale, draw_(zero_points(dtype))),
            weights,
            bias,
        ),
        (quantized("y", shape, dtype, out_scale, draw_(zero_points(dtype))),),
        fused_activation_function=draw_(st.sampled_from(ACTIVATIONS)),
        keep_num_dims=wide,
    )
    return case(program, seed=draw_(st.integers(0, 1 << 30)))


def test_fully_connected_has_the_bits_of_tflm() -> None:
    check(draw(fully_connected(), nightly(200, 4000)))


@st.composite
def softmax(draw_: Any) -> Case:
    dtype, to = draw_(st.sampled_from((("int8", "int8"), ("int8", "int16"), ("int16", "int16"))))
    shape = tuple(draw_(st.lists(st.integers(1, 7), min_size=0, max_size=3)))
    shape += (draw_(st.sampled_from((1, 2, 3, 10, 12, 100))),)
    scale = draw_(
        st.sampled_from((1e-4, 0.003, 0.02, 0.1, 0.5, *((2.0, 40.0) * (to == dtype == "int8"))))
    )
    outs = {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)}
    out_scale, zero = (1 / 65536, -32768) if dtype != to else outs[to]
    program = one_op(
        "SOFTMAX",
        (quantized("x", shape, dtype, scale, draw_(zero_points(dtype))),),
        (quantized("y", shape, to, out_scale, zero),),
        beta=draw_(st.sampled_from((1.0, 0.3, 2.5))),
    )
    return case(program, rows=3, seed=draw_(st.integers(0, 1 << 30)))


@pytest.mark.parametrize("family", ["ec_softmax", "ec_softmax_table"])
def test_softmax_has_the_bits_of_tflm(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULE, "choose", prefer(family))
    found = draw(softmax(), nightly(80, 3000))
    families = {step.call.family for one in found for step in schedule(one.program).steps}
    assert families == {"ec_softmax", family}
    check(found)


def test_softmax_of_every_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of one exponential, of some, and of all 256; TFLM aborts where a sum reaches 512."""
    monkeypatch.setattr(SCHEDULE, "choose", prefer("ec_softmax_table"))
    differences = np.arange(-128, 128, dtype=np.int8)
    rows = np.stack([differences, differences[::-1], np.minimum(differences, -100)])
    longest = np.tile(differences, 16)[None, 1:]
    found = []
    for scale in (0.0005, 0.03, 0.0539, 0.054, 0.0545, 0.2, 12.0, 40.0):
        for values in (rows, longest)[: 1 + (scale > 0.05)]:
            data = quantized("x", values.shape, "int8", scale)
            out = quantized("y", values.shape, "int8", 1 / 256, -128)
            found.append(Case(one_op("SOFTMAX", (data,), (out,), beta=1.0), [[values]]))
    check(found)


def test_int16_softmax_has_the_tables_of_tflm() -> None:
    rows = np.full((4096, 2), 32767, np.int16)
    rows[:, 1] -= 16 * np.arange(4096)
    data = quantized("x", rows.shape, "int16", 10 / 65535)
    out = quantized("y", rows.shape, "int16", 1 / 32768)
    check([Case(one_op("SOFTMAX", (data,), (out,), beta=1.0), [[rows]])])


@st.composite
def softmax_f32(draw_: Any) -> Case:
    shape = tuple(draw_(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    tensors = quantized("x", shape, "float32"), quantized("y", shape, "float32")
    program = one_op("SOFTMAX", tensors[:1], tensors[1:], beta=draw_(st.sampled_from((1.0, 0.4))))
    return case(program, seed=draw_(st.integers(0, 1 << 30)))


def test_float_softmax_has_the_bits_of_tflm() -> None:
    check(draw(softmax_f32(), nightly(20, 500)))


@st.composite
def batch_matmul(draw_: Any) -> Case:
    dtype = draw_(st.sampled_from(("int8", "int16", "float32")))
    rows, depth, columns = (draw_(st.integers(1, 9)) for _ in range(3))
    adj_x, adj_y = draw_(st.booleans()), draw_(st.booleans())
    batches = draw_(st.lists(st.integers(1, 3), max_size=3))
    left_batch = [n if draw_(st.booleans()) else 1 for n in batches]
    right_batch = [
        n if one == 1 or draw_(st.booleans()) else 1
        for n, one in zip(batches, left_batch, strict=True)
    ]
    left_batch = left_batch[draw_(st.integers(0, len(batches))) :]
    out_batch = np.broadcast_shapes(tuple(left_batch), tuple(right_batch))
    left = (*left_batch, *((depth, rows) if adj_x else (rows, depth)))
    right = (*right_batch, *((columns, depth) if adj_y else (depth, columns)))
    scales = [draw_(SCALES) for _ in range(2)]
    random = np.random.default_rng(draw_(st.integers(0, 1 << 30)))
    inputs = [
        quantized(name, shape, dtype, scale, draw_(zero_points(dtype)))
        for name, shape, scale in (("a", left, scales[0]), ("b", right, scales[1]))
    ]
    if draw_(st.booleans()):
        kind = {"int8": np.int8, "int16": np.int16, "float32": np.float32}[dtype]
        data = (random.standard_normal(right) * 30).astype(kind).tobytes()
        inputs[1] = replace(inputs[1], data=data)
    spread = {"int8": 40.0, "int16": 9000.0, "float32": 1.0}[dtype]
    program = one_op(
        "BATCH_MATMUL",
        tuple(inputs),
        (
            quantized(
                "y",
                (*out_batch, rows, columns),
                dtype,
                scales[0] * scales[1] * depth**0.5 * spread,
                draw_(zero_points(dtype)),
            ),
        ),
        adj_x=adj_x,
        adj_y=adj_y,
    )
    return case(program, seed=draw_(st.integers(0, 1 << 30)))


def test_batch_matmul_has_the_bits_of_tflm() -> None:
    check(draw(batch_matmul(), nightly(120, 3000)))


LSTM_INPUTS = 24


@st.composite
def lstm(draw_: Any, dtypes: tuple[str, ...] = ("int8",)) -> Case:
    dtype = draw_(st.sampled_from(dtypes))
    batches, steps, inputs, units = (draw_(st.integers(1, n)) for n in (3, 5, 19, 18))
    time_major = draw_(st.booleans())
    random = np.random.default_rng(draw_(st.integers(0, 1 << 30)))
    floating = dtype == "float32"
    in_scale, hidden_scale = draw_(SCALES), draw_(st.sampled_from((1 / 128, 0.004)))
    tensors: list[Tensor | None] = [None] * LSTM_INPUTS

    def weights(place: int, columns: int) -> Tensor:
        values = random.integers(-127, 128, (units, columns))
        if floating:
            return constant(f"w{place}", random.standard_normal((units, columns)), "float32")
        return constant(f"w{place}", values, "int8", scales=(random.uniform(0.001, 0.02),))

    first, second = (steps, batches) if time_major else (batches, steps)
    tensors[0] = quantized("x", (first, second, inputs), dtype, in_scale, draw_(zero_points(dtype)))
    for place in range(1, 5):
        tensors[place] = weights(place, inputs)
        tensors[place + 4] = weights(place + 4, units)
        bias = random.integers(-3000, 3000, units) / (3000 if floating else 1)
        scales = () if floating else (in_scale * tensors[place].scales[0],)
        tensors[place + 11] = constant(f"b{place}", bias, BIAS[dtype], scales=scales)
    hidden = quantized("h", (batches, units), dtype, hidden_scale, draw_(zero_points(dtype)))
    cell_scale = 2.0 ** draw_(st.integers(-16, -9))
    cell = quantized("c", (batches, units), "float32" if floating else "int16", cell_scale)
    tensors[18], tensors[19] = (replace(one, variable=True) for one in (hidden, cell))
    program = one_op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        tuple(tensors),
        (replace(hidden, name="y", shape=(first, second, units)),),
        fused_activation_function="TANH",
        cell_clip=draw_(st.sampled_from((0.0, 0.7, 10.0))),
        time_major=time_major,
    )
    return case(program, rows=3, seed=draw_(st.integers(0, 1 << 30)))


def test_lstm_has_the_bits_of_tflm_and_keeps_its_state() -> None:
    check(draw(lstm(), nightly(60, 1500)))


def test_float_lstm_has_the_bits_of_tflm() -> None:
    check(draw(lstm(("float32",)), nightly(20, 500)))


def dense(**changes: Any) -> Program:
    """A small FULLY_CONNECTED with its weights changed."""
    weights = constant("w", np.ones((3, 4)), "int8", scales=(0.1,))
    inputs = (quantized("x", (1, 4), "int8", 0.1), replace(weights, **changes))
    return one_op("FULLY_CONNECTED", inputs, (quantized("y", (1, 3), "int8", 0.1),))


REFUSED = {
    "computed weights": (dense(data=None), "'w' is computed at run time; a constant is needed"),
    "scales along the wrong axis": (
        dense(scales=(0.1,) * 4, zero_points=(0,) * 4, axis=1),
        "4 scales along axis 1 of weights (3, 4); supported: one, or one per output",
    ),
    "several scales with zero points": (
        dense(scales=(0.1,) * 3, zero_points=(0, 1, 0)),
        "supported: one, or one per output with zero point 0",
    ),
    "weights that do not fit": (dense(shape=(4, 3)), "do not fit"),
    "weights of rank 1": (dense(shape=(12,)), "weights of rank 1; supported: 2"),
    "matrices that do not fit": (
        one_op(
            "BATCH_MATMUL",
            tuple(quantized(name, (2, 3), "int8") for name in "ab"),
            (quantized("y", (2, 3), "int8"),),
        ),
        "shapes (2, 3), (2, 3) and (2, 3) do not fit",
    ),
    "softmax with a free output scale": (
        one_op(
            "SOFTMAX", (quantized("x", (1, 3), "int8"),), (quantized("y", (1, 3), "int8", 0.1),)
        ),
        "supported: 0.00390625 and -128",
    ),
    "weights that are not finite": (
        one_op(
            "FULLY_CONNECTED",
            (
                quantized("x", (1, 2), "float32"),
                constant("w", [[np.nan, 1.0]], "float32"),
            ),
            (quantized("y", (1, 1), "float32"),),
        ),
        "weights or bias are not finite",
    ),
}


def _extreme(dtype: str, scale: float, weights: Tensor, bias: Tensor | None) -> Program:
    zero = -100 if dtype == "int8" else 0
    data = quantized("x", (1, 4), dtype, 1 + 2**-15)
    return one_op(
        "FULLY_CONNECTED", (data, weights, bias), (quantized("y", (1, 2), dtype, scale, zero),)
    )


def test_sums_that_leave_their_type_wrap() -> None:
    factor = (1 - 2**-15,)
    weights = [constant("w", np.full((2, 4), 2), "int8", scales=factor * n) for n in (1, 2)]
    ends = constant("b", [2**63 - 1, -(2**63)], "int64", scales=(1.0,))
    programs = (
        _extreme("int8", 2.0**-28, weights[1], None),
        _extreme("int16", 0.1, weights[0], ends),
    )
    check([case(program, rows=6, seed=seed) for seed, program in enumerate(programs)])


def test_int4_sums_stay_where_they_are_exact() -> None:
    weights = constant("w", np.full((2, 1 << 17), 7), "int4", scales=(0.1,))
    data = quantized("x", (1, 1 << 17), "int8")
    program = one_op("FULLY_CONNECTED", (data, weights, None), (quantized("y", (1, 2), "int8"),))
    (line,) = aot.supports(program)
    assert "131072 inputs; fewer than 131072 with int4" in line


@pytest.mark.parametrize("what", REFUSED)
def test_says_why_it_refuses(what: str) -> None:
    program, reason = REFUSED[what]
    (line,) = aot.supports(program)
    assert reason in line


def test_refuses_lstm_variants() -> None:
    program = draw(lstm(), 1)[0].program
    op = program.ops[0]
    for place, reason in ((9, "peephole"), (16, "a projection"), (20, "layer normalisation")):
        given = (*op.inputs[:place], op.inputs[1], *op.inputs[place + 1 :])
        (line,) = aot.supports(program.edit(ops=(replace(op, inputs=given),)))
        assert f"{reason}" in line and "the plain cell is supported" in line
    fixed = tuple(replace(tensor, variable=False) for tensor in program.tensors)
    assert "no variable tensor" in aot.supports(program.edit(tensors=fixed))[0]


KINDS = {
    "batch_matmul": batch_matmul(),
    "fully_connected": fully_connected(),
    "lstm": lstm(),
    "softmax": softmax(),
}
"""The cases that an emulated board computes to the bit: what needs libm is left out."""
