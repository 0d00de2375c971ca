"""Random networks: repair without data never breaks one, and is not worse than plain pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecompress import channels, prune
from edgecompress.datafree.apply import repaired
from edgecompress.datafree.model import modelled
from edgecompress.vocabulary import Repair
from tests.conftest import nightly
from tests.small_models import outputs

ACTIVATIONS: tuple[Callable[[Any], Any], ...] = (
    lambda kl: kl.ReLU(),
    lambda kl: kl.ReLU(max_value=6.0),
    lambda kl: kl.LeakyReLU(negative_slope=0.2),
    lambda kl: kl.PReLU(shared_axes=[1, 2]),
    lambda kl: kl.Activation("hard_silu"),
    lambda kl: kl.Activation("tanh"),
)


class Maker:
    """Grows a random network by one piece after the other."""

    def __init__(self, seed: int, normalised: bool) -> None:
        from keras import layers

        self.rng, self.normalised, self.kl = np.random.default_rng(seed), normalised, layers
        self.depth = 0

    def activation(self) -> Any:
        return ACTIVATIONS[self.rng.integers(len(ACTIVATIONS))](self.kl)

    def unit(self, y: Any, layer: Any, *, linear: bool = False) -> Any:
        """A layer, its normalisation and an activation."""
        self.depth += 1
        y = layer(y)
        y = self.kl.BatchNormalization(momentum=0.0)(y) if self.normalised else y
        return y if linear else self.activation()(y)

    def conv(self, size: int, channels: int | None = None) -> Any:
        n = int(self.rng.integers(8, 13)) if channels is None else channels
        return self.kl.Conv2D(n, size, padding="same", use_bias=not self.normalised)

    def chain(self, y: Any) -> Any:
        return self.unit(y, self.conv(int(self.rng.integers(1, 4))))

    def residual(self, y: Any) -> Any:
        inner = self.unit(y, self.conv(3))
        inner = self.unit(inner, self.conv(3, y.shape[-1]), linear=True)
        return self.activation()(self.kl.Add()([inner, y]))

    def concat(self, y: Any) -> Any:
        return self.unit(self.kl.Concatenate()([self.unit(y, self.conv(3, 4)), y]), self.conv(1))

    def depthwise(self, y: Any) -> Any:
        layer = self.kl.DepthwiseConv2D(3, padding="same", use_bias=not self.normalised)
        return self.unit(self.unit(y, layer), self.conv(1))

    def pool(self, y: Any) -> Any:
        kind = self.kl.AveragePooling2D if self.rng.random() < 0.5 else self.kl.MaxPooling2D
        return kind(2)(y) if y.shape[1] > 2 else self.chain(y)


def network(depth: int, normalised: bool, seed: int) -> tuple[Any, Any]:
    """A network, and normal inputs which its moving statistics are those of.

    He's initialisation, random biases; of gamma a few values are negative and some zero.
    """
    import keras

    maker = Maker(seed, normalised)
    rng, kl = maker.rng, maker.kl
    inputs = kl.Input((8, 8, 3))
    y = maker.chain(inputs)
    pieces = (maker.chain, maker.residual, maker.concat, maker.depthwise, maker.pool)
    while maker.depth < depth:
        y = pieces[rng.integers(len(pieces))](y)
    y = (kl.Flatten() if rng.random() < 0.5 else kl.GlobalAveragePooling2D())(y)
    model = keras.Model(inputs, kl.Dense(4)(kl.Dense(12, activation="relu")(y)), name="network")
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name == "kernel":
            inner = shape[:2] if "depthwise" in weight.path else shape[:-1]
            weight.assign(rng.normal(0, np.sqrt(2 / np.prod(inner)), shape))
        elif weight.name == "alpha":
            weight.assign(rng.uniform(-0.1, 0.4, shape))
        elif weight.name in ("bias", "beta"):
            weight.assign(rng.normal(0, 0.3, shape))
        elif weight.name == "gamma":
            weight.assign(rng.normal(0.8, 0.5, shape) * (rng.random(shape) > 0.05))
    x = rng.normal(size=(64, 8, 8, 3)).astype("float32")
    model(x, training=True)
    return model, x


def errors(model: Any, x: Any, seed: int) -> dict[Repair, float]:
    """The errors of the outputs relative to their variance, by repair, where a quarter of the
    channels of three groups is removed: of all groups, a deep network would keep no signal."""
    plan = prune.plan(model, ratio=0.25, scope="layer")
    chosen = np.random.default_rng(seed).permutation(list(plan.drops))[:3]
    drops = {str(name): plan.drops[name] for name in chosen}
    view = channels.analyse(model)
    keep, wanted, known = view.keep(drops), outputs(model, x)[0], modelled(view)
    found: dict[Repair, float] = {}
    for repair in ("none", *LIMITS):
        changes = repaired(view, keep, known, repair).changes
        made = outputs(channels.mask(model, drops, changes=changes), x)[0]
        found[repair] = float(np.square(made - wanted).mean() / wanted.var(axis=0).mean())
    return found


LIMITS: dict[Repair, tuple[float, float]] = {"activation": (1.5, 1.5), "udfc": (1.5, 5.0)}
"""What repair may leave of the error of plain pruning, at most: with BatchNormalization, without.

Of 100 networks of depth 1 to 6 the worst were 0.97 and 1.08 (activation), 1.20 and 3.25 (udfc);
the medians 0.3 to 0.4. Where plain pruning leaves more error than signal, what is left is chance:
there the worst was 1.42."""
CHANCE = 2.0


def check(found: dict[Repair, float], normalised: bool) -> None:
    for repair, limits in LIMITS.items():
        limit = limits[0 if normalised else 1]
        limit = limit if found["none"] < 1 else max(limit, CHANCE)
        assert found[repair] <= limit * found["none"] + 1e-3, (repair, found)


@settings(max_examples=nightly(3, 40), deadline=None, derandomize=True)
@example(depth=8, normalised=True, seed=3)
@example(depth=60, normalised=True, seed=0)
@given(depth=st.integers(1, nightly(6, 58)), normalised=st.booleans(), seed=st.integers(0, 2**16))
def test_repair_is_not_worse_than_plain_pruning(depth: int, normalised: bool, seed: int) -> None:
    model, x = network(depth, normalised, seed)
    check(errors(model, x, seed), normalised)


@pytest.mark.parametrize(("depth", "seed"), [(6, 1), (6, 4), (9, 2)])
def test_guards_keep_repair_from_going_by_wrong_statistics(depth: int, seed: int) -> None:
    """Moving statistics of no network; without the guards the errors are 4, 16 and 3 times those
    of plain pruning."""
    model, x = network(depth, True, seed)
    rng = np.random.default_rng(seed + 1)
    for layer in model.layers:
        if hasattr(layer, "moving_variance"):
            mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
            variance *= np.exp(rng.normal(0, 1.5, variance.shape))
            layer.moving_variance.assign(variance)
            layer.moving_mean.assign(mean + rng.normal(size=mean.shape) * np.sqrt(variance))
    check(errors(model, x, seed), True)


def test_repair_takes_most_of_the_error_away() -> None:
    found = [errors(*network(depth, True, 0), 0) for depth in (1, 2, 4, 6)]
    assert all(row["none"] > 0.2 for row in found)
    for repair, limit in (("activation", 0.3), ("udfc", 0.45)):
        shares = [row[repair] / row["none"] for row in found]
        assert np.exp(np.mean(np.log(shares))) < limit, (repair, shares)
