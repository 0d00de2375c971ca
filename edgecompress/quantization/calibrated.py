"""A float flatbuffer with given ranges -> an integer one, and weights put on given grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program, Tensor, read, write
from edgecompress.vocabulary import IoType

Range = tuple[float, float]
Float = npt.NDArray[np.float64]

Ends = tuple[Float, Float]
INT32 = 2**31 - 1


def quantized(
    floats: bytes,
    ranges: Mapping[int, Range],
    *,
    types: tuple[IoType, IoType],
    per_channel: bool = True,
) -> bytes:
    """An int8 flatbuffer of a float32 one whose activations have the given ranges.

    `ranges` maps a tensor's index to its least and largest value; it is written where the
    converter's own calibration writes what it saw (`quantization.min`, `.max`), and its quantiser
    does the rest. `types` are those of the input and the output; `per_channel=False` gives every
    kernel one scale.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.schema_py_generated import QuantizationParametersT
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(floats))
    (graph,) = model.subgraphs
    for index, (low, high) in ranges.items():
        found = graph.tensors[index].quantization or QuantizationParametersT()
        found.min, found.max = [low], [high]
        graph.tensors[index].quantization = found
    given, made = (getattr(tf, name) for name in types)
    return bytes(
        mlir_quantize(
            bytes(flatbuffer_utils.convert_object_to_bytearray(model)),
            input_data_type=given,
            output_data_type=made,
            disable_per_channel=not per_channel,
        )
    )


def positive(data: bytes) -> bytes:
    """A flatbuffer in which no scale is 0, as the converter leaves those of outputs that have
    neither weights nor a bias where activations are int16: they take the tensor's largest."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    found = [t.quantization for graph in model.subgraphs for t in graph.tensors if t.quantization]
    empty = [each for each in found if each.scale is not None and not np.all(each.scale)]
    for each in empty:
        each.scale = np.where(each.scale, each.scale, np.max(each.scale) or 1.0)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if empty else data


def spread(program: Program, named: Mapping[int, Range]) -> dict[int, Range]:
    """The range of every activation of a float program, from those that are known.

    What is not known follows from the inputs of its operator, by the interval that it can make of
    theirs. Raises UnsupportedError for a tensor that nothing is known of.
    """
    found = dict(named)
    for op in program.ops:
        for index in op.outputs:
            if op.kind in _UNIT:
                found[index] = (0.0, 1.0)
            if index in found:
                continue
            made = _through(program, op, found)
            if made is None:
                raise UnsupportedError(
                    f"quantize: no range is known of what {op.title}"
                    f" ({program.layer_of(op) or 'unknown layer'}) computes; calibrate with"
                    " samples, or replace the layer"
                )
            found[index] = made
    return found


def assigned(
    program: Program,
    layers: Sequence[str],
    calls: Mapping[str, int],
    named: Mapping[str, Range],
    *,
    inside: str,
) -> dict[int, Range]:
    """The ranges of the tensors of a program, from those of Keras layers.

    `layers` has the layer of each operator, `calls` how often each layer is called, `named` the
    ranges by layer; `name + inside` is that of a kernel's output where more operators of the layer
    follow. The last operator of a layer makes the layer's output; others are left out.
    """
    count = Counter(layers)
    last = {layer: place for place, layer in enumerate(layers)}
    found = {}
    for place, (op, layer) in enumerate(zip(program.ops, layers, strict=True)):
        whole = last[layer] == place or count[layer] == calls.get(layer)
        kernel = op.kind in AXES
        keys = [layer + inside, layer] if kernel else []
        if whole:
            keys = [layer, layer + inside] if kernel else [layer]
        for key in keys:
            if key in named:
                found[op.outputs[0]] = named[key]
                break
    return found


def _through(program: Program, op: Op, found: Mapping[int, Range]) -> Range | None:
    """The range of an operator's output from those of its inputs; None where there is no rule."""
    ends: list[Ends] = []
    for index in op.inputs:
        array = program.tensors[index].array if index >= 0 else None
        if index in found:
            ends.append((np.array(found[index][0]), np.array(found[index][1])))
        elif array is not None and array.dtype == np.float32 and array.size:
            ends.append((np.array(array.min(), np.float64), np.array(array.max(), np.float64)))
    if op.kind in _SHAPES and ends:
        low, high = ends[0]
    elif op.kind in _ELEMENTS and len(ends) == len(op.inputs):
        grid = np.linspace(0.0, 1.0, NODES)
        first, *rest = (low + grid * (high - low) for low, high in ends)
        values = _ELEMENTS[op.kind](op, first, *(each[:, None] for each in rest))
        low, high = values.min(), values.max()
    elif op.kind in _HULLS and len(ends) == len(op.inputs):
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
    else:
        return None
    below, above = _CLIPS.get(str(op.options.get("fused_activation_function")), (-np.inf, np.inf))
    low, high = np.clip((low, high), below, above)
    return float(min(low, 0.0)), float(max(high, 0.0))


NODES = 129
"""Values of each input that an element-wise operator is tried on."""
_UNIT = frozenset(["SOFTMAX", "LOGISTIC"])
_SHAPES = frozenset(
    "RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE MAX_POOL_2D AVERAGE_POOL_2D MEAN REDUCE_MAX REDUCE_MIN"
    " PAD MIRROR_PAD SLICE STRIDED_SLICE SPLIT GATHER UNPACK TILE SPACE_TO_DEPTH DEPTH_TO_SPACE"
    " RESIZE_NEAREST_NEIGHBOR RESIZE_BILINEAR BROADCAST_TO".split()
)
"""Operators whose output lies within the range of their first input, and 0."""
_HULLS = frozenset(["CONCATENATION", "PACK"])
_CLIPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
_ELEMENTS: Mapping[str, Callable[..., Float]] = {
    "ADD": lambda op, a, b: a + b,
    "SUB": lambda op, a, b: a - b,
    "MUL": lambda op, a, b: a * b,
    "MAXIMUM": lambda op, a, b: np.maximum(a, b),
    "MINIMUM": lambda op, a, b: np.minimum(a, b),
    "PRELU": lambda op, a, b: np.maximum(a, 0.0) + b * np.minimum(a, 0.0),
    "LEAKY_RELU": lambda op, a: np.where(a > 0, a, op.options["alpha"] * a),
    "RELU": lambda op, a: np.maximum(a, 0.0),
    "RELU6": lambda op, a: np.clip(a, 0.0, 6.0),
    "RELU_N1_TO_1": lambda op, a: np.clip(a, -1.0, 1.0),
    "HARD_SWISH": lambda op, a: a * np.clip(a + 3.0, 0.0, 6.0) / 6.0,
    "EXP": lambda op, a: np.exp(a),
    "TANH": lambda op, a: np.tanh(a),
    "NEG": lambda op, a: -a,
    "ABS": lambda op, a: np.abs(a),
    "SQUARE": lambda op, a: np.square(a),
}
"""What element-wise operators compute, of arrays that broadcast."""


def on_grids(
    data: bytes, grids: Sequence[tuple[npt.NDArray[np.int8], Float]]
) -> tuple[bytes, frozenset[int]]:
    """An integer flatbuffer with the whole numbers and scales of `grids` as its weights, and the
    places of the grids that it has.

    Each grid is (outputs, rest) whole numbers and (outputs,) scales. A kernel of the program takes
    the grid whose values it has, to within its own rounding; the biases of all operators that share
    it are rescaled. What has no grid stays as it is.
    """
    program = read(data)
    changed: dict[int, Tensor] = {}
    used = set()
    for ops in _by_kernel(program):
        place = _fitting(program, ops[0], grids)
        if place is not None:
            used.add(place)
            changed.update(_on_grid(program, ops, *grids[place]))
    if not changed:
        return data, frozenset()
    return _edited(program, changed), frozenset(used)


def _by_kernel(program: Program) -> list[list[Op]]:
    """The operators that have a constant kernel, those that share one together."""
    sharing: dict[int, list[Op]] = {}
    for op in program.ops:
        if op.kind in AXES and program.tensors[op.inputs[1]].array is not None:
            sharing.setdefault(op.inputs[1], []).append(op)
    return list(sharing.values())


def _edited(program: Program, changed: Mapping[int, Tensor]) -> bytes:
    return write(
        program.edit(tensors=tuple(changed.get(i, t) for i, t in enumerate(program.tensors)))
    )


def zeros_scaled(data: bytes) -> bytes:
    """An integer flatbuffer in which outputs whose weights are all 0 have a scale like others.

    The converter gives them one so small that their bias is 2^30 of it, and the quick kernels,
    whose sums would come near the end of 32 bits, are out of reach for the whole operator. What
    they make is their bias either way.
    """
    program = read(data)
    changed: dict[int, Tensor] = {}
    for ops in _by_kernel(program):
        weights = program.tensors[ops[0].inputs[1]]
        scales = np.asarray(weights.scales, np.float64)
        dead = ~_by_output(ops[0], np.asarray(weights.array)).any(axis=1)
        if weights.array is None or len(scales) != len(dead) or not dead.any() or dead.all():
            continue
        even = np.where(dead, scales[~dead].max(), scales)
        if (even != scales).any():
            changed[ops[0].inputs[1]] = replace(weights, scales=tuple(even.tolist()))
            changed.update(_biases(program, ops, even))
    return _edited(program, changed) if changed else data


AXES = {"CONV_2D": 0, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}
"""Operators with a kernel, and the axis of it that runs along the outputs."""


def _fitting(
    program: Program, op: Op, grids: Sequence[tuple[npt.NDArray[np.int8], Float]]
) -> int | None:
    """The grid that the int8 weights of `op` are the rounded values of, the nearest where several
    are."""
    weights = program.tensors[op.inputs[1]]
    if weights.dtype != "int8":
        return None
    rows = _by_output(op, np.asarray(weights.array))
    step = np.broadcast_to(np.asarray(weights.scales, np.float64), len(rows))[:, None]
    found: dict[int, float] = {}
    for place, (points, scales) in enumerate(grids):
        if points.shape == rows.shape:
            apart = np.abs(points * scales[:, None] - rows * step) / step
            if (apart <= 0.75).all():
                found[place] = float(np.square(apart).sum())
    return min(found, key=found.__getitem__, default=None)


def _by_output(op: Op, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The weights of an operator as (outputs, rest)."""
    moved = np.moveaxis(weights, AXES[op.kind], 0)
    return moved.reshape(len(moved), -1)


def _on_grid(
    program: Program, ops: Sequence[Op], points: npt.NDArray[np.int8], scales: Float
) -> dict[int, Tensor]:
    """The new weights, which all `ops` have in common, and the biases."""
    weights, axis = program.tensors[ops[0].inputs[1]], AXES[ops[0].kind]
    given = 2 if ops[0].kind == "TRANSPOSE_CONV" else 0
    units = [program.tensors[op.inputs[given]].scales[0] for op in ops]
    made = [program.tensors[op.outputs[0]].scales[0] for op in ops]
    ratio = max(unit / step for unit, step in zip(units, made, strict=True))
    points, scales = _finer(points, scales, ratio)
    if len(weights.scales) == 1:
        scales = scales[:1]
    moved = np.moveaxis(np.empty(weights.shape, np.int8), axis, 0)
    data = np.moveaxis(points.reshape(moved.shape), 0, axis)
    new = _scaled(weights, scales, data, axis=axis)
    return {ops[0].inputs[1]: new, **_biases(program, ops, scales)}


def _biases(program: Program, ops: Sequence[Op], scales: Float) -> dict[int, Tensor]:
    """The biases of `ops`, the same numbers in the units of a kernel with these `scales`."""
    new = {}
    given, place = (2, 3) if ops[0].kind == "TRANSPOSE_CONV" else (0, 2)
    for op in ops:
        if len(op.inputs) <= place or op.inputs[place] < 0:
            continue
        bias = program.tensors[op.inputs[place]]
        step = program.tensors[op.inputs[given]].scales[0] * scales
        real = np.asarray(bias.array, np.float64) * np.asarray(bias.scales, np.float64)
        limited = np.clip(np.rint(real / step), -INT32, INT32)
        stored = np.asarray(bias.array).dtype
        new[op.inputs[place]] = _scaled(bias, step, limited.astype(stored), axis=0)
    return new


def _finer(
    points: npt.NDArray[np.int8], scales: Float, ratio: float
) -> tuple[npt.NDArray[np.int8], Float]:
    """The same weights on finer grids, where the steps of a coarse one are too long for a kernel.

    The quick kernels take a sum times `ratio` * scale only where that is less than 1/2. The steps
    are halved and the whole numbers doubled until it is, if those then still fit into 4 bits, or
    into 8 where they did not before.
    """
    peaks = np.abs(points.astype(np.int16)).max(axis=1, initial=0)
    if (scales == scales[0]).all():
        peaks[:] = peaks.max()
    most = 7 if peaks.max() <= 7 else 127
    halvings = np.maximum(np.frexp(2 * ratio * scales)[1], 0)
    if (np.left_shift(peaks, halvings) > most).any():
        return points, scales
    return np.left_shift(points, halvings[:, None]).astype(np.int8), np.ldexp(scales, -halvings)


def _scaled(tensor: Tensor, scales: Float, data: npt.NDArray[Any], *, axis: int) -> Tensor:
    return replace(
        tensor,
        scales=tuple(np.float32(scales).astype(float).tolist()),
        zero_points=(0,) * len(scales),
        axis=axis,
        data=np.ascontiguousarray(data).tobytes(),
    )


def packed(data: bytes) -> bytes:
    """The flatbuffer with the weights that fit into 4 bits as int4, two to a byte.

    CONV_2D and DEPTHWISE_CONV_2D with int8 activations, whose int4 kernels give the bits of the
    int8 ones in TFLite Micro and in TFLite; these have none for a FULLY_CONNECTED with a scale per
    output. The versions of the operators stay, as the runtimes' reference kernels know no others.
    """
    program = read(data)
    tensors = list(program.tensors)
    for op in program.ops:
        if op.kind not in _INT4:
            continue
        index = op.inputs[1]
        weights = tensors[index]
        if weights.dtype != "int8" or tensors[op.inputs[0]].dtype != "int8":
            continue
        values = None if weights.array is None else weights.array.reshape(-1)
        if values is None or np.abs(values, dtype=np.int16).max() > 7 or _others(program, index):
            continue
        nibbles = np.append(values, np.zeros(len(values) % 2, np.int8)).view(np.uint8) & 15
        halves = nibbles[0::2] | nibbles[1::2] << 4
        tensors[index] = replace(weights, dtype="int4", data=halves.tobytes())
    return write(program.edit(tensors=tuple(tensors)))


def _others(program: Program, index: int) -> bool:
    """Whether operators without int4 kernels read a tensor too."""
    return any(index in op.inputs and op.kind not in _INT4 for op in program.ops)


_INT4 = frozenset(["CONV_2D", "DEPTHWISE_CONV_2D"])
