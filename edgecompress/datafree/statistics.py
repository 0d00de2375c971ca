"""What is known of a network's activations, from its weights or from a few samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CORRELATION = 0.7
"""Of neighbouring positions, where the statistics do not tell."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The channels of a tensor as random variables, over images and positions.

    `mean` (C,) and `covariance` (C, C), float64. A flattened tensor keeps the moments of its
    channels (C, not H*W*C). `filters` (C, d) and `offsets` (C,) are the folded filters and biases
    behind the channels, B = filters . x + offsets before the activation (the branches of a sum
    side by side along d); None where there is no such form, as behind a depthwise convolution.
    `spread` (h, w, C, C) holds the covariances with the channels at other positions, where they are
    known: spread[d] = Cov(X_i(p), X_j(p + d)) for displacements d in the order of a discrete
    Fourier transform (0, 1, .., -1); `patch_covariance` reads it. `rounded` holds the filters and
    offsets as they will be on a grid of few bits (`joint`), where the channels are to be taken so.
    `source` is "bn" (from BatchNormalization), "propagated" (through layers without one) or
    "measured".
    """

    mean: Array
    covariance: Array
    filters: Array | None = None
    offsets: Array | None = None
    source: str = "propagated"
    spread: Array | None = None
    rounded: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class Guard:
    """Whether the Gaussian model of what a layer reads can be trusted.

    `spread` is the standard deviation of the logarithms of modelled over known standard
    deviations, `shift` the relative distance of the modelled means from those that the next
    BatchNormalization knows (None where there is none). `trusted` says whether channels that
    the layer reads may be reconstructed; `reason` why not, for the report.
    """

    trusted: bool
    reason: str = ""
    spread: float | None = None
    shift: float | None = None


@dataclass(frozen=True, eq=False)
class Statistics:
    """The moments of a network's tensors, by the flat names of its layers.

    `read[layer]` is what a layer that sums over channels reads (its first call, where it is
    shared); `made[layer]` what a layer gives, and the model's inputs by their names;
    `linear[layer]` what a convolution or Dense gives before its own activation. `guards[layer]` is
    the verdict on `read[layer]`. `assumed` says whether nothing tells the scale
    of an input.
    """

    read: Mapping[str, Moments]
    made: Mapping[str, Moments]
    guards: Mapping[str, Guard] = field(default_factory=dict)
    linear: Mapping[str, Moments] = field(default_factory=dict)
    assumed: bool = False


def fading(window: tuple[int, ...], dilation: int | tuple[int, ...] = 1) -> Array:
    """CORRELATION to the power of the distance of two taps of a window, (taps, taps), row-major;
    `dilation` is their distance along each axis."""
    places = np.array(list(np.ndindex(*window)), dtype=np.float64) * dilation
    return np.asarray(CORRELATION ** np.linalg.norm(places[:, None] - places, axis=-1))


def displaced(spread: Array, rows: Array, columns: Array) -> Array:
    """Covariances at the displacements rows x columns (m, n, C, C), the farthest known beyond."""
    h, w = spread.shape[:2]
    at_rows = np.clip(rows, -(h // 2), h // 2).astype(np.int64) % h
    at_columns = np.clip(columns, -(w // 2), w // 2).astype(np.int64) % w
    return np.asarray(spread[at_rows[:, None], at_columns[None, :]])


def patch_covariance(
    moments: Moments, window: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Array | None:
    """The covariance of all that a kernel reads at one position, (taps * C, taps * C) float64.

    `window` (rows, columns) and `dilation` are the kernel's; taps in row-major order, channels
    inside. None where `moments.spread` is not known, or not as far as the window reaches. Positive
    semidefinite: displacements that wrap around the image need not be so, and negative
    eigenvalues count as zero.
    """
    if moments.spread is None:
        return None
    rows, columns = (
        np.subtract.outer(np.arange(n), np.arange(n)).T * float(step)
        for n, step in zip(window, dilation, strict=True)
    )
    for apart, known in zip((rows, columns), moments.spread.shape[:2], strict=True):
        if apart.any() and 2 * apart.max() > known:
            return None
    blocks = displaced(moments.spread, rows.ravel(), columns.ravel())
    (kh, kw), c = window, len(moments.mean)
    blocks = blocks.reshape(kh, kh, kw, kw, c, c)
    return positive(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(kh * kw * c, kh * kw * c))


def positive(matrix: Array) -> Array:
    """The nearest symmetric matrix without negative eigenvalues."""
    symmetric = (matrix + matrix.T) / 2
    try:
        np.linalg.cholesky(symmetric)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(symmetric)
        return np.asarray(vectors * np.maximum(values, 0.0) @ vectors.T)
    return symmetric


def inside(
    size: int, taps: int, stride: int, before: int, out: int, dilation: int = 1
) -> npt.NDArray[np.bool_]:
    """Which taps of a kernel lie inside the image at which output position.

    One axis: `size` input positions, `taps` of the kernel, `dilation` apart, `before` padding in
    front, `out` output positions; (out, taps).
    """
    at = np.arange(out)[:, None] * stride - before + np.arange(taps) * dilation
    return np.asarray((at >= 0) & (at < size))


def coverage(size: int, taps: int, stride: int, before: int, out: int, dilation: int = 1) -> Array:
    """The share of output positions at which each tap of a kernel lies inside the image.

    Arguments as of `inside`; (taps,) float64 (for a valid window it is all ones).
    """
    return np.asarray(inside(size, taps, stride, before, out, dilation).mean(0), dtype=np.float64)
