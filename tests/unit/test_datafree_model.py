"""The statistics of a network from its weights, against samples that follow the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress.channels import analyse
from edgecompress.datafree import fields
from edgecompress.datafree.gaussian import RELU
from edgecompress.datafree.model import conditioned, modelled
from edgecompress.datafree.statistics import Moments, Statistics, coverage, patch_covariance
from edgecompress.errors import UnsupportedError
from tests.small_models import MODELS, outputs, randomised


def _noise(n: int, size: int, channels: int) -> Any:
    """Independent pixels of correlated channels with means 0.5, and the field of them."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(channels, channels))
    x = rng.normal(size=(n, size, size, channels)) @ mix + 0.5
    spread = np.zeros((size, size, channels, channels))
    spread[0, 0] = mix.T @ mix
    return x, fields.Field(np.full(channels, 0.5), spread, (size, size))


def _measured(x: Any) -> tuple[Any, Any]:
    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return flat.mean(axis=0), np.cov(flat.T)


def _close(field: Any, x: Any, *, within: float = 0.05) -> None:
    mean, covariance = _measured(x)
    scale = np.sqrt(covariance.diagonal())
    assert np.abs((field.mean - mean) / scale).max() < within
    found = field.spread[0, 0] if isinstance(field, fields.Field) else field.covariance
    assert np.abs((found - covariance) / np.outer(scale, scale)).max() < within


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["full", "depthwise"])
def test_convolutions_of_a_known_field(padding: str, stride: int, kind: str) -> None:
    """Means, channel covariances (border included) and those at the next position."""
    import keras

    x, field = _noise(3000, 8, 3)
    layer: Any = keras.layers.Conv2D(4, 3, strides=stride, padding=padding)
    if kind == "depthwise":
        layer = keras.layers.DepthwiseConv2D(3, strides=stride, padding=padding, depth_multiplier=2)
    y = np.asarray(layer(keras.ops.convert_to_tensor(x, "float32")))
    kernel = np.asarray(layer.kernel, np.float64)
    before = (1 if stride == 1 else 0) if padding == "same" else 0
    window = fields.window((8, 8), (3, 3), (stride, stride), (1, 1), (before,) * 2, y.shape[1:3])
    step = fields.depthwise if kind == "depthwise" else fields.convolved
    found = step(field, kernel, np.zeros(y.shape[-1]), window)
    _close(found, y, within=0.08)
    if padding == "valid":
        centred = y.astype(np.float64) - y.mean(axis=(0, 1, 2))
        next_to = np.einsum("nhwi,nhwj->ij", centred[:, :, :-1], centred[:, :, 1:])
        next_to /= centred[:, :, 1:, 0].size
        np.testing.assert_allclose(found.spread[0, 1], next_to, atol=0.05 * y.var())


def test_average_pooling_keeps_means_and_shrinks_covariances() -> None:
    x, field = _noise(3000, 8, 3)
    window = fields.window((8, 8), (2, 2), (2, 2), (1, 1), (0, 0), (4, 4))
    _close(fields.averaged(field, window), x.reshape(-1, 4, 2, 4, 2, 3).mean(axis=(2, 4)))


def test_max_pooling_of_rectified_channels() -> None:
    x, field = _noise(3000, 8, 3)
    window = fields.window((8, 8), (2, 2), (2, 2), (1, 1), (0, 0), (4, 4))
    pooled = np.maximum(x, 0).reshape(-1, 4, 2, 4, 2, 3).max(axis=(2, 4))
    found = fields.largest(fields.applied(field, RELU), window)
    mean, covariance = _measured(pooled)
    np.testing.assert_allclose(found.mean, mean, rtol=0.05)
    np.testing.assert_allclose(found.variance, covariance.diagonal(), rtol=0.15)


def test_a_patch_of_a_field() -> None:
    """What a kernel reads: taps in row-major order, channels inside."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 9, 9, 2))
    x = noise[:, 1:, :-1] + 0.5 * noise[:, :-1, :-1] + noise[:, 1:, 1:, ::-1]
    centred = x - x.mean(axis=(0, 1, 2))
    spread = np.stack(
        [
            [
                np.einsum("nhwi,nhwj->ij", centred, np.roll(centred, (-a, -b), (1, 2))) / 256_000
                for b in range(8)
            ]
            for a in range(8)
        ]
    )
    patches = np.stack([x[:, a : a + 7, b : b + 7] for a in (0, 1) for b in (0, 1)], axis=3)
    found = patch_covariance(Moments(x.mean((0, 1, 2)), spread[0, 0], spread=spread), (2, 2))
    assert found is not None
    np.testing.assert_allclose(found, np.cov(patches.reshape(-1, 8).T), atol=0.15)
    assert patch_covariance(Moments(np.zeros(2), spread[0, 0]), (2, 2)) is None


def test_a_patch_never_has_a_negative_variance() -> None:
    """Covariances on a torus are those of no patch where it reaches around."""
    wave = np.cos(np.pi * np.arange(4) / 2)[:, None] * np.cos(np.pi * np.arange(4) / 2)
    wave[2, 1:] = 0.9
    near = Moments(np.zeros(1), np.eye(1), spread=wave[:, :, None, None])
    found = patch_covariance(near, (3, 3))
    assert found is not None
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.linalg.eigvalsh(found)[0] > -1e-9
    assert patch_covariance(near, (3, 3), (2, 1)) is None


def test_coverage_counts_positions_inside() -> None:
    np.testing.assert_allclose(coverage(8, 3, 1, 1, 8), [7 / 8, 1, 7 / 8])
    np.testing.assert_allclose(coverage(8, 3, 2, 0, 4), [1, 1, 3 / 4])
    np.testing.assert_allclose(coverage(8, 3, 1, 2, 8, dilation=2), [6 / 8, 1, 6 / 8])


def _dense(*between: Any, units: int = 6) -> Any:
    import keras

    x = inputs = keras.Input((4,), name="image")
    x = keras.layers.Dense(units, name="first")(x)
    for layer in between:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


WITHIN = (1 - 2 * 3**0.5, 1 + 2 * 3**0.5)
"""A range of mean 1 and deviation 2."""


def _given() -> Any:
    """Independent inputs of mean 1 and deviation 2."""
    return np.random.default_rng(3).normal(1.0, 2.0, size=(100_000, 4)).astype("float32")


@pytest.mark.parametrize("activation", ["relu", "hard_silu"])
def test_propagates_from_a_known_input(activation: str) -> None:
    import keras

    model = randomised(_dense(keras.layers.Activation(activation, name="phi")))
    x = _given()
    found = modelled(model, input_range=WITHIN)
    assert not found.assumed
    y = outputs(keras.Model(model.inputs, [layer.output for layer in model.layers[1:]]), x)
    _close(found.made["first"], y[0])
    _close(found.read["last"], y[1])
    _close(found.linear["last"], y[2])
    assert found.read["last"].source == "propagated"
    np.testing.assert_allclose(
        found.made["first"].filters, model.get_layer("first").kernel.numpy().T
    )


def test_batch_normalization_is_known() -> None:
    """Mean beta, deviation |gamma|; correlations turn with gamma's sign; zero gamma is dead."""
    import keras

    model = randomised(_dense(keras.layers.BatchNormalization(name="bn")))
    bn, first = model.get_layer("bn"), model.get_layer("first")
    gamma = np.array([1.5, -0.5, 0.0, 2.0, -1.0, 0.3])
    bn.gamma.assign(gamma)
    found = modelled(model).made
    beta, mean, variance = (np.asarray(w) for w in (bn.beta, bn.moving_mean, bn.moving_variance))
    deviation = np.abs(gamma) * np.sqrt(variance / (variance + bn.epsilon))
    made = found["bn"]
    assert made.source == "bn"
    np.testing.assert_allclose(made.mean, beta, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(made.covariance.diagonal()), deviation, atol=1e-6)
    before = found["first"].covariance
    assert np.sign(made.covariance[0, 1]) == -np.sign(before[0, 1])
    np.testing.assert_allclose(found["first"].mean, mean, rtol=1e-6)
    scale = gamma / np.sqrt(variance + bn.epsilon)
    assert made.filters is not None and made.offsets is not None
    np.testing.assert_allclose(made.filters, scale[:, None] * first.kernel.numpy().T, rtol=1e-5)
    expected = beta + scale * (first.bias.numpy() - mean)
    np.testing.assert_allclose(made.offsets, expected, rtol=1e-5, atol=1e-6)


def test_batch_normalization_that_saw_no_data_tells_nothing() -> None:
    import keras

    model = _dense(keras.layers.BatchNormalization(scale=False, name="bn"))
    x = _given()
    y = outputs(keras.Model(model.input, model.get_layer("bn").output), x)[0]
    found = modelled(model, input_range=WITHIN)
    _close(found.made["bn"], y)
    assert found.guards["first"].spread is None


def _settled(model: Any, x: Any) -> Any:
    """The model with the moving statistics that x gives, and little of gamma's."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            mean, covariance = _measured(outputs(keras.Model(model.input, layer.input), x)[0])
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(covariance.diagonal())
    return model


def _images(n: int = 400) -> Any:
    """Skewed, smooth images of two channels."""
    rng = np.random.default_rng(5)
    x = np.exp(rng.normal(size=(n, 10, 10, 2)))
    return (x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)).astype("float32")


def _convolutional(*, depthwise: bool = False) -> Any:
    import keras
    from keras import layers as kl

    inputs = kl.Input((10, 10, 2), name="image")
    x = kl.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = kl.ReLU(name="relu")(kl.BatchNormalization(name="bn")(x))
    last = kl.Conv2D(12, 3, padding="same", name="last")
    if depthwise:
        last = kl.DepthwiseConv2D(1, name="last")
    x = kl.BatchNormalization(name="last_bn")(last(kl.Dropout(0.1)(x)))
    return _settled(randomised(keras.Model(inputs, x)), _images())


@pytest.mark.parametrize("depthwise", [False, True])
def test_means_are_refined_by_the_next_batch_normalization(depthwise: bool) -> None:
    import keras

    model = _convolutional(depthwise=depthwise)
    y = outputs(keras.Model(model.input, model.get_layer("relu").output), _images())[0]
    mean, _ = _measured(y)
    fine = modelled(model).read["last"].mean
    last = model.get_layer("last_bn")
    last.moving_mean.assign(np.zeros(last.beta.shape))
    last.moving_variance.assign(np.ones(last.beta.shape))  # as one that has seen no data
    rough = modelled(model).read["last"].mean
    assert np.linalg.norm(fine - mean) < 0.6 * np.linalg.norm(rough - mean)


def test_conditioned_meets_exact_equations_and_ignores_void_ones() -> None:
    rng = np.random.default_rng(0)
    rows, truth = rng.normal(size=(5, 5)), rng.normal(size=5)
    exact = conditioned(np.zeros(5), np.ones(5), rows, rows @ truth, np.full(5, 1e-9))
    np.testing.assert_allclose(exact, truth, atol=1e-4)
    void = conditioned(np.zeros(5), np.ones(5), rows, rows @ truth, np.full(5, 1e9))
    np.testing.assert_allclose(void, 0, atol=1e-6)


def test_an_unknown_input_is_estimated_from_the_first_statistics() -> None:
    """Mean and scale of raw inputs, through a Rescaling."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((10, 10, 2), name="image")
    x = kl.Conv2D(16, 3, use_bias=False, name="stem")(kl.Rescaling(0.1, -3.0)(inputs))
    model = randomised(keras.Model(inputs, kl.BatchNormalization(name="bn")(x)))
    images = 100 + 5 * _images()
    found = modelled(_settled(model, images)).made["image"]
    mean, covariance = _measured(images)
    np.testing.assert_allclose(found.mean, mean, rtol=0.1)
    assert np.all(np.abs(np.log(found.covariance.diagonal() / covariance.diagonal())) < 0.7)


def test_rescaled_pixels_and_normalized_inputs_without_statistics() -> None:
    import keras
    from keras import layers as kl

    normalization = kl.Normalization(name="scaled")
    normalization.adapt(np.array([[1.0, 10.0], [3.0, 30.0]], dtype="float32"))
    found = modelled(keras.Sequential([kl.Input((2,), name="x"), normalization, kl.Dense(3)]))
    np.testing.assert_allclose(found.made["scaled"].mean, [0, 0])
    np.testing.assert_allclose(found.made["x"].mean, [2, 20], rtol=1e-5)
    np.testing.assert_allclose(found.made["x"].covariance.diagonal(), [1, 100], rtol=1e-5)
    pixels = keras.Sequential(
        [kl.Input((8, 8, 3)), kl.Rescaling(1 / 255, name="s"), kl.Conv2D(2, 1)]
    )
    np.testing.assert_allclose(modelled(pixels).made["s"].mean, 0.5)


def test_what_an_input_range_tells() -> None:
    """The scale where nothing else does; a Normalization and the first statistics know better."""
    import keras
    from keras import layers as kl

    bare = _dense()
    assert modelled(bare).assumed
    found = modelled(bare, input_range=(0.0, 12.0))
    assert not found.assumed
    np.testing.assert_allclose(found.read["first"].mean, 6)
    np.testing.assert_allclose(found.read["first"].covariance.diagonal(), 12)
    scale = kl.Rescaling(1 / 127.5, -1.0, name="scaled")
    scaled = keras.Sequential([kl.Input((4,)), scale, kl.Dense(2, name="first")])
    found = modelled(scaled, input_range=(0.0, 255.0))
    np.testing.assert_allclose(found.read["first"].mean, 0, atol=1e-9)
    np.testing.assert_allclose(found.read["first"].covariance.diagonal(), 1 / 3)
    assert not modelled(scaled).assumed
    wide = keras.Sequential([kl.Input((4,)), kl.Rescaling(3.0), kl.Dense(2)])
    assert modelled(wide).assumed
    adapted = kl.Normalization(name="scaled")
    adapted.adapt(np.array([[2.0], [4.0]], dtype="float32"))
    model = keras.Sequential([kl.Input((1,)), adapted, kl.Dense(2, name="first")])
    found = modelled(model, input_range=(-100.0, 100.0))
    assert not found.assumed and not modelled(model).assumed
    np.testing.assert_allclose(found.read["first"].covariance, 1)
    images = _images()
    settled = _convolutional()
    assert not modelled(settled).assumed
    for ends in ((0.0, 255.0), (0.0, 10.0)):
        ratio = modelled(settled, input_range=ends).made["image"].covariance.diagonal()
        ratio = ratio / images.reshape(-1, 2).var(axis=0)
        assert np.all(np.abs(np.log(ratio)) < 1), ends


@pytest.mark.filterwarnings("error")
def test_dead_filters_tell_nothing_of_the_input() -> None:
    import keras

    model = _convolutional()
    stem, norm = model.get_layer("stem"), model.get_layer("bn")
    alive = modelled(model)
    for value, at in (stem.kernel, (..., 0)), (stem.bias, 0), (norm.moving_variance, 0):
        array = np.array(value)
        array[at] = 0.0
        value.assign(array)
    one = modelled(model)
    for found in (one.made["image"], one.read["stem"]):
        np.testing.assert_allclose(found.mean, alive.made["image"].mean, rtol=0.2, atol=0.2)
        ratio = found.covariance.diagonal() / alive.made["image"].covariance.diagonal()
        assert np.abs(np.log(ratio)).max() < 0.3
    assert np.isfinite([one.guards["stem"].spread, one.guards["last"].spread]).all()
    norm.moving_variance.assign(np.zeros(8))
    assert modelled(model).guards["stem"].spread is None
    last = keras.Model(model.input, model.get_layer("last_bn").output).get_layer("last_bn")
    last.moving_variance.assign(np.zeros(12))
    every = modelled(model)
    assert every.guards["last"].spread is None and not every.guards["last"].shift


def test_old_statistics_of_filters_that_are_zero_now_cast_no_doubt() -> None:
    model = _convolutional()
    last = model.get_layer("last")
    kernel, bias = last.get_weights()
    kernel[..., :5] = bias[:5] = 0.0  # slimmed, but not cut
    last.set_weights([kernel, bias])
    guard = modelled(model).guards["last"]
    assert guard.trusted and guard.spread is not None


def test_branches_of_a_sum_lie_side_by_side() -> None:
    found = modelled(randomised(MODELS["residual"]()))
    relu = next(name for name in found.made if name.startswith("re_lu"))  # numbered by Keras
    back, skip, total = (found.made[k] for k in ("back", relu, "sum"))
    assert back.filters is not None and skip.filters is not None and total.filters is not None
    np.testing.assert_allclose(total.filters, np.hstack([back.filters, skip.filters]))
    np.testing.assert_allclose(total.covariance, back.covariance + skip.covariance)
    np.testing.assert_allclose(total.mean, back.mean + skip.mean)


@pytest.mark.parametrize(
    "name", ["residual", "concat", "depthwise_flatten", "shared", "nested", "grouped"]
)
def test_every_kind_of_graph_has_finite_positive_statistics(name: str) -> None:
    model = randomised(MODELS[name]())
    found: Statistics = modelled(analyse(model))
    assert set(found.guards) == set(found.read) == set(found.linear)
    for moments in (*found.read.values(), *found.made.values(), *found.linear.values()):
        assert np.isfinite(moments.mean).all()
        least = np.linalg.eigvalsh(moments.covariance).min()
        assert least > -1e-6 * moments.covariance.diagonal().max()
    for layer, moments in found.read.items():
        assert len(moments.mean) == len(moments.covariance), layer


def test_statistics_that_do_not_fit_the_model_are_not_trusted() -> None:
    model = _convolutional()
    assert modelled(model).guards["last"].trusted
    last = model.get_layer("last_bn")
    last.moving_variance.assign(np.exp(np.linspace(-4, 4, 12)))
    guard = modelled(model).guards["last"]
    assert not guard.trusted and guard.spread is not None and guard.spread > 0.5
    assert "scatter" in guard.reason
    last.moving_variance.assign(np.full(12, 1e-3))
    last.moving_mean.assign(np.full(12, 20.0))
    assert not modelled(model).guards["last"].trusted


@pytest.mark.parametrize("name", ["transposed", "squeeze_excite"])
def test_a_layer_without_statistics_is_named(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"layer (up|multiply\w*) .* reads what comes"):
        modelled(MODELS[name]())
