"""SOFTMAX over the last axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.calls import (
    Array,
    Call,
    Choice,
    Lowered,
    Lowering,
    Reuse,
    Site,
    Struct,
    Value,
)
from edgecompress.backends.aot.fixedpoint import (
    FLOAT_LIMIT,
    exp_q26,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.tflite import Tensor

_INTEGER_BITS = 5
_MAX_DEPTH = {"int8": 4095, "int16": 65535}
_OUTPUT = {
    ("int8", "int8"): (1 / 256, -128),
    ("int8", "int16"): (1 / 65536, -32768),
    ("int16", "int16"): (1 / 32768, 0),
}
_NEAR = 0.001
_STEPS = 512
_LIMIT = 32768


def softmax(site: Site) -> Lowered:
    """SOFTMAX: int8 to int8 or int16, int16, float32."""
    data, out = site.arg(0), site.result()
    kernel = _KERNELS.get((data.dtype, out.dtype))
    site.require(
        kernel is not None,
        f"{data.dtype} inputs with {out.dtype} outputs; supported: "
        + ", ".join(f"{a} to {b}" for a, b in _KERNELS),
    )
    site.require(
        data.shape == out.shape and min(data.shape, default=0) > 0,
        f"shapes {data.shape} and {out.shape}; they must be equal, of rank 1 or more",
    )
    beta = site.op.options.get("beta")
    site.require(
        isinstance(beta, float | int) and abs(beta) <= FLOAT_LIMIT,
        f"beta {beta}; a float32 number is needed",
    )
    assert kernel is not None and isinstance(beta, float | int)
    return kernel(site, data, out, float(np.float32(beta)))


def _sizes(data: Tensor) -> dict[str, int]:
    depth = data.shape[-1]
    return {"rows": data.elements // depth, "depth": depth}


def _check_output(site: Site, data: Tensor, out: Tensor) -> None:
    """TFLM's kernel writes one fixed scale and zero point (CalculateSoftmaxParams)."""
    scale, zero = _OUTPUT[data.dtype, out.dtype]
    zeros = out.zero_points[0] if len(out.zero_points) == 1 else None
    site.require(
        abs(scale_of(out) - scale) <= (0 if out.dtype == "int8" else _NEAR * scale)
        and zeros == zero,
        f"output scale {out.scales[0]} and zero point {zeros}; supported: {scale} and {zero}",
    )
    most = _MAX_DEPTH[data.dtype]
    site.require(data.shape[-1] <= most, f"{data.shape[-1]} values to a row; at most {most}")


def _softmax_s8(site: Site, data: Tensor, out: Tensor, beta: float) -> Lowered:
    _check_output(site, data, out)
    zero_point_of(data)
    real = beta * scale_of(data) * (1 << (31 - _INTEGER_BITS))
    site.require(real > 1, f"beta {beta} with an input scale of {scale_of(data)}; use larger ones")
    multiplier, shift, least = 1 << 30, 0, 0
    if real < 1 << 30:  # beyond, every difference but 0 is out of range
        multiplier, shift = quantize_multiplier(real)
        radius = ((1 << _INTEGER_BITS) - 1) << (31 - _INTEGER_BITS)
        least = -(radius >> shift)
    params = Struct(
        "ec_softmax_t",
        {**_sizes(data), "multiplier": multiplier, "shift": shift, "least_difference": least},
    )
    suffix, forward = ("s8", 0) if out.dtype == "int8" else ("s8_s16", data.elements - 1)
    exponentials = _exponentials(multiplier, shift, least)
    fields: dict[str, Value] = {
        **_sizes(data),
        "count": len(exponentials),
        "exp": Array("int32_t", exponentials),
    }
    table = Struct("ec_softmax_table_t", fields)
    return Choice(
        (
            *_call(f"ec_softmax_{suffix}", "ec_softmax", params, site, forward),
            *_call(f"ec_softmax_table_{suffix}", "ec_softmax_table", table, site, forward),
        )
    )


def _exponentials(multiplier: int, shift: int, least: int) -> npt.NDArray[np.int64]:
    """exp of 0, -1, -2... steps of the input as Q0.31, up to the last one that can matter.

    Those below 2^11 are rounded to 0 in a sum, which is 2^19 or more, and so are their outputs.
    """
    steps = np.arange(min(-least, 255) + 1, dtype=np.int64)
    found = exp_q26((-(steps << shift) * multiplier + (1 << 30)) >> 31)
    return found[: np.count_nonzero(found >= _LEAST_EXP)]


_LEAST_EXP = 1 << 11


def _softmax_s16(site: Site, data: Tensor, out: Tensor, beta: float) -> tuple[Call, ...]:
    _check_output(site, data, out)
    zero_point_of(data)
    site.require(beta >= 0, f"beta {beta}; it must not be negative")
    multiplier, shift = quantize_multiplier(scale_of(data) * beta / (10.0 / 65535.0))
    site.require(
        shift <= _MAX_SHIFT, f"input scale {scale_of(data)} times beta {beta} is too large"
    )
    params = Struct(
        "ec_softmax_s16_t",
        {
            **_sizes(data),
            "multiplier": multiplier,
            "shift": shift,
            "exp": Array("int16_t", _table(math.exp, -10.0, 0.0)),
            "reciprocal": Array("int16_t", _table(lambda x: 1 / (1 + x), 0.0, 1.0)),
        },
    )
    return _call("ec_softmax_s16", "ec_softmax", params, site, 0)


_MAX_SHIFT = 14
"""A difference of two int16 is shifted this far left without loss."""


def _table(function: Callable[[float], float], low: float, high: float) -> npt.NDArray[np.int16]:
    """513 values of `function` over [low, high] times 2^15, for linear interpolation.

    Every sample is lowered by half the error of interpolation at the middle of its step, all in
    float32 and rounded half away from zero (TFLite's gen_lut).
    """
    step = (high - low) / _STEPS

    def at(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        values = [function(low + place * step) for place in places]
        return np.array(values, np.float32) * np.float32(_LIMIT)

    places = np.arange(_STEPS + 1, dtype=np.float64)
    samples = _rounded(at(places))
    error = _rounded((at(places + 1) + samples) / np.float32(2)) - _rounded(at(places + 0.5))
    error[_STEPS] = 0
    return np.clip(samples - _rounded(error / np.float32(2)), -_LIMIT, _LIMIT - 1).astype(np.int16)


def _rounded(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)


def _softmax_f32(site: Site, data: Tensor, out: Tensor, beta: float) -> tuple[Call, ...]:
    params = Struct("ec_softmax_f32_t", {**_sizes(data), "beta": beta})
    return _call("ec_softmax_f32", "ec_softmax_f32", params, site, 0)


_COSTS = {
    "ec_softmax": (300, 130),
    "ec_softmax_s16": (90, 58),
    "ec_softmax_table": (130, 33),
    "ec_softmax_f32": (50, 95),
}
"""Instructions per row and per value on a Cortex-M4; for int8 where most values are far below the
greatest (those that are not take 300 or 40)."""


def _call(function: str, family: str, params: Struct, site: Site, forward: int) -> tuple[Call, ...]:
    row, each = _COSTS["ec_softmax_s16" if function == "ec_softmax_s16" else family]
    data = site.arg(0)
    return (
        Call(
            function,
            family,
            params,
            site.op.inputs[:1],
            site.op.outputs,
            reuses=(Reuse(0, 0, forward=forward),),
            instructions=row * (data.elements // data.shape[-1]) + each * data.elements,
        ),
    )


_KERNELS = {
    ("int8", "int8"): _softmax_s8,
    ("int8", "int16"): _softmax_s8,
    ("int16", "int16"): _softmax_s16,
    ("float32", "float32"): _softmax_f32,
}

OPERATORS: dict[str, Lowering] = {"SOFTMAX": softmax}
