"""A convolution with its constants, checked, and what several kernels pack of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.calls import Array, Site, Value
from edgecompress.backends.aot.fixedpoint import (
    INTEGERS,
    Multiplier,
    activation_range,
    zero_point_of,
)
from edgecompress.backends.aot.sliding import Shape
from edgecompress.tflite import Tensor

Ints: TypeAlias = npt.NDArray[Any]

MOST_SUM = (1 << 30) - (1 << 14)
MOST_NIBBLE_SUM = 1 << 27
MOST_SHIFT = 22


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution with its constants, checked.

    `weights` is [output channel, kernel row, kernel column, input channel of the group]; output
    channels are spread evenly over `groups`. `bias` is one value per output channel, or None.
    """

    site: Site
    data: Tensor
    out: Tensor
    shape: Shape
    weights: Ints
    nibbles: bool
    bias: Ints | None
    groups: int
    activation: object

    @property
    def flat(self) -> Ints:
        """The weights, one row per output channel."""
        return self.weights.reshape(len(self.weights), -1)


def folded_bias(layer: Layer) -> Ints:
    """bias - input zero point * sum of the weights, per output channel (int64, exact)."""
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    return np.asarray(bias - zero_point_of(layer.data) * layer.flat.sum(axis=1, dtype=np.int64))


def is_tame(layer: Layer, multipliers: Sequence[Multiplier]) -> bool:
    """Whether factors and accumulators keep the bounds of ec_requantize_right for any input."""
    reach = 128 * np.abs(layer.flat.astype(np.int64)).sum(axis=1)
    total = reach + np.abs(folded_bias(layer))
    return bool(
        all(not value or -MOST_SHIFT <= shift <= -1 for value, shift in multipliers)
        and total.max() < MOST_SUM
        and (not layer.nibbles or reach.max() < MOST_NIBBLE_SUM)
    )


def tame(layer: Layer, multipliers: Sequence[Multiplier]) -> dict[str, Value]:
    """The fields that ec_conv_t and ec_depthwise_t share."""
    low, high = activation_range(layer.activation, layer.out)
    return {
        "shape": layer.shape.struct(),
        "in_zero": zero_point_of(layer.data),
        "out_zero": zero_point_of(layer.out),
        "limited": int((low, high) != INTEGERS["int8"]),
        "low": low,
        "high": high,
        "reverse": 0,
        "bias": Array("int32_t", folded_bias(layer).astype(np.int32)),
        "multipliers": Array("int32_t", np.array([m.value for m in multipliers], np.int32)),
        "shifts": Array("int8_t", np.array([-m.shift if m.value else 1 for m in multipliers])),
    }


def words(weights: Ints, *, nibbles: bool) -> Ints:
    """The last axis, 4 weights to a word (or 8: four low nibbles, then four high ones)."""
    if nibbles:
        parts = weights.reshape(*weights.shape[:-1], -1, 2, 4).astype(np.uint8)
        weights = (parts[..., 0, :] & 15) | (parts[..., 1, :] << 4)
        weights = weights.reshape(*weights.shape[:-2], -1)
    return np.ascontiguousarray(weights).view("<u4")


def padded(weights: Ints, *, axis: int, multiple: int, fill: int = 0) -> Ints:
    """`weights` with `fill` behind `axis`, to a multiple of its size."""
    widths = [(0, 0)] * weights.ndim
    widths[axis] = (0, -weights.shape[axis] % multiple)
    return np.pad(weights, widths, constant_values=fill)


def filler(weights: Ints) -> int:
    """A value for weights that nobody reads or that meet an input of 0: one that is there, so that
    few values stay as few, and the least, so that no sum exceeds those of `weights`."""
    least = int(weights.reshape(-1)[np.abs(weights.astype(np.int64)).argmin()])
    return least if least > np.iinfo(np.int8).min else 0
