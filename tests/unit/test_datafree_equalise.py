"""Cross-layer equalisation: the same function, channels of like size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress.channels.graph import read_weights, trace
from edgecompress.datafree import fold
from edgecompress.datafree.equalise import equalise, pairs
from edgecompress.datafree.model import modelled
from tests import small_models
from tests.unit.test_datafree_quantize import CASES, settled


def chain() -> Any:
    """Everything that a pair may have between its layers."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((9, 9, 3), name="image")
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(kl.Conv2D(8, 3, name="first")(inputs)))
    x = kl.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="deep")(x)
    x = kl.PReLU(shared_axes=[1, 2])(kl.BatchNormalization(center=False)(x))
    x = kl.LeakyReLU()(kl.Conv2D(6, 3, groups=2, name="grouped")(kl.ZeroPadding2D()(x)))
    x = kl.Conv2DTranspose(4, 2, activation="relu", name="up")(kl.MaxPooling2D(2)(x))
    x = kl.Dense(5, activation="relu6", name="flat")(kl.Flatten()(kl.Dropout(0.1)(x)))
    return keras.Model(inputs, kl.Dense(2, name="head")(x))


@pytest.mark.parametrize("name", [*CASES, "chain"])
def test_the_function_stays(name: str) -> None:
    model = settled((CASES | {"chain": chain})[name]())
    x = small_models.batch(model, 16)
    (before,), (after,) = (small_models.outputs(m, x) for m in (model, equalise(model)))
    assert np.allclose(before, after, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_pairs_are_what_scales_between_two_layers() -> None:
    found = [(pair.first, pair.norm, pair.second) for pair in pairs(trace(chain()))]
    assert found[0] == ("first", "norm", "deep")
    assert [(first, second) for first, _, second in found] == [
        ("first", "deep"),
        ("deep", "grouped"),
        ("grouped", "up"),
        ("up", "flat"),
    ]  # relu6 ends the last
    residual = [(p.first, p.second) for p in pairs(trace(small_models.residual()))]
    assert residual == []  # relu6, and tensors that are read twice


def test_channels_are_as_large_where_they_are_made_as_where_they_are_read() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((6, 6, 3))
    y = kl.Conv2D(8, 3, use_bias=False, name="first")(x)
    y = kl.ReLU()(kl.BatchNormalization(name="norm")(y))
    model = settled(keras.Model(x, kl.Conv2D(4, 1, name="second")(y)))
    model.get_layer("norm").gamma.assign([5.0, 0.01, 1, 1, 0.3, 2, -0.2, 0])
    equal = equalise(model)
    graph = trace(equal)
    ((first, norm),) = fold.pairs(graph)
    factor = fold.factor(norm.op, read_weights(norm.op))
    made = np.abs(read_weights(first.op)["kernel"] * factor).max(axis=(0, 1, 2))
    read = np.abs(read_weights(equal.get_layer("second"))["kernel"]).max(axis=(0, 1, 3))
    assert made[:7] == pytest.approx(read[:7], rel=1e-3)
    assert made[7] == 0 and np.isfinite(read[7])
    old, new = (read_weights(op) for op in (model.get_layer("norm"), norm.op))
    assert all(np.array_equal(old[key], new[key]) for key in ("moving_mean", "moving_variance"))
    scale = factor[:7] / fold.factor(norm.op, old)[:7]
    before, after = (modelled(m).read["second"].mean for m in (model, equal))
    assert after[:7] == pytest.approx(before[:7] * scale, rel=0.05)
