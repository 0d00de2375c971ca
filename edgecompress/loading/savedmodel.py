"""The Keras metadata and the variables of a SavedModel, read without loading its functions.

Format: tensorflow/core/protobuf/saved_object_graph.proto. Keras 2 keeps each layer's
configuration as JSON, since TensorFlow 2.5 in `keras_metadata.pb` beside the graph
(tf_keras/protobuf/saved_metadata.proto), before that in the graph's own nodes. The checkpoint in
`variables/` has the same object graph under its key `_CHECKPOINTABLE_OBJECT_GRAPH`, which gives
the key of each variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ModelFileError
from edgecompress.loading import limits

Array: TypeAlias = npt.NDArray[Any]

MODELS = frozenset({"_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential"})
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"
METADATA = "keras_metadata.pb"
BROKEN = (OSError, ValueError, IndexError, RuntimeError)
"""What TensorFlow's checkpoint reader raises, besides its own errors, on damaged variables."""


@dataclass(frozen=True, eq=False)
class SavedModel:
    """What a SavedModel says about its Keras model.

    `config` is the JSON of the root's metadata (class_name, config), `operators` the names of all
    operators in its graph and functions, `children` the object graph (node -> name -> node),
    `names` the Keras name of each layer's node, `keys` the checkpoint key of each variable's node;
    there are at most `elements` weights, one in each byte of the variables' files.
    """

    config: str
    operators: frozenset[str]
    children: Mapping[int, Mapping[str, int]]
    names: Mapping[int, str]
    keys: Mapping[int, str]
    elements: int
    checkpoint: Any

    def weights(self, where: tuple[str, ...]) -> list[Array]:
        """The weights of the layer at `where` (names, outermost first), in Keras's order."""
        node = 0
        for name in where:
            inside = (
                child
                for local, child in self.children[node].items()
                if local.startswith("layer") and self.names.get(child) == name
            )
            node = next(inside, -1)
            if node < 0:
                raise ModelFileError(f"layer '{'/'.join(where)}' is not in the object graph")
        variables = self.children[node].get("variables", -1)
        listed = self.children.get(variables, {})
        order = sorted((int(local), child) for local, child in listed.items() if local.isdigit())
        return [np.asarray(self.checkpoint.get_tensor(self.keys[child])) for _, child in order]


def read(path: Path) -> SavedModel:
    """The SavedModel in the folder `path`.

    Raises ModelFileError when it is damaged or holds no Keras model.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

    try:
        message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        metadata = _metadata(path, message)
        checkpoint = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            checkpoint.get_tensor(OBJECT_GRAPH)
        )
    except (DecodeError, tf.errors.OpError, *BROKEN) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"a damaged SavedModel ({text[:200]}); save it again") from error
    size = sum(len(text) for _, text in metadata.values())
    if size > limits.MAX_TEXT_BYTES:
        raise ModelFileError(
            f"its layers' configurations take {size / (1 << 20):.0f} MiB, more than the"
            f" {limits.MAX_TEXT_BYTES >> 20} MiB allowed for text; save the model again"
        )
    identifier, config = metadata.get(0, ("", ""))
    if identifier not in MODELS:
        raise ModelFileError(
            "holds no Keras model (made by model.export() or tf.saved_model.save(): for inference"
            " only); save the Keras model itself as .keras"
        )
    return SavedModel(
        config=config,
        operators=_operators(message),
        children={
            index: {child.local_name: child.node_id for child in node.children}
            for index, node in enumerate(graph.nodes)
        },
        names={index: _name(text) for index, (_, text) in metadata.items()},
        keys={
            index: attribute.checkpoint_key
            for index, node in enumerate(graph.nodes)
            for attribute in node.attributes
            if attribute.name == VALUE
        },
        elements=sum(file.stat().st_size for file in (path / "variables").iterdir()),
        checkpoint=checkpoint,
    )


def _operators(message: Any) -> frozenset[str]:
    names: set[str] = set()
    for meta in message.meta_graphs:
        names.update(node.op for node in meta.graph_def.node)
        for function in meta.graph_def.library.function:
            names.update(node.op for node in function.node_def)
    return frozenset(names)


def _metadata(path: Path, message: Any) -> dict[int, tuple[str, str]]:
    """Node -> (identifier, JSON) of every Keras object."""
    file = path / METADATA
    if file.is_file():
        nodes = _saved_metadata().FromString(file.read_bytes()).nodes
        return {node.node_id: (node.identifier, node.metadata) for node in nodes}
    if len(message.meta_graphs) != 1:
        raise ValueError(f"{len(message.meta_graphs)} graphs instead of 1")
    found = {}
    for index, node in enumerate(message.meta_graphs[0].object_graph_def.nodes):
        if node.user_object.identifier.startswith("_tf_keras_"):
            found[index] = (node.user_object.identifier, node.user_object.metadata)
    return found


def _saved_metadata() -> Any:
    """The message class third_party.tensorflow.python.keras.protobuf.SavedMetadata."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="edgecompress_metadata.proto", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    one, text, number = field.LABEL_OPTIONAL, field.TYPE_STRING, field.TYPE_INT32
    entry = file.message_type.add(name="SavedObject")
    entry.field.add(name="node_id", number=2, label=one, type=number)
    for position, name in ((3, "node_path"), (4, "identifier"), (5, "metadata")):
        entry.field.add(name=name, number=position, label=one, type=text)
    whole = file.message_type.add(name="SavedMetadata")
    whole.field.add(
        name="nodes",
        number=1,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=".SavedObject",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("SavedMetadata"))


def _name(metadata: str) -> str:
    try:
        value = json.loads(metadata)
    except (ValueError, RecursionError):
        return ""
    return str(value.get("name", "")) if isinstance(value, dict) else ""
