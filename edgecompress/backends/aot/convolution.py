"""Lowering of CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV.

int8 and int4 weights go to the matrix kernel (ec_conv) or the depthwise kernel (ec_depthwise), each
with weights packed for it; what those do not take, int16 and float32 go to ec_conv_plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecompress.backends.aot.calls import (
    Array,
    Call,
    Choice,
    Lowered,
    Lowering,
    Site,
    Struct,
    Value,
)
from edgecompress.backends.aot.conv_int16 import conv_int16
from edgecompress.backends.aot.conv_sparse import conv_sparse
from edgecompress.backends.aot.decoding import decoded_first
from edgecompress.backends.aot.depthwise_int16 import depthwise_int16
from edgecompress.backends.aot.depthwise_pairs import depthwise_pairs
from edgecompress.backends.aot.fixedpoint import (
    Multiplier,
    activation_range,
    activation_range_f32,
    quantize_multiplier,
    scale_of,
    zero_point_of,
)
from edgecompress.backends.aot.layer import Ints, Layer, is_tame, padded, tame, words
from edgecompress.backends.aot.packing import unpacked_first
from edgecompress.backends.aot.pairs import by_pairs, packed_pairs
from edgecompress.backends.aot.rows_int16 import conv_rows
from edgecompress.backends.aot.sliding import (
    convolution_shape,
    is_map,
    options,
    transposed_shape,
)
from edgecompress.backends.aot.winograd import winograd
from edgecompress.tflite import Tensor

TYPES = (
    ("int8", "int8"),
    ("int8", "int4"),
    ("int16", "int8"),
    ("float32", "float32"),
)
"""Supported element types: (activations, weights)."""
BIAS = {"int8": ("int32",), "int16": ("int32", "int64"), "float32": ("float32",)}
"""Activations -> the element types that a bias may have."""

MOST_WIDE_SHIFT = 7
WINOGRAD_SCRATCH = tuple(kilobytes << 10 for kilobytes in (7, 9, 12, 14, 18, 20, 24, 30, 40))
"""Bytes of scratch that a 3x3 convolution may take for fewer multiplications: one alternative
for each."""
LEAST_SCRATCH = 64
"""Bytes that ec_conv may use however few the weights."""


def _filter(site: Site, place: int, *, axis: int, data: Tensor) -> Ints:
    """The values of the constant weights, with their types, rank and zero points checked."""
    weights = site.arg(place)
    is_map(site, weights)
    site.require(
        (data.dtype, weights.dtype) in TYPES,
        f"{data.dtype} input with {weights.dtype} weights; supported: "
        + ", ".join(f"{a} with {b}" for a, b in TYPES),
    )
    site.require(not any(weights.zero_points), "weights with a zero point; supported: 0")
    site.require(
        len(weights.scales) <= 1 or weights.axis == axis,
        f"weights with a scale per {weights.axis}; supported: along dimension {axis}",
    )
    return site.constant(place)


def _bias(site: Site, place: int, *, channels: int, allowed: Sequence[str]) -> Ints | None:
    if not site.has(place):
        return None
    tensor = site.arg(place)
    site.require(
        tensor.dtype in allowed and tensor.elements == channels,
        f"bias of {tensor.elements} {tensor.dtype}; supported: {channels} {' or '.join(allowed)}",
    )
    return site.constant(place).reshape(-1)


def _ends(site: Site, place: int) -> tuple[Tensor, Tensor]:
    """Input `place` and the output, of one type and rank 4."""
    data, out = site.arg(place), site.result()
    site.require(data.dtype == out.dtype, f"{data.dtype} input with {out.dtype} output")
    is_map(site, data)
    is_map(site, out)
    return data, out


def multipliers_of(layer: Layer, place: int) -> tuple[Multiplier, ...]:
    """The factor of every output channel (TFLite's PopulateConvolutionQuantizationParams)."""
    site, weights = layer.site, layer.site.arg(place)
    channels = layer.shape.out_channels
    site.require(
        len(weights.scales) in (1, channels),
        f"weights with {len(weights.scales)} scales; supported: 1 or {channels}",
    )
    scale_in, scale_out = scale_of(layer.data), scale_of(layer.out)
    found = [quantize_multiplier(scale_in * scale / scale_out) for scale in weights.scales]
    return tuple(found * (channels // len(found)))


def conv_layer(site: Site) -> Layer:
    """A CONV_2D, checked. Raises UnsupportedError for what no kernel takes."""
    data, out = _ends(site, 0)
    weights = _filter(site, 1, axis=0, data=data)
    count, depth = weights.shape[0], weights.shape[3]
    channels = data.shape[3]
    site.require(out.shape[3] == count, f"{out.shape[3]} output channels for {count} filters")
    groups = channels // depth
    site.require(
        channels == groups * depth and count % groups == 0,
        f"{channels} input and {count} output channels with weights for {depth}; "
        "supported: both a multiple of the groups",
    )
    return Layer(
        site=site,
        data=data,
        out=out,
        shape=convolution_shape(site, data, out, (weights.shape[1], weights.shape[2])),
        weights=weights,
        nibbles=site.arg(1).dtype == "int4",
        bias=_bias(site, 2, channels=count, allowed=BIAS[data.dtype]),
        groups=groups,
        activation=site.op.options.get("fused_activation_function"),
    )


def _conv(site: Site) -> Lowered:
    layer = conv_layer(site)
    return _choose(layer, wide=layer.bias is None or layer.bias.dtype == np.int64)


def depthwise_layer(site: Site) -> Layer:
    """A DEPTHWISE_CONV_2D, checked. Raises UnsupportedError for what no kernel takes."""
    data, out = _ends(site, 0)
    weights = _filter(site, 1, axis=3, data=data)
    channels, count = data.shape[3], weights.shape[3]
    (fan,) = options(site, "depth_multiplier")
    site.require(
        weights.shape[0] == 1 and count == channels * fan == out.shape[3],
        f"weights {list(weights.shape)} for {channels} input channels and depth multiplier {fan}; "
        f"supported: [1, height, width, {channels * fan}] and as many output channels",
    )
    allowed = ("int64",) if data.dtype == "int16" else BIAS[data.dtype]
    return Layer(
        site=site,
        data=data,
        out=out,
        shape=convolution_shape(site, data, out, (weights.shape[1], weights.shape[2])),
        weights=np.moveaxis(weights, 3, 0).reshape(count, *weights.shape[1:3], 1),
        nibbles=site.arg(1).dtype == "int4",
        bias=_bias(site, 2, channels=count, allowed=allowed),
        groups=channels,
        activation=site.op.options.get("fused_activation_function"),
    )


def _depthwise(site: Site) -> Lowered:
    layer = depthwise_layer(site)
    return _choose(layer, wide=layer.data.dtype == "int16")


def _choose(layer: Layer, *, wide: bool) -> Lowered:
    """The kernels that compute a convolution, each with the weights in its layout."""
    if layer.data.dtype == "float32":
        return _plain_f32(layer)
    multipliers, dsp = multipliers_of(layer, 1), layer.site.core == "dsp"
    if layer.data.dtype == "int16":
        return _int16(layer, multipliers, wide=wide)
    if not is_tame(layer, multipliers):
        return _plain(layer, multipliers, "ec_conv_plain_s8")
    bytewise = replace(layer, nibbles=False)
    if layer.groups > 1 and layer.weights.shape[3] == 1:
        return _choice(
            *(depthwise_pairs(bytewise, multipliers) if dsp else ()),
            None if _pairs_overflow(layer) else _by_channel(layer, multipliers),
        ) or _plain(layer, multipliers, "ec_conv_plain_s8")
    fast = _fast(bytewise, multipliers) if dsp else ()
    product = _as_product(bytewise, multipliers)
    if layer.nibbles:
        fast = tuple(call for call in fast if call.uses)
    return _choice(
        *fast,
        conv_sparse(bytewise, multipliers) if dsp else None,
        _as_product(layer, multipliers) if layer.nibbles else product,
        unpacked_first(product, core=layer.site.core),
        decoded_first(product, core=layer.site.core),
    )


def _fast(layer: Layer, multipliers: Sequence[Multiplier]) -> tuple[Call, ...]:
    """The kernels for the DSP extension that apply, with int8 weights in flash or packed ones."""
    pairs = by_pairs(layer, multipliers)
    found: list[Call] = []
    if pairs is not None:
        found = [pairs, *packed_pairs(pairs, layer.shape, zero_point_of(layer.out))]
    return (*found, *winograd(layer, multipliers, scratch=WINOGRAD_SCRATCH))


def _int16(layer: Layer, multipliers: Sequence[Multiplier], *, wide: bool) -> Lowered:
    """The kernels for int16 maps; those for the DSP extension elsewhere only where others fail."""
    plain = _plain(layer, multipliers, "ec_conv_plain_s16" + "_wide" * wide)
    rows = conv_rows(layer, multipliers) if wide else None
    if rows is not None and layer.site.core != "dsp":
        return _choice(rows, *plain)
    return _choice(
        conv_int16(layer, multipliers, wide=wide),
        depthwise_int16(layer, multipliers) if wide else None,
        rows,
        *plain,
    )


def _choice(*calls: Call | None) -> Choice | tuple[Call, ...]:
    """Those of `calls` that apply, each of them once; the empty tuple where none does."""
    some = [call for call in calls if call is not None]
    found = {(call.function, call.scratch, call.reuses, call.uses): call for call in some}
    return Choice(tuple(found.values())) if found else ()


def _pairs_overflow(layer: Layer) -> bool:
    """Whether the products of two taps, one behind the other, may sum up to 2^15."""
    taps = padded(layer.flat, axis=1, multiple=2).reshape(len(layer.flat), -1, 2)
    return bool((taps == -128).all(axis=2).any())


def _as_product(layer: Layer, multipliers: Sequence[Multiplier]) -> Call:
    """ec_conv: groups of channel pairs, interleaved word by word."""
    flat = padded(layer.flat, axis=1, multiple=8)
    packed_words = words(flat, nibbles=layer.nibbles)
    count = packed_words.shape[1]
    grouped = packed_words.reshape(layer.groups, -1, count)
    even = grouped.shape[1] // 2 * 2
    pairs = grouped[:, :even].reshape(layer.groups, -1, 2, count).transpose(0, 1, 3, 2)
    packed = np.concatenate(
        [pairs.reshape(layer.groups, -1), grouped[:, even:].reshape(layer.groups, -1)], axis=1
    )
    beyond = np.zeros(2 * (-count % 4), packed.dtype)  # vectors of four words are read
    packed = np.concatenate([packed.reshape(-1), beyond])
    fields: dict[str, Value] = {
        **tame(layer, multipliers),
        "groups": layer.groups,
        "words": count,
        "weights": Array("uint32_t", packed),
    }
    aligned = layer.weights.shape[3] % 4 == 0
    taps, channels = flat.shape[1], layer.shape.out_channels
    blocks = layer.shape.pixels / 2
    each = 4 * taps * (2 if layer.nibbles else 1) + 84
    return Call(
        function="ec_conv_s4" if layer.nibbles else "ec_conv_s8",
        family="ec_conv",
        params=Struct("ec_conv_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=max((4 if aligned else 5) * taps, LEAST_SCRATCH),
        reuses=layer.shape.reuse(itemsize=1, step=2, staged=layer.groups == 1),
        instructions=round(blocks * (channels / 2 * each + 8 * taps * layer.groups)),
    )


def _by_channel(layer: Layer, multipliers: Sequence[Multiplier]) -> Call:
    """ec_depthwise: blocks of 16 channels, tap after tap (or two taps, word by word)."""
    together = 2 if layer.nibbles else 1
    taps = padded(padded(layer.flat.T, axis=0, multiple=together), axis=1, multiple=16)
    parts = taps.reshape(len(taps) // together, together, -1, 4, 4)
    blocks = parts.transpose(2, 0, 3, 1, 4).reshape(-1, 16 * len(taps))
    fields: dict[str, Value] = {
        **tame(layer, multipliers),
        "fan": layer.shape.out_channels // layer.groups,
        "taps": len(taps),
        "weights": Array("uint32_t", words(blocks, nibbles=layer.nibbles)),
    }
    made = layer.shape.pixels * layer.shape.out_channels
    return Call(
        function="ec_depthwise_s4" if layer.nibbles else "ec_depthwise_s8",
        family="ec_depthwise",
        params=Struct("ec_depthwise_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=8 * len(taps) + (layer.shape.channels + 3) // 4 * 4,
        reuses=layer.shape.reuse(itemsize=1),
        instructions=round(made * (8 + 4.75 * len(taps))),
    )


def _scaling(layer: Layer, multipliers: Sequence[Multiplier], *, wide: bool) -> dict[str, Value]:
    """The fields of a kernel that follows the definition, integer types."""
    low, high = activation_range(layer.activation, layer.out)
    shifts = [multiplier.shift for multiplier in multipliers]
    layer.site.require(
        not wide or max(shifts) <= MOST_WIDE_SHIFT,
        f"the scales give a factor of 2^{max(shifts)}; supported for int16: up to 2^7",
    )
    bias = None if layer.bias is None else layer.bias
    return {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "out_zero": zero_point_of(layer.out),
        "low": low,
        "high": high,
        "reverse": 0,
        "weights": Array("int8_t", layer.flat),
        "bias": None if wide or bias is None else Array("int32_t", bias),
        "bias_wide": Array("int64_t", bias) if wide and bias is not None else None,
        "multipliers": Array("int32_t", np.array([m.value for m in multipliers], np.int32)),
        "shifts": Array("int8_t", np.array(shifts, np.int8)),
    }


def _scaling_f32(layer: Layer) -> dict[str, Value]:
    """The fields of a kernel that follows the definition, float32."""
    finite = np.isfinite(layer.flat).all() and (layer.bias is None or np.isfinite(layer.bias).all())
    layer.site.require(bool(finite), "weights or bias are not finite")
    low, high = activation_range_f32(layer.activation)
    return {
        "shape": layer.shape.struct(),
        "low": low,
        "high": high,
        "reverse": 0,
        "weights": Array("float", layer.flat),
        "bias": None if layer.bias is None else Array("float", layer.bias),
    }


def _plain(layer: Layer, multipliers: Sequence[Multiplier], function: str) -> tuple[Call, ...]:
    fields = {
        **_scaling(layer, multipliers, wide=function.endswith("_wide")),
        "groups": layer.groups,
    }
    itemsize = 1 if layer.data.dtype == "int8" else 2
    depth, shape = layer.weights.shape[3], layer.shape
    each = 25 + shape.taps * (6 * depth + (16 if depth < 4 else 4))  # about, as measured
    return (
        Call(
            function=function,
            family="ec_conv_plain",
            params=Struct("ec_conv_plain_t", fields),
            inputs=layer.site.op.inputs[:1],
            outputs=layer.site.op.outputs[:1],
            reuses=shape.reuse(itemsize=itemsize),
            instructions=shape.pixels * shape.out_channels * each,
        ),
    )


def _plain_f32(layer: Layer) -> tuple[Call, ...]:
    fields = {**_scaling_f32(layer), "groups": layer.groups}
    return (
        Call(
            function="ec_conv_plain_f32",
            family="ec_conv_plain",
            params=Struct("ec_conv_plain_f32_t", fields),
            inputs=layer.site.op.inputs[:1],
            outputs=layer.site.op.outputs[:1],
            reuses=layer.shape.reuse(itemsize=4),
        ),
    )


def _transpose_conv(site: Site) -> tuple[Call, ...]:
    data, out = _ends(site, 2)
    weights = _filter(site, 1, axis=0, data=data)
    site.require(site.arg(1).dtype != "int4", "int4 weights; supported: int8, float32")
    site.require(
        weights.shape[0] == out.shape[3] and weights.shape[3] == data.shape[3],
        f"weights {list(weights.shape)} for {data.shape[3]} input and {out.shape[3]} output "
        "channels",
    )
    allowed = ("int64", "int16") if data.dtype == "int16" else BIAS[data.dtype]
    layer = Layer(
        site=site,
        data=data,
        out=out,
        shape=transposed_shape(site, data, out, (weights.shape[1], weights.shape[2])),
        weights=weights,
        nibbles=False,
        bias=_bias(site, 3, channels=len(weights), allowed=allowed),
        groups=1,
        activation=site.op.options.get("fused_activation_function", "NONE"),
    )
    kinds = {"int8": ("s8", 1), "int16": ("s16", 2), "float32": ("f32", 4)}
    suffix, itemsize = kinds[data.dtype]
    if data.dtype == "float32":
        params = Struct("ec_transpose_conv_f32_t", _scaling_f32(layer))
    else:
        fields = _scaling(layer, multipliers_of(layer, 1), wide=data.dtype == "int16")
        params = Struct("ec_transpose_conv_t", fields)
    return (
        Call(
            function=f"ec_transpose_conv_{suffix}",
            family="ec_transpose_conv",
            params=params,
            inputs=(site.op.inputs[2],),
            outputs=site.op.outputs[:1],
            reuses=layer.shape.reuse(itemsize=itemsize),
        ),
    )


OPERATORS: dict[str, Lowering] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transpose_conv,
}
