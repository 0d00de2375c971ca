"""The closed forms of repair: exact where they can be, minimal where they say so, never NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.datafree.repair import EVEN, FORMS, activation, crossed, merge, regression, udfc
from edgecompress.datafree.statistics import Array, Moments
from edgecompress.vocabulary import REPAIRS, Repair

ALL = {**FORMS, "activation": activation}


def normal(n: int = 6, d: int = 9, seed: int = 0) -> Moments:
    """Linear channels B = filters x + offsets of white x."""
    rng = np.random.default_rng(seed)
    filters, offsets = rng.normal(size=(n, d)), rng.normal(size=n)
    return Moments(offsets.copy(), filters @ filters.T, filters, offsets)


def kept(n: int, *gone: int) -> Any:
    return ~np.isin(np.arange(n), gone)


def duplicated(factor: float) -> Moments:
    """Channel 4 is `factor` times channel 1."""
    read = normal()
    assert read.filters is not None and read.offsets is not None
    read.filters[4], read.offsets[4] = factor * read.filters[1], factor * read.offsets[1]
    return Moments(read.offsets, read.filters @ read.filters.T, read.filters, read.offsets)


@pytest.mark.parametrize("repair", REPAIRS)
def test_kept_channels_stay_themselves(repair: Repair) -> None:
    stay = kept(6, 1, 4)
    found = ALL[repair](normal(), stay)
    assert np.array_equal(found.mixing[stay], np.eye(4))
    assert np.array_equal(found.constant[stay], np.zeros(4))
    whole = ALL[repair](normal(), kept(6))
    assert np.array_equal(whole.mixing, np.eye(6)) and not whole.constant.any()


@pytest.mark.parametrize("repair", ["mean", "udfc", "activation"])
def test_means_are_kept(repair: Repair) -> None:
    read, stay = normal(), kept(6, 0, 5)
    found = ALL[repair](read, stay)
    np.testing.assert_allclose(found.mixing @ read.mean[stay] + found.constant, read.mean)


@pytest.mark.parametrize("repair", ["none", "lbyl", "merge"])
def test_others_leave_the_means_alone(repair: Repair) -> None:
    assert not ALL[repair](normal(), kept(6, 0, 5)).constant.any()


@pytest.mark.parametrize("factor", [1.0, 0.3, -2.0])
@pytest.mark.parametrize(
    "form",
    [
        lambda read, stay: udfc(read, stay, alpha2=1e-10),
        lambda read, stay: activation(read, stay, damping=1e-10),
    ],
)
def test_a_duplicate_is_recovered(form: Callable[..., Any], factor: float) -> None:
    found = form(duplicated(factor), kept(6, 4))
    np.testing.assert_allclose(found.mixing[4], [0, factor, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found.constant, 0, atol=1e-7)


def test_merging_takes_the_ratio_of_the_folded_norms() -> None:
    found = merge(duplicated(2.5), kept(6, 4))
    np.testing.assert_allclose(found.mixing[4], [0, 2.5, 0, 0, 0], atol=1e-12)
    assert not merge(duplicated(-1.0), kept(6, 0, 2, 3, 4, 5)).mixing[4].any()


def minimal(loss: Callable[[Array], float], at: Array) -> None:
    """No small step in any direction makes the loss smaller, and the loss is no constant."""
    for direction in np.random.default_rng(1).normal(size=(20, len(at))):
        ahead, back = loss(at + 1e-3 * direction), loss(at - 1e-3 * direction)
        assert min(ahead, back) > loss(at)
        assert abs(ahead - back) < 1e-3 * (ahead + back - 2 * loss(at))


def test_udfc_is_the_minimum_of_its_loss() -> None:
    read, stay, alpha1, alpha2 = normal(), kept(6, 2), 0.3, 0.2
    f, b = read.filters, read.offsets
    assert f is not None and b is not None

    def loss(s: Array) -> float:
        residual = ((f[2] - s @ f[stay]) ** 2).sum()
        return float(residual + alpha1 * (b[2] - s @ b[stay]) ** 2 + alpha2 * (s**2).sum())

    minimal(loss, udfc(read, stay, alpha1=alpha1, alpha2=alpha2).mixing[2])


@pytest.mark.parametrize("gone", [(), (2,)])
def test_rounded_filters_are_combined_to_the_least_squares(gone: tuple[int, ...]) -> None:
    """UDFC's S': channel 4 is kept and rounded, channel 2 pruned in the same solve."""
    read, stay, alpha1, alpha2 = normal(), kept(6, *gone), 0.3, 0.2
    f, b = read.filters, read.offsets
    assert f is not None and b is not None
    rounded = np.round(2 * f) / 2, np.round(4 * b) / 4
    own, offset = rounded[0][stay], rounded[1][stay]
    found = udfc(replace(read, rounded=rounded), stay, alpha1=alpha1, alpha2=alpha2)
    for j, start in ((4, np.eye(6)[4][stay]), *((j, 0 * b[stay]) for j in gone)):

        def loss(s: Array, j: int = j, start: Array = start) -> float:
            residual = ((f[j] - s @ own) ** 2).sum()
            return float(
                residual + alpha1 * (b[j] - s @ offset) ** 2 + alpha2 * ((s - start) ** 2).sum()
            )

        minimal(loss, found.mixing[j])
    np.testing.assert_allclose(found.mixing @ read.mean[stay] + found.constant, read.mean)
    same = udfc(replace(read, rounded=(f, b)), stay)
    assert np.array_equal(same.mixing[stay], np.eye(int(stay.sum())))


def test_activation_is_the_minimum_of_the_damped_error() -> None:
    read, stay = normal(), kept(6, 2)
    own = read.covariance[np.ix_(stay, stay)]

    def loss(s: Array) -> float:
        error = read.covariance[2, 2] - 2 * s @ read.covariance[stay, 2] + s @ own @ s
        even = np.diag(own) + EVEN * np.diag(own).mean()
        return float(error + 0.1 * (s**2 * even).sum())

    minimal(loss, activation(read, stay, damping=0.1).mixing[2])


def test_without_regularisers_udfc_is_the_activation_form_of_linear_channels() -> None:
    read, stay = normal(), kept(6, 0, 3)
    np.testing.assert_allclose(
        udfc(read, stay, alpha1=0, alpha2=1e-12).mixing,
        activation(read, stay, damping=1e-12).mixing,
        atol=1e-6,
    )


@pytest.mark.parametrize("repair", ["udfc", "lbyl", "merge"])
def test_channels_without_filters_go_by_their_covariance(repair: Repair) -> None:
    read = duplicated(0.5)
    bare = Moments(read.mean, read.covariance)
    found = ALL[repair](bare, kept(6, 4)).mixing[4]
    assert np.argmax(np.abs(found)) == 1 and found[1] > 0.4


def test_crossed_without_errors_before_is_the_activation_form() -> None:
    read, stay = normal(), kept(6, 1, 2)
    both = np.tile(read.covariance, (2, 2))
    found = crossed(np.tile(read.mean, 2), both, stay)
    wanted = activation(read, stay)
    np.testing.assert_allclose(found.mixing, wanted.mixing, atol=1e-12)
    np.testing.assert_allclose(found.constant, wanted.constant, atol=1e-12)


def test_crossed_undoes_what_happened_to_the_kept_channels() -> None:
    change = np.diag([0.5, 2.0, 1.0, 3.0, 1.0, 0.1])
    read, stay = normal(), kept(6)
    c = read.covariance
    both = np.block([[c, c @ change], [change @ c, change @ c @ change]])
    found = crossed(np.r_[read.mean, change @ read.mean], both, stay, damping=1e-11)
    np.testing.assert_allclose(found.mixing, np.linalg.inv(change), atol=1e-5)


def test_regression_of_dead_channels_is_zero() -> None:
    covariance = np.diag([1.0, 0.0, 2.0])
    np.testing.assert_allclose(regression(covariance, covariance, 1e-12)[1], 0, atol=1e-12)


def test_little_is_built_on_channels_that_hardly_vary() -> None:
    """Channel 0 is a hundredth of channel 1: to restore 1 from 0 would need a factor of 100."""
    covariance = np.array([[1e-4, 1e-2, 0], [1e-2, 1.0, 0], [0, 0, 1.0]])
    found = activation(Moments(np.zeros(3), covariance), kept(3, 1)).mixing[1]
    assert 0 < found[0] < 10


def test_negative_eigenvalues_do_no_harm() -> None:
    wrong = np.array([[1.0, 0.99, -0.99], [0.99, 1.0, 0.99], [-0.99, 0.99, 1.0]])
    assert np.linalg.eigvalsh(wrong)[0] < -0.9
    values = np.linalg.eigvalsh(regression(np.eye(3), wrong, 0.03))
    assert values.min() >= 0 and values.max() < 1 / 0.03


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 12),
    d=st.integers(1, 12),
    scale=st.sampled_from([1e-12, 1e-4, 1.0, 1e4]),
    dead=st.integers(0, 3),
    repair=st.sampled_from(REPAIRS),
    seed=st.integers(0, 2**32 - 1),
)
def test_forms_are_finite_whatever_the_channels(
    n: int, d: int, scale: float, dead: int, repair: Repair, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    filters, offsets = scale * rng.normal(size=(n, d)), scale * rng.normal(size=n)
    filters[:dead], offsets[:dead] = 0, 0
    read = Moments(offsets, filters @ filters.T, filters, offsets)
    stay = rng.random(n) < 0.6
    stay[rng.integers(n)] = True
    found = ALL[repair](read, stay)
    assert np.isfinite(found.mixing).all() and np.isfinite(found.constant).all()
