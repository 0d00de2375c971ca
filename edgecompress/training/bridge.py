"""A Keras 3 model as a flat tf_keras model, which tensorflow-model-optimization knows, and back.

Neither library reads the other's files. So the calls of the model are replayed: each layer is made
anew in tf_keras from its configuration, called on what it was called on, and given its weights.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Call, Graph, read_weights, trace
from edgecompress.errors import UnsupportedError
from edgecompress.training import legacy

if TYPE_CHECKING:
    import keras
    import tf_keras

Layer = Any
Variable = Any
Wrap = Callable[[str, Layer], Layer]
"""The name of a layer in the flat graph and its tf_keras layer -> what is called in its place."""
Feed = Callable[[str], Layer]
"""The name of an input -> the layer that its tensor goes through first."""

LAYERS = frozenset(
    "Dense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D"
    " DepthwiseConv2D SeparableConv1D SeparableConv2D BatchNormalization LayerNormalization"
    " GroupNormalization UnitNormalization Normalization Rescaling PReLU Activation ReLU LeakyReLU"
    " ELU Softmax Identity Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D"
    " GaussianDropout GaussianNoise AlphaDropout ActivityRegularization Add Subtract Multiply"
    " Average Maximum Minimum Dot Concatenate MaxPooling1D MaxPooling2D MaxPooling3D"
    " AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D"
    " GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D"
    " ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D"
    " UpSampling2D UpSampling3D RepeatVector Resizing Flatten Reshape Permute LSTM GRU"
    " SimpleRNN".split()
)
"""The layers that go across, under the same name. Operations on tensors (`x + y`) all do."""

RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
"""Options that are called otherwise in tf_keras, by class and name."""
ADDED = {"BatchNormalization": {"fused": False}}
"""Options that only tf_keras has, at the value at which it computes as Keras 3 does."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "antialias": (False,),
    "data_format": ("channels_last",),
    "dilation_rate": (1, (1,), (1, 1), (1, 1, 1)),
    "noise_shape": (None,),
    "pad_to_aspect_ratio": (False,),
    "quantization_config": (None,),
    "rms_scaling": (False,),
    "synchronized": (False,),
    "zero_output_for_mask": (False,),
}
"""Options that a class of tf_keras lacks -> the values at which they change nothing."""
MOOT = frozenset({"fill_mode", "fill_value"})
"""Options that matter only beside another one of NEUTRAL: of padding to an aspect ratio."""
_PLAIN = frozenset({"linear", "relu", "sigmoid", "softmax", "tanh"})
"""Activations that are the same in both libraries; of others, Keras 3's own function is called."""
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*")


@dataclass(frozen=True, eq=False)
class Bridged:
    """A Keras 3 model and its counterpart in tf_keras.

    `layers` and `variables` (the tf.Variables by the names of the Keras 3 weights) go by the names
    of `graph`, those of `channels.graph.trace`; `names` leads from these to the tf_keras layers'.
    """

    source: keras.Model
    graph: Graph
    layers: Mapping[str, Layer]
    variables: Mapping[str, Mapping[str, Variable]]
    model: tf_keras.Model

    @property
    def names(self) -> Mapping[str, str]:
        """Name of a layer in the flat graph -> that of its tf_keras layer."""
        return {name: layer.name for name, layer in self.layers.items()}

    def wrapped(self, wrap: Wrap, *, feed: Feed | None = None) -> tf_keras.Model:
        """A model that calls `wrap(name, layer)` in the place of each layer, and `feed(name)`
        behind each input; the layers and their weights are shared."""
        return _replayed(self.graph, {n: wrap(n, layer) for n, layer in self.layers.items()}, feed)

    def back(
        self, changes: Mapping[str, Mapping[str, npt.NDArray[Any]]] | None = None
    ) -> keras.Model:
        """A clone of the Keras 3 model with the weights of the tf_keras layers, or those of
        `changes` by layer and weight."""
        import keras

        clone = keras.models.clone_model(self.source)
        for name, op, _ in trace(clone).layers():
            if name in self.variables:
                known = (changes or {}).get(name, {})
                values = {key: np.asarray(v) for key, v in self.variables[name].items()}
                op.set_weights(list({**values, **known}.values()))
                if isinstance(op, keras.layers.Normalization):
                    op.finalize_state()
        return clone


def to_tf_keras(model: keras.Model) -> Bridged:
    """The tf_keras model that computes what `model` does, to 1e-6 of float32; `model` is only read.

    Nested models are inlined, shared layers stay shared. Initialisers and random seeds stay behind.
    Raises UnsupportedError for a layer outside LAYERS, one that is not in float32, and an option
    that tf_keras does not have (by layer, class, option); ToolError without tf_keras.
    """
    legacy.tf_keras()
    graph = trace(model)
    taken = set(graph.input_names)
    layers: dict[str, Layer] = {}
    for name, op, calls in graph.layers():
        layers[name] = _made(name, op, calls[0], _free(name, taken))
    flat = _replayed(graph, layers, None)
    variables: dict[str, dict[str, Variable]] = {}
    for name, op, _ in graph.layers():
        weights = read_weights(op)
        if not weights:
            continue
        layers[name].set_weights(list(weights.values()))
        if type(op).__name__ == "Normalization":
            layers[name].finalize_state()
        variables[name] = dict(zip(weights, layers[name].weights, strict=True))
    return Bridged(model, graph, layers, variables, flat)


def _replayed(graph: Graph, layers: Mapping[str, Layer], feed: Feed | None) -> tf_keras.Model:
    """The flat tf_keras model that calls `layers` as the calls of `graph` go."""
    import keras

    module = legacy.tf_keras()
    tensors: dict[int, Any] = {}
    inputs = []
    for index, name, old in zip(
        graph.inputs, graph.input_names, graph.function.inputs, strict=True
    ):
        batch, *shape = old.shape
        inputs.append(module.Input(shape, batch, name=_safe(name), dtype=str(old.dtype)))
        tensors[index] = inputs[-1] if feed is None else feed(name)(inputs[-1])
    for call in graph.calls:
        if isinstance(call.op, keras.layers.Layer):
            arguments = call.node.arguments
            old_inputs = map(id, arguments.keras_tensors)
            filled = {old: tensors[i] for old, i in zip(old_inputs, call.inputs, strict=True)}
            args, kwargs = arguments.fill_in(filled)
            given = {key: value for key, value in kwargs.items() if value is not None}
            made = layers[call.name](*args, **given)
        else:
            made = layers[call.name]([tensors[i] for i in call.inputs])
        results = made if isinstance(made, list | tuple) else [made]
        tensors.update(zip(call.outputs, results, strict=True))
    outputs = [tensors[i] for i in graph.outputs]
    return module.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=_safe(graph.name))


def _made(name: str, op: Any, call: Call, own_name: str) -> Layer:
    """The tf_keras layer of a Keras 3 layer, or one that calls a Keras 3 operation."""
    import keras

    module = legacy.tf_keras()
    if not isinstance(op, keras.layers.Layer):
        return module.layers.Lambda(_operation(name, op, call), name=own_name)
    kind = type(op).__name__
    if not type(op).__module__.startswith("keras.") or kind not in LAYERS:
        raise UnsupportedError(
            f"layer {name!r} ({type(op).__module__.partition('.')[0]}, {kind}) has no counterpart"
            " in tf_keras, which pruning, clustering and quantisation-aware training need; replace"
            " the layer, or leave these stages out"
        )
    made = getattr(module.layers, kind)
    known = _accepted(made)
    options: dict[str, Any] = {**ADDED.get(kind, {})}
    for key, value in op.get_config().items():
        if key.endswith("_initializer") or key in MOOT or key == "seed":
            continue
        key = RENAMED.get((kind, key), key)
        value = tuple(value) if isinstance(value, list) else value
        if key in known:
            options[key] = _value(name, op, key, value)
        elif value not in NEUTRAL.get(key, ()):
            raise UnsupportedError(
                f"layer {name!r} ({kind}): tf_keras has no option {key} = {value!r}; leave it at"
                " its default, or leave out the stages that prune, cluster or quantise in training"
            )
    return made(**{**options, "name": own_name, "trainable": op.trainable})


def _value(name: str, op: Any, key: str, value: Any) -> Any:
    """An option's value as tf_keras takes it."""
    module = legacy.tf_keras()
    if key == "dtype":
        policy = value["config"]["name"] if isinstance(value, dict) else value
        if policy != "float32":
            raise UnsupportedError(
                f"layer {name!r} ({type(op).__name__}) computes in {policy}; training stages need"
                ' float32: rebuild the model under keras.config.set_dtype_policy("float32")'
            )
        return policy
    if key.endswith("activation"):
        function = getattr(op, key)
        plain = getattr(function, "__name__", "")
        return plain if plain in _PLAIN else function
    if isinstance(value, dict) and "class_name" in value:
        kinds = {"regularizer": module.regularizers, "constraint": module.constraints}
        made = getattr(kinds.get(key.rpartition("_")[2]), value["class_name"], None)
        if made is None:
            raise UnsupportedError(
                f"layer {name!r} ({type(op).__name__}): tf_keras has no {key}"
                f" {value['class_name']}; use one of Keras' own, or none"
            )
        return made(**value["config"])
    return value


def _operation(name: str, op: Any, call: Call) -> Callable[[Any], Any]:
    """A function of the list of the call's tensors that calls the Keras 3 operation itself."""
    if not type(op).__module__.startswith("keras."):
        raise UnsupportedError(
            f"operation {name!r} ({type(op).__name__}) is not one of Keras' own; use a layer"
        )
    arguments = call.node.arguments

    def run(tensors: Any) -> Any:
        given = tensors if isinstance(tensors, list | tuple) else [tensors]
        filled = dict(zip(map(id, arguments.keras_tensors), given, strict=True))
        args, kwargs = arguments.fill_in(filled)
        return op.call(*args, **kwargs)

    return run


def _accepted(made: Any) -> set[str]:
    """The options that a class of tf_keras has, its bases' included."""
    return {
        key
        for base in made.__mro__
        if "__init__" in vars(base) and base is not object
        for key in inspect.signature(base.__init__).parameters
    }


def _safe(name: str) -> str:
    """The name itself, or without what TensorFlow does not take."""
    return name if _NAME.fullmatch(name) else "layer_" + re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def _free(name: str, taken: set[str]) -> str:
    """A name that is safe and not taken, which it then is."""
    base = found = _safe(name)
    number = 0
    while found in taken:
        number += 1
        found = f"{base}_{number}"
    taken.add(found)
    return found
