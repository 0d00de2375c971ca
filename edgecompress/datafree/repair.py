"""Removed channels as linear combinations of the kept ones, in closed form.

X_j is replaced by sum_i S_ji X_i + c_j over the kept channels i. What sums over X with weights W
then has weights W S and a bias larger by W c: the combination costs nothing at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecompress.datafree.statistics import Array, Moments
from edgecompress.vocabulary import Repair

Kept = npt.NDArray[np.bool_]
"""(n,) bool: which channels of the tensor stay."""

DAMPING = 0.03
"""Added to a covariance, as a share of its diagonal: how much of it is not trusted."""
EVEN = 0.1
"""Of the mean variance, added to each where the damping takes its share: little is built on
channels that hardly vary."""
TINY = 1e-12
"""The least damping."""
DEAD = 1e-6
"""Relative to the largest: variances and norms below are those of dead channels."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """X ~= `mixing` X_kept + `constant`: (n, kept) and (n,) float64; `mixing[kept]` is exactly I.

    `constant` is in the units of the activations.
    """

    mixing: Array
    constant: Array


Form = Callable[[Moments, Kept], Mixture]


def selection(kept: Kept) -> Array:
    """The mixing matrix (n, kept) that keeps the kept channels and loses the others."""
    return np.eye(len(kept))[:, kept]


def plain(read: Moments, kept: Kept) -> Mixture:
    """No repair: what is removed reads as zero."""
    return Mixture(selection(kept), np.zeros(len(kept)))


def mean(read: Moments, kept: Kept) -> Mixture:
    """Removed channels replaced by their means, the mean correction alone."""
    return _centred(read, kept, selection(kept))


def udfc(
    read: Moments,
    kept: Kept,
    *,
    alpha1: float = 0.01,
    alpha2: float = 0.008,
) -> Mixture:
    """The closed form of UDFC (arXiv 2308.07209), with the mean correction.

    Minimises |w_j - sum s_i w_i|^2 + alpha1 (b_j - sum s_i b_i)^2 + alpha2 |s|^2 over the folded
    filters w and offsets b, and adds the constant that keeps the means behind the activation.
    With `read.rounded`, the filters and offsets on their grid, the sums run over these: the paper's
    S' for quantisation, and with removed channels both in one solve. Each kept channel then starts
    from its rounded self, which the bias correction is taken to give the same mean, and alpha2
    weighs what is added to it. Where the channels have no filters, as behind a depthwise
    convolution, this is `activation`.
    """
    return _centred(read, kept, _combined(read, kept, alpha1, alpha2, read.rounded))


def lbyl(read: Moments, kept: Kept, *, alpha1: float = 1e-5, alpha2: float = 1e-3) -> Mixture:
    """Leave Before You Leave (arXiv 2502.08474): as `udfc`, without a correction of the means."""
    return Mixture(_combined(read, kept, alpha1, alpha2), np.zeros(len(kept)))


def merge(read: Moments, kept: Kept, *, share: float = 0.85, least: float = 0.1) -> Mixture:
    """Neuron Merging (Kim et al., NeurIPS 2020): each removed channel goes into one kept channel.

    The kept filter with the least `share` * (1 - cosine) + (1 - `share`) * distance of offsets
    (relative to the largest) takes the channel times the ratio of the folded norms, where the
    cosine is at least `least`; other channels are lost. Channels without filters are merged by
    their correlation and ratio of standard deviations.
    """
    mixing = selection(kept)
    if read.filters is None or read.offsets is None:
        scale = _deviations(read.covariance)
        cosines = read.covariance / np.outer(scale, scale)
        offsets = np.zeros(len(kept))
    else:
        scale = _positive(np.linalg.norm(read.filters, axis=1))
        cosines, offsets = read.filters @ read.filters.T / np.outer(scale, scale), read.offsets
    factors = scale[:, None] / scale[kept]
    distances = np.abs(offsets[:, None] - factors * offsets[kept])
    distances /= _positive(distances.max(axis=1, keepdims=True))
    near = cosines[:, kept]
    best = np.argmin(share * (1 - near) + (1 - share) * distances, axis=1)
    for j in np.flatnonzero(~kept):
        if near[j, best[j]] >= least:
            mixing[j, best[j]] = factors[j, best[j]]
    return Mixture(mixing, np.zeros(len(kept)))


def activation(read: Moments, kept: Kept, *, damping: float = DAMPING) -> Mixture:
    """Least squares on the activations themselves, from their covariance.

    S = Cov(X, X_P) (Cov(X_P) + damping * diag)^-1.
    """
    mixing = regression(read.covariance[:, kept], read.covariance[np.ix_(kept, kept)], damping)
    mixing[kept] = np.eye(int(kept.sum()))
    return _centred(read, kept, mixing)


def crossed(mean: Array, covariance: Array, kept: Kept, *, damping: float = DAMPING) -> Mixture:
    """As `activation`, from what the kept channels have become in the pruned network.

    `mean` (2 n,) and `covariance` (2 n, 2 n) are the joint ones of the n channels before and after.
    The kept channels are corrected too, each starting from itself.
    """
    n = len(kept)
    after = n + np.flatnonzero(kept)
    own = covariance[np.ix_(after, after)]
    start = selection(kept)
    mixing = start + regression(covariance[:n, after] - start @ own, own, damping)
    return Mixture(mixing, mean[:n] - mixing @ mean[after])


def regression(cross: Array, covariance: Array, damping: float) -> Array:
    """cross (m, n) times the inverse of covariance (n, n) + damping * (its diagonal + EVEN * the
    mean of it).

    Where a model gives a covariance with negative eigenvalues, these count as zero.
    """
    variances = np.diag(covariance)
    scale = np.sqrt(_positive(variances + EVEN * variances.mean()))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    inverse = vectors / (np.maximum(values, 0.0) + max(damping, TINY)) @ vectors.T
    return np.asarray(cross / scale @ inverse / scale)


FORMS: Mapping[Repair, Form] = {
    "none": plain,
    "mean": mean,
    "merge": merge,
    "lbyl": lbyl,
    "udfc": udfc,
}
"""The repairs that mix whole channels; "activation" looks at positions too (`apply.regressed`)."""


def _combined(
    read: Moments,
    kept: Kept,
    alpha1: float,
    alpha2: float,
    rounded: tuple[Array, Array] | None = None,
) -> Array:
    if read.filters is None or read.offsets is None:
        return activation(read, kept).mixing
    own, offset = rounded or (read.filters, read.offsets)
    filters, offsets, start = own[kept], offset[kept], selection(kept)
    normal = filters @ filters.T + alpha1 * np.outer(offsets, offsets)
    normal += alpha2 * np.eye(len(filters))
    missing = read.filters - start @ filters
    wanted = filters @ missing.T + alpha1 * np.outer(offsets, read.offsets - start @ offsets)
    return np.asarray(start + np.linalg.solve(normal, wanted).T)


def _centred(read: Moments, kept: Kept, mixing: Array) -> Mixture:
    return Mixture(mixing, read.mean - mixing @ read.mean[kept])


def _deviations(covariance: Array) -> Array:
    return np.sqrt(_positive(np.diag(covariance)))


def _positive(values: Array) -> Array:
    """The values, with 1 for those that are zero next to the largest: a division by them is 0/1."""
    return np.where(values > DEAD * values.max(initial=0), values, 1.0)
