"""What the operators that change shapes share: checks, strides, how far an output may overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.calls import Array, Reuse, Site
from edgecompress.tflite import DTYPES, Tensor
from edgecompress.tflite.program import size_of

Offsets = npt.NDArray[np.int64]

MAX_BYTES = 1 << 30
"""Bytes of a tensor: offsets in it fit 32 bits."""
_UNITS = 1 << 20


def checked(site: Site, tensor: Tensor, *types: str) -> Tensor:
    """`tensor`. Raises UnsupportedError unless its type is one of `types` and no axis is empty."""
    site.require(
        tensor.dtype in types,
        f"{tensor.name!r} is {tensor.dtype}; supported: {', '.join(types)}",
    )
    site.require(
        all(size > 0 for size in tensor.shape),
        f"{tensor.name!r} has the shape {list(tensor.shape)}; axes of size 0 are not supported",
    )
    site.require(
        size_of(tensor.dtype, tensor.shape) <= MAX_BYTES,
        f"{tensor.name!r} takes more than {MAX_BYTES >> 20} MiB",
    )
    return tensor


def same_type(site: Site, data: Tensor, result: Tensor) -> None:
    """Raise UnsupportedError unless both tensors have one type and one scale and zero point.

    A tensor without a scale goes with any.
    """
    site.require(
        data.dtype == result.dtype,
        f"{data.dtype} becomes {result.dtype}; input and output must have the same type",
    )
    site.require(
        not data.scales
        or not result.scales
        or (data.scales, data.zero_points) == (result.scales, result.zero_points),
        f"scales and zero points of {data.name!r} and {result.name!r} differ; they must be equal"
        " (TFLM moves the stored values as they are)",
    )


def integers(site: Site, place: int) -> list[int]:
    """The constant int32 or int64 values of input `place`, flattened."""
    checked_type = site.arg(place).dtype in ("int32", "int64")
    site.require(checked_type, f"input {place} is {site.arg(place).dtype}; supported: int32, int64")
    return [int(value) for value in site.constant(place).reshape(-1)]


def axis_of(site: Site, axis: int, rank: int) -> int:
    """`axis` counted from the front; it may be negative."""
    site.require(-rank <= axis < rank, f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def option(site: Site, name: str) -> int:
    """An option that is a whole number."""
    value = site.op.options.get(name)
    site.require(isinstance(value, int), f"option {name} is {value!r}; a whole number is needed")
    assert isinstance(value, int)
    return value


def width_of(tensor: Tensor) -> int:
    """Bytes of an element."""
    return DTYPES[tensor.dtype].bits // 8


def strides_of(shape: Sequence[int], unit: int = 1) -> list[int]:
    """Distance between neighbours along each axis, in units of which an element takes `unit`."""
    return [math.prod(shape[axis + 1 :]) * unit for axis in range(len(shape))]


def table(rows: Sequence[Sequence[int]]) -> Array:
    """Rows of numbers as one array of int32."""
    return Array("int32_t", np.asarray(rows, np.int32).reshape(-1))


def grid(counts: Sequence[int], strides: Sequence[int]) -> Offsets | None:
    """The offset of every place of nested loops, in order; None where there are too many."""
    if math.prod(counts) > _UNITS:
        return None
    found = np.zeros(1, np.int64)
    for count, stride in zip(counts, strides, strict=True):
        found = (found[:, None] + np.arange(count, dtype=np.int64) * stride).reshape(-1)
    return found


def forward_lead(reads: Offsets, writes: Offsets, size: int) -> int:
    """The least offset(input) - offset(output) with which no unit is overwritten unread.

    Unit i reads from byte `reads[i]` of the input on, then writes `size` bytes from `writes[i]`
    of the output on; units run in order. At least 0: both may begin
    together, which is as good as any lower value.
    """
    written = np.maximum.accumulate(writes)[:-1] + size
    unread = np.minimum.accumulate(reads[::-1])[::-1][1:]
    return int((written - unread).max(initial=0))


def backward_lead(reads: Offsets, writes: Offsets, size: int, *, read: int, written: int) -> int:
    """The least end(output) - end(input) when the same units run from the last to the first.

    Unit i reads up to byte `reads[i] + size` here; `read` and `written` are the bytes of the whole
    input and output. At least what lets both begin together.
    """
    unread = np.maximum.accumulate(reads)[:-1] + size
    low = np.minimum.accumulate(writes[::-1])[::-1][1:]
    return int((unread - low).max(initial=0)) + written - read


def both_ways(
    reads: Offsets | None, writes: Offsets | None, size: int, *, data: Tensor, result: Tensor
) -> tuple[Reuse, ...]:
    """How far `result` may lie over `data` when each unit moves `size` bytes, read then written."""
    if reads is None or writes is None:
        return ()
    backward = backward_lead(reads, writes, size, read=data.nbytes, written=result.nbytes)
    return (Reuse(0, 0, forward_lead(reads, writes, size), backward),)
