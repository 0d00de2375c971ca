"""HDF5 files from strangers: checked in a process of their own, then read.

The HDF5 library crashes on some damaged files (a flipped byte in the heap of an attribute is
enough: HDF5 1.14 under h5py 3.16), so everything in a file is read once in a child process, where a
crash is a message, before it is read here.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ModelFileError

if TYPE_CHECKING:
    import h5py

Array: TypeAlias = npt.NDArray[Any]

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_DEPTH = 64
TIMEOUT_S = 300
REFUSED = 3
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from edgecompress.loading.hdf5 import child; sys.exit(child(int(sys.argv[2])))"
)
BROKEN = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
)
"""What h5py raises on a file that is not what it claims to be."""


def check(data: bytes, *, max_bytes: int) -> None:
    """Read all of the HDF5 file `data` in a child process; it may declare `max_bytes` of arrays.

    Raises ModelFileError when it is damaged, crashes the library, is too large, or holds soft or
    external links, external storage or virtual datasets, all of which lead out of the file.
    """
    if not data.startswith(MAGIC):
        raise ModelFileError("not an HDF5 file (wrong first bytes); save or download it again")
    command = [sys.executable, "-I", "-c", CHILD, json.dumps(sys.path), str(max_bytes)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise _damaged(f"not read within {TIMEOUT_S} s") from error
    if done.returncode == REFUSED:
        raise ModelFileError(done.stdout.decode("utf-8", "replace"))
    if done.returncode != 0:
        raise _damaged(f"the HDF5 library ended with status {done.returncode}")


def child(max_bytes: int) -> int:
    """The child's part of `check`: file on stdin, refusal on stdout, exit status returned."""
    try:
        with _open(sys.stdin.buffer.read()) as file:
            _visit(file, "", max_bytes, 0)
    except ModelFileError as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "replace"))
        return REFUSED
    except BROKEN as error:
        sys.stdout.buffer.write(str(_damaged(error)).encode("utf-8", "replace"))
        return REFUSED
    return 0


def read_model(data: bytes) -> tuple[str | None, str | None, dict[str, list[Array]]]:
    """(model_config, keras_version, weights by top-level layer) of a Keras `.h5`, after `check`.

    Each list has the layer's trainable, then its other weights, as Keras 2 and 3 write them.
    Raises ModelFileError when the weights are missing or not where Keras puts them.
    """
    try:
        with _open(data) as file:
            config = _text(file.attrs.get("model_config"))
            version = _text(file.attrs.get("keras_version"))
            return config, version, {} if config is None else _weights(file["model_weights"])
    except BROKEN as error:
        raise _damaged(error) from error


def _open(data: bytes) -> h5py.File:
    import h5py

    return h5py.File(io.BytesIO(data), "r")


def _damaged(reason: BaseException | str) -> ModelFileError:
    text = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return ModelFileError(f"a damaged HDF5 file ({text[:200]}); save or download the model again")


def _visit(group: h5py.Group, where: str, left: int, depth: int) -> int:
    """Read everything below `group`; what is left of the allowed bytes."""
    import h5py

    if depth > MAX_DEPTH:
        raise ModelFileError(f"HDF5 groups nested deeper than {MAX_DEPTH}; save the model again")
    dict(group.attrs)
    for name in group:
        path = f"{where}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
            raise ModelFileError(
                f"HDF5 object '{path}' is a link ({type(link).__name__}), which a model never"
                " needs: refused; save the model again"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            left = _visit(item, path, left, depth + 1)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ModelFileError(
                    f"HDF5 dataset '{path}' keeps its data in another file: refused;"
                    " save the model again"
                )
            left -= item.nbytes
            if left < 0:
                raise ModelFileError(
                    f"HDF5 dataset '{path}' of shape {item.shape} exceeds the size allowed; this"
                    " is no model for a microcontroller"
                )
            np.asarray(item)
    return left


def _weights(root: h5py.Group) -> dict[str, list[Array]]:
    weights = {}
    for name in _names(root, "layer_names"):
        group = root[name]
        weights[name] = [np.asarray(group[each]) for each in _names(group, "weight_names")]
    return weights


def _names(group: h5py.Group, key: str) -> list[str]:
    """A list of names in an attribute, which Keras splits into key0, key1, ... when it is long."""
    if key in group.attrs:
        return [str(_text(name)) for name in group.attrs[key]]
    names: list[str] = []
    part = 0
    while f"{key}{part}" in group.attrs:
        names += [str(_text(name)) for name in group.attrs[f"{key}{part}"]]
        part += 1
    if part == 0:
        raise KeyError(f"no attribute {key} in {group.name}")
    return names


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return None if value is None else str(value)
