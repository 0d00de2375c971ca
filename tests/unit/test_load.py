"""Loading: every format gives the same model, and every bad file one clear error."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress.artifact import Artifact
from edgecompress.errors import EdgeCompressError, ModelFileError, UnsupportedError
from edgecompress.loading import load

Config = dict[str, Any]
SHAPE = [None, 4, 4, 2]


# Hand-made files


def layer(name: str, kind: str, after: str | None = None, **config: Any) -> Config:
    """A layer of a Keras 3 configuration that is called on the layer `after`."""
    reference = {"shape": SHAPE, "dtype": "float32", "keras_history": [after, 0, 0]}
    tensor = {"class_name": "__keras_tensor__", "config": reference}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [] if after is None else [{"args": [tensor], "kwargs": {}}],
    }


def inputs(shape: Any = SHAPE) -> Config:
    return layer("image", "InputLayer", batch_shape=shape, dtype="float32")


def model(*layers: Config, kind: str = "Functional") -> Config:
    """A Keras 3 model from its first layer to its last."""
    config: Config = {"name": "net", "layers": list(layers)}
    if kind == "Functional":
        config["input_layers"] = [layers[0]["name"], 0, 0]
        config["output_layers"] = [layers[-1]["name"], 0, 0]
    return {"module": "keras", "class_name": kind, "config": config, "registered_name": None}


def hdf5(fill: Callable[[h5py.File], object] = lambda file: None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def keras_file(
    config: Any,
    *,
    version: str = "3.15.1",
    weights: bytes | None = None,
    extra: dict[str, bytes] | None = None,
    leave_out: str = "",
) -> bytes:
    """A `.keras` archive, packed so that a member of zeros is small."""
    members = {
        "metadata.json": json.dumps({"keras_version": version}).encode(),
        "config.json": config if isinstance(config, bytes) else json.dumps(config).encode(),
        "model.weights.h5": hdf5() if weights is None else weights,
        **(extra or {}),
    }
    members.pop(leave_out, None)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def h5_file(
    config: Config, *, version: str = "2.19.0", weights: dict[str, list[Any]] | None = None
) -> bytes:
    """A whole-model `.h5` in the layout of Keras 2 and 3."""

    def fill(file: h5py.File) -> None:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
        root = file.create_group("model_weights")
        names = [each["config"]["name"] for each in config["config"]["layers"]]
        root.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = root.create_group(name)
            arrays = (weights or {}).get(name, [])
            group.attrs["weight_names"] = [f"w{index}".encode() for index in range(len(arrays))]
            for index, array in enumerate(arrays):
                group[f"w{index}"] = np.asarray(array, np.float32)

    return hdf5(fill)


def external(file: h5py.File) -> None:
    file.create_dataset("w", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def forged(file: h5py.File) -> None:
    file.create_dataset("w", (1 << 40,), "f4", chunks=(1 << 20,))


def texts(file: h5py.File) -> None:
    file.create_dataset("w", data=["a", "b"], dtype=h5py.string_dtype())


def pairs(file: h5py.File) -> None:
    file.create_dataset("w", (2,), np.dtype([("a", "f4"), ("b", "f4")]))


def twice(file: h5py.File) -> None:
    file["a"] = file.create_group("b").create_group("c")


def references(file: h5py.File) -> None:
    file.attrs.create("layer_names", [file.ref], dtype=h5py.ref_dtype)


def unwritten(file: h5py.File) -> None:
    """Zeros that take no room in the file."""
    file.create_dataset("w", (5 << 20,), "f4", chunks=(1 << 20,))


def large_chunk(file: h5py.File) -> None:
    file.create_dataset("w", (1,), "f4", chunks=(5 << 20,), maxshape=(None,))


LAMBDA = layer("twice", "Lambda", "image", function=["4wEAAA==", None, None])
INNER = model(inputs(), LAMBDA)
NESTED = {**layer("inner", "Functional", "image"), "config": INNER["config"]}
CUSTOM = {**layer("mine", "Mine", "image"), "module": "evil", "registered_name": "my>Mine"}
DISGUISED = {**layer("mine", "Dense", "image", units=1), "registered_name": "my>Mine"}
ELSEWHERE = {**layer("mine", "Dense", "image", units=1), "module": "os.path"}
PICKLED = {"class_name": "__lambda__", "config": {"value": "4wEAAA=="}}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "system"}
STATIC = "rebuild the model with keras.Input(shape) of whole numbers, load_weights, and save it"
TOO_DEEP = (
    "config.json nests its objects deeper than any model that Keras saves; save the model again"
)
AGAIN = "save it again with model.save"
REPLACE = "replace it by built-in layers and save again"
BUILTIN = f"built-in Keras class, and no other is loaded; {REPLACE}"


def dense(**config: Any) -> Config:
    return model(inputs(), layer("head", "Dense", "image", units=2, **config))


def keras2(name: str, kind: str, **config: Any) -> Config:
    """A Keras 2 model of one layer."""
    first = {"class_name": "InputLayer", "config": {"batch_input_shape": SHAPE, "name": "image"}}
    node = {"class_name": kind, "config": {"name": name, **config}, "name": name}
    layers = [
        {**first, "name": "image", "inbound_nodes": []},
        {**node, "inbound_nodes": [[["image", 0, 0, {}]]]},
    ]
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [[name, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "net", "layers": layers, **ends}}


def deep(levels: int) -> Config:
    """A wrapper in a wrapper in a wrapper ..."""
    inner = layer("head", "Flatten")
    for _ in range(levels):
        inner = layer("each", "TimeDistributed", "image", layer=inner)
    return model(inputs(), inner)


def called_often(levels: int) -> Config:
    """A model that calls a model ten times that calls a model ten times ..."""
    inner = model(inputs(), layer("head", "Flatten", "image"))
    for _ in range(levels):
        calls = layer("inner", "Functional", "image")["inbound_nodes"] * 10
        inner = model(inputs(), {**inner, "name": "inner", "inbound_nodes": calls})
    return inner


BAD: dict[str, tuple[str, bytes | None, type[EdgeCompressError], str]] = {
    # test: (file, content or None for no file, error, message after "PATH: ")
    "missing": ("a.keras", None, ModelFileError, "no such file; check the path"),
    "empty": (
        "a.h5",
        b"",
        ModelFileError,
        "the file is empty; save or download the model again",
    ),
    "unknown suffix": (
        "a.onnx",
        b"x",
        ModelFileError,
        "unknown kind of model file; give a .keras, .h5, .hdf5, .tflite file or a SavedModel",
    ),
    "no zip": (
        "a.keras",
        b"\x89HDF\r\n\x1a\n",
        ModelFileError,
        f"not a .keras file, or damaged (File is not a zip file); {AGAIN}",
    ),
    "truncated zip": (
        "a.keras",
        keras_file(dense())[:-30],
        ModelFileError,
        f"not a .keras file, or damaged (File is not a zip file); {AGAIN}",
    ),
    "no config": (
        "a.keras",
        keras_file(dense(), leave_out="config.json"),
        ModelFileError,
        f"no config.json in the archive; {AGAIN}",
    ),
    "no weights": (
        "a.keras",
        keras_file(dense(), leave_out="model.weights.h5"),
        ModelFileError,
        f"no model.weights.h5 in the archive; {AGAIN}",
    ),
    "path traversal": (
        "a.keras",
        keras_file(dense(), extra={"../../.bashrc": b"x"}),
        ModelFileError,
        "unexpected member '../../.bashrc' in the archive (layers with files of their own are not"
        f" supported); {AGAIN}",
    ),
    "zip bomb": (
        "a.keras",
        keras_file(dense(), weights=bytes(20 << 20)),
        ModelFileError,
        f"model.weights.h5 would unpack to more than 200 times its size; {AGAIN}",
    ),
    "config is no JSON": (
        "a.keras",
        keras_file(b"{"),
        ModelFileError,
        "config.json is no JSON (Expecting property name enclosed in double quotes: line 1 column"
        " 2 (char 1)); save the model again",
    ),
    "config is nested without end": (
        "a.keras",
        keras_file(b"[" * 100_000),
        ModelFileError,
        TOO_DEEP,
    ),
    "config is a list": (
        "a.keras",
        keras_file([1]),
        ModelFileError,
        "config.json holds no object; save the model again",
    ),
    "layers are no list": (
        "a.keras",
        keras_file({**dense(), "config": {"layers": 1, "input_layers": [], "output_layers": []}}),
        ModelFileError,
        "the model is malformed: 'layers' is no list; save the model again",
    ),
    "a layer is no object": (
        "a.keras",
        keras_file({**dense(), "class_name": "Sequential", "config": {"layers": [7]}}),
        ModelFileError,
        "a layer of the model is malformed: an object was expected; save the model again",
    ),
    "a class name is no text": (
        "a.keras",
        keras_file(model(inputs(), {**layer("mine", "x", "image"), "class_name": ["Dense"]})),
        UnsupportedError,
        f"layer 'mine': '['Dense']' is no {BUILTIN}",
    ),
    "keras 2 archive": (
        "a.keras",
        keras_file(dense(), version="2.15.0"),
        ModelFileError,
        "a .keras file of Keras 2.15.0; with Keras 2, save it as .h5",
    ),
    "lambda": (
        "a.keras",
        keras_file(model(inputs(), LAMBDA)),
        ModelFileError,
        f"layer 'twice': a Lambda holds Python code, which is never run; {REPLACE}",
    ),
    "lambda in a nested model": (
        "a.keras",
        keras_file(model(inputs(), NESTED)),
        ModelFileError,
        f"layer 'inner/twice': a Lambda holds Python code, which is never run; {REPLACE}",
    ),
    "lambda in a wrapper": (
        "a.keras",
        keras_file(model(inputs(), layer("each", "TimeDistributed", "image", layer=LAMBDA))),
        ModelFileError,
        f"layer 'each/twice': a Lambda holds Python code, which is never run; {REPLACE}",
    ),
    "lambda in h5": (
        "a.h5",
        h5_file(keras2("twice", "Lambda", function=["4wEAAA==", None, None])),
        ModelFileError,
        f"layer 'twice': a Lambda holds Python code, which is never run; {REPLACE}",
    ),
    "pickled function": (
        "a.keras",
        keras_file(dense(activation=PICKLED)),
        ModelFileError,
        f"layer 'head': a Python lambda holds Python code, which is never run; {REPLACE}",
    ),
    "pickled function in a call": (
        "a.keras",
        keras_file(
            model(
                inputs(),
                {
                    **layer("head", "Flatten"),
                    "inbound_nodes": [{"args": [], "kwargs": {"f": PICKLED}}],
                },
            )
        ),
        ModelFileError,
        f"layer 'head': a Python lambda holds Python code, which is never run; {REPLACE}",
    ),
    "vocabulary file": (
        "a.keras",
        keras_file(model(inputs(), layer("words", "StringLookup", "image", vocabulary="/etc/x"))),
        ModelFileError,
        f"layer 'words': a StringLookup may read a file that the model names; {REPLACE}",
    ),
    "custom layer": (
        "a.keras",
        keras_file(model(inputs(), CUSTOM)),
        UnsupportedError,
        f"layer 'mine': 'Mine' is no {BUILTIN}",
    ),
    "custom layer under a built-in name": (
        "a.keras",
        keras_file(model(inputs(), DISGUISED)),
        UnsupportedError,
        f"layer 'mine': 'my>Mine' is no {BUILTIN}",
    ),
    "module outside Keras": (
        "a.keras",
        keras_file(model(inputs(), ELSEWHERE)),
        UnsupportedError,
        f"layer 'mine': 'os.path.Dense' is no {BUILTIN}",
    ),
    "a Keras function in place of an initializer": (
        "a.keras",
        keras_file(
            dense(
                kernel_initializer={
                    "module": "keras.utils",
                    "class_name": "get_file",
                    "config": {"origin": "file:///etc/passwd"},
                }
            )
        ),
        UnsupportedError,
        f"layer 'head': 'get_file' is no {BUILTIN}",
    ),
    "custom activation": (
        "a.keras",
        keras_file(dense(activation=FUNCTION)),
        UnsupportedError,
        "layer 'head' has the custom activation 'system'; use a built-in one and save again",
    ),
    "subclassed model": (
        "a.keras",
        keras_file({"class_name": "Model", "config": {"name": "net"}}),
        UnsupportedError,
        "the model is a subclassed model without a graph (no 'layers'); build it with the"
        " functional API, load_weights, and save it",
    ),
    "custom model": (
        "a.keras",
        keras_file({"module": "my", "class_name": "Net", "config": {}, "registered_name": "my>N"}),
        UnsupportedError,
        f"the model: 'Net' is no {BUILTIN}",
    ),
    "a layer instead of a model": (
        "a.keras",
        keras_file(layer("head", "Dense", units=1)),
        ModelFileError,
        "holds a single layer (Dense), not a model",
    ),
    "double precision": (
        "a.keras",
        keras_file(dense(dtype={"class_name": "DTypePolicy", "config": {"name": "float64"}})),
        UnsupportedError,
        "layer 'head' computes in float64; build it in float32 and save again",
    ),
    "sizes unknown": (
        "a.keras",
        keras_file(model(inputs([None, None, None, 3]))),
        UnsupportedError,
        "input 'image' has the shape (None, None, None, 3): only the first, the batch, may be"
        f" None; {STATIC}",
    ),
    "no input shape": (
        "a.keras",
        keras_file(model(layer("head", "Dense", units=1), kind="Sequential")),
        UnsupportedError,
        f"input 'input' has no shape (None); {STATIC}",
    ),
    "an operator with a constant": (
        "a.keras",
        keras_file(
            model(
                inputs(),
                {
                    **layer("add", "Add", "image"),
                    "module": "keras.src.ops.numpy",
                    "inbound_nodes": [
                        {
                            "args": [*layer("", "", "image")["inbound_nodes"][0]["args"], 1.0],
                            "kwargs": {},
                        }
                    ],
                },
            )
        ),
        UnsupportedError,
        "layer 'add' is the operator Add, which has no equal among the layers or an operand that is"
        " no layer's output; use a layer of keras.layers instead and save again",
    ),
    "an operator with an option": (
        "a.keras",
        keras_file(
            model(
                inputs(),
                {**layer("act", "Silu", "image", beta=2.0), "module": "keras.src.ops.nn"},
            )
        ),
        UnsupportedError,
        "layer 'act' is the operator Silu, which has no equal among the layers or an operand that"
        " is no layer's output; use a layer of keras.layers instead and save again",
    ),
    "layers within layers without end": (
        "a.keras",
        keras_file(deep(300)),
        ModelFileError,
        TOO_DEEP,
    ),
    "names with line ends": (
        "a.keras",
        keras_file(model(inputs(), layer("x\n\x1b[2J\udc80", "Evil", "image"))),
        UnsupportedError,
        f"layer 'x??[2J?': 'Evil' is no {BUILTIN}",
    ),
    "weights linked to another file": (
        "a.keras",
        keras_file(
            dense(),
            weights=hdf5(lambda file: file.__setitem__("w", h5py.ExternalLink("/etc/x", "/"))),
        ),
        ModelFileError,
        "HDF5 object '/w' is a link (ExternalLink), which a model never needs: refused;"
        " save the model again",
    ),
    "weights linked within the file": (
        "a.h5",
        hdf5(lambda file: file.create_group("g").__setitem__("w", h5py.SoftLink("/g"))),
        ModelFileError,
        "HDF5 object '/g/w' is a link (SoftLink), which a model never needs: refused;"
        " save the model again",
    ),
    "weights stored in another file": (
        "a.h5",
        hdf5(external),
        ModelFileError,
        "HDF5 dataset '/w' keeps its data in another file: refused; save the model again",
    ),
    "weights of a forged size": (
        "a.h5",
        hdf5(forged),
        ModelFileError,
        "HDF5 dataset '/w' of shape (1099511627776,) exceeds the size allowed; this is no model for"
        " a microcontroller",
    ),
    "weights that are text": (
        "a.h5",
        hdf5(texts),
        ModelFileError,
        "HDF5 dataset '/w' holds no numbers but object: refused; save the model again",
    ),
    "weights that are records": (
        "a.h5",
        hdf5(pairs),
        ModelFileError,
        "HDF5 dataset '/w' holds no numbers but [('a', '<f4'), ('b', '<f4')]: refused;"
        " save the model again",
    ),
    "an attribute of references": (
        "a.h5",
        hdf5(references),
        ModelFileError,
        "HDF5 attribute 'layer_names' of '/' holds neither text nor numbers but object: refused;"
        " save the model again",
    ),
    "a group in two places": (
        "a.h5",
        hdf5(twice),
        ModelFileError,
        "HDF5 object '/b/c' is in the file twice (a hard link): refused; save the model again",
    ),
    "more weights than the file can hold": (
        "a.h5",
        hdf5(unwritten),
        ModelFileError,
        "HDF5 dataset '/w' of shape (5242880,) exceeds the size allowed; this is no model for a"
        " microcontroller",
    ),
    "weights in a large chunk": (
        "a.h5",
        hdf5(large_chunk),
        ModelFileError,
        "HDF5 dataset '/w' has chunks of shape (5242880,): refused; save the model again",
    ),
    "an attribute of 17 MiB": (
        "a.h5",
        hdf5(lambda file: file.attrs.__setitem__("model_config", "x" * (17 << 20))),
        ModelFileError,
        "HDF5 attribute 'model_config' of '/' takes 17 MiB: refused; save the model again",
    ),
    "more calls of nested models than can be built": (
        "a.keras",
        keras_file(called_often(7)),
        ModelFileError,
        "the configuration asks for 32222222 layers and parts of layers, more than the 50000"
        " allowed; this is no model for a microcontroller",
    ),
    "more weights than the file holds": (
        "a.keras",
        keras_file(model(inputs(), layer("head", "Dense", "image", units=1 << 24))),
        ModelFileError,
        "the layers need 50331648 weights, the file holds 0; save the model again",
    ),
    "more weights than the file holds, in a recurrent kernel": (
        "a.keras",
        keras_file(model(inputs([None, 4, 2]), layer("head", "GRU", "image", units=1 << 14))),
        ModelFileError,
        "the layers need 805502976 weights, the file holds 0; save the model again",
    ),
    "a window that is too large": (
        "a.keras",
        keras_file(
            model(
                inputs([None, 8]),
                layer("mel", "MelSpectrogram", "image", sequence_length=(1 << 24) + 1),
            )
        ),
        UnsupportedError,
        "layer 'mel' has sequence_length=16777217, more than the 16777216 allowed; this is no model"
        " for a microcontroller",
    ),
    "an activation that is too large": (
        "a.keras",
        keras_file(
            model(
                inputs([None, 16]),
                layer("copies", "RepeatVector", "image", n=1 << 24),
                layer("norm", "Normalization", "copies", axis=[1, 2], mean=0.0, variance=1.0),
            )
        ),
        UnsupportedError,
        "layer 'copies' has an output of shape (None, 16777216, 16), more than the 67108864"
        " elements allowed; this is no model for a microcontroller",
    ),
    "no HDF5": (
        "a.h5",
        b"PK\x03\x04",
        ModelFileError,
        "not an HDF5 file (wrong first bytes); save or download it again",
    ),
    "weights only": (
        "a.h5",
        hdf5(),
        ModelFileError,
        "holds weights only, no model; save the whole model with model.save(), not save_weights()",
    ),
    "an option Keras 3 lacks": (
        "a.h5",
        h5_file(keras2("conv", "DepthwiseConv2D", kernel_size=[3, 3], groups=2)),
        UnsupportedError,
        "layer 'conv' uses groups=2, which Keras 3 does not have; change it, train and save again",
    ),
    "an activation that changed": (
        "a.h5",
        h5_file(keras2("act", "Activation", activation="hard_sigmoid")),
        UnsupportedError,
        "layer 'act' has the activation hard_sigmoid of Keras 2, a different function in Keras 3;"
        " use sigmoid, train and save again",
    ),
    "no tflite": (
        "a.tflite",
        b"\x1c\x00\x00\x00TFL2" + bytes(40),
        ModelFileError,
        "not a TensorFlow Lite file (no 'TFL3' at byte 4); convert or download it again",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_gives_one_clear_error(case: str, tmp_path: Path) -> None:
    file, content, error, message = BAD[case]
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeCompressError) as raised:
        load(path)
    assert str(raised.value) == f"{path}: {message}"
    assert type(raised.value) is error


def test_the_child_that_reads_hdf5_has_a_memory_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecompress.loading.hdf5.HEADROOM", 1 << 20)
    monkeypatch.setattr("edgecompress.loading.limits.SMALL_BYTES", 1 << 20)
    path = tmp_path / "a.h5"
    path.write_bytes(hdf5())
    with pytest.raises(ModelFileError, match="a damaged HDF5 file"):
        load(path)


def test_a_large_configuration_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.keras"
    noise = np.random.default_rng(0).bytes(100_000)  # no bomb by its ratio
    path.write_bytes(keras_file(noise + b" " * (17 << 20)))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(ModelFileError, match=r"config\.json takes 17 MiB, more than the 16 MiB"):
        load(path)


def test_metadata_of_a_savedmodel_over_the_limit(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    for name in ("saved_model.pb", "variables/variables.index"):
        (tmp_path / name).touch()
    with (tmp_path / "keras_metadata.pb").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ModelFileError, match=r"keras_metadata\.pb takes 17 MiB, more than the 16"):
        load(tmp_path)


def test_folder_that_is_no_savedmodel(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="a folder without saved_model.pb, so no SavedModel"):
        load(tmp_path)


def test_declared_size_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecompress.loading.limits.MAX_BYTES", 1 << 20)
    path = tmp_path / "a.keras"
    path.write_bytes(keras_file(dense(), weights=bytes(2 << 20)))
    with pytest.raises(ModelFileError, match="the archive declares 2 MiB, more than the 1 MiB"):
        load(path)


def test_member_that_appears_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    path.write_bytes(keras_file(dense()))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("config.json", b"{}")
    with pytest.raises(ModelFileError, match="more than one config.json in the archive"):
        load(path)


def test_crash_of_the_hdf5_library_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecompress.loading.hdf5.CHILD", "import os; os.abort()")
    path = tmp_path / "a.h5"
    path.write_bytes(hdf5())
    with pytest.raises(ModelFileError, match="the HDF5 library ended with status -6"):
        load(path)


def test_bad_files_are_refused_before_keras_is_imported(tmp_path: Path) -> None:
    """Nothing can be deserialised where the deserialiser is not there yet."""
    for name, case in {"a.keras": "lambda in a nested model", "a.h5": "lambda in h5"}.items():
        (tmp_path / name).write_bytes(BAD[case][1] or b"")
    script = (
        "import sys; from edgecompress.loading import load\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path)\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(sorted({'keras', 'tensorflow', 'tf_keras'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.keras"), str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["ModelFileError", "ModelFileError", "[]"]


# Run directories


FLATBUFFER = Path(__file__).with_name("models") / "residual_int8.tflite"


def test_a_run_directory_holds_one_model(tmp_path: Path) -> None:
    (tmp_path / "float.keras").write_bytes(b"of an earlier run")
    Artifact("net", tflite=FLATBUFFER.read_bytes()).save(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"model.tflite", "steps.json"}
    loaded = load(tmp_path)
    assert (loaded.name, loaded.keras, loaded.tflite) == ("net", None, FLATBUFFER.read_bytes())
    (tmp_path / "float.keras").write_bytes(b"of a run that was cut short")
    assert load(tmp_path).keras is None


def test_a_model_of_another_run_is_refused(tmp_path: Path) -> None:
    Artifact("net", tflite=FLATBUFFER.read_bytes()).save(tmp_path)
    other = FLATBUFFER.with_name("dense_batch2_float32.tflite")
    (tmp_path / "model.tflite").write_bytes(other.read_bytes())
    with pytest.raises(ModelFileError) as raised:
        load(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}/model.tflite: not the file that steps.json lists (its SHA-256 differs);"
        " compress again"
    )
    (tmp_path / "model.tflite").unlink()
    with pytest.raises(ModelFileError, match=r"model\.tflite: no such file, though steps\.json"):
        load(tmp_path)


def test_a_run_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    Artifact("net").save(tmp_path)
    with pytest.raises(ModelFileError) as raised:
        load(tmp_path)
    assert str(raised.value) == f"{tmp_path}: holds no model; run the compression again"


# Keras 3


def quiet_save(keras_model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras_model.save(path)
    return path


def randomise(keras_model: Any) -> None:
    """Seeded weights, all positive so that variances are."""
    rng = np.random.default_rng(0)
    shapes = [weight.shape for weight in keras_model.get_weights()]
    keras_model.set_weights([rng.uniform(0.1, 0.5, shape).astype("f4") for shape in shapes])


def zoo() -> dict[str, Any]:
    """Small models with one difficulty each."""
    import keras

    layers = keras.layers
    image = keras.Input((4, 4, 2), name="image")
    inner = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(2, 3, padding="same")])
    entry = keras.Input((4, 4, 2))
    branch = layers.BatchNormalization()(layers.Conv2D(2, 1, use_bias=False)(entry))
    outer = keras.Model(entry, branch, name="branch")
    shared = layers.Dense(2, activation="relu", name="shared")
    x = shared(inner(image))
    x = layers.Add()([outer(inner(shared(x))), outer(x)])
    late = keras.Sequential([layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2)])
    late.build((None, 4, 4, 2))
    models = {
        "nested": keras.Model(image, layers.GlobalAveragePooling2D()(x)),
        "sequential": keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                layers.SeparableConv2D(3, 2, depthwise_constraint="max_norm"),
                layers.BatchNormalization(),
                layers.PReLU(),
                layers.Conv2DTranspose(2, 2, kernel_regularizer="l2"),
                layers.Dropout(0.5),
                layers.Flatten(),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        "shape known from build": late,
        "operators": keras.Model(image, (shared(image) + image) * image - shared(image)),
        "model in a sequential": keras.Sequential([outer, layers.Flatten()]),
    }
    models["model in a sequential"].build((None, 4, 4, 2))
    for each in models.values():
        randomise(each)
    return models


@pytest.fixture(scope="module")
def keras_models() -> dict[str, Any]:
    return zoo()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "name",
    ["nested", "sequential", "shape known from build", "operators", "model in a sequential"],
)
def test_keras3_models_come_back_equal(
    keras_models: dict[str, Any], name: str, suffix: str, tmp_path: Path
) -> None:
    import keras

    original = keras_models[name]
    artifact = load(quiet_save(original, tmp_path / f"my.net{suffix}"))
    assert artifact.name == "my.net"
    assert artifact.steps == () and artifact.tflite is None
    loaded = artifact.keras
    assert isinstance(loaded, keras.Model) and not isinstance(loaded, keras.Sequential)
    assert [tuple(each.shape) for each in loaded.inputs] == [(None, 4, 4, 2)]
    assert len(loaded.outputs) == 1 and not loaded.compiled
    x = np.random.default_rng(1).normal(size=(3, 4, 4, 2)).astype("f4")
    expected = np.asarray(original(x, training=False))
    assert expected.std() > 1e-3
    np.testing.assert_array_equal(np.asarray(loaded(x, training=False)), expected)


@pytest.fixture(scope="module")
def odd_model() -> Any:
    """Statistics that a layer derives values from, state, and initialisers of all sorts."""
    import keras

    layers, initial = keras.layers, keras.initializers
    normal = layers.Normalization()
    normal.adapt(np.random.default_rng(0).normal(3, 5, (50, 6, 4)))
    source = keras.Input(batch_shape=(2, 6, 4))
    x = layers.LSTM(5, return_sequences=True, stateful=True, name="lstm")(normal(source))
    x = layers.TimeDistributed(layers.Dense(3, kernel_initializer=initial.HeNormal(seed=7)))(x)
    return keras.Model(source, layers.Dense(2, bias_initializer=initial.Constant(0.5))(x))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_that_are_more_than_their_weights(
    odd_model: Any, suffix: str, tmp_path: Path
) -> None:
    import keras

    loaded: Any = load(quiet_save(odd_model, tmp_path / f"a{suffix}")).keras
    x = np.random.default_rng(1).normal(size=(2, 6, 4)).astype("f4")
    odd_model.get_layer("lstm").reset_states()
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(odd_model(x)))
    assert loaded.get_layer("lstm").stateful
    for new, old in zip(loaded.layers, odd_model.layers, strict=True):
        new, old = (json.dumps(keras.layers.serialize(each)["config"]) for each in (new, old))
        assert new == old


def test_an_initializer_of_the_file_is_never_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orthogonal kernel takes cubic time, and the file's weights replace it."""
    import keras

    net = keras.Sequential([keras.Input((4, 2)), keras.layers.GRU(3)])
    path = quiet_save(net, tmp_path / "a.keras")
    expected = net.get_weights()
    monkeypatch.setattr(keras.initializers.Orthogonal, "__call__", None)
    loaded = load(path).keras
    assert loaded is not None
    for new, old in zip(loaded.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(new, old)


def test_compiled_losses_are_left_behind(tmp_path: Path) -> None:
    """A custom loss in the compile settings, of the model or an inner one, is never looked at."""
    config = dense()
    evil = {"module": "evil", "class_name": "Loss", "config": {}, "registered_name": "evil>Loss"}
    config["compile_config"] = {"loss": evil}
    path = tmp_path / "a.keras"
    import keras

    image = keras.Input((4, 4, 2), name="image")
    net = keras.Model(image, keras.layers.Dense(2, name="head")(image))
    quiet_save(net, path)
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    path.write_bytes(keras_file(config, weights=weights))
    loaded = load(path).keras
    assert loaded is not None and not loaded.compiled
    np.testing.assert_array_equal(loaded.get_weights()[0], net.get_weights()[0])


def test_mixed_precision_becomes_float32(tmp_path: Path) -> None:
    policy = {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    config = dense(dtype=policy)
    for each in config["config"]["layers"]:
        del each["module"]
    kernel = [np.ones((2, 2)), np.zeros(2)]
    path = tmp_path / "a.h5"
    path.write_bytes(h5_file(config, version="3.9.0", weights={"head": kernel}))
    loaded = load(path, name="other")
    assert loaded.name == "other" and loaded.keras is not None
    assert loaded.keras.get_layer("head").compute_dtype == "float32"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_weights_that_are_no_numbers(
    keras_models: dict[str, Any], bad: float, suffix: str, tmp_path: Path
) -> None:
    net = keras_models["nested"]
    weights = net.get_weights()
    conv = next(each for each in net.get_layer("branch").layers if each.weights)
    kernel = conv.get_weights()[0]
    kernel.flat[1] = bad
    try:
        conv.set_weights([kernel])
        path = quiet_save(net, tmp_path / f"a{suffix}")
    finally:
        net.set_weights(weights)
    with pytest.raises(ModelFileError) as raised:
        load(path)
    assert str(raised.value) == (
        f"{path}: layer 'branch/{conv.name}', variable 'kernel': 1 of 4 values are NaN or infinite;"
        " train again, or take an earlier checkpoint"
    )


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    weights = {"head": [np.ones((3, 2)), np.zeros(2)]}
    path.write_bytes(h5_file(keras2("head", "Dense", units=2), weights=weights))
    with pytest.raises(ModelFileError) as raised:
        load(path)
    assert str(raised.value) == (
        f"{path}: layer 'head' needs weights of shapes [(2, 2), (2,)], the file has [(3, 2), (2,)];"
        " save the model again"
    )


def test_option_that_no_keras_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    path.write_bytes(keras_file(dense(colour="red")))
    with pytest.raises(ModelFileError, match=r"cannot rebuild the model \(Unrecognized keyword"):
        load(path)


# Keras 2, from files as it writes them


def keras2_output(tmp_path: Path, config: Config, weights: dict[str, list[Any]], x: Any) -> Any:
    path = tmp_path / "a.h5"
    path.write_bytes(h5_file(config, weights=weights))
    loaded = load(path).keras
    assert loaded is not None
    return np.asarray(loaded(x, training=False))


X = np.random.default_rng(2).normal(size=(2, 4, 4, 2)).astype("f4")


def test_keras2_depthwise(tmp_path: Path) -> None:
    """`groups`, which made Keras 3 refuse every Keras 2 model with a depthwise convolution."""
    kernel = np.random.default_rng(3).normal(size=(2, 2, 2, 1)).astype("f4")
    config = keras2("dw", "DepthwiseConv2D", kernel_size=[2, 2], groups=1, use_bias=False)
    got = keras2_output(tmp_path, config, {"dw": [kernel]}, X)
    windows = np.lib.stride_tricks.sliding_window_view(X, (2, 2), axis=(1, 2))
    np.testing.assert_allclose(got, np.einsum("nhwcij,ijc->nhwc", windows, kernel[..., 0]), 1e-5)


def test_keras2_batch_normalization_axis(tmp_path: Path) -> None:
    gamma, beta, mean, variance = np.array([[2, 3], [1, -1], [0.5, 0], [4, 9]], np.float32)
    config = keras2("bn", "BatchNormalization", axis=[3], epsilon=0.0)
    got = keras2_output(tmp_path, config, {"bn": [gamma, beta, mean, variance]}, X)
    np.testing.assert_allclose(got, (X - mean) / np.sqrt(variance) * gamma + beta, 1e-5, 1e-6)


def test_keras2_leaky_relu_slope(tmp_path: Path) -> None:
    got = keras2_output(tmp_path, keras2("act", "LeakyReLU", alpha=0.25), {}, X)
    np.testing.assert_array_equal(got, np.where(X > 0, X, X * np.float32(0.25)))


def test_keras2_sequential_with_its_shape_on_the_first_layer(tmp_path: Path) -> None:
    flat = {"class_name": "Flatten", "config": {"name": "flat", "batch_input_shape": SHAPE}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [flat]}}
    np.testing.assert_array_equal(keras2_output(tmp_path, config, {}, X), X.reshape(2, -1))


def test_keras2_operator(tmp_path: Path) -> None:
    config = keras2("sub", "TFOpLambda", function="math.subtract")
    relu = {"class_name": "ReLU", "config": {"name": "relu"}, "name": "relu"}
    call = ["image", 0, 0, {"y": ["relu", 0, 0], "name": None}]
    config["config"]["layers"][1]["inbound_nodes"] = [call]
    config["config"]["layers"].append({**relu, "inbound_nodes": [[["image", 0, 0, {}]]]})
    got = keras2_output(tmp_path, config, {}, X)
    np.testing.assert_array_equal(got, np.minimum(X, 0))


# Damage at random


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    import keras

    folder = tmp_path_factory.mktemp("small")
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    suffixes = (".keras", ".h5")
    return {each: quiet_save(net, folder / f"net{each}").read_bytes() for each in suffixes}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_gives_a_model_or_our_error(
    small_files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from(sorted(small_files)))
    content = bytearray(small_files[suffix])
    size = data.draw(st.sampled_from([len(content), len(content) - 1]) | st.integers(0, 2000))
    content = content[:size]
    places = st.integers(0, max(len(content) - 1, 0))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        content[place : place + 1] = bytes([value])
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    try:
        assert load(path).keras is not None
    except EdgeCompressError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1
