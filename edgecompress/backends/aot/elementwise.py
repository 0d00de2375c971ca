"""Element-wise operators of two inputs: ADD, SUB, MUL, MINIMUM, MAXIMUM, PRELU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import NamedTuple

import numpy as np

from edgecompress.backends.aot.calls import Call, Lowered, Lowering, Reuse, Site, Struct, Value
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    Multiplier,
    activation_range,
    activation_range_f32,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.layer import MOST_SHIFT
from edgecompress.backends.aot.linear import linear_form, scaled
from edgecompress.backends.aot.unary import operands
from edgecompress.tflite import DTYPES, Tensor

MAX_RANK = 5
"""Outer dimensions of a broadcast, after merging; EC_BROADCAST_RANK of ec_elementwise.h."""

_SUFFIXES = {"int8": "s8", "int16": "s16", "int32": "s32", "float32": "f32"}


class Kernel(NamedTuple):
    """A kernel, its file, its parameter type, the parameters of each element.

    `swapped`: it takes the second input first.
    """

    function: str
    family: str
    params: str
    fields: Mapping[str, Value]
    swapped: bool = False


# --- shapes -----------------------------------------------------------------------------------


class Spread(NamedTuple):
    """How two inputs are spread over the output: see ec_broadcast_t. `run` elements in each."""

    run: int
    steps: tuple[int, int]
    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def plain(self) -> bool:
        """Whether both inputs have the output's shape."""
        return self.steps == (1, 1) and not self.shape


def spread(first: tuple[int, ...], second: tuple[int, ...]) -> Spread:
    """The runs of two shapes that broadcast; dimensions that behave alike are merged.

    Raises ValueError where they do not broadcast.
    """
    out = np.broadcast_shapes(first, second)
    padded = [(1,) * (len(out) - len(shape)) + tuple(shape) for shape in (first, second)]
    dims = [
        (size, (a > 1, b > 1)) for size, a, b in zip(out, *padded, strict=True) if size > 1
    ] or [(1, (True, True))]
    merged = [
        (math.prod(size for size, _ in group), moves)
        for moves, group in groupby(reversed(dims), key=lambda dim: dim[1])
    ]
    strides: list[tuple[int, ...]] = []
    for side in (0, 1):
        sizes = [size if moves[side] else 1 for size, moves in merged]
        strides.append(
            tuple(
                math.prod(sizes[:place]) if merged[place][1][side] else 0
                for place in range(1, len(merged))
            )
        )
    run, moves = merged[0]
    return Spread(
        run,
        (int(moves[0]), int(moves[1])),
        tuple(size for size, _ in merged[1:]),
        (strides[0], strides[1]),
    )


def _spread(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Spread:
    """The runs of the operator. Raises UnsupportedError."""
    shapes = f"{list(first.shape)} and {list(second.shape)} to {list(out.shape)}"
    try:
        site.require(
            np.broadcast_shapes(first.shape, second.shape) == out.shape,
            f"{shapes}; the output must have the shape that the inputs broadcast to",
        )
        found = spread(first.shape, second.shape)
    except ValueError:
        site.require(False, f"{shapes}; the inputs do not broadcast")
        raise
    site.require(
        len(found.shape) <= MAX_RANK,
        f"{shapes}; supported: {MAX_RANK} changes between repeated and other dimensions",
    )
    return found


# --- parameters -------------------------------------------------------------------------------


def _activation(site: Site) -> object:
    return site.op.options.get("fused_activation_function", "NONE")


class Sum(NamedTuple):
    """The multipliers of ADD and SUB; `swapped`: the second input has the greater scale."""

    small: Multiplier
    out: Multiplier
    swapped: bool


def _sum(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Sum:
    """TFLM's CalculateOpDataAdd and CalculateOpDataSub: the greater scale is multiplied by 1/2.

    Raises UnsupportedError where TFLM aborts.
    """
    left = 15 if out.dtype == "int16" else 20
    scales = scale_of(first), scale_of(second)
    twice = 2 * max(scales)
    out_factor = twice / ((1 << left) * scale_of(out))
    site.require(out_factor < 1, f"the scale of {out.name!r} is too small for those of the inputs")
    return Sum(
        quantize_multiplier(min(scales) / twice),
        quantize_multiplier(out_factor),
        scales[1] > scales[0],
    )


def _shifted(factor: Multiplier) -> tuple[int, int]:
    """(multiplier, right shift >= 1) for a kernel; 0 shifts by 1."""
    return factor.value, max(-factor.shift, 1)


def _linear_s8(site: Site, first: Tensor, second: Tensor, out: Tensor, found: Sum) -> Kernel | None:
    """ADD or SUB as a linear form, None where no form has TFLM's bits for all inputs."""
    half = Multiplier(1 << 30, 0)
    factors = (found.small, half) if found.swapped else (half, found.small)
    signs = 1, -1 if site.op.kind == "SUB" else 1
    values = np.arange(-128, 128, dtype=np.int64)
    zeros = zero_point_of(first), zero_point_of(second)
    terms = [
        sign * scaled((values - zero) << 20, factor)
        for zero, factor, sign in zip(zeros, factors, signs, strict=True)
    ]
    low, high = activation_range(_activation(site), out)
    sums = scaled(terms[0][:, None] + terms[1][None, :], found.out) + zero_point_of(out)
    slopes = scale_of(first) / scale_of(out), signs[1] * scale_of(second) / scale_of(out)
    form = linear_form(
        np.clip(sums, low, high),
        low=low,
        high=high,
        slopes=slopes,
        offset=zero_point_of(out) - slopes[0] * zeros[0] - slopes[1] * zeros[1],
    )
    if form is None:
        return None
    fields = {**form._asdict(), "low": low, "high": high}
    return Kernel("ec_linear_s8", "ec_linear_s8", "ec_linear_s8_t", fields)


def _add_s8(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    found = _sum(site, first, second, out)
    great, small = (second, first) if found.swapped else (first, second)
    negative = site.op.kind == "SUB"
    factor = -(1 << 19) if negative and found.swapped else 1 << 19
    sign = -1 if negative and not found.swapped else 1
    multiplier, shift = _shifted(found.small)
    if found.small.value and found.small.shift == 0:
        multiplier, shift, sign = -(1 << 31), 1, -sign
    site.require(
        found.out.shift < 0 or not found.out.value,
        f"the scale of {out.name!r} is too small for those of the inputs",
    )
    linear = _linear_s8(site, first, second, out, found)
    if linear is not None:
        return linear
    out_multiplier, out_shift = _shifted(found.out)
    low, high = activation_range(_activation(site), out)
    fields = {
        "factor1": factor,
        "constant1": -zero_point_of(great) * factor,
        "constant2": -zero_point_of(small) << 21,
        "multiplier2": multiplier,
        "shift2": shift,
        "sign2": sign,
        "multiplier": out_multiplier,
        "shift": out_shift,
        "offset": zero_point_of(out),
        "low": low,
        "high": high,
    }
    return Kernel("ec_add_s8", "ec_elementwise_s8", "ec_add_s8_t", fields, found.swapped)


def _add_s16(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    for tensor in (first, second):
        zero_point_of(tensor)
    found = _sum(site, first, second, out)
    negative = site.op.kind == "SUB"
    low, high = activation_range(_activation(site), out)
    fields = {
        "factor1": -(1 << 14) if negative and found.swapped else 1 << 14,
        "multiplier2": found.small.value,
        "shift2": found.small.shift,
        "sign2": -1 if negative and not found.swapped else 1,
        "multiplier": found.out.value,
        "shift": found.out.shift,
        "low": low,
        "high": high,
    }
    return Kernel("ec_add_s16", "ec_elementwise_s16", "ec_add_s16_t", fields, found.swapped)


def _factor(site: Site, real: float, *, limit: int = 30) -> Multiplier:
    """`real` as a multiplier whose shift to the left is at most `limit`.

    int16 products may leave int32 and wrap, as they do in TFLM; for int8 ones the limit keeps them
    in it, so that the zero point can be added.
    """
    factor = quantize_multiplier(real)
    site.require(factor.shift <= limit, "the output's scale is too small for those of the inputs")
    return factor


def _mul_s8(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    real = scale_of(first) * scale_of(second) / scale_of(out)
    factor = _factor(site, real, limit=14)
    low, high = activation_range(_activation(site), out)
    fields = {
        "offset1": -zero_point_of(first),
        "offset2": -zero_point_of(second),
        "multiplier": factor.value,
        "shift": factor.shift,
        "offset": zero_point_of(out),
        "low": low,
        "high": high,
    }
    right = max(-factor.shift, 0 if factor.value else 1)
    if 1 <= right <= MOST_SHIFT:
        fields |= {"offset2": 2 * fields["offset2"], "shift": right}
        fields["rounding"] = (2 * fields.pop("offset") + 1) << (right - 1)
        return Kernel("ec_mul_right_s8", "ec_elementwise_s8", "ec_mul_right_s8_t", fields)
    return Kernel("ec_mul_s8", "ec_elementwise_s8", "ec_mul_s8_t", fields)


def _mul_s16(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    for tensor in (first, second):
        zero_point_of(tensor)
    real = scale_of(first) * scale_of(second) / scale_of(out)
    factor = _factor(site, real)
    low, high = activation_range(_activation(site), out)
    fields = {"multiplier": factor.value, "shift": factor.shift, "low": low, "high": high}
    return Kernel("ec_mul_s16", "ec_elementwise_s16", "ec_mul_s16_t", fields)


def _prelu(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    """int8, or int16 with int8 slopes (TFLM's CalculatePreluParams)."""
    wide = out.dtype == "int16"
    ratio = scale_of(first) / scale_of(out)
    positive = _factor(site, ratio, limit=30 if wide else 22)
    slope = scale_of(first) * scale_of(second) / scale_of(out)
    negative = _factor(site, slope, limit=30 if wide else 14)
    fields: dict[str, Value] = {
        "offset2": -zero_point_of(second),
        "multiplier1": positive.value,
        "shift1": positive.shift,
        "multiplier2": negative.value,
        "shift2": negative.shift,
    }
    zeros = zero_point_of(first), zero_point_of(out)
    if not wide:
        fields |= {"offset1": -zeros[0], "offset": zeros[1]}
    suffix = _SUFFIXES[out.dtype]
    function = f"ec_prelu_{suffix}"
    return Kernel(function, f"ec_elementwise_{suffix}", f"{function}_t", fields)


def _prelu_f32(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    return Kernel("ec_prelu_f32", "ec_elementwise_f32", "ec_prelu_f32_t", {})


def _arithmetic_f32(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    low, high = activation_range_f32(_activation(site))
    function = f"ec_{site.op.kind.lower()}_f32"
    fields = {"low": low, "high": high}
    return Kernel(function, "ec_elementwise_f32", "ec_arithmetic_f32_t", fields)


def _arithmetic_s32(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    """Without scales. ADD has no activation, whatever its options say, as in TFLM."""
    for tensor in (first, second, out):
        site.require(not tensor.scales, f"{tensor.name!r} is a quantised int32; supported: plain")
    low, high = INTEGERS["int32"]
    bounds = activation_range_f32(_activation(site))
    if site.op.kind != "ADD":
        low, high = (int(min(max(bound, low), high)) for bound in bounds)
    function = f"ec_{site.op.kind.lower()}_s32"
    fields = {"low": low, "high": high}
    return Kernel(function, "ec_elementwise_s32", "ec_arithmetic_s32_t", fields)


def _minmax(site: Site, first: Tensor, second: Tensor, out: Tensor) -> Kernel:
    """The stored values are compared, whatever their scales, as in TFLM."""
    function = f"ec_{site.op.kind.lower()}_{_SUFFIXES[out.dtype]}"
    return Kernel(function, "ec_minmax", "ec_minmax_t", {})


# --- instructions -----------------------------------------------------------------------------

_COSTS = {
    "ec_linear_s8": 6.7,
    "ec_add_s8": 31,
    "ec_mul_right_s8": 11.6,
    "ec_mul_s8": 34,
    "ec_prelu_s8": 40,
    "ec_add_s16": 46,
    "ec_mul_s16": 24,
    "ec_prelu_s16": 38.5,
    "ec_prelu_f32": 9,
    **{f"ec_{kind}_s32": 12.0 for kind in ("add", "sub", "mul")},
    **{f"ec_{kind}_f32": 14.0 for kind in ("add", "sub", "mul")},
}
"""Instructions per element on a Cortex-M4, as measured; 8 where the inputs are only compared."""
_LIMITED = {"ec_linear_s8": 8.1, "ec_mul_right_s8": 17.1}
"""The same with an activation of its own, where that makes a difference."""
_REPEATED = {"ec_linear_s8": 16.0, "ec_mul_right_s8": 23.1}
"""The same with inputs that are repeated; 2 more than without elsewhere."""
_AROUND = 40


def _instructions(kernel: Kernel, found: Spread, elements: int) -> int:
    """What a call takes on a Cortex-M4."""
    each = _COSTS.get(kernel.function, 8.0)
    if not found.plain:
        runs = elements // found.run
        return round(_AROUND * (1 + runs) + elements * _REPEATED.get(kernel.function, each + 2))
    if (kernel.fields.get("low"), kernel.fields.get("high")) != INTEGERS["int8"]:
        each = _LIMITED.get(kernel.function, each)
    return round(_AROUND + elements * each)


# --- operators --------------------------------------------------------------------------------

_Maker = Callable[[Site, Tensor, Tensor, Tensor], Kernel]
_PLAIN: dict[str, _Maker] = {"int32": _arithmetic_s32, "float32": _arithmetic_f32}
_SUMS: dict[str, _Maker] = {"int8": _add_s8, "int16": _add_s16, **_PLAIN}
_MAKERS: dict[str, dict[str, _Maker]] = {
    "ADD": _SUMS,
    "SUB": _SUMS,
    "MUL": {"int8": _mul_s8, "int16": _mul_s16, **_PLAIN},
    "MINIMUM": dict.fromkeys(_SUFFIXES, _minmax),
    "MAXIMUM": dict.fromkeys(_SUFFIXES, _minmax),
    "PRELU": {"int8": _prelu, "int16": _prelu, "float32": _prelu_f32},
}
"""Kind -> element type -> the kernel."""


def _lower(site: Site) -> Lowered:
    first, second, out = operands(site, inputs=2)
    makers = _MAKERS[site.op.kind]
    other = "int8" if site.op.kind == "PRELU" and out.dtype == "int16" else out.dtype
    site.require(
        out.dtype in makers and first.dtype == out.dtype and second.dtype == other,
        f"{first.dtype} and {second.dtype} to {out.dtype}; supported: {', '.join(makers)}, the"
        " same everywhere (slopes of an int16 PRELU are int8)",
    )
    found = _spread(site, first, second, out)
    kernel = makers[out.dtype](site, first, second, out)
    order = (1, 0) if kernel.swapped else (0, 1)
    each = {"count": found.run, **kernel.fields}
    params = Struct(kernel.params, each)
    if not found.plain:
        over: dict[str, Value] = {
            "step1": found.steps[order[0]],
            "step2": found.steps[order[1]],
            "rank": len(found.shape),
        }
        if found.shape:
            over["shape"] = found.shape
            over["stride1"], over["stride2"] = (found.strides[side] for side in order)
        params = Struct(
            f"{kernel.function}_broadcast_t",
            {"each": params, "over": Struct("ec_broadcast_t", over)},
        )
    inputs = tuple(site.op.inputs[side] for side in order)
    whole = out.elements, DTYPES[out.dtype].bits
    reuses = tuple(
        Reuse(place, 0)
        for place, tensor in enumerate((first, second)[side] for side in order)
        if (tensor.elements, DTYPES[tensor.dtype].bits) == whole
    )
    made = Call(
        function=kernel.function if found.plain else f"{kernel.function}_broadcast",
        family=kernel.family,
        params=params,
        inputs=inputs,
        outputs=site.op.outputs,
        reuses=reuses,
        instructions=_instructions(kernel, found, out.elements),
    )
    return (made,)


OPERATORS: dict[str, Lowering] = dict.fromkeys(_MAKERS, _lower)
"""Operator kind -> the function that lowers it."""
