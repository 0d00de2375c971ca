"""HDF5 files from strangers: checked in a process of their own, then read.

The HDF5 library crashes on some damaged files (a flipped byte in the heap of an attribute is
enough: HDF5 1.14 under h5py 3.16), so everything in a file is read once in a child process, where a
crash is a message, before it is read here. The child's memory is limited, and it takes only what
Keras writes: groups, each in one place, datasets of numbers, and attributes of text or numbers.
"""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ModelFileError
from edgecompress.loading import limits
from edgecompress.worker import limit_memory

if TYPE_CHECKING:
    import h5py

Array: TypeAlias = npt.NDArray[Any]

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_DEPTH = 64
TIMEOUT_S = 300
REFUSED = 3
HEADROOM = 2 << 30
"""Bytes of address space for the child beyond the file and what it may declare."""
NUMBERS = "biuf"
"""Kinds of numpy types that Keras stores weights in."""
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from edgecompress.loading.hdf5 import child; sys.exit(child(*map(int, sys.argv[2:])))"
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


def check(data: bytes, *, max_bytes: int) -> int:
    """Read all of the HDF5 file `data` in a child process; it may declare `max_bytes` of arrays.

    Returns how many elements its datasets have. Raises ModelFileError when it is damaged, crashes
    the library, is too large, leads out of the file (soft or external links, external storage,
    virtual datasets), or holds what no model does: anything but numbers in a dataset or the same
    object in two places.
    """
    if not data.startswith(MAGIC):
        raise ModelFileError("not an HDF5 file (wrong first bytes); save or download it again")
    memory = HEADROOM + len(data) + max_bytes
    command = [sys.executable, "-I", "-c", CHILD, json.dumps(sys.path), str(max_bytes), str(memory)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise _damaged(f"not read within {TIMEOUT_S} s") from error
    if done.returncode == REFUSED:
        raise ModelFileError(done.stdout.decode("utf-8", "replace"))
    if done.returncode != 0:
        raise _damaged(f"the HDF5 library ended with status {done.returncode}")
    return int(done.stdout)


def child(max_bytes: int, memory: int) -> int:
    """The child's part of `check`: file on stdin, count or refusal on stdout, exit status returned.

    `memory` limits the address space, in bytes.
    """
    limit_memory(memory)
    walk = _Walk(max_bytes)
    try:
        with _open(sys.stdin.buffer.read()) as file:
            walk.group(file, "", 0)
    except ModelFileError as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "replace"))
        return REFUSED
    except BROKEN as error:
        sys.stdout.buffer.write(str(_damaged(error)).encode("utf-8", "replace"))
        return REFUSED
    sys.stdout.buffer.write(str(walk.elements).encode())
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


@dataclass
class _Walk:
    """A walk through a file: the bytes it may still declare, what it has seen and counted."""

    left: int
    elements: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)

    def group(self, group: h5py.Group, where: str, depth: int) -> None:
        """Read everything below `group`."""
        import h5py

        if depth > MAX_DEPTH:
            raise ModelFileError(
                f"HDF5 groups nested deeper than {MAX_DEPTH}; save the model again"
            )
        self._once(group, where)
        self._attributes(group, where)
        for name in group:
            path = f"{where}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
                raise _refused(
                    f"object '{path}' is a link ({type(link).__name__}), which a model never needs"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                self.group(item, path, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._dataset(item, path)
            else:
                raise _refused(f"object '{path}' is neither a group nor a dataset")

    def _dataset(self, item: h5py.Dataset, path: str) -> None:
        self._once(item, path)
        self._attributes(item, path)
        if item.external or item.is_virtual:
            raise _refused(f"dataset '{path}' keeps its data in another file")
        if item.dtype.kind not in NUMBERS:
            raise _refused(f"dataset '{path}' holds no numbers but {item.dtype}")
        self._charge(f"dataset '{path}' of shape {item.shape}", item.nbytes)
        if item.chunks and math.prod(item.chunks) * item.dtype.itemsize > max(self.left, 0):
            raise _refused(f"dataset '{path}' has chunks of shape {item.chunks}")
        self.elements += item.size or 0
        np.asarray(item)

    def _attributes(self, item: h5py.Group | h5py.Dataset, path: str) -> None:
        import h5py

        for name in item.attrs:
            what = f"attribute '{name}' of '{path or '/'}'"
            identifier = item.attrs.get_id(name)
            dtype = identifier.dtype
            if dtype.kind not in NUMBERS and h5py.check_string_dtype(dtype) is None:
                raise _refused(f"{what} holds neither text nor numbers but {dtype}")
            size = math.prod(identifier.shape or ()) * dtype.itemsize
            if size <= limits.MAX_TEXT_BYTES:
                texts = np.ravel(item.attrs[name])
                size = max(size, sum(map(len, texts)) if dtype.kind == "O" else 0)
            if size > limits.MAX_TEXT_BYTES:
                raise _refused(f"{what} takes {size >> 20} MiB")

    def _charge(self, what: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ModelFileError(
                f"HDF5 {what} exceeds the size allowed; this is no model for a microcontroller"
            )

    def _once(self, item: h5py.Group | h5py.Dataset, path: str) -> None:
        import h5py

        info = h5py.h5o.get_info(item.id)
        if (info.fileno, info.addr) in self.seen:
            raise _refused(f"object '{path}' is in the file twice (a hard link)")
        self.seen.add((info.fileno, info.addr))


def _refused(what: str) -> ModelFileError:
    return ModelFileError(f"HDF5 {what}: refused; save the model again")


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
