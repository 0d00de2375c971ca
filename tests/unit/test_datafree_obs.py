"""Greedy Optimal Brain Surgeon against brute force, and as a score of the pruning stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecompress import channels, prune
from edgecompress.channels import View
from edgecompress.datafree import obs
from edgecompress.datafree.readers import Reader, readers
from edgecompress.datafree.statistics import Array, Moments, Statistics
from tests.small_models import batch, randomised, residual


def moments(n: int, seed: int = 3) -> Moments:
    root = np.random.default_rng(seed).normal(size=(n, 2 * n))
    return Moments(np.zeros(n), root @ root.T / n)


@pytest.fixture(scope="module")
def view() -> View:
    """One tensor of 6 channels, read by a convolution and, twice side by side, by another."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((5, 5, 3))
    x = kl.Conv2D(6, 1, name="maker")(inputs)
    twice = kl.Conv2D(2, 1, name="twice")(kl.Concatenate()([x, x]))
    once = kl.Conv2D(2, 3, padding="same", name="once")(x)
    model = keras.Model(inputs, kl.Add()([once, twice]), name="two_readers")
    return channels.analyse(randomised(model))


def loss(reader: Reader, gone: list[int], damping: float) -> float:
    """The relative error that the best repair of a reader leaves, with a damped covariance."""
    covariance = reader.read.covariance
    covariance = covariance + damping * np.diag(np.diag(covariance))
    rows = reader.rows()
    n = rows.shape[1]
    places = [p for p in range(n) if p % 6 in gone]
    stay = [p for p in range(n) if p not in places]
    inner = covariance[np.ix_(places, stay)] @ np.linalg.inv(covariance[np.ix_(stay, stay)])
    left = covariance[np.ix_(places, places)] - inner @ covariance[np.ix_(stay, places)]

    def trace(w: Array, c: Array) -> float:
        return float(np.einsum("tio,ij,tjo->", w, c, w))

    return trace(rows[:, places], left) / trace(rows, covariance)


@pytest.mark.parametrize("names", [("once",), ("twice",), ("once", "twice")])
def test_every_step_is_the_best_and_its_loss_is_true(view: View, names: tuple[str, ...]) -> None:
    known = Statistics({"once": moments(6), "twice": moments(12)}, {})
    sites = [r for r in readers(view, known) if r.name in names]
    found = obs.order(view, "maker", sites, damping=0.1)
    gone: list[int] = []
    for step, channel in enumerate(found.channels[:-1].tolist()):
        trials = {
            c: sum(loss(site, [*gone, c], 0.1) for site in sites) for c in range(6) if c not in gone
        }
        assert channel == min(trials, key=lambda c: trials[c])
        gone.append(channel)
        assert found.losses[step] == pytest.approx(trials[channel], rel=1e-6)
    assert sorted(found.channels.tolist()) == list(range(6))


def test_a_duplicate_goes_first_and_its_twin_last_of_all_equals(view: View) -> None:
    read = moments(6)
    copy = [0, 1, 2, 3, 1, 5]
    read = replace(read, covariance=read.covariance[np.ix_(copy, copy)])
    (site,) = (r for r in readers(view, Statistics({"once": read}, {})))
    found = obs.order(view, "maker", [site], damping=1e-6)
    assert found.channels[0] in (1, 4)
    assert found.losses[0] < 1e-5 < found.losses[1]


def test_increments_sort_as_the_order(view: View) -> None:
    for losses in ([0.0, 0.0, 0.3, 0.4], [0.2, 0.3, 0.9, 1.0]):
        found = obs.Order(np.array([2, 0, 3, 1]), np.array(losses))
        assert (np.diff(found.increments) > 0).all()


def test_a_group_with_an_unknown_reader_is_not_covered(view: View) -> None:
    one = tuple(readers(view, Statistics({"once": moments(6)}, {})))
    both = tuple(readers(view, Statistics({"once": moments(6), "twice": moments(12)}, {})))
    assert not obs.covered(view, "maker", one)
    assert obs.covered(view, "maker", both)


def test_score_obs_takes_samples_or_none() -> None:
    model: Any = randomised(residual())
    x = batch(model, 64)
    plans = [
        prune.plan(model, ratio=0.4, score="obs", scope="layer", samples=samples)
        for samples in (x, x, None)
    ]
    assert plans[0] == plans[1]
    for plan in plans:
        assert plan.channels == (9, 6)
