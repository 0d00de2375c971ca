"""Scope "sensitivity": groups lose channels by what the outputs lose, as measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress import channels, prune
from edgecompress.artifact import Artifact
from edgecompress.errors import ConfigError
from edgecompress.evaluation import predict
from edgecompress.progress import silent
from edgecompress.prune import sensitivity
from tests.small_models import randomised

CLASSES = 5


@pytest.fixture(scope="module")
def model() -> Any:
    """Two groups of 8: what reads `idle` multiplies it by almost nothing, `busy` matters."""
    import keras
    from keras import layers as kl

    x = inputs = kl.Input((6,))
    for name in ("idle", "busy"):
        x = kl.Dense(8, activation="relu", name=name)(x)
    made = randomised(
        keras.Model(inputs, kl.Dense(CLASSES, activation="softmax", name="out")(x), name="two")
    )
    kernel, bias = made.get_layer("busy").get_weights()
    made.get_layer("busy").set_weights([kernel * 0.1, bias + 1])
    return made


def rows() -> Any:
    return np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)


def test_a_price_is_the_divergence_of_the_masked_model(model: Any) -> None:
    view = channels.analyse(model)
    orders = {name: np.arange(8) for name in ("idle", "busy")}
    x, before = rows(), [w.copy() for w in model.get_weights()]
    prices = sensitivity.prices(view, orders, x, progress=silent)
    whole = predict(model, x)
    apart = sensitivity.divergence(whole)
    assert apart(whole) == 0
    for (group, order), price in zip(orders.items(), prices, strict=True):
        assert price.shape == (7,) and (np.diff(price) >= -1e-12).all()
        by_hand = []
        for count in (2, 4, 5, 7):  # the SHARES of 7
            masked = predict(channels.mask(model, {group: order[:count].tolist()}), x)
            p, q = whole.astype(np.float64), masked.astype(np.float64)
            by_hand.append(np.mean(np.sum(p * np.log(p / q) - p + q, axis=1)))
        assert price.sum() == pytest.approx(max(by_hand), rel=1e-3)
    assert prices[0].sum() < 0.1 * prices[1].sum()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_values_that_are_no_probabilities_are_compared_by_their_variance() -> None:
    whole = np.random.default_rng(0).normal(size=(50, 3))
    apart = sensitivity.divergence(whole)
    assert apart(whole + 2 * whole.std()) == pytest.approx(4)
    assert sensitivity.divergence(np.ones((4, 1)))(np.zeros((4, 1))) == 1


def test_the_group_that_matters_less_goes_first(model: Any) -> None:
    given: dict[str, Any] = {"params": 0.7, "scope": "sensitivity", "samples": rows()}
    pruned = prune.prune_structured(Artifact("two", model), **given)
    left = {g["name"]: g["size"] - len(g["drop"]) for g in pruned.steps[0].effect["plan"]["groups"]}
    assert left["busy"] == 8 and left["idle"] < 8
    assert pruned.steps[0].effect["samples"] == 64
    with pytest.raises(ConfigError, match="^prune: scope sensitivity is measured on rows; pass"):
        prune.prune_structured(Artifact("two", model), params=0.7, scope="sensitivity")
