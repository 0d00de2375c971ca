"""Lowering of RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.calls import Array, Call, Lowering, Site, Struct, Value
from edgecompress.backends.aot.shapes import both_ways, checked, integers, same_type, width_of
from edgecompress.tflite import Tensor

_MOST = 1 << 16
_ONE = np.float32(1)
_HALF = np.float32(0.5)


def _images(site: Site, *types: str) -> tuple[Tensor, Tensor, bool, bool]:
    """Input, output, align_corners, half_pixel_centers."""
    data = checked(site, site.arg(0), *types)
    result = checked(site, site.result(), data.dtype)
    same_type(site, data, result)
    shapes = f"shapes {list(data.shape)} -> {list(result.shape)}"
    site.require(
        len(data.shape) == len(result.shape) == 4, f"{shapes}; 4 axes are supported (NHWC)"
    )
    site.require(
        data.shape[0] == result.shape[0] and data.shape[3] == result.shape[3],
        f"{shapes}; batch and channels must be equal",
    )
    site.require(
        max(*data.shape[1:3], *result.shape[1:3]) < _MOST,
        f"{shapes}; height and width below {_MOST} are supported",
    )
    size = integers(site, 1)
    site.require(
        tuple(size) == result.shape[1:3],
        f"size {size} and output {list(result.shape)} do not agree",
    )
    options = site.op.options
    return data, result, bool(options["align_corners"]), bool(options["half_pixel_centers"])


def _sizes(data: Tensor, result: Tensor) -> dict[str, Value]:
    return {
        "batches": data.shape[0],
        "in_height": data.shape[1],
        "in_width": data.shape[2],
        "out_height": result.shape[1],
        "out_width": result.shape[2],
    }


def _nearest(site: Site) -> tuple[Call, ...]:
    types = ("int8", "int16", "float32", "int32")
    data, result, align, half = _images(site, *types)
    rows, columns = (
        _nearest_places(data.shape[axis], result.shape[axis], align=align, half=half)
        for axis in (1, 2)
    )
    pixel = data.shape[3] * width_of(data)
    fields: dict[str, Value] = {
        "rows": Array("uint16_t", rows.astype(np.uint16)),
        "columns": Array("uint16_t", columns.astype(np.uint16)),
        **_sizes(data, result),
        "pixel": pixel,
        "reverse": 0,
    }
    reads = writes = None
    if result.elements // result.shape[3] <= 1 << 20:
        first = np.arange(data.shape[0])[:, None] * data.shape[1] + rows
        reads = (first.reshape(-1, 1) * data.shape[2] + columns).reshape(-1) * pixel
        writes = np.arange(len(reads)) * pixel
    return (
        Call(
            "ec_resize_nearest",
            "ec_resize",
            Struct("ec_resize_nearest_t", fields),
            site.op.inputs[:1],
            site.op.outputs[:1],
            reuses=both_ways(reads, writes, pixel, data=data, result=result),
        ),
    )


def _nearest_places(size: int, out: int, *, align: bool, half: bool) -> npt.NDArray[np.int64]:
    """Per place of the output the place of the input (TFLM GetNearestNeighbor, in float32)."""
    scale = _scale(size, out, align=align)
    place = (np.arange(out).astype(np.float32) + (_HALF if half else np.float32(0))) * scale
    found = np.floor(place.astype(np.float64) + 0.5) if align else np.floor(place)
    return np.asarray(np.clip(found, 0, size - 1), np.int64)


def _scale(size: int, out: int, *, align: bool) -> np.float32:
    if align and out > 1:
        return np.float32(size - 1) / np.float32(out - 1)
    return np.float32(size) / np.float32(out)


def _bilinear(site: Site) -> tuple[Call, ...]:
    data, result, align, half = _images(site, "int8", "float32")
    site.require(not (align and half), "align_corners and half_pixel_centers exclude one another")
    if data.dtype == "float32":
        return _bilinear_f32(site, data, result, align=align, half=half)
    scales = [_fixed_scale(data.shape[axis], result.shape[axis], align=align) for axis in (1, 2)]
    for axis, scale in zip((1, 2), scales, strict=True):
        furthest = (result.shape[axis] - 1) * scale + (scale // 2 - 512 if half else 0)
        site.require(
            furthest < 1 << 30 and furthest // 1024 < data.shape[axis],
            f"from {data.shape[axis]} to {result.shape[axis]}: TFLM's scale of 10 bits leads out of"
            " the image; a smaller output is supported",
        )
    fields: dict[str, Value] = {
        **_sizes(data, result),
        "channels": data.shape[3],
        "scale_height": scales[0],
        "scale_width": scales[1],
        "half_pixel": int(half),
    }
    return (
        Call(
            "ec_resize_bilinear_s8",
            "ec_resize",
            Struct("ec_resize_bilinear_t", fields),
            site.op.inputs[:1],
            site.op.outputs[:1],
        ),
    )


def _fixed_scale(size: int, out: int, *, align: bool) -> int:
    """Input places per output place, times 2^10 (TFLM ResizeBilinearInteger)."""
    if align and out > 1:
        size, out = size - 1, out - 1
    return (1024 * size + out // 2) // out


def _bilinear_f32(
    site: Site, data: Tensor, result: Tensor, *, align: bool, half: bool
) -> tuple[Call, ...]:
    fields: dict[str, Value] = {**_sizes(data, result), "channels": data.shape[3]}
    for axis, one, many in ((1, "row", "rows"), (2, "column", "columns")):
        scale = _scale(data.shape[axis], result.shape[axis], align=align)
        place = np.arange(result.shape[axis]).astype(np.float32)
        scaled = (place + _HALF) * scale - _HALF if half else place * scale
        lower = np.maximum(np.floor(scaled).astype(np.int64), 0)
        upper = np.minimum(np.ceil(scaled).astype(np.int64), data.shape[axis] - 1)
        site.require(
            bool((lower < data.shape[axis]).all()),
            f"from {data.shape[axis]} to {result.shape[axis]}: float32 leads out of the image",
        )
        fields[many] = Array("uint16_t", np.stack([lower, upper], 1).astype(np.uint16))
        fields[f"{one}_fractions"] = Array("float", scaled - lower.astype(np.float32))
    return (
        Call(
            "ec_resize_bilinear_f32",
            "ec_resize_f32",
            Struct("ec_resize_bilinear_f32_t", fields),
            site.op.inputs[:1],
            site.op.outputs[:1],
        ),
    )


OPERATORS: dict[str, Lowering] = {
    "RESIZE_BILINEAR": _bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _nearest,
}
"""Operator kind -> the function that lowers it."""
