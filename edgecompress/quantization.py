"""Keras 3 model -> `.tflite`, quantised or not, and what that costs per layer.

The standard route (`TFLiteConverter.from_keras_model`) writes a SavedModel and reads it back. Here
the model is traced as one function over a batch of 1 and converted from memory: the same operators
and the same bits in a fraction of the time. Layers are traced under their exact names, so that
`m/conv2d/BiasAdd` in a tensor's name is the layer `conv2d`, and two runs give the same bytes.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress import runtimes
from edgecompress.artifact import Artifact, Step
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.tflite import Op, Program, read
from edgecompress.vocabulary import MODES, IoType, Mode

if TYPE_CHECKING:
    from keras import Model

Float = npt.NDArray[np.float32]
Tensor = Any
Watch = Callable[[str, Tensor], None]
"""Called with a layer's path (`block/conv`, nested models by `/`) and what it computed."""


class _Mode(NamedTuple):
    """How TFLiteConverter makes a mode: the types it may speak, the first one its own."""

    types: tuple[IoType, ...]
    optimized: bool = False
    ops: str | None = None
    weights: str | None = None


_INT16 = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
_MODES: dict[Mode, _Mode] = {
    "int8": _Mode(("int8", "uint8", "float32"), True, ops="TFLITE_BUILTINS_INT8"),
    "int16x8": _Mode(("int16", "float32"), True, ops=_INT16),
    "float16": _Mode(("float32",), True, weights="float16"),
    "dynamic": _Mode(("float32",), True),
    "float32": _Mode(("float32",)),
}


@dataclass(frozen=True)
class LayerError:
    """How far one operator of the quantised model is from the float model.

    `layer` is the Keras layer (nested ones by `/`; "" where unknown), `kind` the TFLite operator.
    `sqnr_db` is the signal to quantisation noise ratio in dB (inf: no error), `max_abs` the largest
    difference in the float model's units. They are None for an operator in the middle of a layer
    and for one whose output cannot be matched with a layer's.
    """

    layer: str
    kind: str
    sqnr_db: float | None
    max_abs: float | None


def quantize(
    artifact: Artifact,
    *,
    calibration: npt.ArrayLike | None = None,
    mode: Mode = "int8",
    input_type: IoType | None = None,
    output_type: IoType | None = None,
    per_channel: bool = True,
    progress: Progress = silent,
) -> Artifact:
    """Convert the Keras model to a flatbuffer with a batch of 1, quantised after training.

    `mode`: `int8` (all integer), `int16x8` (int16 activations, int8 weights), `float16` and
    `dynamic` (only the weights are smaller), `float32` (plain conversion). The integer modes need
    `calibration`, float (N, *input_shape) in the model's input domain, for the activations'
    ranges. `input_type` and `output_type` default to the mode's own type. `per_channel=False`
    gives each weight tensor one scale. The step's effect lists operators of an integer mode that
    TFLite computes in float (`float_operators`).

    Raises ConfigError for impossible options and unusable calibration data, UnsupportedError for
    layers that TFLite cannot express, StageOrderError for an artifact without a Keras model.
    Numerics: tf.lite.TFLiteConverter; scheme: Jacob et al. 2018 (arXiv:1712.05877), section 2.
    """
    model = artifact.need_keras("quantize")
    source, target = _io_types(mode, input_type, output_type, per_channel)
    _check_model(model)
    rows = _calibration(model, calibration) if _MODES[mode].ops else None
    data = _convert(
        model,
        mode=mode,
        types=(source, target),
        rows=rows,
        per_channel=per_channel,
        progress=progress,
    )
    params = {
        "mode": mode,
        "input_type": source,
        "output_type": target,
        "per_channel": per_channel,
        "calibration_samples": None if rows is None else len(rows),
    }
    effect: dict[str, Any] = {"tflite_bytes": len(data)}
    if rows is not None:
        effect["float_operators"] = _float_operators(read(data))
    return artifact.after(Step("quantize", params, effect), tflite=data)


def sqnr(
    artifact: Artifact,
    x: npt.ArrayLike,
    *,
    timeout: float = runtimes.TIMEOUT,
) -> tuple[LayerError, ...]:
    """The quantisation error of each operator on the rows `x` (N, *input_shape), in order.

    Float Keras activations f against the dequantised activations q of the flatbuffer under LiteRT's
    reference kernels: 10 log10(sum f^2 / sum (f - q)^2) over all rows. A few rows (16 to 32) do.
    Raises StageOrderError before quantisation or without a Keras model, else like `runtimes.run`.
    """
    data = artifact.need_tflite("sqnr")
    model = Artifact(artifact.name, artifact.keras).need_keras("sqnr")
    job = runtimes.submit(data, x, runtime="litert", tensors=True, timeout=timeout)
    floats = activations(model, np.asarray(x, np.float32))
    outcome = job.result()
    order = {layer: place for place, layer in enumerate(floats)}
    layers = [_layer(outcome.program, op, order) for op in outcome.program.ops]
    last = {layer: place for place, layer in enumerate(layers)}
    return tuple(
        _error(outcome, op, layer, floats.get(layer) if last[layer] == place else None)
        for place, (op, layer) in enumerate(zip(outcome.program.ops, layers, strict=True))
    )


def activations(model: Model, x: Float) -> dict[str, Float | None]:
    """What each layer computes for `x` (N, *input_shape), by path, in execution order.

    None for a layer that is called more than once or gives several tensors.
    """
    import tensorflow as tf

    calls: dict[str, list[Tensor]] = {}
    with tf.name_scope(_ROOT):
        _walk(model, (tf.constant(x),), _ROOT, lambda path, y: calls.setdefault(path, []).append(y))
    return {
        path: np.asarray(outputs[0], np.float32)
        if len(outputs) == 1 and tf.is_tensor(outputs[0])
        else None
        for path, outputs in calls.items()
    }


def _layer(program: Program, op: Op, order: dict[str, int]) -> str:
    """The last layer that went into `op`, by the names the converter joined for its output."""
    found = set()
    for part in program.tensors[op.outputs[0]].name.split(";"):
        path = part.removeprefix(_ROOT) if part.startswith(_ROOT) else ""
        while path and path not in order:
            path = path.rpartition("/")[0]
        found.add(path)
    found.discard("")
    return max(found, key=order.__getitem__, default="")


def _error(outcome: runtimes.Outcome, op: Op, layer: str, expected: Float | None) -> LayerError:
    """`expected` (N, ...) against the output of `op`; None: there is nothing to compare it with."""
    index = op.outputs[0]
    stored = outcome.tensors.get(index)
    if expected is None or stored is None or _squeezed(expected) != _squeezed(stored):
        return LayerError(layer, op.title, None, None)
    f = expected.astype(np.float64)
    q = outcome.program.tensors[index].dequantize(stored).reshape(expected.shape)
    noise = float(np.sum((f - q) ** 2))
    signal = float(np.sum(f**2))
    if noise == 0:
        ratio: float | None = math.inf
    else:
        ratio = 10 * math.log10(signal / noise) if signal else None
    return LayerError(layer, op.title, ratio, float(np.abs(f - q).max()))


def _squeezed(values: npt.NDArray[Any]) -> tuple[int, ...]:
    return (len(values), *(size for size in values.shape[1:] if size != 1))


def _float_operators(program: Program) -> list[str]:
    """Operators that compute in float in a model that should be integer, with their layers."""
    return [
        f"{op.title} ({program.layer_of(op) or 'unknown layer'})"
        for op in program.ops
        if op.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(tensor.dtype == "float32" for tensor in program.results(op))
    ]


def _io_types(
    mode: Mode, input_type: IoType | None, output_type: IoType | None, per_channel: bool
) -> tuple[IoType, IoType]:
    if mode not in _MODES:
        raise ConfigError(f"quantize: mode {mode!r} is unknown; use {', '.join(MODES)}")
    types = _MODES[mode].types
    for key, value in (("input_type", input_type), ("output_type", output_type)):
        if value is not None and value not in types:
            raise ConfigError(
                f"quantize: {key} {value!r} does not go with mode {mode}; use {' or '.join(types)}"
            )
    if not per_channel and mode in ("float16", "float32"):
        raise ConfigError(f"quantize: per_channel=False means nothing in mode {mode}; leave it out")
    return input_type or types[0], output_type or types[0]


def _check_model(model: Model) -> None:
    if len(model.inputs) != 1:
        raise UnsupportedError(
            f"quantize: {model.name} has {len(model.inputs)} inputs; models with one are supported"
        )
    kind, shape = str(model.inputs[0].dtype), tuple(model.inputs[0].shape[1:])
    if kind != "float32" or None in shape:
        raise UnsupportedError(
            f"quantize: the input of {model.name} is {kind} {list(shape)}; it must be float32 of"
            " fixed size"
        )


def _calibration(model: Model, given: npt.ArrayLike | None) -> Float:
    want = tuple(model.inputs[0].shape[1:])
    shape = f"(N, {', '.join(map(str, want))})"
    if given is None:
        raise ConfigError(f"calibration: none given; pass float rows {shape}, about 200 of them")
    rows = np.asarray(given)
    if rows.dtype.kind != "f":
        raise ConfigError(
            f"calibration: its type is {rows.dtype}; pass float32 in the model's input domain"
        )
    if rows.shape[1:] != want or rows.ndim == 0:
        raise ConfigError(f"calibration: shape {list(rows.shape)} does not fit the model's {shape}")
    if not len(rows):
        raise ConfigError("calibration: no rows; pass at least 1, about 200 are enough")
    if not np.isfinite(rows).all():
        raise ConfigError("calibration: NaN or infinite values; remove those rows")
    if rows.min() == rows.max():
        raise ConfigError(
            f"calibration: every value is {rows.flat[0]:g}, which gives no range; pass real rows"
        )
    return rows.astype(np.float32, copy=False)


def _convert(
    model: Model,
    *,
    mode: Mode,
    types: tuple[IoType, IoType],
    rows: Float | None,
    per_channel: bool,
    progress: Progress,
) -> bytes:
    import tensorflow as tf

    traced = _trace(model)
    setting = _MODES[mode]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], trackable_obj=traced)
    converter.exclude_conversion_metadata = True
    if setting.optimized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if setting.weights:
        converter.target_spec.supported_types = [getattr(tf, setting.weights)]
    if setting.ops:
        converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, setting.ops)]
    if rows is not None:
        converter.representative_dataset = lambda: _samples(rows, progress)
    converter.inference_input_type, converter.inference_output_type = (
        getattr(tf, name) for name in types
    )
    converter._experimental_disable_per_channel = not per_channel
    with _explained(traced), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        return bytes(converter.convert())


def _samples(rows: Float, progress: Progress) -> Iterator[list[Float]]:
    for done in range(len(rows)):
        progress("calibrate", done, len(rows))
        yield [rows[done : done + 1]]
    progress("calibrate", len(rows), len(rows))


def _trace(model: Model) -> Any:
    """The model as a concrete function of one float32 input with a batch of 1."""
    import tensorflow as tf

    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="input")

    def main(x: Tensor) -> Tensor:
        with tf.name_scope(_ROOT):
            return _walk(model, (x,), _ROOT, _unwatched)

    traced = tf.compat.v1.wrap_function(main, [spec])
    for operation in traced.graph.get_operations():
        if operation.type in _CONTROL:
            raise UnsupportedError(
                f"quantize: layer {_owner(operation.name)!r} runs a loop or a branch"
                f" ({operation.type}), which does not convert; a recurrent layer needs unroll=True"
            )
    return traced


def _walk(model: Model, args: tuple[Tensor, ...], path: str, watch: Watch) -> Tensor:
    """Call `model` for inference, each layer in the TensorFlow name scope `path` + its name.

    Keras would open its own scope twice per call and number it (`conv2d_1` for the layer
    `conv2d`); it does not where its caller has opened it.
    """
    import keras
    import tensorflow as tf

    def named(layer: Any) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            if not _SCOPE.fullmatch(layer.name):
                raise UnsupportedError(
                    f"quantize: layer name {layer.name!r} has characters that TensorFlow does not"
                    " take; use letters, digits, '_', '-' and '.'"
                )
            scope = f"{path}{layer.name}/"
            with keras.name_scope(layer.name, caller=layer), tf.name_scope(scope):
                if _graph(layer) is not None:
                    return _walk(layer, args, scope, watch)
                if "training" in inspect.signature(layer.call).parameters:
                    kwargs = {**kwargs, "training": False}
                outputs = layer(*args, **kwargs)
            watch(scope[len(_ROOT) : -1], outputs)
            return outputs

        return call

    graph = _graph(model)
    if graph is None:
        raise UnsupportedError(
            f"quantize: {model.name} is a subclassed model; build it with the functional API"
        )
    outputs = graph._run_through_graph(args, operation_fn=named)
    single = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if single else outputs


def _graph(layer: Any) -> Any:
    """The functional graph inside a functional or sequential model, None for another layer."""
    functional = getattr(layer, "_functional", layer)
    return functional if hasattr(functional, "_run_through_graph") else None


def _unwatched(path: str, outputs: Tensor) -> None:
    pass


def _owner(name: str) -> str:
    """The layer in the name of a traced operation."""
    return name.removeprefix(_ROOT).partition("/")[0]


@contextmanager
def _explained(traced: Any) -> Iterator[None]:
    """Turn the converter's failures into one line that names the operator and its layers."""
    from tensorflow.lite.python.convert import ConverterError

    try:
        yield
    except (ConverterError, RuntimeError, ValueError) as error:
        text = str(error)
        kinds = set(_OPERATOR.findall(text))
        layers = {
            _owner(operation.name)
            for operation in traced.graph.get_operations()
            if operation.type in kinds
        }
        what = " ".join(text.split())[:_MESSAGE]
        if layers:
            what = f"operator {', '.join(sorted(kinds))} of layer {', '.join(sorted(layers))}"
        raise UnsupportedError(
            f"quantize: TFLite cannot express the model: {what}; replace the layer"
        ) from error


_ROOT = "m/"
_MESSAGE = 300
_SCOPE = re.compile(r"[A-Za-z0-9_.\-]+")
_OPERATOR = re.compile(r"'tf\.(\w+)' op")
_CONTROL = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})
_CONTROL |= frozenset({"Enter", "Switch", "Merge"})
