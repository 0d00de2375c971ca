"""Geometry of convolutions, and how far the output of one may lie over its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecompress.backends.aot.calls import Reuse, Site, Struct
from edgecompress.backends.aot.fixedpoint import window_padding
from edgecompress.tflite import Tensor

MOST_REACH = 1 << 20
"""Elements of an axis that a dilated kernel may span."""
MOST_ELEMENTS = 1 << 31
"""Elements that a kernel may span in memory, exclusive: C counts them in int32_t."""
MOST_PIXELS = 1 << 20
"""Output pixels up to which an overlap is worked out."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """One spatial axis, in elements: tap k of output o meets input o * stride - pad + k * dilation.

    With `transposed`, tap k of input i meets output i * stride - pad + k.
    """

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    transposed: bool = False

    def touched(self) -> tuple[Places, Places]:
        """First and last input place of every output place; last < first where there is none."""
        outputs = np.arange(self.out, dtype=np.int64)
        if self.transposed:
            at = outputs + self.pad
            first = np.maximum(-((self.kernel - 1 - at) // self.stride), 0)
            return first, np.minimum(at // self.stride, self.size - 1)
        origin = outputs * self.stride - self.pad
        skipped = np.maximum(-(origin // self.dilation), 0)
        left = np.minimum((self.size - 1 - origin) // self.dilation, self.kernel - 1)
        return origin + skipped * self.dilation, origin + left * self.dilation


@dataclass(frozen=True)
class Shape:
    """The geometry of a convolution, checked against its tensors."""

    batches: int
    channels: int
    out_channels: int
    height: Axis
    width: Axis

    @property
    def pixels(self) -> int:
        """Output pixels of all images."""
        return self.batches * self.height.out * self.width.out

    @property
    def taps(self) -> int:
        """Places of the kernel."""
        return self.height.kernel * self.width.kernel

    def struct(self) -> Struct:
        """The shape as a C struct."""
        fields = {
            "batches": self.batches,
            "in_height": self.height.size,
            "in_width": self.width.size,
            "in_channels": self.channels,
            "out_height": self.height.out,
            "out_width": self.width.out,
            "out_channels": self.out_channels,
            "kernel_height": self.height.kernel,
            "kernel_width": self.width.kernel,
            "stride_height": self.height.stride,
            "stride_width": self.width.stride,
            "dilation_height": self.height.dilation,
            "dilation_width": self.width.dilation,
            "pad_top": self.height.pad,
            "pad_left": self.width.pad,
        }
        return Struct("ec_conv_shape_t", fields)

    def reuse(
        self, *, itemsize: int, step: int = 1, starts: Places | None = None, staged: bool = False
    ) -> tuple[Reuse, ...]:
        """How far the output may lie over the input, for a kernel that makes `step` pixels at once.

        `starts` is the first pixel of each step, where they differ in length. `staged`: the kernel
        has read all it needs for those pixels before it writes the first of them; otherwise a
        pixel's inputs are needed until all its channels are written. Elements have `itemsize` bytes
        on both sides. Nothing for more than MOST_PIXELS pixels.
        """
        if self.pixels > MOST_PIXELS:
            return ()
        low, high = self._touched()
        starts = np.arange(0, self.pixels, step) if starts is None else starts
        ends = np.append(starts[1:], self.pixels)
        size = self.batches * self.height.size * self.width.size * self.channels
        out_size = self.pixels * self.out_channels
        least = np.append(np.minimum.accumulate(low[::-1])[::-1], size + out_size)
        most = np.append(-out_size, np.maximum.accumulate(high))
        forward = ends * self.out_channels - least[ends]
        if not staged:  # all has been read when the last element of the step is written
            forward = np.maximum(forward, ends * self.out_channels - 1 - least[starts])
        backward = out_size - starts * self.out_channels - size + most[starts if staged else ends]
        return (Reuse(0, 0, int(forward.max()) * itemsize, int(backward.max()) * itemsize),)

    def _touched(self) -> tuple[Places, Places]:
        """Per output pixel the first input element that it reads, and the one behind the last.

        A pixel that reads nothing (all padding) forbids nothing: its first is behind everything.
        """
        top, bottom = self.height.touched()
        left, right = self.width.touched()
        images = np.arange(self.batches, dtype=np.int64)[:, None, None] * self.height.size
        first = ((images + top[:, None]) * self.width.size + left) * self.channels
        last = ((images + bottom[:, None]) * self.width.size + right + 1) * self.channels
        some = (top <= bottom)[:, None] & (left <= right)
        size = self.batches * self.height.size * self.width.size * self.channels
        none = size + self.pixels * self.out_channels
        low = np.where(some, first, none).reshape(-1)
        high = np.where(some, last, -self.pixels * self.out_channels).reshape(-1)
        return low, high


def options(site: Site, *names: str) -> tuple[int, ...]:
    """The integer options `names`, each at least 1. Raises UnsupportedError otherwise."""
    found = []
    for name in names:
        value = site.op.options.get(name, 0)
        site.require(isinstance(value, int) and value >= 1, f"{name} {value}; it must be 1 or more")
        found.append(int(value))  # type: ignore[arg-type]
    return tuple(found)


def is_map(site: Site, tensor: Tensor) -> None:
    """Require rank 4 (batch, height, width, channels) with no empty dimension."""
    site.require(
        len(tensor.shape) == 4 and min(tensor.shape) >= 1,
        f"{tensor.name!r} has shape {list(tensor.shape)}; supported: 4 dimensions, none empty",
    )


def convolution_shape(site: Site, data: Tensor, out: Tensor, kernel: tuple[int, int]) -> Shape:
    """The shape of a CONV_2D or DEPTHWISE_CONV_2D, its padding fused or computed.

    Raises UnsupportedError where the output's shape does not follow from the input's.
    """
    strides = options(site, "stride_h", "stride_w")
    dilations = options(site, "dilation_h_factor", "dilation_w_factor")
    fused = "pad_top" in site.op.options
    axes = []
    for place, side in enumerate((("pad_top", "pad_bottom"), ("pad_left", "pad_right"))):
        size, taps = data.shape[1 + place], kernel[place]
        stride, dilation = strides[place], dilations[place]
        reach = (taps - 1) * dilation + 1
        step = data.shape[3] * (1 if place else data.shape[2])  # elements from place to place
        site.require(
            reach <= MOST_REACH and reach * step < MOST_ELEMENTS,
            f"the dilated kernel spans {reach} of {size}; at most {MOST_REACH} are supported",
        )
        if fused:
            before, after = (int(site.op.options[name]) for name in side)  # type: ignore[arg-type]
            count = (size + before + after - reach) // stride + 1
        else:
            count, before = window_padding(
                site.op.options.get("padding"),
                size=size,
                kernel=taps,
                stride=stride,
                dilation=dilation,
            )
        # What a stride or a dilation says about a single place, C need not know: it may overflow.
        axes.append(
            Axis(
                size=size,
                out=count,
                kernel=taps,
                stride=stride if count > 1 else 1,
                dilation=dilation if taps > 1 else 1,
                pad=before,
            )
        )
    wanted = (data.shape[0], axes[0].out, axes[1].out)
    site.require(
        out.shape[:3] == wanted,
        f"output shape {list(out.shape)}; the input and options give {list(wanted)}",
    )
    return Shape(data.shape[0], data.shape[3], out.shape[3], axes[0], axes[1])


def transposed_shape(site: Site, data: Tensor, out: Tensor, kernel: tuple[int, int]) -> Shape:
    """The shape of a TRANSPOSE_CONV: its padding is that of a convolution the other way."""
    strides = options(site, "stride_h", "stride_w")
    axes = []
    for place in range(2):
        size, inner, taps = out.shape[1 + place], data.shape[1 + place], kernel[place]
        stride = strides[place]
        site.require(taps <= MOST_REACH, f"the kernel spans {taps}; at most {MOST_REACH}")
        _, before = window_padding(
            site.op.options.get("padding"), size=size, kernel=taps, stride=stride
        )
        site.require(
            (inner - 1) * stride <= 2 * MOST_REACH + size, f"stride {stride} leaves the output"
        )
        stride = min(stride, size + taps + before)  # beyond that no two inputs share an output
        axes.append(Axis(inner, size, taps, stride, 1, before, transposed=True))
    site.require(out.shape[0] == data.shape[0], "input and output differ in their batch")
    return Shape(data.shape[0], data.shape[3], out.shape[3], axes[0], axes[1])
