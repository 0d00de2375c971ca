"""A Keras model as a flat list of calls, and a new Keras model from such a list.

Nested Functional and Sequential models are inlined: their layers stand in the list as if the
outer model had called them. A layer that is called several times (directly, or because the
nested model around it is) stands in several calls under one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.errors import UnsupportedError

if TYPE_CHECKING:
    import keras

Shape = tuple[int | None, ...]
Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer (or Keras operation) on tensors of the flat graph.

    `name` is the layer's unique name in the flat graph; `inputs` and `outputs` are indices into
    `Graph.shapes`, `inputs` in the order of the call's tensor arguments.
    """

    name: str
    op: Any
    node: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A flattened model: its calls in an order that can be executed, and all tensor shapes.

    Shapes include the batch dimension. `inputs` and `outputs` are tensor indices in the order of
    `model.inputs` and `model.outputs`; `input_names` are the names of the input layers.
    """

    name: str
    function: Any
    calls: tuple[Call, ...]
    shapes: tuple[Shape, ...]
    inputs: tuple[int, ...]
    input_names: tuple[str, ...]
    outputs: tuple[int, ...]

    @cached_property
    def makers(self) -> Mapping[int, Call]:
        """The call that makes each tensor; the model's inputs have none."""
        return {index: call for call in self.calls for index in call.outputs}

    @cached_property
    def readers(self) -> Mapping[int, Sequence[Call]]:
        """The calls that read each tensor that is read, once for each time they do."""
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for index in call.inputs:
                found.setdefault(index, []).append(call)
        return found

    @cached_property
    def times(self) -> Mapping[str, int]:
        """How often each layer is called."""
        return Counter(call.name for call in self.calls)

    def layers(self) -> Iterator[tuple[str, Any, list[Call]]]:
        """Each layer once, in order of its first call: name, layer, all its calls."""
        calls: dict[str, list[Call]] = {}
        for call in self.calls:
            calls.setdefault(call.name, []).append(call)
        for name, shared in calls.items():
            yield name, shared[0].op, shared

    def input_shapes(self, call: Call) -> list[Shape]:
        """Shapes of the tensors that `call` reads."""
        return [self.shapes[i] for i in call.inputs]

    def output_shape(self, call: Call) -> Shape:
        """Shape of the first tensor that `call` writes."""
        return self.shapes[call.outputs[0]]


def trace(model: keras.Model) -> Graph:
    """The flat graph of a Functional or Sequential Keras 3 model; the model is only read.

    Raises UnsupportedError for a subclassed model, whose graph Keras does not know.
    """
    function = _function(model)
    if function is None:
        raise UnsupportedError(
            f"model {model.name} ({type(model).__name__}) has no layer graph; build it with"
            " keras.Model(inputs, outputs) or keras.Sequential with an input shape"
        )
    found: list[tuple[str, Any, Any, tuple[int, ...], tuple[int, ...]]] = []
    specs = list(function.inputs)

    def walk(function: Any, values: dict[int, int], prefix: str) -> None:
        fixed = all(specs[values[id(x)]].shape == x.shape for x in function.inputs)
        for node in _nodes(function):
            read = tuple(values[id(x)] for x in node.input_tensors)
            inner = _function(node.operation)
            if inner is not None:
                scope = f"{prefix}{node.operation.name}."
                inputs = dict(zip(map(id, inner.inputs), read, strict=True))
                walk(inner, inputs, scope)
                written = tuple(inputs[id(x)] for x in inner.outputs)
            else:
                outputs = node.outputs if fixed else _specs(node, [specs[i] for i in read])
                written = tuple(range(len(specs), len(specs) + len(outputs)))
                specs.extend(outputs)
                found.append((prefix, node.operation, node, read, written))
            values.update(zip(map(id, node.outputs), written, strict=True))

    values = {id(x): i for i, x in enumerate(function.inputs)}
    walk(function, values, "")
    input_names = tuple(x._keras_history.operation.name for x in function.inputs)
    names = _names(input_names, [(prefix, op) for prefix, op, *_ in found])
    return Graph(
        name=model.name,
        function=function,
        calls=tuple(Call(names[id(op)], op, *rest) for _, op, *rest in found),
        shapes=tuple(tuple(spec.shape) for spec in specs),
        inputs=tuple(range(len(function.inputs))),
        input_names=input_names,
        outputs=tuple(values[id(x)] for x in function.outputs),
    )


def rebuild(
    graph: Graph,
    *,
    config: Callable[[str], Mapping[str, Any]],
    weights: Callable[[str, Weights], Weights],
) -> keras.Model:
    """A new Functional model with the calls of `graph`, layer configs and weights rewritten.

    `config(name)` gives the config keys to replace, `weights(name, old)` the new arrays by
    weight name. Every layer is made anew; nothing is shared with the model of `graph`.
    """
    import keras

    made: dict[str, Any] = {}
    tensors: dict[int, Any] = {}
    for index, old in zip(graph.inputs, graph.function.inputs, strict=True):
        layer = old._keras_history.operation
        tensors[index] = type(layer).from_config(layer.get_config()).output
    for call in graph.calls:
        if call.name not in made:
            changes = {"name": call.name, **config(call.name)}
            made[call.name] = type(call.op).from_config({**call.op.get_config(), **changes})
        arguments = call.node.arguments
        old_inputs = map(id, arguments.keras_tensors)
        filled = {old: tensors[i] for old, i in zip(old_inputs, call.inputs, strict=True)}
        args, kwargs = arguments.fill_in(filled)
        new = keras.tree.flatten(made[call.name](*args, **kwargs))
        tensors.update(zip(call.outputs, new, strict=True))

    def pack(structure: Any, indices: tuple[int, ...]) -> Any:
        return keras.tree.pack_sequence_as(structure, [tensors[i] for i in indices])

    model = keras.Model(
        pack(graph.function.input, graph.inputs),
        pack(graph.function.output, graph.outputs),
        name=graph.name,
    )
    for name, op, _ in graph.layers():
        old_weights = read_weights(op)
        if old_weights:
            made[name].set_weights(list(weights(name, old_weights).values()))
        if isinstance(op, keras.layers.Normalization):
            made[name].finalize_state()
    return model


def read_weights(op: Any) -> dict[str, npt.NDArray[Any]]:
    """The weights of a layer by name, in Keras' order; repeated names get their path."""
    variables = getattr(op, "weights", [])
    names = Counter(variable.name for variable in variables)
    return {
        variable.name if names[variable.name] == 1 else f"{i}:{variable.name}": np.asarray(variable)
        for i, variable in enumerate(variables)
    }


def _function(op: Any) -> Any | None:
    """The graph inside a Functional or Sequential model; None for a layer or subclassed model."""
    import keras

    if isinstance(op, keras.Sequential):
        return getattr(op, "_functional", None)
    if not isinstance(op, keras.Function):
        return None
    owner = next(cls for cls in type(op).__mro__ if "call" in vars(cls))
    return op if owner.__module__.startswith("keras.") else None


def _nodes(function: Any) -> Iterator[Any]:
    """The call nodes of a Keras graph in executable order, without its inputs."""
    starts = {id(x) for x in function.inputs}
    by_depth = function._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input and not any(id(x) in starts for x in node.outputs):
                yield node


def _specs(node: Any, inputs: list[Any]) -> list[Any]:
    """Symbolic outputs of a call on inputs of other shapes than it was first made with."""
    import keras

    filled = dict(zip(map(id, node.arguments.keras_tensors), inputs, strict=True))
    args, kwargs = node.arguments.fill_in(filled)
    return list(keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs)))


def _names(inputs: tuple[str, ...], found: list[tuple[str, Any]]) -> dict[int, str]:
    """A unique name per layer object: its own, or `nested.layer` where two share one."""
    ops = {id(op): (prefix, op.name) for prefix, op in reversed(found)}
    counts = Counter(name for _, name in ops.values()) + Counter(inputs)
    names: dict[int, str] = {}
    taken = set(inputs)
    for _, op in found:
        if id(op) in names:
            continue
        prefix, name = ops[id(op)]
        base = name if counts[name] == 1 else prefix + name
        unique, n = base, 0
        while unique in taken:
            n += 1
            unique = f"{base}_{n}"
        taken.add(unique)
        names[id(op)] = unique
    return names
