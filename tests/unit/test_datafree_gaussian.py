"""Element-wise functions of normal variables, against samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.datafree import activations
from edgecompress.datafree.gaussian import (
    IDENTITY,
    RELU,
    covariance,
    hermite,
    maximum_of,
    moments,
    rectifier,
)

MEAN = np.array([0.0, 1.0, -1.0, 0.3, 5.0, -3.0])
STD = np.array([1.0, 0.5, 1.5, 1.2, 0.8, 1.0])


@pytest.fixture(scope="module")
def normal() -> tuple[Any, Any]:
    """Correlation and samples of six normal variables, half of them mirrored."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 4))
    mix /= np.linalg.norm(mix, axis=1, keepdims=True)
    u = rng.normal(size=(150_000, 4)) @ mix.T
    return mix @ mix.T, MEAN + STD * np.concatenate([u, -u])


def _prelu() -> Any:
    from keras import layers as kl

    layer = kl.PReLU(shared_axes=[1])
    layer.build((None, 3, 6))
    layer.set_weights([np.linspace(-0.5, 1.5, 6, dtype="float32")[None]])
    return layer


def _activation(name: str) -> Any:
    from keras import layers as kl

    known = {
        "relu": kl.ReLU,
        "relu6": lambda: kl.ReLU(6.0),
        "leaky_clipped": lambda: kl.ReLU(max_value=2.0, negative_slope=0.1),
        "threshold": lambda: kl.ReLU(threshold=0.5),
        "leaky_relu": lambda: kl.LeakyReLU(negative_slope=0.3),
        "prelu": _prelu,
        "elu": lambda: kl.ELU(alpha=0.7),
    }
    return known[name]() if name in known else kl.Activation(name)


ACTIVATIONS = (
    "relu relu6 leaky_clipped threshold leaky_relu prelu elu linear hard_silu hard_sigmoid"
    " hard_tanh silu gelu sigmoid tanh"
).split()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments_and_covariance_are_those_of_samples(name: str, normal: tuple[Any, Any]) -> None:
    import keras

    layer, (correlation, b) = _activation(name), normal
    x = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(b[:, None], "float32")))
    x = x[:, 0].astype(np.float64)
    phi = activations.of(layer)
    assert phi is not None
    mean, variance = moments(phi, MEAN, STD)
    modelled = covariance(hermite(phi, MEAN, STD), variance, correlation)
    measured = np.cov(x.T)
    scale = np.sqrt(np.outer(measured.diagonal(), measured.diagonal()))
    assert np.abs(mean - x.mean(axis=0)).max() < 0.003
    assert np.all(np.abs(modelled - measured) < 0.01 * scale + 0.002)
    np.testing.assert_allclose(modelled.diagonal(), variance, rtol=1e-9, atol=1e-12)


def test_a_layer_that_mixes_channels_is_no_activation() -> None:
    from keras import layers as kl

    assert activations.of(kl.Softmax()) is None
    assert activations.of(kl.Activation("softmax")) is None
    assert activations.argument(kl.Dense(2, activation="softmax")) is None
    assert activations.argument(kl.Dense(2)) is IDENTITY


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=2),
    st.lists(st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 40.0]), min_size=2, max_size=2),
    st.floats(-1, 1),
)
def test_dead_and_saturated_channels_stay_finite(
    means: list[float], stds: list[float], rho: float
) -> None:
    mean, std = np.array(means), np.array(stds)
    for phi in (RELU, rectifier(0.1, 6.0)):
        first, variance = moments(phi, mean, std)
        found = covariance(hermite(phi, mean, std), variance, np.array([[1.0, rho], [rho, 1.0]]))
        assert np.isfinite(first).all()
        assert np.linalg.eigvalsh(found).min() >= -1e-9 * max(1.0, float(found.max()))


def test_channels_that_are_one_and_the_same_have_one_covariance() -> None:
    """rho = 1 leaves nothing of the series' rest out."""
    mean, std = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    variance = moments(RELU, mean, std)[1]
    found = covariance(hermite(RELU, mean, std, terms=3), variance, np.ones((2, 2)))
    np.testing.assert_allclose(found, variance[0])


def test_maximum_of_correlated_normals() -> None:
    rng = np.random.default_rng(0)
    shared = np.array([0.0, 0.6, 1.0])
    u = rng.normal(size=(200_000, 4, 1)) * np.sqrt(1 - shared)
    x = (u + rng.normal(size=(200_000, 1, 1)) * np.sqrt(shared)).max(axis=1)
    mean, variance = maximum_of(4, shared)
    np.testing.assert_allclose(mean, x.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(variance, x.var(axis=0), atol=0.01)
