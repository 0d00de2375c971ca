"""From the configuration in a model file, Keras 2 or 3, to one that Keras 3 builds.

The result is made anew, layer by layer, from what `allowlist` knows: module names come from
here and never from the file, compile settings and build hints are left out, and any object that
is not on the list is refused with the name of the layer that holds it. Nothing is imported and
nothing is deserialised on the way, so what Keras gets to see is harmless by construction.

Differences between Keras 2 and Keras 3 configurations, as Keras 3.15 and tf_keras 2.19 write
them: `batch_input_shape`, list-valued BatchNormalization axes, `groups` in depthwise, separable
and transposed convolutions, LeakyReLU's `alpha`, operators stored as `TFOpLambda`, and calls of
nested models that are counted from 1 (the model's own graph being call 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgecompress.errors import EdgeCompressError, ModelFileError, UnsupportedError
from edgecompress.loading import allowlist

Json = Any
Config = dict[str, Any]

FUNCTIONAL_KEYS = ("name", "trainable", "layers", "input_layers", "output_layers")
LAYER_KEYS = frozenset({"layer", "backward_layer", "forward_layer", "cell", "cells"})
ACTIVATION_KEYS = frozenset({"activation", "recurrent_activation"})
FLOAT_TYPES = frozenset({"float32", "mixed_float16", "mixed_bfloat16"})
INTEGER_TYPES = frozenset({"bool", "int8", "uint8", "int16", "int32", "int64"})

BINARY = {name: name for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")}
"""Operators on two tensors, by Keras 3 name -> the layer that does the same."""
UNARY = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
}
"""Operators on one tensor, by Keras 3 name -> the activation that does the same."""
OPERATOR_KEYS = frozenset({"name", "dtype", "trainable", "function"})
"""What the configuration of these operators may hold: an option more is another operator."""
KERAS2_OPERATORS = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.subtract": "Subtract",
    "math.multiply": "Multiply",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "math.sigmoid": "Sigmoid",
    "math.tanh": "Tanh",
}

NO_GROUPS = frozenset(
    {"DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"}
    | {"Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"}
)
NEUTRAL: dict[str, tuple[Json, ...]] = {
    "ragged": (False, None),
    "dynamic": (False,),
    "time_major": (False,),
    "renorm": (False,),
    "fused": (None, True, False),
    "virtual_batch_size": (None,),
}
"""Keras 2 options that Keras 3 lacks -> the values at which they change nothing."""
DROPPED = frozenset(
    {"implementation", "input_length", "batch_input_shape"}
    | {"query_shape", "key_shape", "value_shape"}
)
"""Keras 2 options that Keras 3 lacks and that never change what a built layer computes."""
KERNEL_OPTIONS = frozenset({"kernel_initializer", "kernel_regularizer", "kernel_constraint"})
"""What Keras 2 writes for separable convolutions too, though these have two other kernels."""


@dataclass(frozen=True)
class _Place:
    """Where the walk stands: the file's Keras generation and the path of the layer."""

    keras: int
    path: str = ""
    shared: set[int] = field(default_factory=set)

    def inside(self, name: str) -> _Place:
        return _Place(self.keras, f"{self.path}/{name}" if self.path else name, self.shared)

    def __str__(self) -> str:
        return f"layer '{self.path}'" if self.path else "the model"


def keras3_config(config: Json, *, keras: int) -> Config:
    """The model configuration `config` (class_name, config) as Keras 3 builds it.

    `keras` is the generation that wrote the file, 2 or 3. Returns {"class_name": "Functional" or
    "Sequential", "config": ...}; a Sequential model always starts with its InputLayer. Raises
    ModelFileError for a configuration that is malformed or holds code, UnsupportedError for a
    class, activation, type or input shape outside what is supported.
    """
    node = _dict(config, "the model configuration")
    place = _Place(keras)
    name = _class(node)
    if name not in allowlist.MODELS:
        if name in allowlist.LAYERS:
            raise ModelFileError(f"holds a single layer ({name}), not a model")
        raise _refusal(name, place)
    model = _model(node, place)
    if model["class_name"] == "Sequential":
        _give_input(model["config"], node)
    for layer, shape in input_shapes(model):
        _check_shape(layer, shape)
    return {"class_name": model["class_name"], "config": model["config"]}


def input_shapes(model: Config) -> Iterator[tuple[str, Json]]:
    """(name, shape with batch dimension) of each input of a configuration of `keras3_config`."""
    for layer in model["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            yield layer["config"].get("name", "input"), layer["config"].get("batch_shape")


def _check_shape(name: str, shape: Json) -> None:
    how = "rebuild the model with keras.Input(shape) of whole numbers, load_weights, and save it"
    if not isinstance(shape, list) or len(shape) < 2:
        raise UnsupportedError(f"input '{name}' has no shape ({shape}); {how}")
    sizes = [shape[0] or 1, *shape[1:]]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        text = ", ".join(str(size) for size in shape)
        raise UnsupportedError(
            f"input '{name}' has the shape ({text}): only the first, the batch, may be None; {how}"
        )


def _give_input(config: Config, node: Config) -> None:
    """Put an InputLayer in front of a Sequential configuration that has none."""
    layers = config["layers"]
    if not layers:
        raise ModelFileError("the model has no layers")
    if layers[0]["class_name"] == "InputLayer":
        return
    old = node["config"]
    first = (old if isinstance(old, list) else old["layers"])[0]
    inner = _dict(first.get("config"), "the first layer")
    build = node.get("build_config")
    shape = inner.get("batch_input_shape") or inner.get("batch_shape")
    if shape is None and layers[0]["class_name"] in allowlist.MODELS:
        shape = next((shape for _, shape in input_shapes(layers[0])), None)
    if shape is None and isinstance(old, dict):
        shape = old.get("build_input_shape")
    if shape is None and isinstance(build, dict):
        shape = build.get("input_shape")
    shape = _plain_list(shape)
    layers.insert(0, _built("InputLayer", {"batch_shape": shape, "name": "input"}))


def _model(node: Config, place: _Place) -> Config:
    _check_builtin(node, place)
    config = node.get("config")
    if _class(node) == "Sequential":
        if isinstance(config, list):  # Keras before 2.2.3
            config = {"name": "sequential", "layers": config}
        config = _dict(config, str(place))
        layers = [_layer(each, place) for each in _list(config.get("layers"), "layers", place)]
        new = {"name": config.get("name", "sequential"), "layers": layers}
        return _built("Sequential", new, "keras")
    config = _dict(config, str(place))
    missing = [key for key in ("layers", "input_layers", "output_layers") if key not in config]
    if missing:
        raise UnsupportedError(
            f"{place} is a subclassed model without a graph (no '{missing[0]}'); build it with"
            " the functional API, load_weights, and save it"
        )
    new = {key: config[key] for key in FUNCTIONAL_KEYS if key in config}
    layers = _list(config["layers"], "layers", place)
    new["layers"] = [_layer(each, place, called=True) for each in layers]
    for key in ("input_layers", "output_layers"):
        new[key] = _references(config[key], place)
        if place.keras == 2 or not place.path:
            new[key] = _single(new[key])
    if place.keras == 2:
        _recount(new)
    return _built("Functional", new, "keras.src.models.functional")


def _layer(node: Json, place: _Place, *, called: bool = False) -> Config:
    """One layer (or nested model) of a model; `called`: it carries inbound nodes."""
    node = _dict(node, f"a layer of {place}")
    config = node.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    name = node.get("name") or inner or _class(node)
    place = place.inside(str(name))
    shared = node.get("shared_object_id")
    if isinstance(shared, int):
        if shared in place.shared:
            raise UnsupportedError(
                f"{place} belongs to two models at once; give each its own layer, or call the"
                " inner model twice"
            )
        place.shared.add(shared)
    new = _operator(node, place) or _plain_layer(node, place)
    if called:
        new["name"] = str(name)
        nodes = new.pop("inbound_nodes", None)
        if nodes is None:
            nodes = _list(node.get("inbound_nodes"), "inbound_nodes", place)
            nodes = [_keras2_call(each) for each in nodes] if place.keras == 2 else nodes
        new["inbound_nodes"] = [_references(each, place) for each in nodes]
    return new


def _plain_layer(node: Config, place: _Place) -> Config:
    name = _class(node)
    if name in allowlist.MODELS:
        return _model(node, place)
    if name in allowlist.UNSAFE or name not in allowlist.LAYERS:
        raise _refusal(name, place)
    _check_builtin(node, place)
    old = _dict(node.get("config"), str(place))
    if place.keras == 2:
        old = _keras2_layer(name, old, place)
    return _built(name, {key: _value(key, value, place) for key, value in old.items()})


def _built(name: str, config: Config, module: str = "keras.layers") -> Config:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _check_builtin(node: Config, place: _Place) -> None:
    """Refuse an object that only bears a built-in class's name."""
    name, module = _class(node), node.get("module")
    registered = node.get("registered_name")
    ours = module is None or (isinstance(module, str) and f"{module}.".startswith("keras."))
    if not ours or registered not in (None, name):
        raise _refusal(str(registered or f"{module}.{name}"), place)


def _refusal(name: str, place: _Place) -> EdgeCompressError:
    if name in allowlist.UNSAFE:
        what = "a Python lambda" if name == "__lambda__" else f"a {name}"
        return ModelFileError(
            f"{place}: {what} {allowlist.UNSAFE[name]}; replace it by built-in layers and save"
            " again"
        )
    return UnsupportedError(
        f"{place}: '{name}' is no built-in Keras class, and no other is loaded; replace it by"
        " built-in layers and save again"
    )


def _keras2_layer(name: str, config: Config, place: _Place) -> Config:
    """`config` without what only Keras 2 knows."""
    unused = DROPPED | KERNEL_OPTIONS if name.startswith("Separable") else DROPPED
    new = {key: value for key, value in config.items() if key not in unused}
    if name == "InputLayer" and "batch_input_shape" in config:
        new["batch_shape"] = config["batch_input_shape"]
    neutral = {**NEUTRAL, "groups": (1,)} if name in NO_GROUPS else NEUTRAL
    for key in [key for key in new if key in neutral]:
        if new.pop(key) not in neutral[key]:
            raise UnsupportedError(
                f"{place} uses {key}={config[key]}, which Keras 3 does not have;"
                " change it, train and save again"
            )
    axis = new.get("axis")
    axis = _plain_list(axis)
    if name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        new["axis"] = axis[0]
    if name == "LeakyReLU" and "alpha" in new:
        new["negative_slope"] = new.pop("alpha")
    return new


def _value(key: str, value: Json, place: _Place) -> Json:
    """The value of one option of a layer, with every object in it checked and rebuilt."""
    if key in LAYER_KEYS:
        if isinstance(value, list):
            return [_layer(each, place) for each in value]
        return None if value is None else _layer(value, place)
    if key in ACTIVATION_KEYS:
        return _activation(value, place)
    if key == "dtype":
        return _dtype(value, place)
    if isinstance(value, list):
        return [_value("", each, place) for each in value]
    if not isinstance(value, dict):
        return value
    value = _plain_list(value)
    if isinstance(value, list):
        return [_value("", each, place) for each in value]
    if "class_name" not in value:
        return {str(inner): _value(str(inner), each, place) for inner, each in value.items()}
    for suffix, (known, module) in OBJECTS.items():
        if key.endswith(suffix) and _class(value) in known:
            return _object(value, module, place)
    raise _refusal(_class(value), place)


OBJECTS = {
    "initializer": (allowlist.INITIALIZERS, "keras.initializers"),
    "regularizer": (allowlist.REGULARIZERS, "keras.regularizers"),
    "constraint": (allowlist.CONSTRAINTS, "keras.constraints"),
}


def _object(node: Config, module: str, place: _Place) -> Config:
    """An initialiser, regulariser or constraint."""
    _check_builtin(node, place)
    config = _dict(node.get("config"), str(place))
    keras2_only = {"dtype"} if place.keras == 2 else set()
    new = {key: _value("", value, place) for key, value in config.items() if key not in keras2_only}
    return _built(_class(node), new, module)


def _activation(value: Json, place: _Place) -> Json:
    if isinstance(value, dict):
        if _class(value) in allowlist.LAYERS:
            return _layer(value, place)
        if _class(value) != "function":
            raise _refusal(_class(value), place)
        value = value.get("config")
    if value is None:
        return None
    if str(value) not in allowlist.ACTIVATIONS:
        raise UnsupportedError(
            f"{place} has the custom activation '{value}'; use a built-in one and save again"
        )
    if value == "hard_sigmoid" and place.keras == 2:
        raise UnsupportedError(
            f"{place} has the activation hard_sigmoid of Keras 2, a different function in Keras 3;"
            " use sigmoid, train and save again"
        )
    return value


def _dtype(value: Json, place: _Place) -> Json:
    """The name of a type or of a policy; mixed precision, a training aid, becomes float32."""
    if isinstance(value, dict):
        if _class(value) not in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
            raise _refusal(_class(value), place)
        value = _dict(value.get("config"), str(place)).get("name")
    if value is None or str(value) in INTEGER_TYPES:
        return value
    if str(value) not in FLOAT_TYPES:
        raise UnsupportedError(f"{place} computes in {value}; build it in float32 and save again")
    return "float32"


def _operator(node: Config, place: _Place) -> Config | None:
    """`x + y` and the like as the layer that does the same; None for what is no operator."""
    name: str | None = _class(node)
    if name == "TFOpLambda":
        function = _dict(node.get("config"), str(place)).get("function")
        name = KERAS2_OPERATORS.get(function) if isinstance(function, str) else None
        operands = _keras2_operands(node)
        how = f"the operator {function}"
    elif _is_keras3_operator(node):
        operands = _keras3_operands(node)
        how = f"the operator {name}"
    else:
        return None
    label = place.path.rpartition("/")[2]
    tensors = len(operands) if all(_is_tensor(each) for each in operands) else 0
    config = _dict(node.get("config"), str(place))
    if not OPERATOR_KEYS.issuperset(config):
        tensors = 0
    if name in BINARY and tensors == 2:
        new = _built(BINARY[name], {"name": label, "dtype": "float32"})
    elif name in UNARY and tensors == 1:
        activation = {"name": label, "activation": UNARY[name], "dtype": "float32"}
        new = _built("Activation", activation)
    else:
        raise UnsupportedError(
            f"{place} is {how}, which has no equal among the layers or an operand that is no"
            " layer's output; use a layer of keras.layers instead and save again"
        )
    modern = [{"args": [operands if tensors == 2 else operands[0]], "kwargs": {}}]
    new["inbound_nodes"] = [operands] if isinstance(operands[0], list) else modern
    return new


def _is_keras3_operator(node: Config) -> bool:
    """By its module, which `.h5` leaves out; there an operator lacks what every layer has."""
    module, config = node.get("module"), node.get("config")
    if isinstance(module, str):
        return module.startswith(("keras.src.ops", "keras.ops"))
    known = _class(node) in BINARY or _class(node) in UNARY
    return known and isinstance(config, dict) and "trainable" not in config


def _keras3_operands(node: Config) -> list[Json]:
    nodes = node.get("inbound_nodes")
    if not isinstance(nodes, list) or len(nodes) != 1 or not isinstance(nodes[0], dict):
        return []
    args, kwargs = nodes[0].get("args"), nodes[0].get("kwargs")
    args = args if isinstance(args, list) else []
    return [*args, *kwargs.values()] if isinstance(kwargs, dict) else args


def _keras2_operands(node: Config) -> list[Json]:
    """[x, 0, 0, {"y": [y, 0, 0], "name": None}] as the two references it means."""
    nodes = node.get("inbound_nodes")
    if not isinstance(nodes, list) or len(nodes) != 1 or not isinstance(nodes[0], list):
        return []
    call = nodes[0]
    if len(call) != 4 or not isinstance(call[3], dict):
        return []
    rest = [value for key, value in call[3].items() if key != "name"]
    return [[*call[:3], {}], *([*each, {}] if isinstance(each, list) else each for each in rest)]


def _keras2_call(node: Json) -> Json:
    """[[x, 0, 0, {"value": [y, 0, 0]}]] with its named tensor as Keras 3 writes such a call."""
    node = _plain_list(node)
    call = node[0] if isinstance(node, list) and len(node) == 1 else None
    options = call[3] if isinstance(call, list) and len(call) == 4 else None
    if not isinstance(call, list) or not isinstance(options, dict):
        return node
    if not any(_is_reference(value) for value in options.values()):
        return node
    named = {
        key: _tensor(value) if _is_reference(value) else value for key, value in options.items()
    }
    return {"args": [_tensor(call[:3])], "kwargs": named}


def _tensor(reference: Json) -> Config:
    """A reference as Keras 3 writes it; it reads the shape from the layer, not from here."""
    config = {"shape": [None], "dtype": "float32", "keras_history": reference}
    return {"class_name": "__keras_tensor__", "config": config}


def _is_reference(value: Json) -> bool:
    """[layer name, call, output], and whatever Keras 2 puts behind these."""
    if not isinstance(value, list) or len(value) < 3 or not isinstance(value[0], str):
        return False
    return isinstance(value[1], int) and isinstance(value[2], int)


def _is_tensor(value: Json) -> bool:
    if isinstance(value, dict):
        return _class(value) == "__keras_tensor__"
    return _is_reference(value)


def _references(value: Json, place: _Place) -> Json:
    """Inbound nodes and the like: plain values and symbolic tensors, nothing else."""
    if isinstance(value, list):
        return [_references(each, place) for each in value]
    if not isinstance(value, dict):
        return value
    name = _class(value)
    if name == "__tuple__":
        return _references(_plain_list(value), place)
    if name == "__keras_tensor__":
        config = _dict(value.get("config"), str(place))
        new = {key: config.get(key) for key in ("shape", "dtype", "keras_history")}
        return {"class_name": name, "config": new}
    if "class_name" in value:
        raise _refusal(name, place)
    return {str(key): _references(each, place) for key, each in value.items()}


def _recount(config: Config) -> None:
    """Count the calls of nested models from 0 in inbound nodes, as Keras 3 does.

    In output references Keras 3 itself subtracts 1 for a Functional model, not for a Sequential.
    """
    sequential = {layer["name"] for layer in config["layers"] if _has_own_call(layer)}
    functional = {
        layer["name"] for layer in config["layers"] if layer["class_name"] == "Functional"
    }
    for layer in config["layers"]:
        layer["inbound_nodes"] = _map_references(layer["inbound_nodes"], sequential | functional)
    config["output_layers"] = _map_references(config["output_layers"], sequential)


def _has_own_call(layer: Config) -> bool:
    """Whether `layer` is a Sequential model that Keras 2 built before it was called."""
    if layer["class_name"] != "Sequential":
        return False
    layers = layer["config"]["layers"]
    return bool(layers) and layers[0]["class_name"] == "InputLayer"


def _map_references(value: Json, shifted: set[str]) -> Json:
    if isinstance(value, dict):
        return {key: _map_references(each, shifted) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    if _is_reference(value) and value[0] in shifted:
        value = [value[0], max(value[1] - 1, 0), *value[2:]]
    return [_map_references(each, shifted) for each in value]


def _single(references: Json) -> Json:
    """A list of one input or output as just that one, which Keras 2 does not tell apart."""
    lonely = isinstance(references, list) and len(references) == 1
    return references[0] if lonely and isinstance(references[0], list) else references


def _plain_list(value: Json) -> Json:
    """Tuples and shapes, which the SavedModel metadata wraps, as lists."""
    if isinstance(value, dict) and value.get("class_name") in ("__tuple__", "TensorShape"):
        return value.get("items")
    return value


def _class(node: Config) -> str:
    """The class an object claims to be; whatever is no text turns into a name nobody knows."""
    return str(node.get("class_name"))


def _dict(value: Json, what: str) -> Config:
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} is malformed: an object was expected; save the model again")
    return value


def _list(value: Json, key: str, place: _Place) -> list[Json]:
    if not isinstance(value, list):
        raise ModelFileError(f"{place} is malformed: '{key}' is no list; save the model again")
    return value
