"""Ranges and grids put into flatbuffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.backends import aot
from edgecompress.errors import UnsupportedError
from edgecompress.quantization import quantize
from edgecompress.quantization.calibrated import on_grids, packed, quantized, spread
from edgecompress.tflite import read

ROWS = np.random.default_rng(0).uniform(-4, 4, (64, 5, 3)).astype(np.float32)


def floats(outputs: Any) -> bytes:
    """A float flatbuffer of what `outputs` makes of an input (5, 3)."""
    import keras

    x = keras.Input(ROWS.shape[1:])
    return quantize(Artifact("f", keras.Model(x, outputs(x))), mode="float32").need_tflite("test")


def elements(x: Any) -> Any:
    """Element-wise operators of most kinds, with constants, sums and products of tensors."""
    import keras
    from keras import layers as kl
    from keras import ops

    slopes = kl.PReLU(alpha_initializer=keras.initializers.Constant(-0.3), shared_axes=[1])
    parts = [
        kl.Activation("hard_silu")(x),
        kl.LeakyReLU(negative_slope=0.3)(x),
        kl.Activation("silu")(x * 0.7 - 0.2),
        ops.abs(x) * ops.square(x),
        ops.maximum(x, 1.5) - ops.minimum(x, -0.5),
        kl.Activation("relu6")(kl.Activation("tanh")(x) * 9.0),
        slopes(x),
        ops.exp(-x),
    ]
    y = kl.Concatenate()(parts)
    return kl.GlobalAveragePooling1D()(kl.MaxPooling1D(2)(kl.ZeroPadding1D(1)(y)))


def test_intervals_hold_all_that_an_operator_can_make() -> None:
    data = floats(elements)
    program = read(data)
    known = spread(program, {program.inputs[0]: (-4.0, 4.0)})
    outcome = runtimes.run(data, ROWS, runtime="litert", tensors=True)
    seen = 0
    for index, values in outcome.tensors.items():
        if index in known:
            low, high = known[index]
            assert low - 1e-4 <= values.min() and values.max() <= high + 1e-4, program.tensors[
                index
            ].name
            assert high - low < 20 * max(np.ptp(values), 1.0)
            seen += 1
    assert seen >= len(program.ops) > 15


def test_a_given_range_counts_more_than_an_interval() -> None:
    program = read(floats(lambda x: x * 2.0 + 1.0))
    first = program.ops[0].outputs[0]
    known = spread(program, {program.inputs[0]: (-4.0, 4.0), first: (-1.0, 1.0)})
    assert known[first] == (-1.0, 1.0)
    assert known[program.outputs[0]] == (0.0, 2.0)


def test_what_has_no_rule_is_an_error() -> None:
    import keras

    program = read(floats(lambda x: keras.ops.cumsum(x, axis=1)))
    with pytest.raises(UnsupportedError, match="no range is known of what CUMSUM"):
        spread(program, {program.inputs[0]: (0.0, 1.0)})


def _network(x: Any) -> Any:
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(4)
    y = kl.Conv1D(4, 3, name="conv", bias_initializer="random_normal")(x)
    y = kl.DepthwiseConv1D(2, name="deep", activation="relu")(y)
    return kl.Dense(3, name="last")(kl.Flatten()(y))


def test_given_ranges_are_those_of_the_integers() -> None:
    data = floats(_network)
    program = read(data)
    given = {program.inputs[0]: (-2.0, 6.0)}
    for op in program.ops:
        if "CONV" in op.kind or op.kind in ("FULLY_CONNECTED", "RESHAPE", "EXPAND_DIMS"):
            given[op.outputs[0]] = (-3.0, 3.0)
    made = read(quantized(data, spread(program, given), types=("int8", "int8")))
    assert {tensor.dtype for op in made.ops for tensor in made.results(op)} == {"int8"}
    tensor = made.tensors[made.inputs[0]]
    assert tensor.scales[0] == pytest.approx(8 / 255)
    assert tensor.zero_points[0] == -128 + round(2 * 255 / 8)
    assert made.tensors[made.outputs[0]].scales[0] == pytest.approx(6 / 255)
    other = read(
        quantized(data, spread(program, given), types=("uint8", "float32"), per_channel=False)
    )
    types = [other.tensors[i].dtype for i in (other.inputs[0], other.outputs[0])]
    assert types == ["uint8", "float32"]
    assert max(len(tensor.scales) for tensor in other.tensors) == 1


@pytest.fixture(scope="module")
def integers() -> bytes:
    import keras

    x = keras.Input(ROWS.shape[1:])
    model = keras.Model(x, _network(x))
    return quantize(Artifact("i", model), calibration=ROWS).need_tflite("test")


def _kernels(program: Any) -> dict[str, tuple[Any, Any]]:
    return {
        op.kind: (program.tensors[op.inputs[1]], program.tensors[op.inputs[2]])
        for op in program.ops
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }


def test_a_kernel_takes_the_grid_that_is_its_own(integers: bytes) -> None:
    before = _kernels(read(integers))
    weights, bias = before["CONV_2D"]
    points = np.clip(np.asarray(weights.array, np.int32) // 16, -7, 7).astype(np.int8)
    scales = np.asarray(weights.scales) * 16
    near = np.asarray(weights.array) / 16 - points
    assert np.abs(near).max() > 0.75  # so coarse a grid is not that of the kernel
    rows = points.reshape(len(points), -1)
    assert on_grids(integers, [(rows, scales)]) == (integers, frozenset())

    fine = np.asarray(weights.array).reshape(len(points), -1)
    moved = np.asarray(weights.scales) * 1.002
    data, used = on_grids(integers, [(fine[:2], moved[:2]), (fine, moved)])
    assert used == {1}
    after = _kernels(read(data))
    new, added = after["CONV_2D"]
    assert new.scales == pytest.approx(tuple(moved)) and (new.array == weights.array).all()
    real = np.asarray(bias.array) * np.asarray(bias.scales)
    assert np.allclose(added.array * np.asarray(added.scales), real, atol=max(added.scales))
    assert (added.array != bias.array).any()
    assert after["FULLY_CONNECTED"] == before["FULLY_CONNECTED"]


@pytest.mark.parametrize("bits", [3, 5])
def test_a_shared_kernel_and_its_biases_have_the_same_units(bits: int) -> None:
    import keras

    x = keras.Input((4, 4, 2))
    twice = keras.layers.Conv2D(2, 1, name="twice", bias_initializer="ones")
    model = keras.Model(x, twice(keras.layers.ReLU()(twice(x))))
    twice.kernel.assign(np.float32([[[[1.0, -0.5], [0.3, 0.8]]]]))
    for end in (1.0, 16.0, 200.0):
        artifact = quantize(
            Artifact("twice", model),
            calibration="data-free",
            weight_bits=bits,
            input_range=(-end, end),
        )
        program = read(artifact.need_tflite("test"))
        ops = [op for op in program.ops if op.kind == "CONV_2D"]
        assert len(ops) == 2 and len({op.inputs[1] for op in ops}) == 1
        for op in ops:
            data, kernel, bias = (program.tensors[i] for i in op.inputs)
            assert np.allclose(bias.scales, np.multiply(data.scales[0], kernel.scales), rtol=1e-6)
            assert np.allclose(np.asarray(bias.array) * bias.scales, 1.0, atol=max(bias.scales))


def test_only_convolutions_whose_weights_fit_are_packed(integers: bytes) -> None:
    program = read(integers)
    tensors = list(program.tensors)
    for op in program.ops:
        if op.kind in ("DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            old = tensors[op.inputs[1]]
            small = (np.asarray(old.array, np.int32) // 20).astype(np.int8)
            tensors[op.inputs[1]] = type(old)(**{**vars(old), "data": small.tobytes()})
    from edgecompress.tflite import write

    wide = write(program.edit(tensors=tuple(tensors)))
    narrow = packed(wide)
    before, after = _kernels(read(wide)), _kernels(read(narrow))
    assert {kind: w.dtype for kind, (w, _) in after.items()} == {
        "CONV_2D": "int8",  # its weights reach 127
        "DEPTHWISE_CONV_2D": "int4",
        "FULLY_CONNECTED": "int8",
    }
    for kind, (w, _) in after.items():
        assert (w.array == before[kind][0].array).all()
    jobs = [runtimes.submit(data, ROWS, runtime="tflm") for data in (wide, narrow)]
    assert np.array_equal(*(job.result().raw for job in jobs))


def test_an_output_without_weights_does_not_slow_the_others_down() -> None:
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(3)
    x = keras.Input(ROWS.shape[1:])
    y = kl.Conv1D(8, 3, name="conv", bias_initializer="random_normal")(x)
    y = kl.DepthwiseConv1D(2, name="deep", bias_initializer="ones")(y)
    y = kl.Dense(6, name="last", bias_initializer="random_normal")(kl.Flatten()(y))
    model = keras.Model(x, y)
    for name in ("conv", "deep", "last"):
        weights, bias = model.get_layer(name).get_weights()
        weights[(..., slice(1, 3), 0) if name == "deep" else (..., slice(1, 3))] = 0
        model.get_layer(name).set_weights([weights, bias])
    data = quantize(Artifact("dead", model), calibration=ROWS).need_tflite("test")
    program = read(data)
    for op in program.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights, bias = (program.tensors[i] for i in op.inputs[1:3])
            rows = np.moveaxis(np.asarray(weights.array), 3 if "DEPTH" in op.kind else 0, 0)
            dead = ~rows.reshape(len(rows), -1).any(axis=1)
            assert dead.any() and not dead.all()
            assert np.asarray(weights.scales)[dead].min() == max(weights.scales)
            assert np.abs(np.asarray(bias.array)).max() < 2**20
            unit = program.tensors[op.inputs[0]].scales[0]
            assert np.allclose(bias.scales, unit * np.asarray(weights.scales))
    calls = [step.call.function for step in aot.schedule(program).steps]
    assert not [name for name in calls if "plain" in name]
    got = runtimes.run(data, ROWS, runtime="litert").values
    wrong = np.abs(got - model.predict_on_batch(ROWS))
    assert wrong.max() < 3 * program.tensors[program.outputs[0]].scales[0]


def test_an_output_of_nothing_is_no_damage() -> None:
    import keras
    from keras import layers as kl

    x = keras.Input(ROWS.shape[1:])
    y = kl.Conv1D(4, 3, name="conv", kernel_initializer=keras.initializers.HeNormal(seed=1))(x)
    model = keras.Model(x, y)
    weights, bias = model.get_layer("conv").get_weights()
    weights[..., 2] = 0
    model.get_layer("conv").set_weights([weights, bias])
    data = quantize(Artifact("none", model), calibration=ROWS, mode="int16x8").need_tflite("test")
    got = runtimes.run(data, ROWS, runtime="tflm").values
    assert np.abs(got - model.predict_on_batch(ROWS)).max() < 0.05 and not got[..., 2].any()
