"""Quantisation without data, of one small model per kind of structure, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.datafree.rounding import largest
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.evaluation import compare
from edgecompress.quantization import quantize
from edgecompress.tflite import Program, read
from tests import small_models

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def settled(model: Any, seed: int = 0) -> Any:
    """The model with random weights whose BatchNormalization has seen standard normal inputs."""
    import keras

    rng = np.random.default_rng(seed)
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    for weight in model.weights:
        if weight.name in ("gamma", "beta", "bias", "alpha"):
            weight.assign(rng.normal(0.5, 0.3, weight.shape).astype("float32"))
        elif "kernel" in weight.name:
            *taps, inputs, outputs = weight.shape
            limit = np.sqrt(6 / (np.prod(taps, initial=1) * (inputs + outputs)))
            weight.assign(rng.uniform(-limit, limit, weight.shape).astype("float32"))
    for norm in norms:
        norm.momentum = 0.0
    model(rng.standard_normal((256, *model.input_shape[1:])).astype("float32"), training=True)
    return model


def mobile() -> Any:
    """Inverted residuals: 1x1, depthwise, 1x1, with hard-swish and ReLU6, a concatenation."""
    import keras
    from keras import layers as kl

    inputs = x = kl.Input((8, 8, 3), name="image")
    for n, phi in enumerate(("hard_silu", "relu6")):
        stem = x
        x = kl.BatchNormalization()(kl.Conv2D(12, 1, use_bias=False)(x))
        x = kl.Activation(phi, name=f"{phi}_{n}")(x)
        x = kl.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = kl.Activation(phi)(kl.BatchNormalization()(x))
        x = kl.BatchNormalization()(kl.Conv2D(3, 1, use_bias=False)(x))
        x = kl.Add()([x, stem])
    x = kl.Concatenate()([x, kl.AveragePooling2D(3, strides=1, padding="same")(x)])
    x = kl.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, kl.Dense(4, activation="softmax", name="head")(x))


def separable() -> Any:
    """Layers of several kernels, and activations of several operators inside a layer."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((8, 8, 3), name="image")
    x = kl.SeparableConv2D(6, 3, activation="silu", name="separable")(inputs)
    x = kl.Conv2D(6, 3, activation="tanh", name="tanh")(kl.ZeroPadding2D()(x))
    x = kl.PReLU(shared_axes=[1, 2])(kl.BatchNormalization()(x))
    x = kl.LeakyReLU(name="leaky")(kl.Conv2D(4, 1, name="point")(kl.MaxPooling2D(2)(x)))
    return keras.Model(inputs, kl.Dense(3, activation="silu", name="head")(kl.Flatten()(x)))


def dense() -> Any:
    import keras
    from keras import layers as kl

    hidden = [kl.Dense(24, activation="relu"), kl.Dense(16), kl.BatchNormalization(), kl.ReLU()]
    return keras.Sequential([keras.Input((20,)), *hidden, kl.Dense(3)])


CASES: Mapping[str, Callable[[], Any]] = {
    name: small_models.MODELS[name] for name in ("residual", "concat", "shared", "nested")
} | {"grouped": small_models.grouped, "mobile": mobile, "separable": separable, "dense": dense}


TOLD = ("residual", "mobile")
"""Those whose inputs a BatchNormalization tells the scale of."""


def noise(model: Any, artifact: Artifact, x: Any) -> float:
    """Signal to quantisation noise of the output, dB."""
    (expected,) = small_models.outputs(model, x)
    found = runtimes.run(artifact.need_tflite("test"), x, runtime="litert").values
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - found) ** 2)))


def reach(weights: Any) -> int:
    """The largest whole number, in units of what all those of an output are multiples of."""
    rows = np.moveaxis(weights.array, max(weights.axis, 0), 0).reshape(-1, weights.array.size)
    if len(weights.scales) > 1:
        rows = rows.reshape(len(weights.scales), -1)
    return max(int(np.abs(row).max() // np.gcd.reduce(row)) for row in rows)


def weights(program: Program) -> list[Any]:
    return [program.tensors[op.inputs[1]] for op in program.ops if op.kind in KERNELS]


@pytest.mark.parametrize("name", CASES)
def test_the_output_is_near_that_of_the_float_model(name: str) -> None:
    model = settled(CASES[name]())
    x = small_models.batch(model, 32)
    artifact = quantize(
        Artifact(name, model),
        calibration="data-free",
        rounding="compensated",
        correct_bias=True,
        input_range=None if name in TOLD else (-3.5, 3.5),
    )
    assert artifact.steps[-1].effect["float_operators"] == []
    assert noise(model, artifact, x) > 20


@pytest.fixture(scope="module")
def residual() -> Any:
    return settled(small_models.residual())


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [6, 4, 2])
def test_weights_have_the_bits_that_were_asked_for(
    residual: Any, bits: int, per_channel: bool
) -> None:
    artifact = quantize(
        Artifact("few", residual),
        calibration="data-free",
        weight_bits=bits,
        rounding="squant",
        per_channel=per_channel,
    )
    program = read(artifact.need_tflite("test"))
    found = weights(program)
    assert len(found) == 4
    assert max(reach(w) for w in found) == largest(bits)
    assert [w.dtype for w in found] == ["int4" if bits <= 4 else "int8"] * 3 + ["int8"]
    assert all((len(w.scales) > 1) == per_channel for w in found)
    for op in program.ops:
        if op.kind in KERNELS:  # what is multiplied and what is added are in the same units
            data, kernel, bias = (program.tensors[i] for i in op.inputs)
            step = np.multiply(data.scales[0], kernel.scales)
            assert np.allclose(bias.scales, step, rtol=1e-6)
            if bits != 4:  # finer grids of the same weights, for which there are quick kernels
                assert max(step) / program.tensors[op.outputs[0]].scales[0] < 0.5
    params, effect = artifact.steps[-1].params, artifact.steps[-1].effect
    assert (params["weight_bits"], params["rounding"]) == (bits, "squant")
    assert {layer["layer"] for layer in effect["layers"]} == {"stem", "inner", "back", "head"}
    assert {layer["bits"] for layer in effect["layers"]} == {bits}
    assert all(0 < layer["error"] < 1 for layer in effect["layers"])


def test_a_kernel_that_the_converter_changes_is_told_as_its_own() -> None:
    import keras

    x = keras.Input((6, 6, 3))
    y = keras.layers.Conv2D(4, 1, name="before")(x)
    y = keras.layers.Conv2D(4, 1, name="after")(keras.layers.Rescaling(3.0)(y))
    model = settled(keras.Model(x, y))
    artifact = quantize(
        Artifact("merged", model), calibration="data-free", weight_bits=4, input_range=(-3, 3)
    )
    told = {layer["layer"]: layer["bits"] for layer in artifact.steps[-1].effect["layers"]}
    merged, kept = (int(np.abs(w.array).max()) for w in weights(read(artifact.need_tflite("test"))))
    assert told == {"before": 8 if merged > 7 else 4, "after": 4} and kept == 7


def test_four_bits_give_the_same_on_the_device_and_a_smaller_file(residual: Any) -> None:
    x = small_models.batch(residual, 24)
    four, five = (
        quantize(Artifact("small", residual), calibration="data-free", weight_bits=bits)
        for bits in (4, 5)
    )
    data = four.need_tflite("test")
    jobs = [runtimes.submit(data, x, runtime=name) for name in ("tflite", "tflm", "litert")]
    reference, device, newest = (job.result().raw for job in jobs)
    bits = compare(reference, device)
    assert bits.exact == bits.elements == 72
    assert compare(newest, device).max_diff <= 1
    values = sum(int(np.prod(w.shape)) for w in weights(read(data)) if w.dtype == "int4")
    assert len(data) < len(five.need_tflite("test")) - values // 2 + 64


def test_samples_go_with_grids_of_ours(residual: Any) -> None:
    x = small_models.batch(residual, 64)
    few = quantize(Artifact("few", residual), calibration=x, weight_bits=6, rounding="compensated")
    assert noise(residual, few, x) > 20
    assert "estimated_input_range" not in few.steps[-1].effect
    assert max(int(np.abs(w.array).max()) for w in weights(read(few.need_tflite("test")))) == 31


def test_an_input_range_is_taken_at_its_word(residual: Any) -> None:
    start = Artifact("range", residual)
    given = quantize(start, calibration="data-free", input_range=(-1, 4))
    program = read(given.need_tflite("test"))
    tensor = program.tensors[program.inputs[0]]
    assert tensor.scales[0] == pytest.approx(5 / 255)
    assert tensor.zero_points[0] == round(-128 + 1 / (5 / 255))
    assert given.steps[-1].params["input_range"] == [-1.0, 4.0]
    assert "estimated_input_range" not in given.steps[-1].effect
    guessed = quantize(start, calibration="data-free")
    low, high = guessed.steps[-1].effect["estimated_input_range"]
    program = read(guessed.need_tflite("test"))
    assert program.tensors[program.inputs[0]].scales[0] == pytest.approx((high - low) / 255)


@pytest.mark.parametrize("kind", ["Conv2D", "Dense"])
def test_without_normalisation_an_input_range_scales_all(kind: str) -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((8, 8, 3))
    if kind == "Dense":
        y = kl.Dense(24, activation="relu", name="first")(kl.Flatten()(x))
        model = keras.Model(x, kl.Dense(4)(kl.Dense(16, activation="relu")(y)))
    else:
        y = kl.Conv2D(8, 3, activation="relu", name="first")(x)
        y = kl.Conv2D(8, 3, activation="relu")(y)
        model = keras.Model(x, kl.Dense(4)(kl.GlobalAveragePooling2D()(y)))
    start = Artifact("bare", settled(model))
    with pytest.raises(
        ConfigError, match="nothing in .* tells the range of its inputs.*give input"
    ):
        quantize(start, calibration="data-free")
    pixels = np.random.default_rng(1).uniform(0, 255, (64, 8, 8, 3)).astype(np.float32)
    given = quantize(start, calibration="data-free", input_range=(0, 255))
    assert noise(model, given, pixels) > 25


def test_equalisation_changes_the_weights_and_not_the_function() -> None:
    model = settled(dense())
    x = small_models.batch(model, 32)
    plain, equal = (
        quantize(
            Artifact("cle", model), calibration="data-free", equalise=flag, input_range=(-3.5, 3.5)
        )
        for flag in (False, True)
    )
    assert plain.tflite != equal.tflite
    assert noise(model, equal, x) > 20
    assert equal.steps[-1].params["equalise"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "samples"}, "calibration 'samples': pass float rows, or use \"data-free"),
        ({"mode": "int16x8"}, "without samples are for mode \"int8\", not 'int16x8'"),
        ({"mode": "float16"}, "calibration 'data-free' means nothing in mode float16, .* leave it"),
        ({"mode": "float32", "calibration": "distilled"}, "calibration 'distilled' means nothing"),
        (
            {"mode": "dynamic", "calibration": None, "weight_bits": 4},
            "for mode \"int8\", not 'dynamic'; leave them out",
        ),
        ({"weight_bits": 1}, "weight_bits 1: use a whole number from 2 to 8"),
        ({"weight_bits": 9}, "weight_bits 9: use a whole number"),
        ({"weight_bits": 4.5}, "weight_bits 4.5: use a whole number"),
        ({"rounding": "up"}, "rounding 'up' is unknown; use nearest, squant, compensated"),
        ({"input_range": (1, 0)}, r"input_range \[1.0, 0.0\]: use two numbers, the least first"),
        ({"input_range": (0, 1, 2)}, "use two numbers"),
        ({"input_range": (0, float("inf"))}, "use two numbers"),
        (
            {"calibration": np.ones((2, 6, 6, 3), np.float32), "input_range": (0, 1)},
            'input_range goes with calibration "data-free" alone',
        ),
    ],
)
def test_impossible_options(residual: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize(Artifact("odd", residual), **{"calibration": "data-free", **options})


def test_what_nothing_is_known_of_is_named() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input((6, 6, 3))
    y = kl.LayerNormalization(name="odd")(kl.Conv2D(4, 1)(x))
    read_on = keras.Model(x, kl.Conv2D(2, 1, name="after")(y))
    with pytest.raises(UnsupportedError, match="layer odd .*after.*samples, or replace the layer"):
        quantize(Artifact("lost", read_on), calibration="data-free")
    last = keras.Model(x, keras.ops.cumsum(kl.Conv2D(4, 1)(x), axis=1))
    with pytest.raises(UnsupportedError, match="no range is known of what CUMSUM .*samples, or"):
        quantize(Artifact("lost", last), calibration="data-free", input_range=(-3, 3))
