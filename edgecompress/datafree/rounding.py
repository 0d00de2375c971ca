"""Weights on a grid of k bits: one scale for each output, every value a small whole number.

Kernels are given as rows (taps, channels, outputs), float64: the positions of the window, the
inputs that an output sums over at each, the outputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecompress.datafree.statistics import Array

CLIPS = np.linspace(0.4, 1.0, 25)
"""Shares of the largest weight that are tried as the end of the grid."""
DAMPING = 0.01
"""Of the mean second moment, added to each: what the model says of directions is not exact."""


def largest(bits: int) -> int:
    """The largest whole number of a symmetric grid: 127 for 8 bits, 7 for 4."""
    return int(2 ** (bits - 1)) - 1


def scales_of(rows: Array, bits: int, *, shared: bool = False) -> Array:
    """max|w| / `largest` of each output, (outputs,); 1 / `largest` where all weights are 0.

    `shared` gives all outputs the largest of them.
    """
    peak = np.abs(rows).max(axis=(0, 1), initial=0.0)
    if shared:
        peak = np.full_like(peak, peak.max())
    return np.asarray(np.where(peak > 0, peak, 1.0) / largest(bits))


def fitted_scales(rows: Array, bits: int, importance: Array, *, shared: bool = False) -> Array:
    """The scales of `scales_of`, shrunk to where the squared errors of the outputs are least.

    `importance`, which broadcasts to `rows`, weighs the error of each weight: the second moment of
    what it multiplies. Weights beyond the grid's end are clipped.
    """
    full = scales_of(rows, bits, shared=shared)
    best, least = full, np.full_like(full, np.inf)
    for clip in CLIPS[::-1]:
        scales = full * clip
        wrong = nearest(rows, scales, bits) * scales - rows
        error = (importance * np.square(wrong)).sum(axis=(0, 1))
        if shared:
            error = np.full_like(error, error.sum())
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def nearest(rows: Array, scales: Array, bits: int) -> Array:
    """Each weight at the nearest point of its output's grid: whole numbers, as float64."""
    top = largest(bits)
    return np.asarray(np.clip(np.rint(rows / scales), -top, top))


def squant(rows: Array, scales: Array, bits: int) -> Array:
    """Nearest points, some flipped to the other neighbour so that the sums of errors stay small.

    First in every kernel (one channel of one output; not where it has one weight), then in every
    output over all its channels, at most one flip a kernel. SQuant (Guo et al., ICLR 2022): of the
    errors of their sum's sign, floor(|sum| + 1/2) are flipped, the largest first.
    """
    top = largest(bits)
    x = np.moveaxis(np.clip(rows / scales, -top, top), 0, -1).swapaxes(0, 1)
    q, movable = np.rint(x), np.ones(x.shape, dtype=np.bool_)  # (outputs, channels, taps)
    if x.shape[-1] > 1:
        q, movable = _flipped(x, q, movable)
    flat = (x.shape[0], -1)
    q, _ = _flipped(x.reshape(flat), q.reshape(flat), movable.reshape(flat))
    return np.asarray(np.moveaxis(q.reshape(x.shape).swapaxes(0, 1), -1, 0))


def _flipped(
    x: Array, q: Array, movable: npt.NDArray[np.bool_]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`q` with the flips that the sum of errors along the last axis asks for, and the element of
    each row that a further flip would take: the next in line, or the last flipped to undo it."""
    error = q - x
    total = error.sum(axis=-1, keepdims=True)
    sign = np.sign(total)
    worth = np.where(movable & (error * sign > 0), np.abs(error), -1.0)
    wanted = np.floor(np.abs(total) + 0.5)
    count = np.minimum(wanted, (worth > 0).sum(axis=-1, keepdims=True))
    rank = (-worth).argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable")
    line = np.where(np.abs(total) < count, count - 1, count)
    return np.where(rank < count, q - sign, q), np.asarray(rank == line)


def compensated(rows: Array, scales: Array, bits: int, second: Array) -> Array:
    """Nearest points one input after the other, each error made up for by the inputs to come.

    `second` (taps * channels, taps * channels) are the second moments of what the weights
    multiply, about the mean where the bias is corrected afterwards. Optimal Brain Quantisation in
    the fixed order of GPTQ (Frantar et al., ICLR 2023, section 3), the largest moments first, with
    modelled moments in place of samples.
    """
    taps, channels, outputs = rows.shape
    order = np.argsort(-np.diag(second), kind="stable")
    inverse = np.linalg.inv(_damped(second[np.ix_(order, order)]))
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w = rows.reshape(-1, outputs)[order]
    q = np.empty_like(w)
    for i in range(len(w)):
        q[i] = nearest(w[i], scales, bits)
        w[i + 1 :] -= np.outer(factor[i, i + 1 :], (w[i] - q[i] * scales) / factor[i, i])
    back = np.empty_like(q)
    back[order] = q
    return back.reshape(taps, channels, outputs)


def _damped(second: Array) -> Array:
    """`second` and DAMPING, or twice what it lacks to have no negative eigenvalue: moments that
    were modelled displacement by displacement need not be those of any variables."""
    damping = DAMPING * float(np.diag(second).mean()) or 1.0
    unit = np.eye(len(second))
    try:
        np.linalg.cholesky(second + damping / 2 * unit)
    except np.linalg.LinAlgError:
        damping = -2 * float(np.linalg.eigvalsh(second)[0])
    return np.asarray(second + damping * unit)
