"""Files that say .npz and are not what they say, each broken in one way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

CENTRAL = b"PK\x01\x02"
FLAGS, METHOD = 8, 10
"""Places in an entry of a ZIP's central directory (APPNOTE.TXT 4.3.12)."""


def packed(**arrays: Any) -> bytes:
    """A good, compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    """A ZIP with `members`; `x` is stored as x.npy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """The header of an .npy that claims `shape`."""
    buffer = io.BytesIO()
    claim = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, claim)
    return buffer.getvalue()


def _patched(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def _listed(data: bytes, field: int, value: int) -> bytes:
    return _patched(data, data.index(CENTRAL) + field, value)


def _deflated(data: bytes) -> int:
    """Where the first member's content begins."""
    name, extra = (int.from_bytes(data[i : i + 2], "little") for i in (26, 28))
    return 30 + name + extra


GOOD = packed(x=np.arange(300, dtype=np.float32).reshape(100, 3), y=np.arange(100))
DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    # what: (the file, what the error says of it)
    "a block type that is none": (
        lambda: _patched(GOOD, _deflated(GOOD), 0xFF),
        "Error -3 while decompressing data: invalid block type",
    ),
    "encrypted": (
        lambda: _listed(GOOD, FLAGS, 1),
        "File 'x.npy' is encrypted, password required for extraction",
    ),
    "compressed in an unknown way": (
        lambda: _listed(GOOD, METHOD, 99),
        "That compression method is not supported",
    ),
    "truncated": (lambda: GOOD[: len(GOOD) // 2], "File is not a zip file"),
    "36 TiB": (
        lambda: zipped(x=header((10_000_000_000, 1000)) + bytes(64)),
        "x.npy claims 40,000,000,000,000 bytes, 64 are there",
    ),
    "more than fits memory as float32": (
        lambda: zipped(x=header((1 << 31,), "|V0")),
        "8,589,934,592 bytes, more than 4,294,967,296",
    ),
    "negative sides": (
        lambda: zipped(x=header((-2, -8)) + bytes(64)),
        "x.npy claims the shape (-2, -8)",
    ),
    "another version": (
        lambda: zipped(x=b"\x93NUMPY\x09\x00" + header((1,))[8:]),
        "x.npy has the unknown format version (9, 0)",
    ),
    "a header that is no Python": (
        lambda: zipped(x=header((4,)).replace(b"{'descr'", b"{'''''''") + bytes(16)),
        "",  # the words are those of the Python version
    ),
    "a type that is none": (
        lambda: zipped(x=header((4,)).replace(b"'<f4'", b"()   ") + bytes(16)),
        "tuple index out of range",
    ),
    "a header that nests": (
        lambda: zipped(x=header((4,), "-" * 9000).replace(b"'-", b"  ").replace(b"-'", b"-1")),
        "",  # likewise
    ),
    "no array": (lambda: zipped(x=b"hello, world"), "the magic string is not correct"),
    "an empty member": (lambda: zipped(x=b""), "EOF: reading magic string"),
    "one array": (lambda: header((1,)) + bytes(4), "File is not a zip file"),
    "nothing": (lambda: b"", "File is not a zip file"),
    "text": (lambda: b"text", "File is not a zip file"),
}
