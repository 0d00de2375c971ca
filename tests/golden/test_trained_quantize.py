"""The int8 flatbuffer of a model that was trained on grids, against one that fake-quantises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact, Step
from edgecompress.channels.graph import read_weights, trace
from edgecompress.errors import ConfigError, StageOrderError
from edgecompress.quantization import quantize
from edgecompress.tflite import Program, read
from tests.aot_harness import case, check

ROWS = np.random.default_rng(5).uniform(-1, 3, (48, 8, 8, 3)).astype(np.float32)
RANGES = {
    "image": (-1.0, 3.0),
    "relu": (0.0, 4.5),
    "deep_relu": (0.0, 3.0),
    "side_norm": (-4.0, 4.0),
    "sum": (-3.0, 6.0),
    "out": (-5.0, 5.0),
}
"""Where the flatbuffer has tensors of its own."""
BITS = {"conv": 8, "deep": 8, "side": 4, "out": 6}


def _onto_grid(layer: Any, bits: int, *, shared: bool) -> dict[str, Any]:
    """The layer's kernel put on a grid, and the grid as a qat step describes it."""
    weight, old = next((k, w) for k, w in read_weights(layer).items() if w.ndim > 1)
    axes = (0, 1) if type(layer).__name__ == "DepthwiseConv2D" else tuple(range(old.ndim - 1))
    peak = np.abs(old).max(axis=axes, keepdims=True) * 0.8  # the largest weights are clipped
    top = 2 ** (bits - 1) - 1
    scales = np.float32((peak.max() if shared else peak) / top)
    points = np.clip(np.rint(old / scales), -top, top)
    points[np.abs(points) < top / 4] = 0
    new = {**read_weights(layer), weight: np.float32(points * scales)}
    layer.set_weights(list(new.values()))
    told = [float(s) for s in np.broadcast_to(scales, peak.shape).reshape(-1)]
    return {"weight": weight, "bits": bits, "scales": told[:1] if shared else told}


@pytest.fixture(scope="module")
def trained() -> Artifact:
    """A residual network with BatchNormalization of both signs and a dead channel, on its grids."""
    import keras
    from keras import layers as kl

    def seeded(seed: int) -> Any:
        return keras.initializers.RandomNormal(stddev=0.4, seed=seed)

    x = keras.Input((8, 8, 3), name="image")
    y = kl.Conv2D(6, 3, padding="same", name="conv", kernel_initializer=seeded(1))(x)
    y = kl.ReLU(name="relu")(kl.BatchNormalization(name="norm")(y))
    z = kl.DepthwiseConv2D(
        3, padding="same", use_bias=False, name="deep", depthwise_initializer=seeded(2)
    )(y)
    z = kl.ReLU(name="deep_relu")(kl.BatchNormalization(name="deep_norm")(z))
    z = kl.Conv2D(6, 1, use_bias=False, name="side", kernel_initializer=seeded(3))(z)
    z = kl.BatchNormalization(name="side_norm")(z)
    y = kl.Flatten(name="flat")(kl.MaxPooling2D(4, name="pool")(kl.Add(name="sum")([y, z])))
    model = keras.Model(x, kl.Dense(4, name="out", kernel_initializer=seeded(4))(y), name="net")
    rng = np.random.default_rng(6)
    for name in ("norm", "deep_norm", "side_norm"):
        norm = model.get_layer(name)
        new = {k: rng.uniform(0.5, 1.5, w.shape) for k, w in read_weights(norm).items()}
        new["gamma"] *= rng.choice([-1.0, 1.0], 6)
        new["gamma"][2] = 0.0 if name == "side_norm" else new["gamma"][2]
        norm.set_weights([np.float32(array) for array in new.values()])
    grids = {
        name: _onto_grid(model.get_layer(name), bits, shared=name == "side")
        for name, bits in BITS.items()
    }
    effect = {"ranges": {k: list(v) for k, v in RANGES.items()}, "grids": grids}
    return Artifact("net", model).after(Step("qat", {}, effect))


@pytest.fixture(scope="module")
def converted(trained: Artifact) -> Artifact:
    return quantize(trained, calibration="trained", output_type="float32")


def _simulated(model: Any, rows: Any) -> Any:
    """The float model with every tensor of the flatbuffer on its grid of 8 bits."""
    import tensorflow as tf

    made: dict[int, Any] = {}
    graph = trace(model)

    def onto(name: str, values: Any) -> Any:
        if name not in RANGES:
            return values
        low, high = RANGES[name]
        return tf.quantization.fake_quant_with_min_max_args(values, low, high)

    made[graph.inputs[0]] = onto("image", tf.constant(rows))
    for call in graph.calls:
        given = [made[i] for i in call.inputs]
        values = call.op(given if len(given) > 1 else given[0])
        made[call.outputs[0]] = onto(call.name, values)
    return np.asarray(made[graph.outputs[0]])


def test_the_flatbuffer_computes_what_training_saw(trained: Artifact, converted: Artifact) -> None:
    expected = _simulated(trained.keras, ROWS)
    got = runtimes.run(converted.need_tflite("test"), ROWS, runtime="tflite").values
    step = (RANGES["out"][1] - RANGES["out"][0]) / 255
    steps = np.abs(got - expected) / step
    assert np.ptp(expected) > 100 * step
    assert steps.max() <= 2.01 and (steps > 0.5).mean() < 0.25


def _kernels(program: Program) -> dict[str, Any]:
    return {
        program.layer_of(op): program.tensors[op.inputs[1]]
        for op in program.ops
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }


def test_the_whole_numbers_are_those_of_training(trained: Artifact, converted: Artifact) -> None:
    assert trained.keras is not None
    found = _kernels(read(converted.need_tflite("test")))
    assert len(found) == len(BITS)
    for name, tensor in zip(BITS, found.values(), strict=True):
        grid = trained.steps[0].effect["grids"][name]
        kernel = np.asarray(read_weights(trained.keras.get_layer(name))[grid["weight"]], np.float64)
        outputs = (kernel.shape[-2] * kernel.shape[-1]) if name == "deep" else kernel.shape[-1]
        rows = kernel.reshape(-1, outputs).T
        points = np.rint(rows / np.broadcast_to(grid["scales"], outputs)[:, None])
        norm = {"conv": "norm", "deep": "deep_norm", "side": "side_norm"}.get(name)
        if norm is not None:
            gamma = read_weights(trained.keras.get_layer(norm))["gamma"]
            points *= np.sign(gamma)[:, None]
        stored = np.asarray(tensor.array, np.int64)
        axis = 3 if name == "deep" else 0
        stored = np.moveaxis(stored, axis, 0).reshape(outputs, -1)
        assert (stored == points).all(), name
        assert tensor.dtype == ("int4" if name == "side" else "int8")
    rows = {row["layer"]: row for row in converted.steps[-1].effect["layers"]}
    assert {name: (row["bits"], row["rule"]) for name, row in rows.items()} == {
        name: (bits, "trained") for name, bits in BITS.items()
    }
    assert converted.steps[-1].params["calibration"] == "trained"


def test_the_ranges_are_those_of_training(converted: Artifact) -> None:
    program = read(converted.need_tflite("test"))
    found = {
        program.results(op)[0].name.split("/")[1]: program.results(op)[0].scales[0]
        for op in program.ops
        if op.kind in ("ADD", "DEPTHWISE_CONV_2D")
    }
    widths = sorted(round(scale * 255, 3) for scale in found.values())
    assert widths == [3.0, 9.0]


def test_both_backends_agree(trained: Artifact, converted: Artifact) -> None:
    """Trained grids, bits by layer and int16 activations: TFLM's bits in the ahead-of-time C."""
    plain = Artifact("net", trained.keras)
    mixed = quantize(plain, calibration=ROWS, weight_bits={"conv": 5, "side": 4, "out": 3})
    wide = quantize(plain, calibration=ROWS, mode="int16x8")
    programs = [read(made.need_tflite("test")) for made in (converted, mixed, wide)]
    peaks = [np.abs(np.asarray(t.array, np.int16)).max() for t in _kernels(programs[1]).values()]
    assert sorted(peaks) == [3, 7, 15, 127]
    dense = next(op for op in programs[2].ops if op.kind == "FULLY_CONNECTED")
    assert len(programs[2].tensors[dense.inputs[1]].scales) == 1
    check([case(program, rows=2) for program in programs])


def test_convolutions_in_groups_have_their_grids_too() -> None:
    """Keras compiles what they compute to a function of its own."""
    import keras
    from keras import layers as kl

    x = keras.Input((6, 6, 8), name="image")
    made = kl.Conv2D(16, 3, groups=2, activation="sigmoid", name="halves")
    model = keras.Model(x, made(x), name="grouped")
    grid = _onto_grid(made, 4, shared=True)
    ranges = {"image": [-3.0, 3.0], "halves/linear": [-4.0, 4.0]}
    step = Step("qat", {}, {"ranges": ranges, "grids": {"halves": grid}})
    done = quantize(Artifact("grouped", model).after(step), calibration="trained")
    (kernel,) = _kernels(read(done.need_tflite("test"))).values()
    assert kernel.dtype == "int4" and set(kernel.scales) == {grid["scales"][0]}


def test_clusters_stay_with_int16_activations(trained: Artifact) -> None:
    """The whole numbers that training left, and TFLM's bits."""
    assert trained.keras is not None
    grid = trained.steps[0].effect["grids"]["side"]
    step = Step("cluster", {}, {"grids": {"side": grid}})
    artifact = Artifact("net", trained.keras, steps=(step,))
    program = read(quantize(artifact, calibration=ROWS, mode="int16x8").need_tflite("test"))
    peaks = [np.abs(np.asarray(t.array, np.int16)).max() for t in _kernels(program).values()]
    assert min(peaks) <= 7 and sorted(peaks)[1:] == [127] * 3
    check([case(program)])


def test_weights_that_left_their_grids_are_refused(trained: Artifact) -> None:
    import keras

    with pytest.raises(StageOrderError, match="net was not trained with grids"):
        quantize(Artifact("net", trained.keras), calibration="trained")
    assert trained.keras is not None
    other = keras.models.clone_model(trained.keras)
    other.set_weights(trained.keras.get_weights())
    layer = other.get_layer("side")
    layer.set_weights([weights * 1.01 for weights in layer.get_weights()])
    with pytest.raises(StageOrderError, match="the weights of layer side of net are not those"):
        quantize(Artifact("net", other, steps=trained.steps), calibration="trained")
    grids = dict(trained.steps[0].effect["grids"], gone={"weight": "kernel"})
    step = Step("qat", {}, {**trained.steps[0].effect, "grids": grids})
    with pytest.raises(StageOrderError, match="layer gone of net"):
        quantize(Artifact("net", trained.keras, steps=(step,)), calibration="trained")


@pytest.mark.parametrize(
    "options", [{"weight_bits": 4}, {"per_channel": False}, {"rounding": "squant"}]
)
def test_trained_grids_leave_nothing_to_choose(trained: Artifact, options: Any) -> None:
    with pytest.raises(ConfigError, match="takes the grids of the qat step; leave weight_bits"):
        quantize(trained, calibration="trained", **options)


def test_trained_ranges_are_for_int8(trained: Artifact) -> None:
    with pytest.raises(ConfigError, match="are for mode \"int8\", not 'int16x8'"):
        quantize(trained, calibration="trained", mode="int16x8")
