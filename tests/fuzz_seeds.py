"""One small sound program for each operator that a backend may lower: where odd ones start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress.tflite import Program, Tensor
from tests.tflite_builder import constant, one_op, quantized


def _x(*shape: int, dtype: str = "int8", scale: float = 0.05) -> Tensor:
    return quantized("x", shape, dtype, scale)


def _y(*shape: int, dtype: str = "int8", scale: float = 0.05, zero: int = 0) -> Tensor:
    return quantized("m/layer/y", shape, dtype, scale, zero)


def _weights(*shape: int, channels: int = 1, axis: int = 0) -> Tensor:
    values = np.arange(np.prod(shape)).reshape(shape) % 200 - 100
    return constant("w", values, "int8", scales=(0.02,) * channels, axis=axis)


def _bias(size: int, channels: int = 1) -> Tensor:
    return constant("b", range(size), "int32", scales=(0.001,) * channels)


def _ints(*values: Any) -> Tensor:
    return constant("c", values, "int32")


_UNARY = (
    *("ABS", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ELU", "HARD_SWISH", "LEAKY_RELU", "EXP"),
    *("LOG", "SQRT", "RSQRT", "SQUARE", "ROUND", "FLOOR", "CEIL", "SIN", "COS", "GELU"),
)
_BINARY = (
    *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU"),
    *("EQUAL", "GREATER", "LESS", "LESS_EQUAL", "NOT_EQUAL", "FLOOR_DIV"),
)
_FIXED = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0), "SOFTMAX": (1 / 256, -128)}
_BETA = {"SOFTMAX": {"beta": 1.0}}
_SHAPES: tuple[tuple[str, tuple[Tensor, ...], tuple[Tensor, ...], dict[str, Any]], ...] = (
    ("RESHAPE", (_x(1, 4, 6), _ints(1, 24)), (_y(1, 24),), {}),
    ("EXPAND_DIMS", (_x(1, 4), _ints(1)), (_y(1, 1, 4),), {}),
    ("SQUEEZE", (_x(1, 1, 4),), (_y(1, 4),), {"squeeze_dims": (1,)}),
    ("TRANSPOSE", (_x(1, 2, 3), _ints(0, 2, 1)), (_y(1, 3, 2),), {}),
    ("PAD", (_x(2, 3), _ints([0, 1], [1, 0])), (_y(3, 4),), {}),
    ("MIRROR_PAD", (_x(2, 3), _ints([0, 1], [1, 0])), (_y(3, 4),), {}),
    ("CONCATENATION", (_x(1, 2), _x(1, 3)), (_y(1, 5),), {"axis": 1}),
    ("SPLIT", (_ints(1), _x(1, 4)), (_y(1, 2), _y(1, 2)), {"num_splits": 2}),
    ("SPLIT_V", (_x(1, 4), _ints(1, 3), _ints(1)), (_y(1, 1), _y(1, 3)), {"num_splits": 2}),
    ("SLICE", (_x(1, 4, 4), _ints(0, 1, 1), _ints(1, 2, 2)), (_y(1, 2, 2),), {}),
    ("STRIDED_SLICE", (_x(1, 4), _ints(0, 0), _ints(1, 4), _ints(1, 2)), (_y(1, 2),), {}),
    ("PACK", (_x(2, 2), _x(2, 2)), (_y(2, 2, 2),), {"values_count": 2, "axis": 1}),
    ("UNPACK", (_x(2, 2),), (_y(2), _y(2)), {"num": 2, "axis": 1}),
    ("GATHER", (_x(4, 2), _ints(2, 0)), (_y(2, 2),), {}),
    ("TILE", (_x(1, 2), _ints(2, 2)), (_y(2, 4),), {}),
    ("BROADCAST_TO", (_x(1, 2), _ints(3, 2)), (_y(3, 2),), {}),
    ("DEPTH_TO_SPACE", (_x(1, 2, 2, 4),), (_y(1, 4, 4, 1),), {"block_size": 2}),
    ("SPACE_TO_DEPTH", (_x(1, 4, 4, 1),), (_y(1, 2, 2, 4),), {"block_size": 2}),
    ("RESIZE_BILINEAR", (_x(1, 2, 2, 1), _ints(4, 4)), (_y(1, 4, 4, 1),), {}),
    ("RESIZE_NEAREST_NEIGHBOR", (_x(1, 2, 2, 1), _ints(4, 4)), (_y(1, 4, 4, 1),), {}),
    ("ARG_MAX", (_x(1, 4), _ints(1)), (_y(1, dtype="int32"),), {"output_type": "int32"}),
    (
        "SPACE_TO_BATCH_ND",
        (_x(1, 4, 4, 1), _ints(2, 2), _ints([0, 0], [0, 0])),
        (_y(4, 2, 2, 1),),
        {},
    ),
    (
        "BATCH_TO_SPACE_ND",
        (_x(4, 2, 2, 1), _ints(2, 2), _ints([0, 0], [0, 0])),
        (_y(1, 4, 4, 1),),
        {},
    ),
)


def _lstm() -> Program:
    """An int8 LSTM of 2 units over 3 steps of 2 features."""
    gates = [_weights(2, 2) for _ in range(8)]
    state = [
        Tensor("h", (1, 2), "int8", (0.01,), (0,), variable=True),
        Tensor("s", (1, 2), "int16", (2.0**-11,), (0,), variable=True),
    ]
    inputs = (_x(1, 3, 2), *gates, *[None] * 3, *[_bias(2) for _ in range(4)], None, None, *state)
    return one_op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        (*inputs, *[None] * 4),
        (_y(1, 3, 2, scale=0.01),),
        fused_activation_function="TANH",
    )


def _matrices() -> list[Program]:
    window = {"stride_w": 1, "stride_h": 1, "padding": "VALID"}
    pool = {**window, "filter_width": 2, "filter_height": 2}
    image = _x(1, 4, 4, 2)
    return [
        one_op(
            "CONV_2D",
            (image, _weights(3, 2, 2, 2, channels=3), _bias(3, 3)),
            (_y(1, 3, 3, 3),),
            **window,
        ),
        one_op(
            "DEPTHWISE_CONV_2D",
            (image, _weights(1, 2, 2, 4, channels=4, axis=3), _bias(4, 4)),
            (_y(1, 3, 3, 4),),
            depth_multiplier=2,
            **window,
        ),
        one_op(
            "TRANSPOSE_CONV",
            (_ints(1, 5, 5, 3), _weights(3, 2, 2, 2, channels=3), image, _bias(3, 3)),
            (_y(1, 5, 5, 3),),
            **window,
        ),
        one_op("FULLY_CONNECTED", (_x(1, 4), _weights(3, 4), _bias(3)), (_y(1, 3),)),
        one_op("BATCH_MATMUL", (_x(1, 2, 3), _weights(1, 3, 2)), (_y(1, 2, 2),)),
        one_op("AVERAGE_POOL_2D", (image,), (_y(1, 3, 3, 2),), **pool),
        one_op("MAX_POOL_2D", (image,), (_y(1, 3, 3, 2),), **pool),
        _lstm(),
    ]


def seeds() -> list[Program]:
    """The programs, each with its file."""
    found = _matrices()
    for dtype in ("int8", "int16", "float32"):
        x, other = _x(1, 2, 3, dtype=dtype), _x(1, 1, 3, dtype=dtype)
        found += [one_op(kind, (x,), (_y(1, 2, 3, dtype=dtype),)) for kind in _UNARY]
        found += [one_op(kind, (x, other), (_y(1, 2, 3, dtype=dtype),)) for kind in _BINARY]
        found += [
            one_op(kind, (x, _ints(1)), (_y(1, 3, dtype=dtype),))
            for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
        ]
        for kind, (scale, zero) in _FIXED.items():
            step, middle = (2**-15, 0) if dtype == "int16" else (scale, zero)
            made = _y(1, 2, 3, dtype=dtype, scale=step, zero=middle)
            found.append(one_op(kind, (x,), (made,), **_BETA.get(kind, {})))
        found += [
            one_op(kind, (x,), (_y(1, 2, 3, dtype=target),))
            for kind in ("QUANTIZE", "DEQUANTIZE", "CAST")
            for target in ("int8", "int16", "int32", "float32")
        ]
    return found + [one_op(kind, given, made, **more) for kind, given, made, more in _SHAPES]
