"""Weight clustering by tfmot: few distinct weights, one int8 grid a kernel, upright gammas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress.artifact import Artifact, Step
from edgecompress.data import Dataset
from edgecompress.errors import ConfigError
from edgecompress.quantization import quantize
from edgecompress.recipe import Cluster
from edgecompress.tflite import read
from edgecompress.training import preserve, promises
from edgecompress.training.cluster import cluster
from tests import small_models
from tests.small_training import TRAIN, plain, task


@pytest.fixture(scope="module")
def data() -> Dataset:
    return task()


def kernels(artifact: Artifact) -> dict[str, Any]:
    model = artifact.need_keras("test")
    return {
        name: np.asarray(model.get_layer(name).kernel)
        for name in ("stem", "depthwise", "point", "head")
    }


def test_each_kernel_has_few_distinct_weights_on_one_grid(data: Dataset) -> None:
    entry = Artifact("plain", plain())
    done = cluster(entry, data=data, options=Cluster(clusters=5, protect=("head",)), train=TRAIN)
    found = kernels(done)
    assert len(np.unique(found.pop("head"))) == 144
    effect = done.steps[-1].effect
    for name, kernel in found.items():
        assert 2 <= len(np.unique(kernel)) <= 5 == effect["kernels"][name]["distinct"]
        (scale,) = effect["grids"][name]["scales"]
        points = np.rint(kernel / scale)
        np.testing.assert_array_equal(points.astype(np.float32) * np.float32(scale), kernel)
        assert np.abs(points).max() == 127
    assert effect["training"]["losses"][-1] < effect["training"]["losses"][0]
    assert (np.asarray(done.need_keras("test").get_layer("norm").gamma) >= 0).all()
    converted = quantize(done, calibration=data.calibration(32))
    kept = promises.check(read(converted.need_tflite("test")), done.steps)
    whole = {each.layer: each.found for each in kept if each.what == "distinct weights"}
    assert whole.keys() == found.keys() and max(whole.values()) <= 5


def test_two_clusters_are_too_few_beside_zeros(data: Dataset) -> None:
    """What else happens to zeros, tests/unit/test_qat.py shows."""
    step = Step("sparsify", effect={"kernels": {"stem": {}}})
    sparse = Artifact("plain", plain(), steps=(step,))
    with pytest.raises(ConfigError, match=r"^cluster.clusters = 2: the zeros of sparsify are one"):
        cluster(sparse, data=data, options=Cluster(clusters=2), train=TRAIN)
    with pytest.raises(ConfigError, match=r"^cluster.protect: the model has no layer 'steam'"):
        cluster(sparse, data=data, options=Cluster(protect=("steam",)), train=TRAIN)


def test_signs_go_from_gammas_into_kernels() -> None:
    """What a negative gamma does to a kernel of k distinct weights, it makes it one of 2k."""
    for model, norm in ((plain(), "norm"), (depthwise_with_norm(), "norm")):
        made = preserve.upright(model)
        x = small_models.batch(model)
        gamma = np.asarray(model.get_layer(norm).gamma)
        assert (gamma < 0).any()
        np.testing.assert_array_equal(np.abs(gamma), np.asarray(made.get_layer(norm).gamma))
        for a, b in zip(small_models.outputs(model, x), small_models.outputs(made, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def depthwise_with_norm() -> Any:
    import keras
    from keras import layers as kl

    x = kl.Input((5, 5, 3), name="x")
    y = kl.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    return small_models.randomised(keras.Model(x, kl.BatchNormalization(name="norm")(y)))
