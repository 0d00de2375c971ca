"""FULLY_CONNECTED and BATCH_MATMUL become matrix products."""

from __future__ import annotations

import math

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
    Values,
)
from edgecompress.backends.aot.decoding import decoded_first
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    Multiplier,
    activation_range,
    activation_range_f32,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.fully_connected_int16 import fully_connected_int16
from edgecompress.backends.aot.fully_connected_pairs import fully_connected_pairs
from edgecompress.backends.aot.fully_connected_sparse import fully_connected_sparse
from edgecompress.backends.aot.packing import unpacked_first
from edgecompress.backends.aot.rows_int16 import matrix_rows
from edgecompress.tflite import Tensor

_STEP = 8
_ROWS = 4
_WIDE_SHIFT = 7
MOST_DECODED = 8 << 10
"""Bytes of weights that are decoded to scratch before they meet a row of inputs."""
_NIBBLES = 1 << 17
_BATCH_RANK = 5
_ELEMENT = {"int8": 1, "int16": 2, "float32": 4}


def product_multiplier(left: float, right: float, out: float) -> Multiplier:
    """The factor from the product of two scales to the scale `out`.

    The product is rounded to float32 before the division in float64, as in TFLite's
    GetQuantizedConvolutionMultipler.
    """
    with np.errstate(over="ignore", under="ignore"):
        product = float(np.float32(left) * np.float32(right))
    return quantize_multiplier(product / out)


def rows_reuse(rows: int, *, read: int, written: int) -> Reuse:
    """How output 0 may lie over input 0 where row after row is read, then written; bytes a row."""
    if rows == 1:
        return Reuse(0, 0, forward=-(read + written))
    return Reuse(0, 0, forward=max(written - read, (rows - 1) * (written - read)))


def packed_rows(weights: Values, *, bits: int) -> Values:
    """Weights [rows, columns] as firmware/kernels/ec_dot.h reads them, in int8 bytes.

    Rows are padded with zeros to a multiple of 8; whole fours of rows are interleaved four weights
    at a time. With `bits` 4, each eight weights of a row become four bytes.
    """
    rows, columns = weights.shape
    steps = -(-columns // _STEP)
    padded = np.zeros((rows, steps * _STEP), np.int8)
    padded[:, :columns] = weights
    if bits == 4:
        halves = padded.reshape(rows, steps, 2, 4)
        padded = (halves[:, :, 0] & 15 | halves[:, :, 1] << 4).astype(np.int8).reshape(rows, -1)
    whole = rows - rows % _ROWS
    words = padded[:whole].reshape(whole // _ROWS, _ROWS, padded.shape[1] // 4, 4)
    return np.concatenate([words.transpose(0, 2, 1, 3).reshape(-1), padded[whole:].reshape(-1)])


def folded_bias(
    weights: Values, bias: Values | None, *, in_zero: int, weights_zero: int = 0
) -> npt.NDArray[np.int32]:
    """`bias` less the input's zero point times the row sums of `weights`, modulo 2^32."""
    total = (weights.astype(np.int64) - weights_zero).sum(axis=1) * -in_zero
    if bias is not None:
        total = total + bias.astype(np.int64)
    folded: npt.NDArray[np.int32] = total.astype(np.uint32).view(np.int32)
    return folded


def scratch_bytes(columns: int) -> int:
    """Bytes of a vector of `columns` int8 that a kernel expands (ec_dot.h)."""
    return 2 * _STEP * -(-columns // _STEP)


def require_finite(site: Site, *constants: Values) -> None:
    """Raise UnsupportedError where `constants` hold NaN or infinity, which C cannot write."""
    site.require(
        all(bool(np.isfinite(one).all()) for one in constants), "weights or bias are not finite"
    )


def fully_connected(site: Site) -> Lowered:
    """FULLY_CONNECTED: int8 with int8 or int4 weights, int16 with int8 weights, or float32."""
    data, weights, out = site.arg(0), site.arg(1), site.result()
    kernel = _FULLY_CONNECTED.get((data.dtype, weights.dtype))
    site.require(
        kernel is not None and out.dtype == data.dtype,
        f"{data.dtype} inputs with {weights.dtype} weights and {out.dtype} outputs; supported: int8"
        " with int8 or int4 weights, int16 with int8 weights, float32",
    )
    site.require(
        site.op.options.get("weights_format") == "DEFAULT", "shuffled weights; use the plain format"
    )
    values = site.constant(1)
    site.require(values.ndim == 2, f"weights of rank {values.ndim}; supported: 2")
    outputs, inputs = values.shape
    batches = data.elements // inputs if inputs else 0
    site.require(
        min(batches, outputs, *data.shape) > 0
        and batches * inputs == data.elements
        and out.shape[-1:] == (outputs,)
        and out.elements == batches * outputs,
        f"shapes {data.shape}, {weights.shape} and {out.shape} do not fit",
    )
    assert kernel is not None
    return kernel(site, values, batches)


def _bias(site: Site, dtype: str, outputs: int) -> Values | None:
    if not site.has(2):
        return None
    tensor = site.arg(2)
    site.require(
        tensor.dtype == dtype and tensor.elements == outputs,
        f"a bias of {tensor.elements} {tensor.dtype}; supported: {outputs} {dtype}",
    )
    return site.constant(2).reshape(-1)


def _sizes(values: Values, batches: int) -> dict[str, int]:
    outputs, inputs = values.shape
    return {"batches": batches, "inputs": inputs, "outputs": outputs}


def _fully_connected_s8(site: Site, values: Values, batches: int) -> Lowered:
    data, weights, out = site.arg(0), site.arg(1), site.result()
    outputs, inputs = values.shape
    int4 = weights.dtype == "int4"
    site.require(not int4 or inputs < _NIBBLES, f"{inputs} inputs; fewer than {_NIBBLES} with int4")
    bias = _bias(site, "int32", outputs)
    scales = _scales(site, data, weights, out)
    weights_zero = zero_point_of(weights) if len(scales) == 1 else 0
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    fields: dict[str, Value] = {
        **_sizes(values, batches),
        "weights_zero": weights_zero,
        "out_zero": zero_point_of(out),
        "low": low,
        "high": high,
        "scale_step": int(len(scales) > 1),
        "bias": Array(
            "int32_t",
            folded_bias(values, bias, in_zero=zero_point_of(data), weights_zero=weights_zero),
        ),
        "multipliers": Array("int32_t", np.array([one.value for one in scales], np.int32)),
        "shifts": Array("int8_t", np.array([one.shift for one in scales], np.int8)),
    }
    reuse = rows_reuse(batches, read=inputs, written=outputs)

    def with_bits(bits: int) -> Call:
        weights = Array("int8_t", packed_rows(values, bits=bits))
        return Call(
            f"ec_fully_connected_s{bits}",
            "ec_fully_connected",
            Struct("ec_fully_connected_t", {**fields, "weights": weights}),
            site.op.inputs[:1],
            site.op.outputs,
            scratch_bytes(inputs),
            (reuse,),
            _instructions(outputs, inputs, batches, bits),
        )

    fast: tuple[Call, ...] = ()
    if site.core == "dsp" and weights_zero == 0:
        fast = fully_connected_pairs(site, values, bias, scales, reuse)
    if int4:
        fast = tuple(call for call in fast if call.uses)
    sparse = fully_connected_sparse(site, values, bias, scales) if weights_zero == 0 else ()
    whole = with_bits(8)
    first = [unpacked_first(whole, core=site.core)]
    if values.size <= MOST_DECODED:
        first.append(decoded_first(whole, core=site.core))
    calls = *fast, with_bits(4) if int4 else whole, *first, *sparse
    found = tuple(call for call in calls if call is not None)
    return Choice(found) if len(found) > 1 else found


def _instructions(outputs: int, inputs: int, batches: int, bits: int) -> int:
    """What ec_fully_connected_s8 or _s4 takes on a Cortex-M4, about, as measured."""
    steps = -(-inputs // _STEP)
    fours, rest = divmod(outputs, _ROWS)
    four, one = (42, 17) if bits == 8 else (46, 18)
    return batches * (95 + 34 * steps + fours * (211 + four * steps) + rest * (50 + one * steps))


def _scales(site: Site, data: Tensor, weights: Tensor, out: Tensor) -> list[Multiplier]:
    """One factor, or one per output (TFLM CalculateOpDataFullyConnected)."""
    if len(weights.scales) <= 1:
        return [product_multiplier(scale_of(data), scale_of(weights), scale_of(out))]
    site.require(weights.dtype == "int8", "int4 weights with several scales; supported: one")
    site.require(
        len(weights.scales) == weights.shape[0]
        and weights.axis == 0
        and not any(weights.zero_points),
        f"{len(weights.scales)} scales along axis {weights.axis} of weights {weights.shape};"
        " supported: one, or one per output with zero point 0",
    )
    return [quantize_multiplier(scale_of(data) * scale / scale_of(out)) for scale in weights.scales]


def _wide(site: Site, factor: Multiplier) -> Multiplier:
    site.require(
        factor.shift <= _WIDE_SHIFT,
        f"the scales give a factor above {1 << _WIDE_SHIFT}; int16 supports less",
    )
    return factor


def _fully_connected_s16(site: Site, values: Values, batches: int) -> Lowered:
    data, weights, out = site.arg(0), site.arg(1), site.result()
    bias = _bias(site, "int64", values.shape[0])
    for tensor in (data, out):
        zero_point_of(tensor)
    factor = _wide(site, product_multiplier(scale_of(data), scale_of(weights), scale_of(out)))
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    params = Struct(
        "ec_fully_connected_s16_t",
        {
            **_sizes(values, batches),
            "weights_zero": zero_point_of(weights),
            "low": low,
            "high": high,
            "multiplier": factor.value,
            "shift": factor.shift,
            "weights": Array("int8_t", values),
            "bias": None if bias is None else Array("int64_t", bias),
        },
    )
    count = batches * values.shape[0] * (6 * values.shape[1] + 140)  # about, as measured
    call = _call("ec_fully_connected_s16", "ec_fully_connected", params, site, instructions=count)
    if zero_point_of(weights) != 0:
        return (call,)
    reuse = rows_reuse(batches, read=2 * values.shape[1], written=2 * values.shape[0])
    found = (
        fully_connected_int16(site, values, bias, factor) if site.core == "dsp" else None,
        matrix_rows(site, values, bias, factor, reuse),
        call,
    )
    return Choice(tuple(one for one in found if one is not None))


def _fully_connected_f32(site: Site, values: Values, batches: int) -> tuple[Call, ...]:
    bias = _bias(site, "float32", values.shape[0])
    require_finite(site, values, *([] if bias is None else [bias]))
    low, high = activation_range_f32(site.op.options.get("fused_activation_function"))
    params = Struct(
        "ec_fully_connected_f32_t",
        {
            **_sizes(values, batches),
            "low": low,
            "high": high,
            "weights": Array("float", values),
            "bias": None if bias is None else Array("float", bias),
        },
    )
    return (_call("ec_fully_connected_f32", "ec_fully_connected", params, site),)


def _call(
    function: str,
    family: str,
    params: Struct,
    site: Site,
    inputs: int = 1,
    *,
    instructions: int | None = None,
) -> Call:
    return Call(
        function,
        family,
        params,
        site.op.inputs[:inputs],
        site.op.outputs,
        instructions=instructions,
    )


_FULLY_CONNECTED = {
    ("int8", "int8"): _fully_connected_s8,
    ("int8", "int4"): _fully_connected_s8,
    ("int16", "int8"): _fully_connected_s16,
    ("float32", "float32"): _fully_connected_f32,
}


def batch_matmul(site: Site) -> tuple[Call, ...]:
    """BATCH_MATMUL of two int8, int16 or float32 tensors of rank 2 to 5, batches broadcast."""
    left, right, out = site.arg(0), site.arg(1), site.result()
    site.require(
        left.dtype == right.dtype == out.dtype and out.dtype in _ELEMENT,
        f"types {left.dtype}, {right.dtype} and {out.dtype}; supported: all int8, int16 or float32",
    )
    geometry = _matmul_geometry(site, left, right, out)
    if out.dtype == "float32":
        params = Struct("ec_matmul_shape_t", geometry)
        return (_call("ec_batch_matmul_f32", "ec_batch_matmul", params, site, 2),)
    factor = product_multiplier(scale_of(left), scale_of(right), scale_of(out))
    if out.dtype == "int16":
        factor = _wide(site, factor)
    low, high = INTEGERS[out.dtype]
    params = Struct(
        "ec_batch_matmul_t",
        {
            "shape": Struct("ec_matmul_shape_t", geometry),
            "left_zero": zero_point_of(left),
            "right_zero": zero_point_of(right),
            "out_zero": zero_point_of(out),
            "low": low,
            "high": high,
            "multiplier": factor.value,
            "shift": factor.shift,
        },
    )
    kernel = f"ec_batch_matmul_s{8 if out.dtype == 'int8' else 16}"
    return (_call(kernel, "ec_batch_matmul", params, site, 2),)


def _matmul_geometry(
    site: Site, left: Tensor, right: Tensor, out: Tensor
) -> dict[str, int | tuple[int, ...]]:
    """Sizes, and how many elements apart rows, columns and batches of either operand lie."""
    ranks = len(left.shape), len(right.shape)
    site.require(
        min(ranks) >= 2 and max(ranks) <= _BATCH_RANK,
        f"ranks {ranks[0]} and {ranks[1]}; supported: 2 to {_BATCH_RANK}",
    )
    adjoint = [bool(site.op.options.get(name)) for name in ("adj_x", "adj_y")]
    (rows, depth), (row_step, left_step) = _matrix(left, adjoint[0])
    (depth2, columns), (right_step, column_step) = _matrix(right, adjoint[1])
    batches = [_batches(tensor) for tensor in (left, right)]
    sizes = tuple(max(pair) for pair in zip(*batches, strict=True))
    site.require(
        depth == depth2
        and all(a == b or 1 in (a, b) for a, b in zip(*batches, strict=True))
        and min(*left.shape, *right.shape) > 0
        and out.elements == math.prod(sizes) * rows * columns
        and out.shape[-2:] == (rows, columns),
        f"shapes {left.shape}, {right.shape} and {out.shape} do not fit",
    )
    return {
        "rows": rows,
        "depth": depth,
        "columns": columns,
        "left_row": row_step,
        "left_depth": left_step,
        "right_depth": right_step,
        "right_column": column_step,
        "batches": sizes,
        "left_batch": _batch_steps(batches[0], rows * depth),
        "right_batch": _batch_steps(batches[1], depth * columns),
    }


def _matrix(tensor: Tensor, adjoint: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of the matrices, and the steps between rows and between columns."""
    high, wide = tensor.shape[-2:]
    return ((wide, high), (1, wide)) if adjoint else ((high, wide), (wide, 1))


def _batches(tensor: Tensor) -> tuple[int, ...]:
    given = tensor.shape[:-2]
    return (1,) * (_BATCH_RANK - 2 - len(given)) + given


def _batch_steps(batches: tuple[int, ...], matrix: int) -> tuple[int, ...]:
    return tuple(
        0 if size == 1 else math.prod(batches[axis + 1 :]) * matrix
        for axis, size in enumerate(batches)
    )


OPERATORS: dict[str, Lowering] = {
    "BATCH_MATMUL": batch_matmul,
    "FULLY_CONNECTED": fully_connected,
}
