"""Model files to Artifacts: Keras 3 `.keras`, `.h5` of Keras 2 and 3, SavedModel, `.tflite`.

A file is data here, never a program. The container is checked first, then the model's
configuration is rebuilt from an allow-list (`bridge`), and only then is Keras imported to build the
model and take the weights. The functions inside a SavedModel are never loaded: its Keras
metadata and its variables are enough. `limits` says how much a file may claim.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import FLATBUFFER, KERAS_FILE, STEPS, Artifact, Step
from edgecompress.errors import ModelFileError, UnsupportedError
from edgecompress.loading import allowlist, bridge, construct, hdf5, limits, savedmodel
from edgecompress.strict import build, nested

if TYPE_CHECKING:
    import keras

Array: TypeAlias = npt.NDArray[Any]

TFLITE_MAGIC = b"TFL3"
MEMBERS = frozenset({"config.json", "metadata.json", "model.weights.h5"})
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    OverflowError,
)
BROKEN_MODEL = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    OSError,
    ArithmeticError,
    AssertionError,
)
"""What zipfile and Keras raise on input that is not what it claims to be."""


@dataclass(frozen=True)
class _Record:
    """steps.json of a run directory; `sha256` says which model files belong to it."""

    name: str
    steps: tuple[Step, ...]
    sha256: Mapping[str, str]


def load(path: str | Path, *, name: str | None = None) -> Artifact:
    """The model in the file or folder `path` as an Artifact named `name`.

    `path` is a model file, a SavedModel folder, or a run directory (`Artifact.save`), which keeps
    its name and its steps. `name` is the file's name without suffix unless given. A Keras model
    comes back as a functional Keras 3 model in inference form (not compiled), in float32, with
    `.inputs` and `.outputs`; a `.tflite` as bytes. Raises ModelFileError for a file that is
    missing, damaged, unsafe or holds NaN or infinite weights, UnsupportedError for a layer, type
    or input shape that cannot be compressed; the message starts with the path.
    """
    path = Path(path)
    if (path / STEPS).is_file():
        return _run_directory(path, name)
    try:
        model = _reader(path)(path)
    except (ModelFileError, UnsupportedError) as error:
        raise type(error)(_printable(f"{path}: {error}")) from error
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read ({error.strerror}); check the file's permissions"
        ) from error
    if name is None:
        name = path.resolve().name if path.is_dir() else path.stem
    if isinstance(model, bytes):
        return Artifact(name, tflite=model)
    return Artifact(name, keras=model)


def load_flatbuffer(path: Path) -> Artifact:
    """The quantised model in `path`, a `.tflite` or a run directory, without its Keras model.

    Like `load`, but TensorFlow and Keras stay out of it. Raises ModelFileError for a file that is
    missing or damaged, and for a run directory without a quantised model.
    """
    if not (path / STEPS).is_file():
        return load(path)
    record = _record(path)
    flatbuffer = _recorded(path, record, FLATBUFFER)
    if flatbuffer is None:
        raise ModelFileError(f"{path}: holds no {FLATBUFFER}; compress again")
    return Artifact(record.name, tflite=load(flatbuffer).tflite, steps=record.steps)


def _record(folder: Path) -> _Record:
    return build(
        _Record,
        _json((folder / STEPS).read_bytes(), str(folder / STEPS)),
        where=str(folder / STEPS),
        error=ModelFileError,
    )


def _run_directory(folder: Path, name: str | None) -> Artifact:
    record = _record(folder)
    if not {KERAS_FILE, FLATBUFFER} & record.sha256.keys():
        raise ModelFileError(f"{folder}: holds no model; run the compression again")
    keras_file, flatbuffer = (_recorded(folder, record, each) for each in (KERAS_FILE, FLATBUFFER))
    return Artifact(
        record.name if name is None else name,
        keras=load(keras_file).keras if keras_file else None,
        tflite=load(flatbuffer).tflite if flatbuffer else None,
        steps=record.steps,
    )


def _recorded(folder: Path, record: _Record, name: str) -> Path | None:
    """The model file `name` if the run wrote one, after a check that it is still that one."""
    path = folder / name
    if name not in record.sha256:
        return None
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file, though {STEPS} lists it; compress again")
    if sha256(path.read_bytes()).hexdigest() != record.sha256[name]:
        raise ModelFileError(
            f"{path}: not the file that {STEPS} lists (its SHA-256 differs); compress again"
        )
    return path


def _reader(path: Path) -> Callable[[Path], keras.Model | bytes]:
    if not path.exists():
        raise ModelFileError("no such file; check the path")
    if path.is_dir():
        return _read_saved_model
    readers: dict[str, Callable[[Path], keras.Model | bytes]] = {
        ".keras": _read_keras,
        ".h5": _read_h5,
        ".hdf5": _read_h5,
        ".tflite": _read_tflite,
    }
    if not path.is_file():
        raise ModelFileError("neither a file nor a folder; give a model file")
    if path.suffix.lower() not in readers:
        known = ", ".join(readers)
        raise ModelFileError(f"unknown kind of model file; give a {known} file or a SavedModel")
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError("the file is empty; save or download the model again")
    _check_size("the file", size)
    return readers[path.suffix.lower()]


def _check_size(what: str, size: int) -> None:
    if size > limits.MAX_BYTES:
        raise ModelFileError(
            f"{what} declares {size / (1 << 20):.0f} MiB, more than the"
            f" {limits.MAX_BYTES >> 20} MiB allowed; this is no model for a microcontroller"
        )


def _check_text(what: str, size: int) -> None:
    if size > limits.MAX_TEXT_BYTES:
        raise ModelFileError(
            f"{what} takes {size / (1 << 20):.0f} MiB, more than the"
            f" {limits.MAX_TEXT_BYTES >> 20} MiB allowed for text; save the model again"
        )


def _allowed(size: int) -> int:
    """Bytes of weights that a file of `size` bytes may declare."""
    return min(limits.MAX_BYTES, max(limits.SMALL_BYTES, limits.MAX_RATIO * size))


# .tflite


def _read_tflite(path: Path) -> bytes:
    from edgecompress import tflite

    data = path.read_bytes()
    if data[4:8] != TFLITE_MAGIC:
        raise ModelFileError(
            "not a TensorFlow Lite file (no 'TFL3' at byte 4); convert or download it again"
        )
    tflite.read(data)
    return data


# .keras


def _read_keras(path: Path) -> keras.Model:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            metadata = archive.read("metadata.json")
            config = archive.read("config.json")
            weights = archive.read("model.weights.h5")
    except BROKEN_ZIP as error:
        raise ModelFileError(
            f"not a .keras file, or damaged ({_first_line(error)}); save it again with model.save"
        ) from error
    version = str(_json(metadata, "metadata.json").get("keras_version"))
    if not version.startswith("3."):
        raise ModelFileError(f"a .keras file of Keras {version}; with Keras 2, save it as .h5")
    elements = hdf5.check(weights, max_bytes=_allowed(path.stat().st_size))
    configuration = _configuration(config, "config.json", keras=3)
    return _assemble(configuration, elements, lambda model: model.load_weights(str(path)))


def _check_members(archive: zipfile.ZipFile) -> None:
    """Refuse, on the directory alone, an archive that holds too much or anything unexpected."""
    members = archive.infolist()
    names = [member.filename for member in members]
    strange = sorted(set(names) - MEMBERS)
    if strange:
        raise ModelFileError(
            f"unexpected member '{strange[0]}' in the archive (layers with files of their own are"
            " not supported); save it again with model.save"
        )
    for name in sorted(MEMBERS):
        if names.count(name) != 1:
            found = "no" if name not in names else "more than one"
            raise ModelFileError(f"{found} {name} in the archive; save it again with model.save")
    _check_size("the archive", sum(member.file_size for member in members))
    for member in members:
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > limits.SMALL_BYTES and ratio > limits.MAX_RATIO:
            raise ModelFileError(
                f"{member.filename} would unpack to more than {limits.MAX_RATIO} times its size;"
                " save it again with model.save"
            )
        if member.filename.endswith(".json"):
            _check_text(member.filename, member.file_size)


# .h5


def _read_h5(path: Path) -> keras.Model:
    data = path.read_bytes()
    elements = hdf5.check(data, max_bytes=_allowed(len(data)))
    config, version, weights = hdf5.read_model(data)
    if config is None:
        raise ModelFileError(
            "holds weights only, no model; save the whole model with model.save(), not"
            " save_weights()"
        )
    generation = 3 if str(version).startswith("3.") else 2
    configuration = _configuration(config, "model_config", keras=generation)
    return _assemble(configuration, elements, lambda model: _assign_hdf5(model, weights))


def _assign_hdf5(model: keras.Model, groups: Mapping[str, list[Array]]) -> None:
    for layer in model.layers:
        variables = [*layer.trainable_weights, *layer.non_trainable_weights]
        _assign(layer.name, variables, groups.get(layer.name, []))


# SavedModel


def _read_saved_model(path: Path) -> keras.Model:
    for part in ("saved_model.pb", "variables/variables.index"):
        if not (path / part).is_file():
            raise ModelFileError(
                f"a folder without {part}, so no SavedModel; give the folder that"
                " model.save(folder) of Keras 2 wrote"
            )
    size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    _check_size("the folder", size)
    metadata = path / savedmodel.METADATA
    if metadata.is_file():
        _check_text(metadata.name, metadata.stat().st_size)
    saved = savedmodel.read(path)
    forbidden = sorted(saved.operators & allowlist.GRAPH_OPS)
    if forbidden:
        raise ModelFileError(
            f"its graph uses {forbidden[0]}, which runs Python or reaches for files: refused;"
            " build the model from Keras layers"
        )
    configuration = _configuration(saved.config, "the metadata", keras=2)
    return _assemble(configuration, saved.elements, lambda model: _assign_saved(model, saved, ()))


def _assign_saved(model: keras.Model, saved: savedmodel.SavedModel, outer: tuple[str, ...]) -> None:
    import keras

    for layer in model.layers:
        where = (*outer, layer.name)
        if isinstance(layer, keras.Model):
            _assign_saved(layer, saved, where)
        elif layer.weights:
            _assign("/".join(where), layer.weights, saved.weights(where))


# all of Keras


def _configuration(text: str | bytes, where: str, *, keras: int) -> dict[str, Any]:
    """The Keras 3 configuration in the JSON `text`, which is found at `where` in the file."""
    return bridge.keras3_config(_json(text, where), keras=keras)


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    _check_text(where, len(text))
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise ModelFileError(
            f"{where} is no JSON ({_first_line(error)}); save the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{where} holds no object; save the model again")
    if nested(value, limits.MAX_NESTING):
        raise _too_deep(where)
    return value


def _too_deep(where: str) -> ModelFileError:
    return ModelFileError(
        f"{where} nests its objects deeper than any model that Keras saves; save the model again"
    )


def _assemble(
    configuration: dict[str, Any], elements: int, fill: Callable[[keras.Model], None]
) -> keras.Model:
    """Build the model, let `fill` set its weights (the file has `elements`), check them."""
    import keras
    import tensorflow as tf

    try:
        model = construct.build(configuration, elements=elements)
        fill(model)
        construct.finish(model)
    except (*BROKEN_MODEL, tf.errors.OpError) as error:
        raise ModelFileError(
            f"Keras {keras.__version__} cannot rebuild the model ({_first_line(error)});"
            " save it again with a current Keras"
        ) from error
    _check_finite(model, "")
    if isinstance(model, keras.Sequential):
        return keras.Model(_single(model.inputs), _single(model.outputs), name=model.name)
    return model


def _assign(where: str, variables: list[keras.Variable], arrays: list[Array]) -> None:
    expected = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in arrays]
    if expected != found:
        raise ModelFileError(
            f"layer '{where}' needs weights of shapes {expected}, the file has {found};"
            " save the model again"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _check_finite(model: keras.Model, outer: str) -> None:
    import keras

    for layer in model.layers:
        where = f"{outer}{layer.name}"
        if isinstance(layer, keras.Model):
            _check_finite(layer, f"{where}/")
            continue
        for variable in layer.weights:
            values = variable.numpy()
            bad = values.size - np.count_nonzero(np.isfinite(values))
            if bad:
                raise ModelFileError(
                    f"layer '{where}', variable '{variable.name}': {bad} of {values.size} values"
                    " are NaN or infinite; train again, or take an earlier checkpoint"
                )


def _single(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _printable(text: str) -> str:
    """`text` on one line: names in a hostile file may hold line ends and stray bytes."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _first_line(error: BaseException) -> str:
    text = str(error).rpartition("Exception encountered: ")[2].strip() or type(error).__name__
    return text.splitlines()[0][:200]
