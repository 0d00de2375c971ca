"""Quantisation-aware training, alone and behind sparsity and clusters (PQAT, CQAT, PCQAT)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.artifact import Artifact
from edgecompress.channels.graph import trace
from edgecompress.data import Dataset
from edgecompress.evaluation import predict
from edgecompress.recipe import Cluster, Qat, Sparsify
from edgecompress.training import placement
from edgecompress.training import qat as module
from edgecompress.training.bridge import to_tf_keras
from edgecompress.training.cluster import cluster
from edgecompress.training.fakequant import OnGrid, Range
from edgecompress.training.kernels import Kernel, kernels
from edgecompress.training.qat import qat
from edgecompress.training.sparsify import sparsify
from tests import small_models
from tests.small_training import TRAIN, everything, plain, task


@pytest.fixture(scope="module")
def data() -> Dataset:
    return task()


@pytest.fixture(scope="module")
def stages(data: Dataset) -> list[Artifact]:
    """The model as it came, sparse, clustered, and trained quantised."""
    entry = Artifact("everything", everything())
    sparse = sparsify(entry, data=data, options=Sparsify(sparsity=0.85, protect=()), train=TRAIN)
    clustered = cluster(sparse, data=data, options=Cluster(clusters=12), train=TRAIN)
    return [entry, sparse, clustered, qat(clustered, data=data, train=TRAIN)]


def weights(artifact: Artifact) -> dict[str, Any]:
    """Every kernel by its key."""
    graph = trace(artifact.need_keras("test"))
    ops = {name: op for name, op, _ in graph.layers()}
    return {k.key: np.asarray(getattr(ops[k.layer], k.weight)) for k in kernels(graph)}


def on_grids(artifact: Artifact) -> None:
    """Every weight is exactly a whole number of its bits times its scale."""
    graph, grids = trace(artifact.need_keras("test")), artifact.steps[-1].effect["grids"]
    found = weights(artifact)
    for kernel in kernels(graph):
        grid = grids[kernel.key]
        scales = np.float32(grid["scales"])[:, None]
        rows = kernel.rows(found[kernel.key])
        points = np.rint(rows / scales)
        np.testing.assert_array_equal(points * scales, rows)
        assert np.abs(points).max() <= 2 ** (grid["bits"] - 1) - 1


def test_everything_one_after_the_other(stages: list[Artifact]) -> None:
    entry, sparse, clustered, done = map(weights, stages)
    for key in entry:
        assert (sparse[key] == 0).sum() >= 0.84 * sparse[key].size
        for later in (clustered, done):
            assert (later[key][sparse[key] == 0] == 0).all()
            assert 2 <= len(np.unique(later[key])) <= 12
        # Weights of one cluster stay together.
        pairs = np.stack([clustered[key].ravel(), done[key].ravel()], axis=1)
        assert len(np.unique(pairs, axis=0)) == len(np.unique(clustered[key]))
    # Kernels of fewer weights than clusters are trained as they are, with their zeros.
    assert len(np.unique(sparse["stem"])) > 12 > len(np.unique(sparse["point"]))
    assert not np.array_equal(sparse["point"], clustered["point"])
    on_grids(stages[-1])
    for artifact in stages[1:]:
        fit = artifact.steps[-1].effect["training"]
        assert fit["losses"][-1] < fit["losses"][0]
    assert set(entry) == {"stem", "depthwise", "point", "shared", "inner", "head"}
    assert all(len(grid["scales"]) == 1 for grid in stages[-1].steps[-1].effect["grids"].values())


def test_ranges_stand_where_the_flatbuffer_has_tensors(stages: list[Artifact]) -> None:
    ranges = stages[-1].steps[-1].effect["ranges"]
    chains = {"stem_relu", "depthwise_relu", "point_bn", "sum_relu", "shared", "inner", "head"}
    assert set(ranges) == {"image"} | (chains - {"point_bn"}) | {"point_bn"}
    for low, high in ranges.values():
        assert low <= 0 < high
    assert ranges["depthwise_relu"][0] == ranges["stem_relu"][0] == 0


def test_the_flatbuffer_computes_what_was_trained(stages: list[Artifact], data: Dataset) -> None:
    from edgecompress import runtimes
    from edgecompress.quantization import quantize
    from edgecompress.tflite import read
    from edgecompress.training import promises

    done = quantize(stages[-1], calibration="trained")
    program = read(done.need_tflite("test"))
    found = promises.check(program, done.steps)
    assert {promise.stage for promise in found} == {"sparsify", "cluster", "qat"}
    assert sum(promise.what == "distinct weights" for promise in found) == 7  # shared: twice
    split = data.to_train("test").validation
    outputs = runtimes.run(done.need_tflite("test"), split.x, runtime="litert").values
    floats = predict(stages[-1].need_keras("test"), split.x)
    assert np.mean(outputs.argmax(axis=1) == floats.argmax(axis=1)) > 0.9
    assert np.abs(outputs - floats).mean() < 0.02


def test_few_bits_with_a_scale_for_each_output(data: Dataset) -> None:
    """And a teacher whose features go by the names of the layers, wrapped or not; and an activation
    that is an operator of its own, whose input has a range too."""
    model = plain()
    train = replace(TRAIN, teacher=0.1, features=("point", "relu"), feature_weight=0.01)
    options = Qat(weight_bits=3)
    done = qat(Artifact("plain", model), data=data, options=options, train=train, teacher=model)
    on_grids(done)
    effect = done.steps[-1].effect
    sizes = {key: len(grid["scales"]) for key, grid in effect["grids"].items()}
    assert sizes == {"stem": 8, "depthwise": 8, "point": 9, "head": 4}
    tensors = {"image", "relu", "depthwise", "point/linear", "point", "head"}
    assert set(effect["ranges"]) == tensors
    assert effect["training"]["losses"][-1] < effect["training"]["losses"][0]


KERNEL = Kernel("dense", "Dense", "kernel", (6, 5), (1, 0), 1, True, "dense")


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(2, 8), seed=st.integers(0, 999), clustered=st.booleans())
def test_weights_land_on_the_grid_with_zeros_and_clusters(
    bits: int, seed: int, clustered: bool
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    weight = rng.normal(size=KERNEL.shape).astype(np.float32)
    mask = rng.random(KERNEL.shape) < 0.7
    labels = rng.integers(0, 4, KERNEL.shape).astype(np.int32) if clustered else None
    grid = OnGrid(KERNEL, bits, weight, mask, labels)
    stretch = rng.normal(0, 0.1, 1 if clustered else 5).astype(np.float32)
    known = {} if bits == 8 else {"stretch": tf.Variable(stretch)}
    points, scales = grid.points(tf.constant(weight), known)
    made = np.asarray(grid(tf.constant(weight), True, known))
    np.testing.assert_array_equal(points, np.rint(points))
    assert np.abs(points).max() <= 2 ** (bits - 1) - 1
    assert (made[~mask] == 0).all()
    np.testing.assert_array_equal(KERNEL.rows(made), points * scales[:, None])
    if labels is not None:
        for label in range(4):
            assert len(np.unique(made[(labels == label) & mask])) <= 1


def test_gradients_reach_weights_clusters_and_scales() -> None:
    import tensorflow as tf

    weight = tf.Variable(np.linspace(-1, 1, 30, dtype=np.float32).reshape(6, 5))
    labels = np.repeat([[0], [1], [2]], 10).reshape(6, 5).astype(np.int32)
    mask = np.ones((6, 5), bool)
    mask[0, 0] = False
    grid = OnGrid(KERNEL, 4, weight.numpy(), mask, labels)
    stretch = tf.Variable(np.zeros(1, np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(grid(weight, True, {"stretch": stretch}) ** 2)
    to_weight, to_scale = tape.gradient(loss, [weight, stretch])
    flat = np.asarray(to_weight).ravel()
    for cluster_of in (flat[:10], flat[10:20], flat[20:]):  # all members move together
        np.testing.assert_allclose(cluster_of, cluster_of[0], rtol=1e-5)
    assert flat[0] < 0 < flat[-1] and abs(float(to_scale[0])) > 0


@pytest.mark.parametrize("shared", [False, True])
def test_a_range_follows_the_batches_and_one_of_several_tensors_covers_them(shared: bool) -> None:
    import tensorflow as tf
    import tf_keras

    ends = Range(shared=shared)
    known = ends.build(None, "output", tf_keras.layers.Layer())
    ends.watching = True
    for low, high in ((-1.0, 1.0), (-3.0, 5.0)):
        seen = tf.constant([low, high])
        assert ends(seen, False, known) is seen
    ends.watching = False
    ends.settle()
    assert ends.range == ((-3.0, 5.0) if shared else (-2.0, 3.0))
    ends(tf.constant([0.0, 13.0]), True, known)
    assert ends.range[1] == pytest.approx(13.0 if shared else 3.01)
    assert float(ends(tf.constant([99.0]), False, known)[0]) == pytest.approx(ends.range[1], 0.01)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_separable_convolutions_are_quantised_between_their_kernels(activation: str) -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((7, 6, 3), name="x")
    y = kl.SeparableConv2D(
        5, 3, strides=2, padding="same", depth_multiplier=2, activation=activation, name="apart"
    )(x)
    model = small_models.randomised(keras.Model(x, y))
    bridged = to_tf_keras(model)
    watched = module._Watched(bridged, Artifact("apart", model), 8)
    made = bridged.wrapped(watched.wrap, feed=watched.feed)
    rows = small_models.batch(model, 16)
    watched.settle(made, rows, 16)
    names = {"x", "apart/linear"} | ({"apart"} if activation == "relu" else set())
    assert set(watched.ranges) == names
    (wanted,) = small_models.outputs(model, rows)
    found = np.asarray(made(rows, training=False))
    assert 0 < np.abs(found - wanted).mean() < 0.01 * np.abs(wanted).max()


def test_chains_end_where_a_tensor_is_read_twice_or_given_out() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4, 4, 3), name="x")
    conv = kl.Conv2D(4, 1, name="conv")(x)
    norm = kl.BatchNormalization(name="norm")(conv)
    both = kl.Add(name="sum")([kl.ReLU(name="relu")(norm), conv])
    lone = kl.BatchNormalization(name="lone")(kl.Dropout(0.1, name="drop")(both))
    leaky = kl.LeakyReLU(name="leaky")(kl.Activation("relu6", name="six")(lone))
    gate = kl.Dense(4, activation="sigmoid", name="gate")(leaky)
    y = kl.Concatenate(name="cat")([gate, kl.MaxPooling2D(1, name="pool")(leaky)]) * 2.0
    points = placement.points(trace(keras.Model(x, [y, norm])))
    multiply = {name for name in points if name.startswith("multiply")}
    assert points - multiply == {"conv", "norm", "relu", "sum", "six", "leaky", "gate/linear"}
    assert len(multiply) == 1
