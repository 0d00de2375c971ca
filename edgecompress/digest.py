"""What tells texts and arrays apart in a few letters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def digest(*parts: str | Array) -> str:
    """SHA-256 (hex) of texts and arrays, their types and shapes included."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(f"text {len(part)} {part}".encode())
        else:
            found.update(f"array {part.dtype} {part.shape} ".encode())
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
