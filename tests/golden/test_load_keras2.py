"""Models that Keras 2 itself saved: `.h5` and SavedModel, against Keras 2's own outputs."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress.errors import EdgeCompressError, ModelFileError
from edgecompress.loading import load

NAMES = ("nested", "sequential", "shape on the first layer", "operators", "recurrent", "attention")


def build(keras2: Any) -> dict[str, Any]:
    layers = keras2.layers
    image = keras2.Input((4, 4, 2), name="image")
    inner = keras2.Sequential([keras2.Input((4, 4, 2)), layers.Conv2D(2, 3, padding="same")])
    entry = keras2.Input((4, 4, 2))
    branch = layers.BatchNormalization()(layers.Conv2D(2, 1, use_bias=False)(entry))
    outer = keras2.Model(entry, branch, name="branch")
    outer.trainable = False
    shared = layers.Dense(2, activation="relu", name="shared")
    x = shared(inner(image))
    late = keras2.Sequential([layers.Dense(2)])
    x = layers.Add()([outer(inner(shared(x))), outer(x), late(late(x))])
    steps = keras2.Input((6, 3), name="steps")
    once = keras2.Input((2,), name="once")
    both = layers.Bidirectional(layers.GRU(3))(layers.LSTM(4, return_sequences=True)(steps))
    y = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(steps, steps))
    y = layers.TimeDistributed(layers.Dense(3))(y)
    return {
        "nested": keras2.Model(
            image, [layers.GlobalAveragePooling2D()(x), inner(x), outer(x), late(x)]
        ),
        "sequential": keras2.Sequential(
            [
                keras2.Input((4, 4, 2)),
                layers.DepthwiseConv2D(2, depthwise_regularizer="l2"),
                layers.BatchNormalization(),
                layers.LeakyReLU(0.1),
                layers.SeparableConv2D(3, 2),
                layers.PReLU(),
                layers.Conv2DTranspose(2, 2),
                layers.ReLU(6.0),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        "shape on the first layer": keras2.Sequential(
            [layers.Conv2D(3, 3, input_shape=(4, 4, 2)), layers.GlobalMaxPooling2D()]
        ),
        "operators": keras2.Model(image, (shared(image) + image) * image - shared(image)),
        "recurrent": keras2.Model([steps, once], layers.Concatenate()([both, once])),
        "attention": keras2.Model(steps, y),
    }


def randomise(model: Any) -> None:
    rng = np.random.default_rng(0)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([rng.uniform(0.1, 0.5, shape).astype("f4") for shape in shapes])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with each model as NAME.h5 and as SavedModel NAME, and the models."""
    folder = tmp_path_factory.mktemp("keras2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras

        models = build(tf_keras)
        for model in models.values():
            randomise(model)
        for name, model in models.items():
            for suffix in (".h5", ""):
                model.save(folder / f"{name}{suffix}")
    return folder, models


def run(model: Any) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(3, *each.shape[1:])).astype("f4") for each in model.inputs]
    outputs = model(x if len(x) > 1 else x[0], training=False)
    return [np.asarray(each) for each in (outputs if isinstance(outputs, list) else [outputs])]


@pytest.mark.parametrize("suffix", [".h5", ""], ids=["h5", "savedmodel"])
@pytest.mark.parametrize("name", NAMES)
def test_keras2_and_keras3_compute_the_same(
    saved: tuple[Path, dict[str, Any]], name: str, suffix: str
) -> None:
    """To 1e-5 of values around 1: the two libraries order some sums differently."""
    folder, models = saved
    expected = run(models[name])
    got = run(load(folder / f"{name}{suffix}").keras)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.std() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def refusal(path: Path) -> str:
    with pytest.raises(EdgeCompressError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_savedmodel_with_a_lambda(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras

        layers = tf_keras.layers
        inner = tf_keras.Sequential([layers.Lambda(abs, name="twist", input_shape=(2,))])
        inner._name = "inner"
        entry = tf_keras.Input((2,))
        tf_keras.Model(entry, inner(entry)).save(tmp_path / "net")
    assert refusal(tmp_path / "net") == (
        "layer 'inner/twist': a Lambda holds Python code, which is never run; replace it by"
        " built-in layers and save again"
    )


def test_savedmodel_without_keras(tmp_path: Path) -> None:
    import keras

    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.export(tmp_path / "net", verbose=False)
    assert refusal(tmp_path / "net") == (
        "holds no Keras model (made by model.export() or tf.saved_model.save(): for inference"
        " only); save the Keras model itself as .keras"
    )


def test_savedmodel_that_reads_files(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    path = tmp_path / "net"
    shutil.copytree(saved[0] / "sequential", path)
    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    function = graph.meta_graphs[0].graph_def.library.function[0]
    function.node_def.add(name="evil", op="ReadFile")
    (path / "saved_model.pb").write_bytes(graph.SerializeToString())
    assert refusal(path) == (
        "its graph uses ReadFile, which runs Python or reaches for files: refused; build the model"
        " from Keras layers"
    )


@pytest.mark.parametrize(
    "part",
    ["saved_model.pb", "keras_metadata.pb", "variables/variables.index"]
    + ["variables/variables.data-00000-of-00001"],
)
def test_truncated_savedmodel(
    saved: tuple[Path, dict[str, Any]], tmp_path: Path, part: str
) -> None:
    path = tmp_path / "net"
    shutil.copytree(saved[0] / "sequential", path)
    data = (path / part).read_bytes()
    (path / part).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFileError, match=r": (a damaged SavedModel|Keras .* cannot rebuild)"):
        load(path)
