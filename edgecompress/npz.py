"""Arrays from an .npz that may be anything: nothing is unpickled, and nothing is allocated before
the declared sizes were compared with the bytes that are there."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ConfigError

Array = npt.NDArray[Any]

MAX_BYTES = 4 << 30
"""All arrays of a file, each as it is stored or as float32, whichever takes more."""

_FORMAT: Any = np.lib.format  # untyped
_HEADERS = {(1, 0): _FORMAT.read_array_header_1_0, (2, 0): _FORMAT.read_array_header_2_0}

# What zipfile and numpy raise on files that are not what they claim to be.
_BROKEN = (
    ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, lzma.LZMAError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


def read(path: Path) -> dict[str, Array]:
    """All arrays of the .npz `path` by name, of the types and shapes they were saved with.

    Raises ConfigError naming the file: missing, damaged, encrypted, with pickled objects, with
    anything but arrays, with a header that claims more than the file holds, or over MAX_BYTES.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such data file; give an .npz with x and y")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(_size(archive, member) for member in members)
            if total > MAX_BYTES:
                raise ValueError(f"{total:,} bytes, more than {MAX_BYTES:,}")
            return {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{path}: not a readable .npz ({reason}); copy it again, or save it with"
            " np.savez(f, x=x, y=y)"
        ) from error


def _size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes that the array takes, here or as float32; ValueError unless its header is true."""
    with archive.open(member.filename) as file:
        shape, dtype = _header(file, member.filename)
        count = math.prod(shape)
        if file.tell() + count * dtype.itemsize != member.file_size:
            raise ValueError(
                f"{member.filename} claims {count * dtype.itemsize:,} bytes,"
                f" {member.file_size - file.tell():,} are there"
            )
    return max(member.file_size, 4 * count)


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = _FORMAT.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name} has the unknown format version {version}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never unpickled")
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} claims the shape {shape}")
    return shape, dtype


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member.filename) as file:
        array: Array = _FORMAT.read_array(file, allow_pickle=False)
        return array
