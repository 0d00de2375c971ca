"""From a configuration of `bridge` to a Keras model, without trusting its sizes.

A few bytes of configuration can ask for gigabytes of weights. So the model is built twice. First
dry: every variable stays without a value (`keras.StatelessScope`) and every operation goes into a
graph that is never run. Then, when what it takes is known and fits the file, in earnest. All
initialisers are zeros there, since the weights come from the file and an orthogonal kernel can take
hours; the layers get their own initialisers back afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from edgecompress.errors import ModelFileError, UnsupportedError
from edgecompress.loading import limits

if TYPE_CHECKING:
    import keras

Json = Any
Config = dict[str, Any]

ZEROS: Config = {
    "module": "keras.initializers",
    "class_name": "Zeros",
    "config": {},
    "registered_name": None,
}
VALUES = frozenset({"bin_boundaries", "mean", "seed", "value", "variance"})
"""Options that hold data and no sizes."""
RECURRENT = frozenset(
    """
    ConvLSTM1D ConvLSTM2D ConvLSTM3D GRU GRUCell LSTM LSTMCell SimpleRNN SimpleRNNCell
    """.split()
)
"""Layers whose kernel is orthogonal where the configuration does not say otherwise."""


def build(configuration: Config, *, elements: int) -> keras.Model:
    """The model of `configuration`, as `bridge.keras3_config` returns it; all its weights are 0.

    `elements` is how many weights the file holds. Raises ModelFileError when the configuration
    asks for more (above limits.SMALL_ELEMENTS) or for too many layers, UnsupportedError for an
    option over limits.MAX_NUMBER or an activation over limits.MAX_ELEMENTS, and whatever Keras
    raises on a bad configuration.
    """
    objects = _objects(configuration)
    if objects > limits.MAX_OBJECTS:
        raise ModelFileError(
            f"the configuration asks for {objects} layers and parts of layers, more than the"
            f" {limits.MAX_OBJECTS} allowed; this is no model for a microcontroller"
        )
    _check_numbers(configuration, "", "")
    with ThreadPoolExecutor(1) as thread:  # Keras keeps its variables without values per thread
        dry = thread.submit(_dry, configuration).result()
    _check(dry, elements)
    model = _from_config(_changed(configuration, _blank))
    for layer, original in zip(_layers(model), _layers(dry), strict=True):
        for name, value in vars(original).items():
            if name.endswith("_initializer"):
                setattr(layer, name, value)
    return model


def finish(model: keras.Model) -> None:
    """Let layers that derive values from their weights (Normalization) do so."""
    for layer in _layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _dry(configuration: Config) -> keras.Model:
    import keras
    import tensorflow as tf

    with tf.Graph().as_default(), keras.StatelessScope(initialize_variables=False):
        return _from_config(_changed(configuration, _without_state))


def _check(dry: keras.Model, elements: int) -> None:
    claimed = sum(math.prod(weight.shape) for weight in dry.weights)
    if claimed > max(elements, limits.SMALL_ELEMENTS):
        raise ModelFileError(
            f"the layers need {claimed} weights, the file holds {elements}; save the model again"
        )
    for layer in _layers(dry):
        for node in layer._inbound_nodes:
            for tensor in node.output_tensors:
                if math.prod(size or 1 for size in tensor.shape) > limits.MAX_ELEMENTS:
                    raise UnsupportedError(
                        f"layer '{layer.name}' has an output of shape {tuple(tensor.shape)}, more"
                        f" than the {limits.MAX_ELEMENTS} elements allowed; this is no model for a"
                        " microcontroller"
                    )


def _from_config(configuration: Config) -> keras.Model:
    import keras

    sequential = configuration["class_name"] == "Sequential"
    kind = keras.Sequential if sequential else keras.Model
    return kind.from_config(configuration["config"])


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of `model`, those inside wrappers and nested models included."""
    yield from model._flatten_layers(include_self=False, recursive=True)


def _objects(value: Json) -> int:
    """Objects in a configuration; what a nested model holds counts once for each of its calls."""
    if isinstance(value, list):
        return sum(_objects(each) for each in value)
    if not isinstance(value, dict):
        return 0
    inside = sum(_objects(each) for key, each in value.items() if key != "inbound_nodes")
    return (inside + ("class_name" in value)) * max(len(value.get("inbound_nodes", ())), 1)


def _check_numbers(value: Json, layer: str, option: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _check_numbers(each, str(value.get("name", layer)), key)
    elif isinstance(value, list):
        for each in value:
            _check_numbers(each, layer, option)
    elif isinstance(value, int) and abs(value) > limits.MAX_NUMBER and option not in VALUES:
        raise UnsupportedError(
            f"layer '{layer}' has {option}={value}, more than the {limits.MAX_NUMBER} allowed;"
            " this is no model for a microcontroller"
        )


def _changed(value: Json, options: Callable[[str, Config], Config]) -> Json:
    """A copy of a configuration in which each object has the other `options(class, config)`."""
    if isinstance(value, list):
        return [_changed(each, options) for each in value]
    if not isinstance(value, dict):
        return value
    new = {key: _changed(each, options) for key, each in value.items()}
    if "class_name" in new and isinstance(new.get("config"), dict):
        new["config"].update(options(new["class_name"], new["config"]))
    return new


def _without_state(name: str, config: Config) -> Config:
    """A stateful layer makes its state with its values at once, so not in a dry run."""
    return {"stateful": False} if config.get("stateful") else {}


def _blank(name: str, config: Config) -> Config:
    keys = {key for key in config if key.endswith("_initializer")}
    if name in RECURRENT:
        keys.add("recurrent_initializer")
    return {key: ZEROS for key in keys}
