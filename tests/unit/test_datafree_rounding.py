"""Weights on grids: the rules, and what a whole model becomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.channels.graph import trace
from edgecompress.channels.view import analyse
from edgecompress.datafree.fold import fold
from edgecompress.datafree.kernels import kernels, second_moments
from edgecompress.datafree.measured import measured
from edgecompress.datafree.model import modelled
from edgecompress.datafree.rounding import (
    compensated,
    fitted_scales,
    largest,
    nearest,
    scales_of,
    squant,
)
from edgecompress.datafree.statistics import Moments, Statistics
from edgecompress.datafree.weights import put_on_grid
from edgecompress.vocabulary import ROUNDINGS

SEEDS = st.integers(0, 2**32 - 1)


def _rows(seed: int, taps: int, channels: int, outputs: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((taps, channels, outputs))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 9]), st.integers(1, 9), st.integers(1, 5), st.integers(2, 8))
def test_squant_leaves_no_kernel_and_no_output_with_a_sum_of_errors(seed, taps, channels, n, bits):
    rows = _rows(seed, taps, channels, n)
    scales = scales_of(rows, bits)
    points = squant(rows, scales, bits)
    error = points - np.clip(rows / scales, -largest(bits), largest(bits))
    assert np.abs(points).max() <= largest(bits)
    assert np.abs(error).max() <= 1 + 1e-9
    if taps > 1:
        assert np.abs(error.sum(axis=0)).max() <= 1 + 1e-9  # 1/2, and one flip of the output's
    assert np.abs(error.sum(axis=(0, 1))).max() <= 0.5 + 1e-9


def test_squant_flips_the_largest_error_of_the_sum_s_sign():
    rows = np.array([0.4, 0.3, 0.45, 7.0]).reshape(4, 1, 1)  # errors -0.4, -0.3, -0.45, 0
    points = squant(rows, np.array([1.0]), 4)
    assert points.reshape(-1).tolist() == [0, 0, 1, 7]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 8))
def test_every_rule_keeps_what_is_on_the_grid(seed, bits):
    rng = np.random.default_rng(seed)
    points = rng.integers(-largest(bits), largest(bits), size=(3, 4, 5), endpoint=True)
    points[0, 0] = largest(bits)
    scales = rng.uniform(0.1, 2.0, 5)
    rows = points * scales
    second = np.eye(12)
    assert np.allclose(scales_of(rows, bits), scales)
    for found in (
        nearest(rows, scales, bits),
        squant(rows, scales, bits),
        compensated(rows, scales, bits, second),
    ):
        assert (found == points).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_compensation_lowers_the_error_of_correlated_inputs(seed, bits):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((1, 24, 16))
    mixing = rng.standard_normal((24, 6))
    second = mixing @ mixing.T + 0.05 * np.eye(24)
    scales = scales_of(rows, bits)

    def power(points: np.ndarray) -> float:
        wrong = (points * scales - rows)[0]
        return float(np.einsum("io,ij,jo->", wrong, second, wrong))

    made = power(compensated(rows, scales, bits, second))
    assert made < power(nearest(rows, scales, bits))


def test_moments_of_no_variables_are_damped_until_they_are():
    near = 0.9 ** np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
    second = near - 0.25 * np.eye(9)[::-1]  # the least eigenvalue is -0.2
    assert np.linalg.eigvalsh(second)[0] < -0.1
    rows = _rows(4, 1, 9, 6)
    scales = scales_of(rows, 3)
    points = compensated(rows, scales, 3, second)
    assert np.isfinite(points).all() and np.abs(points).max() <= largest(3)
    assert np.abs(points * scales - rows).max() < 3 * scales.max()


def test_independent_inputs_need_no_compensation():
    rows = _rows(1, 3, 4, 5)
    scales = scales_of(rows, 4)
    assert (compensated(rows, scales, 4, np.eye(12)) == nearest(rows, scales, 4)).all()


def test_fitted_scales_clip_an_outlier():
    rows = np.full((1, 64, 1), 0.5)
    rows[0, 0] = 2.0
    importance = np.ones((1, 64, 1))
    importance[0, 0] = 1e-3
    scales = fitted_scales(rows, 3, importance)
    assert scales[0] < scales_of(rows, 3)[0]

    def error(scale: np.ndarray) -> float:
        return float((importance * (nearest(rows, scale, 3) * scale - rows) ** 2).sum())

    assert error(scales) < error(scales_of(rows, 3))


def test_shared_scales_are_one_for_all_outputs():
    rows = _rows(2, 3, 4, 5) * np.array([1.0, 0.1, 3.0, 0.5, 1.0])
    whole = scales_of(rows, 4, shared=True)
    assert (whole == np.abs(rows).max() / 7).all()
    fitted = fitted_scales(rows, 4, np.ones((3, 4, 1)), shared=True)
    assert len(set(fitted)) == 1 and fitted[0] <= whole[0]

    def error(scale: np.ndarray) -> float:
        return float(((nearest(rows, scale, 4) * scale - rows) ** 2).sum())

    assert error(fitted) <= error(whole)


def test_second_moments_follow_the_model_where_there_is_one():
    import keras

    x = keras.Input((8, 8, 2))
    y = keras.layers.Rescaling([1.0, 2.0])(x)
    y = keras.layers.Conv2D(4, 3, groups=2, use_bias=False, name="conv")(y)
    y = keras.layers.DepthwiseConv2D(3, name="deep")(y)
    y = keras.layers.Flatten()(y)
    graph = trace(keras.Model(x, keras.layers.Dense(2, name="last")(y)))
    statistics = modelled(graph, input_range=(-(3**0.5), 3**0.5))
    found = {
        kernel.call.name: second_moments(kernel, statistics.read[kernel.call.name])
        for kernel in kernels(graph, statistics)
    }
    assert [m.shape for m in found["conv"]] == [(9, 9)] * 2  # a group reads one channel
    assert [np.diag(m).mean() for m in found["conv"]] == pytest.approx([1.0, 4.0])
    assert [m.shape for m in found["deep"]] == [(9, 9)]
    assert [m.shape for m in found["last"]] == [(64, 64)]
    for matrices in found.values():
        for m in matrices:
            assert np.allclose(m, m.T) and np.linalg.eigvalsh(m).min() > -1e-6 * np.trace(m)
    bare = [second_moments(kernel, None) for kernel in kernels(graph, statistics)]
    assert [np.diag(m[0]).mean() for m in bare] == pytest.approx([1.0] * 3)


def test_second_moments_of_very_many_inputs_are_variances_alone():
    import keras

    x = keras.Input((64, 64, 2))
    y = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="last")(keras.layers.Flatten()(y)))
    model.get_layer("norm").set_weights(np.float32([[1, 3], [0, 0], [2, 2], [1, 1]]))
    graph, statistics = trace(model), modelled(model)
    (kernel,) = kernels(graph, statistics)
    for read, wanted in ((statistics.read["last"], [1, 9]), (None, [1, 1])):
        (found,) = second_moments(kernel, read)
        np.testing.assert_allclose(found, np.tile(wanted, 64 * 64), rtol=2e-3)
    placed = put_on_grid(model, statistics, bits=4, rounding="compensated", correct_bias=False)
    (told,) = placed.layers
    assert told.rule == "squant" and told.error is not None and 0 < told.error < 0.1


@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_taps_that_lie_apart_are_less_alike(kind):
    import keras

    x = keras.Input((9, 9, 1))
    layer = getattr(keras.layers, kind)(
        **({"filters": 2} if kind == "Conv2D" else {}), kernel_size=(1, 2), dilation_rate=2
    )
    graph = trace(keras.Model(x, layer(x)))
    (kernel,) = kernels(graph, Statistics({}, {}))
    (found,) = second_moments(kernel, None)
    np.testing.assert_allclose(found, [[1, 0.49], [0.49, 1]])


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(3)
    x = keras.Input((12, 12, 4))
    y = keras.layers.Conv2D(8, 3, use_bias=False, name="first")(x)
    y = keras.layers.BatchNormalization(scale=False, name="norm")(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep")(y)
    y = keras.layers.BatchNormalization(center=False, axis=-1, name="norm2")(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.Conv2D(8, 1, groups=2, use_bias=False, name="grouped")(y)
    y = keras.layers.MaxPooling2D(2)(y)
    y = keras.layers.Flatten()(y)
    made = keras.Model(x, keras.layers.Dense(3, activation="softmax", name="last")(y))
    rng = np.random.default_rng(5)
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.3, 2.0, w.shape) for w in layer.get_weights()])
    return made


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(7).standard_normal((32, 12, 12, 4)).astype(np.float32)


def test_folding_changes_nothing_but_where_the_factor_is(model, inputs):
    folded = fold(model)
    assert np.allclose(model(inputs), folded(inputs), atol=2e-5)
    for name in ("norm", "norm2"):
        norm = folded.get_layer(name)
        assert norm.gamma is None or np.allclose(norm.gamma, 1)
        assert np.allclose(np.asarray(norm.moving_variance) + norm.epsilon, 1)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_model_on_its_grid_has_few_values_and_keeps_its_outputs(model, inputs, rounding, bits):
    statistics = modelled(model)
    placed = put_on_grid(
        fold(model), statistics, bits=bits, rounding=rounding, correct_bias=rounding != "nearest"
    )
    assert {layer for layer, _ in placed.grids} == {"first", "deep", "grouped", "last"}
    for (layer, weight), grid in placed.grids.items():
        kernel = next(
            np.asarray(v) for v in placed.model.get_layer(layer).weights if v.name == weight
        )
        assert kernel.shape == grid.values.shape
        assert np.abs(grid.values).max() <= largest(bits)
        assert np.allclose(kernel, grid.values * grid.scales, rtol=1e-6)
        rows, scales = grid.rows
        assert sorted((rows * scales[:, None]).reshape(-1)) == pytest.approx(
            sorted(kernel.reshape(-1)), abs=1e-5
        )
    error = np.abs(np.asarray(placed.model(inputs)) - np.asarray(model(inputs))).max()
    assert error < (0.02 if bits == 8 else 0.35)


def test_one_scale_for_a_whole_kernel(model):
    placed = put_on_grid(
        fold(model),
        modelled(model),
        bits=6,
        rounding="compensated",
        correct_bias=False,
        per_channel=False,
    )
    assert all(np.unique(grid.scales).size == 1 for grid in placed.grids.values())


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_coarse_grid_keeps_the_variance_of_the_outputs(model, per_channel):
    folded, statistics = fold(model), modelled(model)
    placed = put_on_grid(
        folded,
        statistics,
        bits=3,
        rounding="squant",
        correct_bias=False,
        per_channel=per_channel,
    )

    def variances(made):
        for kernel in kernels(trace(made), statistics):
            second = second_moments(kernel, statistics.read[kernel.call.name])
            shares = np.split(kernel.rows, len(second), axis=-1)
            pairs = [(w.reshape(len(m), -1), m) for w, m in zip(shares, second, strict=True)]
            found = np.concatenate([np.einsum("io,ij,jo->o", w, m, w) for w, m in pairs])
            yield found if per_channel else found.sum()

    pairs = zip(variances(folded), variances(placed.model), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(after, before, rtol=1e-4)


def test_bias_correction_takes_the_mean_error_out(model, inputs):
    import keras

    known = Moments(mean=np.full(4, 2.0), covariance=np.eye(4))
    statistics, folded = Statistics({"first": known}, {}), fold(model)

    def mean_error(correct: bool) -> float:
        placed = put_on_grid(folded, statistics, bits=3, rounding="nearest", correct_bias=correct)
        ends = [
            keras.Model(m.inputs, m.get_layer("norm").output)([inputs + 2])
            for m in (placed.model, folded)
        ]
        return float(np.abs(np.mean(ends[0] - ends[1], axis=(0, 1, 2))).max())

    assert mean_error(True) < 0.2 * mean_error(False)


def test_bias_correction_from_samples_reaches_depthwise_kernels(model, inputs):
    import keras

    statistics, folded = measured(analyse(model), inputs), fold(model)

    def mean_error(correct: bool) -> float:
        placed = put_on_grid(folded, statistics, bits=3, rounding="nearest", correct_bias=correct)
        read = keras.Model(folded.inputs, folded.get_layer("deep").input)([inputs])
        made = [m.get_layer("deep")(read) for m in (placed.model, folded)]
        return float(np.abs(np.mean(made[0] - made[1], axis=(0, 1, 2))).max())

    assert mean_error(True) < 0.2 * mean_error(False)
