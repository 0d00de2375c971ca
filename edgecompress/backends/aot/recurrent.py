"""UNIDIRECTIONAL_SEQUENCE_LSTM."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Lowering, Site, Struct, Values
from edgecompress.backends.aot.fixedpoint import (
    FLOAT_LIMIT,
    Multiplier,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.matrix import (
    folded_bias,
    packed_rows,
    product_multiplier,
    require_finite,
    rows_reuse,
    scratch_bytes,
)
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Tensor

_INPUTS = 24
_INPUT_WEIGHTS = (1, 2, 3, 4)
_RECURRENT_WEIGHTS = (5, 6, 7, 8)
_BIASES = (12, 13, 14, 15)
_HIDDEN, _CELL = 18, 19
_VARIANTS = {
    "peephole connections": (9, 10, 11),
    "a projection": (16, 17),
    "layer normalisation": (20, 21, 22, 23),
}
_GATE_INPUT = 2.0**-12
_GATE_OUTPUT = 2.0**-15
_NO_CLIP = 32768
_TANH_BITS = 12
_MAX_LEFT, _MAX_RIGHT = 13, 30
_NEAR = 1e-3
_TYPES = {"int8": ("int8", "int32", "int16"), "float32": ("float32", "float32", "float32")}


class _Sizes(NamedTuple):
    batches: int
    steps: int
    inputs: int
    units: int
    time_major: int


def lstm(site: Site) -> tuple[Call, ...]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: int8 with an int16 cell state, or float32.

    The plain cell, as TFLM has it: no peephole connections, projection or layer normalisation;
    tanh is its activation. The state tensors are variables and keep their values between runs.
    """
    site.require(
        len(site.op.inputs) == _INPUTS and len(site.op.outputs) == 1,
        f"{len(site.op.inputs)} inputs and {len(site.op.outputs)} outputs; {_INPUTS} and 1 needed",
    )
    for name, places in _VARIANTS.items():
        site.require(not any(map(site.has, places)), f"{name}; the plain cell is supported")
    options = site.op.options
    site.require(
        options.get("fused_activation_function") == "TANH",
        f"activation {options.get('fused_activation_function')}; supported: TANH",
    )
    site.require(
        not options.get("diagonal_recurrent_tensors"), "diagonal recurrent weights; use full ones"
    )
    clip = options.get("cell_clip")
    site.require(isinstance(clip, float | int) and clip >= 0, f"cell clip {clip}; 0 or more needed")
    assert isinstance(clip, float | int)
    dtype = site.arg(0).dtype
    site.require(dtype in _TYPES, f"{dtype} inputs; supported: {', '.join(_TYPES)}")
    _check_types(site, *_TYPES[dtype])
    sizes = _sizes(site)
    kernel = _lstm_s8 if dtype == "int8" else _lstm_f32
    return (kernel(site, sizes, float(clip)),)


def _check_types(site: Site, weights: str, bias: str, cell: str) -> None:
    data = site.arg(0)
    expected = {
        **dict.fromkeys((*_INPUT_WEIGHTS, *_RECURRENT_WEIGHTS), weights),
        **dict.fromkeys(_BIASES, bias),
        _HIDDEN: data.dtype,
        _CELL: cell,
    }
    for place, dtype in expected.items():
        found = site.arg(place)
        site.require(
            found.dtype == dtype,
            f"input {place} is {found.dtype}; with {data.dtype} inputs {dtype}",
        )
    site.require(site.result().dtype == data.dtype, f"{site.result().dtype} outputs")
    for place in (_HIDDEN, _CELL):
        state = site.arg(place)
        site.require(
            state.variable and state.data is None, f"state {state.name!r} is no variable tensor"
        )


def _sizes(site: Site) -> _Sizes:
    data, hidden, out = site.arg(0), site.arg(_HIDDEN), site.result()
    time_major = bool(site.op.options.get("time_major"))
    site.require(
        len(data.shape) == 3 and len(hidden.shape) == 2 and min(data.shape) > 0,
        f"inputs {data.shape} and state {hidden.shape}; ranks 3 and 2 are needed",
    )
    first, second, inputs = data.shape
    steps, batches = (first, second) if time_major else (second, first)
    units = hidden.shape[1]
    shapes = {
        **dict.fromkeys(_INPUT_WEIGHTS, (units, inputs)),
        **dict.fromkeys(_RECURRENT_WEIGHTS, (units, units)),
        **dict.fromkeys(_BIASES, (units,)),
    }
    for place, shape in shapes.items():
        found = site.arg(place).shape
        site.require(found == shape, f"input {place} has shape {found}; {shape} fits the others")
    site.require(
        units > 0
        and hidden.elements == site.arg(_CELL).elements == batches * units
        and out.shape == (first, second, units),
        f"state {hidden.shape} or output {out.shape} do not fit {batches} x {units}",
    )
    return _Sizes(batches, steps, inputs, units, int(time_major))


def _stacked(site: Site, places: tuple[int, ...]) -> Values:
    """The constants at `places`, gate after gate within each unit."""
    found = [site.constant(place) for place in places]
    require_finite(site, *found)
    return np.stack(found, axis=1)


def _lstm_s8(site: Site, sizes: _Sizes, clip: float) -> Call:
    data, hidden, cell = site.arg(0), site.arg(_HIDDEN), site.arg(_CELL)
    zero_point_of(cell)
    for place in (*_INPUT_WEIGHTS, *_RECURRENT_WEIGHTS):
        site.require(zero_point_of(site.arg(place)) == 0, f"input {place} has a zero point; use 0")
    tanh_multiplier, tanh_shift = _tanh_input(cell)
    inputs = _stacked(site, _INPUT_WEIGHTS).reshape(-1, sizes.inputs)
    recurrent = _stacked(site, _RECURRENT_WEIGHTS).reshape(-1, sizes.units)
    bias = _stacked(site, _BIASES).reshape(-1)
    cell_scale = scale_of(cell)
    params = Struct(
        "ec_lstm_t",
        {
            **sizes._asdict(),
            "hidden_zero": zero_point_of(hidden),
            "clip": int(min(clip / cell_scale, _NO_CLIP - 1)) if clip > 0 else _NO_CLIP,
            "tanh_multiplier": tanh_multiplier,
            "tanh_shift": tanh_shift,
            "forget_cell": _factor(_GATE_OUTPUT * cell_scale, cell_scale),
            "input_cell": _factor(_GATE_OUTPUT * _GATE_OUTPUT, cell_scale),
            "output_hidden": _factor(_GATE_OUTPUT * _GATE_OUTPUT, scale_of(hidden)),
            **_gate_factors(site, "input", data, _INPUT_WEIGHTS),
            **_gate_factors(site, "recurrent", hidden, _RECURRENT_WEIGHTS),
            "weights_input": Array("int8_t", packed_rows(inputs, bits=8)),
            "weights_recurrent": Array("int8_t", packed_rows(recurrent, bits=8)),
            "input_bias": Array("int32_t", folded_bias(inputs, bias, in_zero=zero_point_of(data))),
            "recurrent_bias": Array(
                "int32_t", folded_bias(recurrent, None, in_zero=zero_point_of(hidden))
            ),
        },
    )
    return Call(
        "ec_lstm_s8",
        "ec_lstm",
        params,
        _operands(site),
        site.op.outputs,
        scratch_bytes(sizes.inputs) + scratch_bytes(sizes.units),
        (rows_reuse(sizes.batches * sizes.steps, read=sizes.inputs, written=sizes.units),),
    )


def _tanh_input(tensor: Tensor) -> tuple[int, int]:
    """Multiplier and right shift that bring a power-of-two scale to the input of ec_tanh_of_s16.

    Raises UnsupportedError for another scale, or one out of range.
    """
    exact = math.log2(scale_of(tensor))
    power = round(exact)
    left = power + _TANH_BITS
    if abs(exact - power) >= _NEAR or not -_MAX_RIGHT <= left <= _MAX_LEFT:
        raise UnsupportedError(
            f"the scale of {tensor.name!r} is {tensor.scales[0]}; supported: powers of two from"
            f" 2^{-_MAX_RIGHT - _TANH_BITS} to 2^{_MAX_LEFT - _TANH_BITS}"
        )
    return (3 << left, 0) if left >= 0 else (3, -left)


def _operands(site: Site) -> tuple[int, ...]:
    return tuple(site.op.inputs[place] for place in (0, _HIDDEN, _CELL))


def _factor(product: float, scale: float) -> Struct:
    """The factor of a product of two gates (TFLM CreateInterGateMulParams)."""
    multiplier, shift = quantize_multiplier(product / scale)
    return Struct("ec_factor_t", {"multiplier": multiplier, "shift": shift})


def _gate_factors(
    site: Site, name: str, data: Tensor, places: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The factors that bring a gate's products with `data` to Q3.12 (TFLM CreateGateParams)."""
    found: list[Multiplier] = [
        product_multiplier(scale_of(data), scale_of(site.arg(place)), _GATE_INPUT)
        for place in places
    ]
    return {
        f"{name}_multipliers": tuple(one.value for one in found),
        f"{name}_shifts": tuple(one.shift for one in found),
    }


def _lstm_f32(site: Site, sizes: _Sizes, clip: float) -> Call:
    params = Struct(
        "ec_lstm_f32_t",
        {
            **sizes._asdict(),
            "clip": clip if clip <= FLOAT_LIMIT else 0.0,
            "weights_input": Array("float", _stacked(site, _INPUT_WEIGHTS)),
            "weights_recurrent": Array("float", _stacked(site, _RECURRENT_WEIGHTS)),
            "bias": Array("float", _stacked(site, _BIASES)),
        },
    )
    return Call(
        "ec_lstm_f32", "ec_lstm_f32", params, _operands(site), site.op.outputs, 4 * sizes.units
    )


OPERATORS: dict[str, Lowering] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": lstm}
