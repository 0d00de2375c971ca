"""Layers wide enough for every path of the int8 kernels of the different cores."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.aot_harness import Case, case
from tests.tflite_builder import constant, one_op, quantized

ACTIVATIONS = ("NONE", "RELU", "RELU6")
EXTREMES = ((-127, 127), (-127, -127), (127, 127), (-128, 127), (-128, -128))


def _weights(random: np.random.Generator, shape: tuple[int, ...], stored: str) -> Any:
    """Random values; sometimes one value alone, or the two ends."""
    low, high = (-8, 7) if stored == "int4" else (-127, 127)
    if random.integers(0, 3) > 0:
        return random.integers(low, high + 1, shape)
    ends = EXTREMES[random.integers(0, len(EXTREMES))]
    return np.clip(random.choice(ends, shape), -8 if stored == "int4" else -128, high)


@st.composite
def _layer(draw: st.DrawFn, kind: str) -> Case:
    depthwise = kind == "DEPTHWISE_CONV_2D"
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stored = draw(st.sampled_from(["int8", "int8", "int4"]))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    rows, columns = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (1, 5), (2, 2)]))
    stride, padding = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from(["SAME", "VALID"]))
    height, width = max(height, rows), max(width, columns)
    out = [-(-n // stride) for n in (height, width)]
    if padding == "VALID":
        out = [(n - k) // stride + 1 for n, k in ((height, rows), (width, columns))]
    depth = draw(st.integers(1, 70 if depthwise or rows * columns == 1 else 35))
    count = depth if depthwise else draw(st.integers(1, 21))
    shape = (1, rows, columns, depth) if depthwise else (count, rows, columns, depth)
    per_channel = draw(st.booleans())
    scales = tuple(random.uniform(0.002, 0.02, count if per_channel else 1))
    zeros = draw(st.integers(-128, 127)), draw(st.sampled_from([-128, -128, -5, 0, 127]))
    fan_in = rows * columns * (1 if depthwise else depth)
    spread = float(random.choice([0.02, 1, 1, 4]))
    scale_out = fan_in**0.5 * (7 if stored == "int4" else 127) * 0.01 * 0.02 / spread
    options = {"depth_multiplier": 1} if depthwise else {}
    program = one_op(
        kind,
        (
            quantized("in", (1, height, width, depth), "int8", 0.02, zeros[0]),
            constant(
                "w",
                _weights(random, shape, stored),
                stored,
                scales=scales,
                axis=3 if depthwise else 0,
            ),
            constant("b", random.integers(-4000, 4000, count), "int32", scales=(0.01,)),
        ),
        (quantized("out", (1, *out, count), "int8", scale_out, zeros[1]),),
        padding=padding,
        stride_h=stride,
        stride_w=stride,
        dilation_h_factor=1,
        dilation_w_factor=1,
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
        **options,
    )
    return case(program, seed=draw(st.integers(0, 1 << 30)))


@st.composite
def _connected(draw: st.DrawFn) -> Case:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs, outputs = draw(st.integers(1, 130)), draw(st.integers(1, 40))
    stored = draw(st.sampled_from(["int8", "int8", "int4"]))
    scale_out = inputs**0.5 * (7 if stored == "int4" else 127) * 0.01 * 0.02
    program = one_op(
        "FULLY_CONNECTED",
        (
            quantized("in", (2, inputs), "int8", 0.02, draw(st.integers(-128, 127))),
            constant(
                "w", _weights(random, (outputs, inputs), stored), stored, scales=(0.01,), axis=0
            ),
            constant("b", random.integers(-4000, 4000, outputs), "int32", scales=(0.0002,)),
        ),
        (quantized("out", (2, outputs), "int8", scale_out, draw(st.integers(-128, 127))),),
        weights_format="DEFAULT",
        keep_num_dims=False,
        asymmetric_quantize_inputs=False,
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )
    return case(program, seed=draw(st.integers(0, 1 << 30)))


@st.composite
def _arithmetic(draw: st.DrawFn) -> Case:
    """ADD, SUB or MUL of 1200 elements and a few."""
    shape = (draw(st.integers(1200, 1216)),)
    exponents = draw(st.tuples(*[st.floats(-7, 1)] * 3))
    scales = [float(np.float32(2.0**e)) for e in exponents]
    if draw(st.integers(0, 3)) == 0:
        scales[1] = scales[0]
    kind = draw(st.sampled_from(["ADD", "SUB", "MUL", "MUL"]))
    if kind == "MUL":
        scales[2] = float(np.float32(scales[0] * scales[1] * 2.0 ** draw(st.floats(-1, 10))))
    zeros = draw(st.tuples(*[st.integers(-128, 127)] * 3))
    parts = zip("abo", scales, zeros, strict=True)
    first, second, out = (quantized(name, shape, "int8", *each) for name, *each in parts)
    activation = draw(st.sampled_from(ACTIVATIONS))
    program = one_op(kind, (first, second), (out,), fused_activation_function=activation)
    return case(program, seed=draw(st.integers(0, 1 << 30)))


@st.composite
def _table(draw: st.DrawFn) -> Case:
    """LOGISTIC or TANH of 1 to 300 elements."""
    shape = (draw(st.integers(1, 300)),)
    source = quantized("x", shape, "int8", 0.05, draw(st.integers(-128, 127)))
    scale, zero = draw(st.sampled_from([(1 / 256, -128), (1 / 128, 0)]))
    kind = "TANH" if zero == 0 else "LOGISTIC"
    program = one_op(kind, (source,), (quantized("y", shape, "int8", scale, zero),))
    return case(program, seed=draw(st.integers(0, 1 << 30)))


@st.composite
def _pool(draw: st.DrawFn) -> Case:
    """AVERAGE_POOL_2D or MAX_POOL_2D of up to 40 channels, windows of up to 400 elements."""
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 40))
    height, width = draw(st.sampled_from([(5, 6), (7, 1), (8, 9), (3, 4), (20, 20), (2, 150)]))
    whole = (height, width)
    kernel = draw(st.sampled_from([(2, 2), (3, 3), (1, 2), whole, whole]))
    kernel = (min(kernel[0], height), min(kernel[1], width))
    stride = 1 if kernel == whole else draw(st.sampled_from([1, 2]))
    padding = draw(st.sampled_from(["VALID", "SAME"])) if kernel != whole else "VALID"
    out = [-(-n // stride) for n in whole]
    if padding == "VALID":
        out = [(n - k) // stride + 1 for n, k in zip(whole, kernel, strict=True)]
    quantization = 0.05, draw(st.integers(-128, 127))
    program = one_op(
        draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"])),
        (quantized("in", (batch, height, width, channels), "int8", *quantization),),
        (quantized("out", (batch, *out, channels), "int8", *quantization),),
        padding=padding,
        stride_h=stride,
        stride_w=stride,
        filter_height=kernel[0],
        filter_width=kernel[1],
        fused_activation_function=draw(st.sampled_from(ACTIVATIONS)),
    )
    return case(program, seed=draw(st.integers(0, 1 << 30)))


@st.composite
def _reduction(draw: st.DrawFn) -> Case:
    """MEAN, SUM, REDUCE_MAX or REDUCE_MIN of up to 40 channels and 400 elements."""
    size = draw(st.sampled_from([(5, 6), (1, 3), (20, 20), (2, 150), (300, 1)]))
    shape = (draw(st.integers(1, 2)), *size, draw(st.integers(1, 40)))
    axes = draw(st.sampled_from([(1, 2), (1, 2), (1,), (2,), (3,), (1, 3), (0, 1, 2)]))
    kind = draw(st.sampled_from(["MEAN", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"]))
    source = quantized("in", shape, "int8", 0.05, draw(st.integers(-128, 127)))
    out = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    target = quantized("out", out, "int8", 0.05, source.zero_points[0])
    if kind in ("MEAN", "SUM") and draw(st.booleans()):
        scale = 0.05 * draw(st.sampled_from([0.3, 0.9, 10]))
        target = quantized("out", out, "int8", scale, draw(st.integers(-128, 127)))
    program = one_op(
        kind, (source, constant("axes", np.asarray(axes), "int32")), (target,), keep_dims=True
    )
    return case(program, seed=draw(st.integers(0, 1 << 30)))


KINDS: dict[str, st.SearchStrategy[Case]] = {
    "conv": _layer("CONV_2D"),
    "depthwise": _layer("DEPTHWISE_CONV_2D"),
    "connected": _connected(),
    "arithmetic": _arithmetic(),
    "table": _table(),
    "pool": _pool(),
    "reduction": _reduction(),
}
