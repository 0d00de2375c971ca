"""The operators that the ahead-of-time backend knows."""

from __future__ import annotations

from edgecompress.backends.aot import (
    activation,
    conversion,
    convolution,
    elementwise,
    matrix,
    pooling,
    recurrent,
    reduction,
    resize,
    shaping,
    softmax,
)
from edgecompress.backends.aot.calls import Lowering

OPERATORS: dict[str, Lowering] = {
    **activation.OPERATORS,
    **conversion.OPERATORS,
    **elementwise.OPERATORS,
    **matrix.OPERATORS,
    **convolution.OPERATORS,
    **pooling.OPERATORS,
    **recurrent.OPERATORS,
    **reduction.OPERATORS,
    **resize.OPERATORS,
    **shaping.OPERATORS,
    **softmax.OPERATORS,
}
"""Operator kind -> the function that lowers it."""
