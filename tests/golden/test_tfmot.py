"""Facts about tensorflow-model-optimization that our stages rely on, or work around."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from edgecompress.artifact import Step
from edgecompress.channels.graph import trace
from edgecompress.errors import EdgeCompressError
from edgecompress.tflite import Program, read
from edgecompress.training import kernels, legacy, promises
from edgecompress.training.bridge import to_tf_keras
from tests import small_models
from tests.conftest import nightly
from tests.small_training import everything


def test_a_bridged_model_is_one_that_tfmot_takes_whole() -> None:
    """Which refuses the Keras 3 model itself."""
    module = legacy.tfmot().sparsity.keras
    model = small_models.randomised(everything())
    with pytest.raises(ValueError, match="can only prune an object of the following types"):
        module.prune_low_magnitude(model)
    bridged = to_tf_keras(model)
    pruned = module.prune_low_magnitude(bridged.model, module.ConstantSparsity(0.5, 0, frequency=1))
    x = small_models.batch(model)
    np.testing.assert_allclose(
        np.asarray(pruned(x, training=False)), small_models.outputs(model, x)[0], atol=1e-6
    )
    # Without us, depthwise convolutions are skipped: in pruning, and in clustering.
    wrappers = {layer.name.removeprefix("prune_low_magnitude_"): layer for layer in pruned.layers}
    assert len(wrappers["point"].pruning_vars) == 1
    assert not wrappers["depthwise"].pruning_vars
    clustering = legacy.tfmot().clustering.keras
    clustered = clustering.cluster_weights(
        bridged.model,
        number_of_clusters=4,
        cluster_centroids_init=clustering.CentroidInitialization.LINEAR,
    )
    assert not clustered.get_layer("cluster_depthwise").cluster_centroids
    assert clustered.get_layer("cluster_shared").cluster_centroids


@pytest.mark.parametrize(("shape", "axis"), [((8, 6), 0), ((3, 3, 8, 6), 2)])
def test_the_axis_of_its_n_of_m_is_the_input_channels(shape: tuple[int, ...], axis: int) -> None:
    """Of Conv2D and Dense, which is not where transposed convolutions have theirs."""
    import tf_keras

    layer = tf_keras.layers.Dense(6) if len(shape) == 2 else tf_keras.layers.Conv2D(6, 3)
    inputs = tf_keras.Input((8,) if len(shape) == 2 else (5, 5, 8))
    wrapper = legacy.tfmot().sparsity.keras.prune_low_magnitude(layer, sparsity_m_by_n=(3, 4))
    wrapper(inputs)
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mask = np.asarray(wrapper.pruning_obj._update_mask_sparsity_m_by_n(_tensor(weights), (3, 4)))
    groups = np.moveaxis(mask, axis, -1).reshape(-1, 4)
    assert (groups.sum(axis=1) == 1).all()
    largest = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, 4).argmax(axis=1)
    np.testing.assert_array_equal(groups.argmax(axis=1), largest)


def test_its_threshold_keeps_all_weights_of_equal_size() -> None:
    """So that the sparsity is missed where weights are equal."""
    import tf_keras

    layer = tf_keras.layers.Dense(10, kernel_initializer="ones")
    module = legacy.tfmot().sparsity.keras
    wrapper = module.prune_low_magnitude(layer, module.ConstantSparsity(0.5, 0, frequency=1))
    wrapper(tf_keras.Input((10,)))
    _, mask = wrapper.pruning_obj._update_mask(layer.kernel)
    assert np.asarray(mask).all()


def test_its_ramp_misses_an_end_that_is_no_multiple() -> None:
    """Masks change at every `frequency` steps, so the last of them may come before the end."""
    module = legacy.tfmot().sparsity.keras
    ramp = module.PolynomialDecay(0.0, 0.9, 1, 100, frequency=10)
    made = [step for step in range(1, 201) if ramp(_tensor(step))[0]]
    assert made[-1] == 91 and float(ramp(_tensor(91))[1]) < 0.9


def test_its_quantizers_take_the_last_axis_for_the_outputs() -> None:
    """Which of a depthwise kernel is the multiplier: one scale for all channels."""
    import tf_keras

    quantizers = legacy.tfmot().quantization.keras.quantizers
    known = quantizers.LastValueQuantizer(8, per_axis=True, symmetric=True, narrow_range=True)
    ends = known.build((3, 3, 8, 1), "depthwise_kernel", tf_keras.layers.Layer())
    assert ends["max_var"].shape == (1,)


@pytest.mark.parametrize("sparse", nightly([True], [False, True]))
def test_the_check_sees_what_its_cluster_preserving_quantisation_loses(sparse: bool) -> None:
    """Issue 1056: in CQAT each output has a scale, and 5 distinct weights become more. In PCQAT
    (979 is of it too) zeros of a 1x1 convolution are lost besides."""
    import keras
    import tf_keras
    from keras import layers as kl

    rng = np.random.default_rng(0)
    x = keras.Input((6, 6, 8), name="x")
    y = kl.ReLU(name="relu")(kl.Conv2D(9, 1, name="point")(x))
    y = kl.Conv2D(8, 3, name="wide")(y)
    model = keras.Model(x, kl.Dense(4, name="head")(kl.Flatten(name="flat")(y)))
    found = {}
    for kernel in kernels.kernels(trace(model)):
        drawn = np.linspace(-0.4, 0.4, 5)[rng.integers(0, 5, kernel.shape)]
        found[kernel] = values = drawn + (0 if sparse else 0.03)
        model.get_layer(kernel.layer).kernel.assign(values)
    annotated = legacy.tfmot().quantization.keras.quantize_annotate_model(to_tf_keras(model).model)
    trained = legacy.tfmot().quantization.keras.quantize_apply(annotated, _scheme(sparse))
    trained.compile(tf_keras.optimizers.Adam(1e-3), "mse")
    rows = rng.normal(size=(64, 6, 6, 8)).astype(np.float32)
    trained.fit(rows, rng.normal(size=(64, 4)).astype(np.float32), epochs=2, verbose=0)
    program = _converted(trained)
    kernel, values = next(iter(found.items()))
    row = {**kernel.row(values), "path": "quant_point"}
    clusters = Step("cluster", effect={"kernels": {"quant_point": {**row, "distinct": 5}}})
    with pytest.raises(EdgeCompressError, match=r"distinct weights.*, 5 were promised"):
        promises.check(program, [clusters])
    if sparse:
        zeros = {**row, "block": 1, "zeros": int((values == 0).sum())}
        with pytest.raises(EdgeCompressError, match=r"has [0-9] zeros, [0-9]{2} were promised"):
            promises.check(program, [Step("sparsify", effect={"kernels": {"quant_point": zeros}})])


def _scheme(sparse: bool) -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts import (
        cluster_preserve,
    )

    scheme = cluster_preserve.default_8bit_cluster_preserve_quantize_scheme
    return scheme.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=sparse)


def _converted(model: Any) -> Program:
    """The int8 flatbuffer of a model after tfmot's CQAT, made as its guide says."""
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts import (
        cluster_preserve,
    )

    stripped = cluster_preserve.cluster_utils.strip_clustering_cqat(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(stripped)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        return read(converter.convert())


def _tensor(value: Any) -> Any:
    import tensorflow as tf

    return tf.constant(value)
