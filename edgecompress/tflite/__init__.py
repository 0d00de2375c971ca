"""`.tflite` files as frozen Programs."""

from __future__ import annotations

from edgecompress.tflite.program import DTYPES, Op, Options, Program, Tensor
from edgecompress.tflite.read import read
from edgecompress.tflite.write import write

__all__ = ["DTYPES", "Op", "Options", "Program", "Tensor", "read", "write"]
