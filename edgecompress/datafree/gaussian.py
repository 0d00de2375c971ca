"""Element-wise functions of normal variables: means, variances, covariances.

B ~ N(mean, std^2) per channel and X = phi(B). In the normalised Hermite polynomials
h_k = He_k / sqrt(k!) of u = (B - mean) / std, X = sum_k a_k h_k(u), and for jointly normal
channels with correlation rho Cov(X_i, X_j) = sum_{k >= 1} a_k^i a_k^j rho^k (Mehler's formula).
For piecewise linear phi all is in closed form; any other phi is integrated numerically.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgecompress.datafree.statistics import Array

TERMS = 24
_FAR = 30.0
_NODES = np.linspace(-8.0, 8.0, 1601)


@dataclass(frozen=True, eq=False)
class Activation:
    """An element-wise function phi.

    Piecewise linear: phi(b) = constant + slope * b + sum over `kinks` (at, weight) of
    weight * max(b - at, 0), in ascending order; `slope` and the weights are numbers or one per
    channel (C,). Where `function` is given it is phi instead: it maps an array (nodes, C) to an
    array of that shape.
    `monotone` says that phi never falls, so that it commutes with a maximum.
    """

    slope: float | Array = 0.0
    kinks: tuple[tuple[float, float | Array], ...] = ()
    constant: float = 0.0
    function: Callable[[Array], Array] | None = None
    monotone: bool = True

    @property
    def linear(self) -> bool:
        """Whether phi(b) = b."""
        return self.function is None and not self.kinks and bool(np.all(self.slope == 1.0))

    def __call__(self, b: Array) -> Array:
        """phi of each element of `b` (nodes, C)."""
        if self.function is not None:
            return self.function(b)
        bends = (weight * np.maximum(b - at, 0.0) for at, weight in self.kinks)
        return np.asarray(self.constant + self.slope * b + sum(bends))


IDENTITY = Activation(slope=1.0)
RELU = Activation(kinks=((0.0, 1.0),))


def rectifier(negative: float | Array = 0.0, maximum: float | None = None) -> Activation:
    """max(b, 0) + negative * min(b, 0), clipped above at `maximum`: ReLU, ReLU6, leaky, PReLU."""
    top = () if maximum is None else ((float(maximum), -1.0),)
    monotone = bool(np.all(np.asarray(negative) >= 0))
    return Activation(negative, ((0.0, 1.0 - negative), *top), monotone=monotone)


def moments(phi: Activation, mean: Array, std: Array) -> tuple[Array, Array]:
    """Mean and variance (C,) of phi(B) per channel, for B ~ N(mean, std^2)."""
    if phi.function is not None:
        weights, values = _nodes(phi.function, mean, std)
        first = weights @ values
        return first, weights @ (values - first) ** 2
    first = phi.constant + phi.slope * mean
    variance = np.square(phi.slope * std)
    parts = [(at, weight, *_ramp(mean - at, std)) for at, weight in phi.kinks]
    for i, (at, weight, one, two) in enumerate(parts):
        first = first + weight * one
        # Cov(B, relu(B - at)) = std^2 P(B > at) (Stein)
        variance = variance + 2 * phi.slope * weight * np.square(std) * _above(mean - at, std)
        variance = variance + np.square(weight) * (two - np.square(one))
        for lower, other, one_, _ in parts[:i]:
            # with lower <= at: relu(b - lower) relu(b - at) = relu(b - at)^2 + (at - lower) relu
            product = two + (at - lower) * one - one * one_
            variance = variance + 2 * weight * other * product
    return np.asarray(first), np.maximum(variance, 0.0)


def hermite(phi: Activation, mean: Array, std: Array, *, terms: int = TERMS) -> Array:
    """The coefficients a_0 .. a_terms, (terms + 1, C) float64, of phi(B) in h_k(u)."""
    if phi.function is not None:
        weights, values = _nodes(phi.function, mean, std)
        basis = np.stack(list(_polynomials(_NODES, terms + 1)))
        return np.asarray((basis * weights) @ values)
    a = np.zeros((terms + 1, len(mean)))
    a[0] = moments(phi, mean, std)[0]
    a[1] = phi.slope * std
    k = np.arange(2, terms + 1)[:, None]
    for at, weight in phi.kinks:
        t = _standard(mean - at, std)
        a[1] += weight * std * _cdf(t)
        higher = np.stack(list(_polynomials(-t, terms - 1)))
        a[2:] += weight * std * _pdf(t) * higher / np.sqrt(k * (k - 1.0))
    return a


def covariance(a: Array, variance: Array, correlation: Array) -> Array:
    """Cov(phi_i(B_i), phi_j(B_j)) (..., C, C) from the `hermite` coefficients of each channel.

    `variance` (C,) is that of phi(B): what of it the series leaves out goes into one more term, so
    that the diagonal is exact where `correlation` (..., C, C) is 1. Positive semidefinite where
    `correlation` is.
    """
    left = np.sqrt(np.maximum(variance - np.square(a[1:]).sum(axis=0), 0.0))
    out = correlation * np.outer(left, left)
    for row in a[:0:-1]:
        out += np.outer(row, row)
        out *= correlation
    return np.asarray(out)


def maximum_of(count: int, correlation: Array) -> tuple[Array, Array]:
    """Mean and variance of the largest of `count` standard normals that correlate equally.

    `correlation` may have any shape; the integral is over the part that they do not share.
    """
    density = count * _pdf(_NODES) * _cdf(_NODES) ** (count - 1)
    density /= density.sum()
    mean = density @ _NODES
    variance = density @ np.square(_NODES - mean)
    own = np.clip(1.0 - correlation, 0.0, 1.0)
    return np.sqrt(own) * mean, 1.0 - own + own * variance


def _polynomials(x: Array, count: int) -> Iterator[Array]:
    """h_0(x) .. h_{count - 1}(x) by their recurrence."""
    before, now = np.zeros_like(x), np.ones_like(x)
    for k in range(count):
        yield now
        before, now = now, (x * now - math.sqrt(k) * before) / math.sqrt(k + 1)


def _nodes(function: Callable[[Array], Array], mean: Array, std: Array) -> tuple[Array, Array]:
    """Weights (nodes,) of a standard normal and phi's values (nodes, C) there.

    Equidistant nodes: for smooth integrands as exact as Gauss-Hermite, at kinks much better.
    """
    weights = _pdf(_NODES)
    values = function(mean + std * _NODES[:, None])
    return weights / weights.sum(), np.asarray(values, dtype=np.float64)


def _ramp(mean: Array, std: Array) -> tuple[Array, Array]:
    """First and second moment of max(B, 0)."""
    t = _standard(mean, std)
    tail, cdf = std * _pdf(t), _cdf(t)
    return tail + mean * cdf, (np.square(mean) + np.square(std)) * cdf + mean * tail


def _above(mean: Array, std: Array) -> Array:
    return _cdf(_standard(mean, std))


def _standard(mean: Array, std: Array) -> Array:
    """mean / std, kept within what the density can carry; a channel without spread is far off."""
    return np.asarray(np.clip(mean / np.maximum(std, 1e-30), -_FAR, _FAR))


def _pdf(t: Array) -> Array:
    return np.asarray(np.exp(-0.5 * np.square(t)) / math.sqrt(2 * math.pi))


_erfc = np.frompyfunc(math.erfc, 1, 1)


def _cdf(t: Array) -> Array:
    return np.asarray(0.5 * _erfc(-t / math.sqrt(2)), dtype=np.float64)
