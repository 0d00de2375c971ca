"""Keras 3 model -> `.tflite` bytes.

The standard route (`TFLiteConverter.from_keras_model`) writes a SavedModel and reads it back. Here
the model is traced as one function over a batch of 1 and converted from memory: the same operators
and the same bits in a fraction of the time. Layers are traced under their exact names, so that
`m/conv2d/BiasAdd` in a tensor's name is the layer `conv2d`, and two runs give the same bytes.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import trace
from edgecompress.datafree.ranges import LINEAR
from edgecompress.errors import UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.quantization import calibrated
from edgecompress.tflite import Op, Program, read
from edgecompress.vocabulary import IoType, Mode

if TYPE_CHECKING:
    from keras import Model

Float = npt.NDArray[np.float32]
Tensor = Any
Watch = Callable[[str, Tensor], None]
"""Called with a layer's path (`block/conv`, nested models by `/`) and what it computed."""


class Setting(NamedTuple):
    """How TFLiteConverter makes a mode.

    `dense_whole`: the kernel of a dense layer has one scale, as the backends need it there.
    """

    optimized: bool = True
    ops: str | None = None
    weights: str | None = None
    dense_whole: bool = False


_INT16 = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
SETTINGS: dict[Mode, Setting] = {
    "int8": Setting(ops="TFLITE_BUILTINS_INT8"),
    "int16x8": Setting(ops=_INT16, dense_whole=True),
    "float16": Setting(weights="float16"),
    "dynamic": Setting(),
    "float32": Setting(optimized=False),
}


def convert(
    model: Model,
    *,
    mode: Mode,
    types: tuple[IoType, IoType],
    rows: Float | None,
    per_channel: bool = True,
    progress: Progress = silent,
) -> bytes:
    """The model as a flatbuffer with a batch of 1, calibrated with `rows` in the integer modes.

    `types` are those of the input and the output; the arguments are taken as checked. Raises
    UnsupportedError for a layer that TFLite cannot express.
    """
    import tensorflow as tf

    traced = _trace(model)
    setting = SETTINGS[mode]
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
    converter._experimental_disable_per_channel_quantization_for_dense_layers = setting.dense_whole
    with _explained(traced), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        made = bytes(converter.convert())
    return calibrated.positive(made) if mode == "int16x8" else made


def in_ranges(
    model: Model,
    named: Mapping[str, tuple[float, float]],
    types: tuple[IoType, IoType],
    *,
    per_channel: bool = True,
) -> bytes:
    """The int8 flatbuffer of a model whose layers have the ranges `named`, as
    `datafree.ranges.ranges` names them."""
    floats = convert(model, mode="float32", types=("float32", "float32"), rows=None)
    program = read(floats)
    known = calibrated.spread(program, _by_tensor(program, model, named))
    return calibrated.quantized(floats, known, types=types, per_channel=per_channel)


def _by_tensor(
    program: Program, model: Model, named: Mapping[str, tuple[float, float]]
) -> dict[int, tuple[float, float]]:
    """The ranges of the tensors of `program` (of `model`), from those of the layers."""
    graph = trace(model)
    order = {call.name: place for place, call in enumerate(graph.calls)}
    ends = {  # the converter does not keep the names of a model's outputs
        index: graph.makers[made].name
        for index, made in zip(program.outputs, graph.outputs, strict=True)
        if made in graph.makers
    }
    layers = [ends.get(op.outputs[0]) or layer_of(program, op, order) for op in program.ops]
    inputs = [named[name] for name in graph.input_names if name in named]
    found = dict(zip(program.inputs, inputs, strict=False))
    return found | calibrated.assigned(program, layers, graph.times, named, inside=LINEAR)


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
        with tf.name_scope(ROOT):
            return walk(model, (x,), ROOT, _unwatched)

    with _inlined():
        traced = tf.compat.v1.wrap_function(main, [spec])
    for operation in traced.graph.get_operations():
        if operation.type in _CONTROL:
            raise UnsupportedError(
                f"quantize: layer {_owner(operation.name)!r} runs a loop or a branch"
                f" ({operation.type}), which does not convert; a recurrent layer needs unroll=True"
            )
    return traced


@contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions as part of what calls them: what Keras compiles for a convolution in groups
    would not have its layer's name."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def walk(model: Model, args: tuple[Tensor, ...], path: str, watch: Watch) -> Tensor:
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
                    return walk(layer, args, scope, watch)
                if "training" in inspect.signature(layer.call).parameters:
                    kwargs = {**kwargs, "training": False}
                outputs = layer(*args, **kwargs)
            watch(scope[len(ROOT) : -1], outputs)
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
    return name.removeprefix(ROOT).partition("/")[0]


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


ROOT = "m/"
_MESSAGE = 300
_SCOPE = re.compile(r"[A-Za-z0-9_.\-]+")
_OPERATOR = re.compile(r"'tf\.(\w+)' op")
_CONTROL = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})
_CONTROL |= frozenset({"Enter", "Switch", "Merge"})


def layer_of(program: Program, op: Op, order: dict[str, int]) -> str:
    """The last layer that went into `op`, by the names the converter joined for its output."""
    found = set()
    for part in program.tensors[op.outputs[0]].name.split(";"):
        path = part.removeprefix(ROOT) if part.startswith(ROOT) else ""
        while path and path not in order:
            path = path.rpartition("/")[0]
        found.add(path)
    found.discard("")
    return max(found, key=order.__getitem__, default="")
