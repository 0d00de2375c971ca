"""Lowering of AVERAGE_POOL_2D and MAX_POOL_2D."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgecompress.backends.aot.calls import Call, Lowering, Reuse, Site, Struct, Value
from edgecompress.backends.aot.fixedpoint import (
    activation_range,
    activation_range_f32,
    scale_of,
    window_padding,
)
from edgecompress.backends.aot.shapes import checked, option, width_of
from edgecompress.tflite import Tensor

_SUFFIX = {"int8": "s8", "int16": "s16", "float32": "f32"}
_MOST = 1 << 16
_SCALE_DIFFERENCE = 1e-6


def _pool(function: str) -> Lowering:
    def lower(site: Site) -> tuple[Call, ...]:
        data = checked(site, site.arg(0), *_SUFFIX)
        result = checked(site, site.result(), data.dtype)
        window = _window(site, data, result)
        low, high = _bounds(site, data, result)
        suffix = _SUFFIX[data.dtype]
        floating = data.dtype == "float32"
        fields: dict[str, Value] = {
            "window": Struct("ec_window_t", window),
            "low": low,
            "high": high,
            "reverse": 0,
        }
        return (
            Call(
                f"ec_{function}_{suffix}",
                "ec_pool_f32" if floating else "ec_pool",
                Struct("ec_pool_f32_t" if floating else "ec_pool_t", fields),
                site.op.inputs[:1],
                site.op.outputs[:1],
                reuses=_reuses(window, data, result),
                instructions=_instructions(function, suffix, window),
            ),
        )

    return lower


def _window(site: Site, data: Tensor, result: Tensor) -> dict[str, int]:
    site.require(
        len(data.shape) == len(result.shape) == 4,
        f"shapes {list(data.shape)} -> {list(result.shape)}; 4 axes are supported (NHWC)",
    )
    sizes: dict[str, int] = {}
    padding = site.op.options.get("padding")
    for axis, name, short in ((1, "height", "h"), (2, "width", "w")):
        kernel, stride = option(site, f"filter_{name}"), option(site, f"stride_{short}")
        site.require(
            1 <= kernel <= _MOST and 1 <= stride <= _MOST,
            f"window of {kernel} and stride of {stride} ({name}); supported: 1..{_MOST}",
        )
        size, side = data.shape[axis], ("top", "bottom") if short == "h" else ("left", "right")
        if "pad_top" in site.op.options:  # rows of a map: the paddings are given
            pad, behind = (int(site.op.options[f"pad_{one}"]) for one in side)  # type: ignore[arg-type]
            out = (size + pad + behind - kernel) // stride + 1
        else:
            out, pad = window_padding(padding, size=size, kernel=kernel, stride=stride)
        site.require(
            result.shape[axis] == out,
            f"the output has {name} {result.shape[axis]}; its options give {out}",
        )
        sizes |= {f"kernel_{name}": kernel, f"stride_{name}": stride}
        sizes["pad_top" if short == "h" else "pad_left"] = pad
    site.require(
        data.shape[0] == result.shape[0] and data.shape[3] == result.shape[3],
        f"shapes {list(data.shape)} -> {list(result.shape)}; batch and channels must be equal",
    )
    site.require(
        min(sizes["kernel_height"], data.shape[1]) * min(sizes["kernel_width"], data.shape[2])
        < _MOST,
        f"a window takes {_MOST} elements or more; the sum would not fit 32 bits",
    )
    batches, in_height, in_width, channels = data.shape
    return {
        "batches": batches,
        "channels": channels,
        "in_height": in_height,
        "in_width": in_width,
        "out_height": result.shape[1],
        "out_width": result.shape[2],
        **sizes,
    }


def _bounds(site: Site, data: Tensor, result: Tensor) -> tuple[float, float]:
    activation = site.op.options.get("fused_activation_function")
    if data.dtype == "float32":
        return activation_range_f32(activation)
    site.require(
        abs(scale_of(data) - scale_of(result)) <= _SCALE_DIFFERENCE
        and data.zero_points == result.zero_points,
        f"scales {data.scales[0]} -> {result.scales[0]} and zero points {data.zero_points[0]} ->"
        f" {result.zero_points[0]}; they must be equal",
    )
    return activation_range(activation, result)


class Block(NamedTuple):
    """What some channels that are reduced together take on a Cortex-M4: once, and per element."""

    channels: int
    once: float
    each: float


BLOCKS: dict[tuple[str, str], tuple[Block, ...]] = {
    ("average_pool", "s8"): (Block(16, 456, 15), Block(4, 228, 6), Block(1, 143, 6)),
    ("max_pool", "s8"): (Block(16, 95, 18.4), Block(4, 80, 6.5), Block(1, 81, 6)),
    ("average_pool", "s16"): (Block(4, 142, 12), Block(1, 70, 6)),
    ("max_pool", "s16"): (Block(4, 148, 12), Block(1, 70, 6)),
    ("average_pool", "f32"): (Block(4, 250, 16), Block(1, 90, 8)),
    ("max_pool", "f32"): (Block(4, 250, 24), Block(1, 90, 8)),
}
_WINDOW, _ROW = 60, 9


def in_blocks(channels: int, blocks: tuple[Block, ...], elements: float) -> float:
    """Instructions for `channels` of `elements` each, in as large blocks as fit; the last has 1."""
    total = 0.0
    for block in blocks:
        count, channels = divmod(channels, block.channels)
        total += count * (block.once + elements * block.each)
    return total


def _instructions(function: str, suffix: str, window: dict[str, int]) -> int | None:
    """What a pool takes on a Cortex-M4, windows clipped to the input; None for a huge output."""
    if max(window["out_height"], window["out_width"]) > _MOST:
        return None
    seen = []
    for axis, pad in (("height", "pad_top"), ("width", "pad_left")):
        first = np.arange(window[f"out_{axis}"]) * window[f"stride_{axis}"] - window[pad]
        end = np.minimum(first + window[f"kernel_{axis}"], window[f"in_{axis}"])
        seen.append(float((end - np.maximum(first, 0)).mean()))
    rows, columns = seen
    rows = 1.0 if suffix == "s8" and columns == window["in_width"] else rows
    blocks = tuple(
        block._replace(once=block.once + _ROW * rows) for block in BLOCKS[function, suffix]
    )
    each = _WINDOW + in_blocks(window["channels"], blocks, seen[0] * columns)
    windows = window["batches"] * window["out_height"] * window["out_width"]
    return round(_WINDOW + windows * each)


def _reuses(window: dict[str, int], data: Tensor, result: Tensor) -> tuple[Reuse, ...]:
    """Each channel of a window is read before it is written, channels in the walk's direction.

    So, per channel, output pixel i needs first(i) and last(i), the first and last pixel of its
    window, at or behind (before) it as long as it or anything later is to be computed.
    """
    if result.shape[1] > _MOST or result.shape[2] > _MOST:
        return ()
    first, last = np.zeros((2, 1), np.int64)
    for axis, name, pad in ((1, "height", "pad_top"), (2, "width", "pad_left")):
        start = np.arange(result.shape[axis]) * window[f"stride_{name}"] - window[pad]
        end = np.minimum(start + window[f"kernel_{name}"], data.shape[axis]) - 1
        size = data.shape[axis]
        first = (first[:, None] * size + np.maximum(start, 0)).reshape(-1)
        last = (last[:, None] * size + end).reshape(-1)
    unit = data.shape[3] * width_of(data)
    place = np.arange(len(first))
    ahead = int((place - np.minimum.accumulate(first[::-1])[::-1]).max())
    behind = int((np.maximum.accumulate(last) - place).max())
    growth = result.shape[1] * result.shape[2] - data.shape[1] * data.shape[2]
    others = max(0, growth * (data.shape[0] - 1))
    forward = (ahead + others) * unit
    backward = (behind + max(0, -growth) * (data.shape[0] - 1)) * unit
    return (Reuse(0, 0, forward, backward + result.nbytes - data.nbytes),)


OPERATORS: dict[str, Lowering] = {
    "AVERAGE_POOL_2D": _pool("average_pool"),
    "MAX_POOL_2D": _pool("max_pool"),
}
"""Operator kind -> the function that lowers it."""
