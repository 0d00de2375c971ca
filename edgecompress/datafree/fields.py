"""Tensors as stationary random fields: what layers do to their second moments.

A field has channels that are random over images and positions. Its second moments are kept per
displacement d, K[d]_ij = Cov(X_i(p), X_j(p + d)), on a torus of displacements. A convolution is
then a product with the spectrum (exact but for the image's border), and an element-wise function
acts on each K[d] alone (`gaussian`). Both together carry spatial and channel covariances through
a network without a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecompress.datafree.gaussian import Activation, covariance, hermite, maximum_of, moments
from edgecompress.datafree.statistics import Array, Moments, displaced, inside

LIMIT, REACH = 2**19, 16
"""At most so many numbers per field, and so many displacements per axis."""
_TINY = 1e-12
Pair = tuple[int, int]
Mask = npt.NDArray[np.bool_]
Spectrum = npt.NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Field:
    """A tensor in the model.

    `mean` (C,); `spread` (h, w, C, C) is K[d], d counted as in a discrete Fourier transform;
    `size` (H, W) of the image without the zeros of `pad` ((top, bottom), (left, right)). `filters`
    and `offsets` as in Moments; `source` too. `flat` after Flatten. `free` marks a model input that
    the first BatchNormalization sets the moments of, `known` one whose scale something tells;
    `shift` is how far the means moved when they were refined; `behind` is the field and the
    function that this one comes from.
    """

    mean: Array
    spread: Array
    size: Pair
    pad: tuple[Pair, Pair] = ((0, 0), (0, 0))
    filters: Array | None = None
    offsets: Array | None = None
    source: str = "propagated"
    flat: bool = False
    free: bool = False
    known: bool = False
    shift: float | None = None
    behind: tuple[Field, Activation] | None = None

    @property
    def variance(self) -> Array:
        """Variances (C,) of the channels."""
        return np.maximum(np.diagonal(self.spread[0, 0]), _TINY)

    def moments(self, *, spatial: bool = False) -> Moments:
        """The channels; with their spatial correlation where it is asked for."""
        covariance = self.spread[0, 0].copy()
        spread = self.spread if spatial else None
        return Moments(self.mean, covariance, self.filters, self.offsets, self.source, spread)


def decline(rows: Array, columns: Array, decay: tuple[float, float]) -> Array:
    """The correlation decay^distance of positions that lie `rows` and `columns` apart."""
    return np.asarray(np.exp(-np.hypot(rows * np.log(decay[0]), columns * np.log(decay[1]))))


def white(channels: int, size: Pair, decay: tuple[float, float], mix: float) -> Field:
    """Mean 0, variance 1, correlation decay^distance per axis and `mix` between channels."""
    h, w = torus(size, channels)
    near = decline(signed(h)[:, None], signed(w), decay)
    across = np.full((channels, channels), mix) + (1 - mix) * np.eye(channels)
    return Field(np.zeros(channels), near[:, :, None, None] * across, size, free=True)


def signed(n: int) -> Array:
    """Displacements along a torus of n, 0 first, negative ones last."""
    return np.asarray(np.fft.fftfreq(n) * n)


def torus(size: Pair, channels: int, least: Pair = (3, 3)) -> Pair:
    """The displacements that are kept: all of the image's, fewer for many channels."""
    h, w = (min(n, max(REACH, k)) for n, k in zip(size, least, strict=True))
    while h * w * channels * channels > LIMIT and (h > least[0] or w > least[1]):
        if h > least[0] and (h >= w or w <= least[1]):
            h = max(h // 2, min(least[0], h))
        else:
            w = max(w // 2, min(least[1], w))
    return h, w


def resampled(spread: Array, size: Pair, step: tuple[float, float]) -> Array:
    """K[step * d] for the displacements d of a torus of `size`."""
    h, w = size
    return displaced(spread, np.round(signed(h) * step[0]), np.round(signed(w) * step[1]))


@dataclass(frozen=True, eq=False)
class Window:
    """Where a kernel goes over an image of `size`: `taps`, `stride`, `dilation`, `out` positions.

    `rows` (out, taps) and `columns` tell which taps lie inside the image at which position.
    """

    size: Pair
    taps: Pair
    stride: Pair
    dilation: Pair
    out: Pair
    rows: Mask
    columns: Mask

    @property
    def coverage(self) -> Array:
        """The share (kh, kw) of positions at which each tap lies inside the image."""
        return np.asarray(np.outer(self.rows.mean(0), self.columns.mean(0)))

    @property
    def missed(self) -> tuple[Array, Array]:
        """The share of the image's rows (kh,) and columns (kw,) that each tap never comes to."""
        rows, columns = (
            np.maximum(0.0, 1.0 - inside.sum(0) * stride / size)
            for inside, stride, size in zip(
                (self.rows, self.columns), self.stride, self.size, strict=True
            )
        )
        return rows, columns


def window(size: Pair, taps: Pair, stride: Pair, dilation: Pair, before: Pair, out: Pair) -> Window:
    """The window of a kernel over an image of `size`."""
    rows, columns = (
        inside(size[a], taps[a], stride[a], before[a], out[a], dilation[a]) for a in (0, 1)
    )
    return Window(size, taps, stride, dilation, out, rows, columns)


def convolved(x: Field, kernel: Array, bias: Array, over: Window) -> Field:
    """The field behind a convolution with `kernel` (kh, kw, in, out)."""
    channels = max(kernel.shape[-2:])
    grid = torus(_grid(x), channels, over.taps)
    spectrum, taps = _spectra(x, kernel, over, grid)
    spectrum = np.swapaxes(taps, -1, -2) @ spectrum @ taps.conj()
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    field = _linear(x, spectrum, grid, np.einsum("hwio,i->hwo", kernel, x.mean), bias, over)
    return replace(field, filters=filters, offsets=bias)


def depthwise(x: Field, kernel: Array, bias: Array, over: Window) -> Field:
    """The field behind a depthwise convolution with `kernel` (kh, kw, in, multiplier)."""
    multiplier = kernel.shape[-1]
    flat = kernel.reshape(*kernel.shape[:2], -1)
    grid = torus(_grid(x), flat.shape[-1], over.taps)
    spectrum, taps = _spectra(x, flat, over, grid)
    if multiplier > 1:
        spectrum = spectrum.repeat(multiplier, axis=-1).repeat(multiplier, axis=-2)
    spectrum = taps[..., :, None] * spectrum * taps.conj()[..., None, :]
    return _linear(x, spectrum, grid, flat * x.mean.repeat(multiplier), bias, over)


def averaged(x: Field, over: Window) -> Field:
    """The field behind average pooling; its means stay (only inside positions are counted)."""
    channels = len(x.mean)
    kernel = np.full((*over.taps, channels, 1), 1.0 / (over.taps[0] * over.taps[1]))
    y = depthwise(x, kernel, np.zeros(channels), over)
    return replace(x, spread=y.spread, size=over.out, mean=x.mean, behind=None)


def largest(x: Field, over: Window) -> Field:
    """Max pooling, with the window's positions taken to correlate equally (approximate)."""
    if x.behind is not None and x.behind[1].monotone:
        return applied(largest(x.behind[0], over), x.behind[1])
    taps, variance = over.taps, x.variance
    rows, columns = (np.arange(1.0 - n, n) for n in taps)
    pairs = np.outer(taps[0] - np.abs(rows), taps[1] - np.abs(columns))
    pairs[taps[0] - 1, taps[1] - 1] = 0.0
    count = taps[0] * taps[1]
    here = np.diagonal(displaced(x.spread, rows, columns), axis1=-2, axis2=-1)
    shared = np.einsum("hw,hwc->c", pairs, here) / max(pairs.sum(), 1.0) / variance
    gain, width = maximum_of(count, np.clip(shared, 0.0, 1.0))
    scale = np.sqrt(width)
    spread = resampled(x.spread, torus(over.out, len(x.mean)), over.stride)
    mean = x.mean + np.sqrt(variance) * gain
    return replace(x, mean=mean, spread=spread * np.outer(scale, scale), size=over.out, behind=None)


def applied(x: Field, phi: Activation) -> Field:
    """The field phi(x), for x normal."""
    if phi.linear:
        return x
    std = np.sqrt(x.variance)
    mean, variance = moments(phi, x.mean, std)
    h = x.spread.shape[0] // 2 + 1
    half = np.clip(x.spread[:h] / np.outer(std, std), -1.0, 1.0)
    half[0, 0][np.diag_indices(len(std))] = 1.0
    half = covariance(hermite(phi, x.mean, std), variance, half)
    return replace(x, mean=mean, spread=_whole(half, x.spread.shape[0]), behind=(x, phi))


def scaled(x: Field, factor: Array, shift: Array) -> Field:
    """The field factor * x + shift per channel, filters included."""
    filters = None if x.filters is None else x.filters * factor[:, None]
    offsets = None if x.offsets is None else x.offsets * factor + shift
    return replace(
        x,
        mean=x.mean * factor + shift,
        spread=x.spread * np.outer(factor, factor),
        filters=filters,
        offsets=offsets,
        behind=None,
    )


def anchored(x: Field, mean: Array, variance: Array) -> Field:
    """The field with known means and variances; its correlations stay."""
    factor = np.sqrt(np.maximum(variance, 0.0) / x.variance)
    return replace(x, mean=mean, spread=x.spread * np.outer(factor, factor), behind=None)


def added(parts: Sequence[Field], signs: Sequence[float]) -> Field:
    """The sum of fields that are independent of each other; filters side by side."""
    signed_parts = list(zip(signs, parts, strict=True))
    grid = _common(parts)
    known = [(sign, f.filters, f.offsets) for sign, f in signed_parts]
    filters = [sign * a for sign, a, _ in known if a is not None]
    offsets = [sign * b for sign, _, b in known if b is not None]
    whole = len(filters) == len(offsets) == len(parts)
    return Field(
        mean=np.sum([sign * f.mean for sign, f in signed_parts], axis=0),
        spread=np.sum([resampled(f.spread, grid, (1, 1)) for f in parts], axis=0),
        size=parts[0].size,
        filters=np.hstack(filters) if whole else None,
        offsets=np.sum(offsets, axis=0) if whole else None,
    )


def joined(parts: Sequence[Field]) -> Field:
    """The channels of independent fields one after the other (block covariance)."""
    grid = _common(parts)
    ends = np.cumsum([len(f.mean) for f in parts])
    spread = np.zeros((*grid, ends[-1], ends[-1]))
    for f, end in zip(parts, ends, strict=True):
        block = slice(end - len(f.mean), end)
        spread[:, :, block, block] = resampled(f.spread, grid, (1, 1))
    filters = [f.filters for f in parts if f.filters is not None]
    offsets = [f.offsets for f in parts if f.offsets is not None]
    whole = len(filters) == len(offsets) == len(parts)
    return Field(
        mean=np.concatenate([f.mean for f in parts]),
        spread=spread,
        size=parts[0].size,
        filters=_blocks(filters) if whole else None,
        offsets=np.concatenate(offsets) if whole else None,
        source="bn" if all(f.source == "bn" for f in parts) else "propagated",
    )


def stacked(parts: Sequence[Field], size: Pair) -> Field:
    """Images of the same channels put together along an image axis: a mixture of the fields."""
    grid = _common(parts)
    share = np.array([f.size[0] * f.size[1] for f in parts], dtype=np.float64)
    share /= share.sum()
    means = np.stack([f.mean for f in parts])
    mean = share @ means
    spread = np.tensordot(share, [resampled(f.spread, grid, (1, 1)) for f in parts], axes=1)
    between = (means - mean).T @ (share[:, None] * (means - mean))
    return Field(mean, spread + between, size)


def product(a: Field, b: Field) -> Field:
    """The product of two independent fields; `b` may be one value per channel and image."""
    grid = _common([a] if b.size == (1, 1) else [a, b])
    p, q = resampled(a.spread, grid, (1, 1)), resampled(b.spread, grid, (1, 1))
    spread = p * (q + np.outer(b.mean, b.mean)) + np.outer(a.mean, a.mean) * q
    return Field(a.mean * b.mean, spread, a.size)


def _grid(x: Field) -> Pair:
    return x.spread.shape[0], x.spread.shape[1]


def _common(parts: Sequence[Field]) -> Pair:
    """The smallest of the tori."""
    shapes = [f.spread.shape for f in parts]
    return min(s[0] for s in shapes), min(s[1] for s in shapes)


def _blocks(matrices: Sequence[Array]) -> Array:
    """A block diagonal matrix."""
    ends = np.cumsum([m.shape for m in matrices], axis=0)
    whole = np.zeros(ends[-1])
    for m, (row, column) in zip(matrices, ends, strict=True):
        whole[row - m.shape[0] : row, column - m.shape[1] : column] = m
    return whole


def _spectra(x: Field, kernel: Array, over: Window, grid: Pair) -> tuple[Spectrum, Spectrum]:
    """Half spectra, on a torus, of the field and of the kernel's taps inside the image."""
    spread = x.spread if grid == _grid(x) else resampled(x.spread, grid, (1, 1))
    taps = np.zeros((*grid, *kernel.shape[2:]))
    rows = np.arange(over.taps[0]) * over.dilation[0] % grid[0]
    columns = np.arange(over.taps[1]) * over.dilation[1] % grid[1]
    share = np.sqrt(over.coverage).reshape(*over.taps, *[1] * (kernel.ndim - 2))
    np.add.at(taps, (rows[:, None], columns[None, :]), kernel * share)
    return np.fft.rfft2(spread, axes=(1, 0)), np.fft.rfft2(taps, axes=(1, 0))


def _linear(
    x: Field, spectrum: Spectrum, grid: Pair, taps: Array, bias: Array, over: Window
) -> Field:
    """The field of a spectrum, subsampled, with the means and what the border does to them.

    `taps` (kh, kw, C) is what each tap adds to the mean where it lies inside the image.
    """
    spread = np.fft.irfft2(spectrum, s=(grid[1], grid[0]), axes=(1, 0))
    small = -(-grid[0] // over.stride[0]), -(-grid[1] // over.stride[1])
    spread = resampled(spread, small, over.stride)
    mean = np.einsum("hw,hwo->o", over.coverage, taps)
    if over.coverage.min() < 1.0:
        places = np.einsum("yh,hwo,xw->yxo", over.rows, taps, over.columns) - mean
        spread = spread + _pattern(places, small)
    return Field(mean + bias, spread, over.out)


def _pattern(places: Array, grid: Pair) -> Array:
    """The covariance of a fixed zero-mean pattern (H, W, C) over its positions."""
    h, w, channels = places.shape
    if h * w * channels**2 > 4 * LIMIT:
        flat = places.reshape(-1, channels)
        return np.asarray(flat.T @ flat / len(flat))
    spectrum = np.fft.rfft2(places, axes=(1, 0))
    power = spectrum.conj()[..., :, None] * spectrum[..., None, :] / (h * w)
    return resampled(np.fft.irfft2(power, s=(w, h), axes=(1, 0)), grid, (1, 1))


def _whole(half: Array, n: int) -> Array:
    """All of K from its first n // 2 + 1 rows: K[-d] = K[d]^T."""
    rest = np.swapaxes(half[1 : n - half.shape[0] + 1][::-1], -1, -2)
    return np.concatenate([half, np.roll(rest[:, ::-1], 1, axis=1)])
