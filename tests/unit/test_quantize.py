"""Conversion and quantisation of small models, and the error per layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.backends import aot, tflm
from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError
from edgecompress.evaluation import compare, first_difference
from edgecompress.quantization import activations, quantize, sqnr
from edgecompress.tflite import read
from edgecompress.vocabulary import Mode

ROWS = np.random.default_rng(0).standard_normal((24, 8, 8, 2)).astype(np.float32)


def build(*layers: Any, shape: tuple[int, ...] = (8, 8, 2)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


@pytest.fixture(scope="module")
def model() -> Any:
    """Convolution with BatchNormalization, depthwise, a residual, a nested model, softmax."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="conv_1")(y)  # a name that Keras' numbering would give to `conv`
    z = layers.DepthwiseConv2D(3, padding="same", name="dw")(y)
    y = layers.Add(name="sum")([y, z])
    inner = keras.Sequential(
        [layers.Conv2D(3, 1, activation="relu", name="point"), layers.Flatten(name="flat")],
        name="block",
    )
    model = keras.Model(x, layers.Dense(4, activation="softmax", name="out")(inner(y)))
    norm = model.get_layer("norm")
    shapes = [weight.shape for weight in norm.get_weights()]
    norm.set_weights(
        [np.random.default_rng(1).uniform(0.5, 1.5, s).astype(np.float32) for s in shapes]
    )
    return model


@pytest.fixture(scope="module")
def converted(model: Any) -> dict[str, Artifact]:
    start = Artifact("small", model)
    modes: tuple[Mode, ...] = ("float32", "int8", "int16x8")
    return {mode: quantize(start, calibration=ROWS, mode=mode) for mode in modes}


def test_int8_is_integer_throughout(converted: dict[str, Artifact]) -> None:
    program = read(converted["int8"].need_tflite("test"))
    kinds = [op.kind for op in program.ops]
    assert kinds == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
        "CONV_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
        "SOFTMAX",
    ]
    assert {program.tensors[op.outputs[0]].dtype for op in program.ops} == {"int8"}
    assert program.tensors[program.inputs[0]].shape == (1, 8, 8, 2)
    assert [program.tensors[i].dtype for i in (*program.inputs, *program.outputs)] == ["int8"] * 2


def test_tensor_names_are_the_exact_layer_names(converted: dict[str, Artifact]) -> None:
    program = read(converted["int8"].need_tflite("test"))
    names = [program.results(op)[0].name for op in program.ops]
    assert [{part.split("/")[1] for part in name.split(";")} for name in names] == [
        {"conv", "norm", "conv_1"},
        {"dw"},
        {"sum"},
        {"block"},
        {"block"},
        {"out"},
        {"out"},
    ]
    assert names[3].startswith("m/block/point/") and names[4].startswith("m/block/flat/")
    assert program.tensors[program.inputs[0]].name == "input"


def test_the_step_tells_what_was_done(model: Any, converted: dict[str, Artifact]) -> None:
    artifact = converted["int8"]
    step = artifact.steps[-1]
    assert (step.stage, len(artifact.steps)) == ("quantize", 1)
    assert step.params == {
        "mode": "int8",
        "input_type": "int8",
        "output_type": "int8",
        "per_channel": True,
        "calibration": "samples",
        "calibration_samples": 24,
    }
    assert step.effect == {
        "tflite_bytes": len(artifact.need_tflite("test")),
        "float_operators": [],
    }
    assert artifact.keras is model
    assert converted["float32"].steps[-1].params["calibration_samples"] is None


def test_the_model_is_left_alone_and_bytes_repeat(
    model: Any, converted: dict[str, Artifact]
) -> None:
    import keras

    before = [weight.copy() for weight in model.get_weights()]
    config = model.get_config()
    keras.layers.Dense(2)  # moves Keras' global counters
    seen: list[tuple[str, int, int]] = []
    again = quantize(
        Artifact("small", model), calibration=ROWS, progress=lambda *step: seen.append(step)
    )
    assert again.tflite == converted["int8"].tflite
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config
    assert seen[0] == ("calibrate", 0, 24) and seen[-1] == ("calibrate", 24, 24)


def test_float32_computes_what_keras_computes(model: Any, converted: dict[str, Artifact]) -> None:
    outcome = runtimes.run(converted["float32"].need_tflite("test"), ROWS, runtime="litert")
    assert np.allclose(outcome.values, model.predict_on_batch(ROWS), atol=1e-5)


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_tflm_and_the_reference_agree(mode: str, converted: dict[str, Artifact]) -> None:
    data = converted[mode].need_tflite("test")
    jobs = [runtimes.submit(data, ROWS, runtime=name) for name in ("tflite", "tflm")]
    reference, device = (job.result() for job in jobs)
    if reference.runtime != "tflite-runtime":
        pytest.skip(f"{reference.runtime} stands in for tflite-runtime on this Python")
    bits = compare(reference.raw, device.raw)
    if mode == "int8":
        assert bits.exact == bits.elements == 96
    else:
        # With int16 activations TFLM's FULLY_CONNECTED rounds otherwise than TFLite's.
        apart = first_difference(data, ROWS)
        assert device.raw.dtype == np.int16 and bits.max_diff <= 2
        assert apart is None or (apart.kind, apart.max_diff) == ("FULLY_CONNECTED", 1)


def test_both_backends_have_int16_activations(converted: dict[str, Artifact]) -> None:
    program = read(converted["int16x8"].need_tflite("test"))
    assert not tflm.supports(program) and not aot.supports(program)
    (dense,) = [op for op in program.ops if op.kind == "FULLY_CONNECTED"]
    assert len(program.tensors[dense.inputs[1]].scales) == 1


def test_other_modes_and_types(model: Any, converted: dict[str, Artifact]) -> None:
    start = Artifact("small", model)
    size = {mode: len(artifact.need_tflite("test")) for mode, artifact in converted.items()}
    half = quantize(start, mode="float16")
    assert len(half.need_tflite("test")) < size["float32"]
    assert read(half.need_tflite("test")).tensors[0].dtype == "float32"
    coarse = quantize(
        start, calibration=ROWS, input_type="uint8", output_type="float32", per_channel=False
    )
    program = read(coarse.need_tflite("test"))
    dtypes = [program.tensors[i].dtype for i in (program.inputs[0], program.outputs[0])]
    assert dtypes == ["uint8", "float32"]
    fine = read(converted["int8"].need_tflite("test"))

    def widest(program: Any) -> int:
        return max(len(tensor.scales) for tensor in program.tensors)

    assert (widest(program), widest(fine)) == (1, 4)
    assert coarse.steps[-1].effect["float_operators"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "int4"}, "mode 'int4' is unknown; use int8, int16x8, float16, dynamic, float32"),
        ({"input_type": "int16"}, "input_type 'int16' does not go with mode int8; use int8 or"),
        ({"output_type": "int4"}, "output_type 'int4' does not go with mode int8"),
        ({"mode": "int16x8", "input_type": "int8"}, "use int16 or float32"),
        ({"mode": "float16", "output_type": "int8"}, "use float32"),
        ({"mode": "float32", "per_channel": False}, "per_channel=False means nothing"),
        ({"calibration": None}, r"calibration: none given; pass float rows \(N, 8, 8, 2\)"),
        ({"calibration": ROWS[0]}, r"shape \[8, 8, 2\] does not fit the model's \(N, 8, 8, 2\)"),
        ({"calibration": ROWS[:0]}, "no rows"),
        ({"calibration": np.zeros((4, 8, 8, 2), np.uint8)}, "its type is uint8; pass float32"),
        ({"calibration": np.full((4, 8, 8, 2), np.nan)}, "NaN or infinite values"),
        ({"calibration": np.zeros((4, 8, 8, 2))}, "every value is 0, which gives no range"),
    ],
)
def test_impossible_options(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize(Artifact("small", model), **{"calibration": ROWS, **options})


def test_order_of_stages(converted: dict[str, Artifact]) -> None:
    with pytest.raises(StageOrderError, match="already quantised"):
        quantize(converted["int8"], calibration=ROWS)
    with pytest.raises(StageOrderError, match="without a Keras model"):
        quantize(Artifact("file", tflite=b""), calibration=ROWS)
    with pytest.raises(StageOrderError, match="call quantize first"):
        sqnr(Artifact("small", converted["int8"].keras), ROWS)


def test_models_that_do_not_convert() -> None:
    import keras
    from keras import layers

    rows = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    x, other = keras.Input((6, 3)), keras.Input((6, 3))
    cases = {
        r"layer 'rnn' runs a loop .*\(While\).*unroll=True": build(
            layers.LSTM(2, name="rnn"), shape=(6, 3)
        ),
        "operator Erfinv of layer erfinv": keras.Model(x, keras.ops.erfinv(x)),
        "layer name 'my dense' has characters": build(
            layers.Dense(2, name="my dense"), shape=(6, 3)
        ),
        "has 2 inputs": keras.Model([x, other], layers.Add()([x, other])),
        r"is int32 \[6\]; it must be float32": keras.Sequential(
            [keras.Input((6,), dtype="int32"), layers.Embedding(4, 2)]
        ),
        "of fixed size": keras.Sequential([keras.Input((None, 3)), layers.Dense(2)]),
    }
    for message, model in cases.items():
        with pytest.raises(UnsupportedError, match=message):
            quantize(Artifact("odd", model), calibration=rows)


def test_operators_left_in_float_are_listed() -> None:
    import keras

    x = keras.Input((6, 3))
    y = keras.layers.Dense(2, name="d")(x)
    model = keras.Model(x, keras.ops.cumsum(y, axis=1))
    name = model.operations[-1].name
    rows = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    artifact = quantize(Artifact("sum", model), calibration=rows)
    assert artifact.steps[-1].effect["float_operators"] == [f"CUMSUM ({name})"]


def test_activations_are_those_of_keras(model: Any) -> None:
    import keras

    found = activations(model, ROWS)
    assert list(found) == [
        "conv",
        "norm",
        "conv_1",
        "dw",
        "sum",
        "block/point",
        "block/flat",
        "out",
    ]
    for name in ("norm", "sum", "out"):
        partial = keras.Model(model.inputs, model.get_layer(name).output)
        assert np.allclose(found[name], partial.predict_on_batch(ROWS), atol=1e-5)


def test_sqnr_per_layer(model: Any, converted: dict[str, Artifact]) -> None:
    errors = {mode: sqnr(artifact, ROWS[:16]) for mode, artifact in converted.items()}
    pairs = [(error.layer, error.kind) for error in errors["int8"]]
    assert pairs == [
        ("conv_1", "CONV_2D"),
        ("dw", "DEPTHWISE_CONV_2D"),
        ("sum", "ADD"),
        ("block/point", "CONV_2D"),
        ("block/flat", "RESHAPE"),
        ("out", "FULLY_CONNECTED"),
        ("out", "SOFTMAX"),
    ]
    logits = errors["int8"][5]
    assert logits.sqnr_db is None and logits.max_abs is None  # inside the layer: no Keras tensor
    for eight, sixteen in zip(errors["int8"], errors["int16x8"], strict=True):
        if eight.sqnr_db is not None:
            assert sixteen.sqnr_db is not None and 20 < eight.sqnr_db < sixteen.sqnr_db
    assert all(e.sqnr_db is None or e.sqnr_db > 100 for e in errors["float32"])


def test_sqnr_follows_its_definition(model: Any, converted: dict[str, Artifact]) -> None:
    last = sqnr(converted["int8"], ROWS)[-1]
    f = model.predict_on_batch(ROWS).astype(np.float64)
    q = runtimes.run(converted["int8"].need_tflite("test"), ROWS, runtime="litert").values
    assert last.sqnr_db == pytest.approx(
        10 * math.log10((f**2).sum() / ((f - q) ** 2).sum()), abs=1e-3
    )
    assert last.max_abs == pytest.approx(np.abs(f - q).max(), abs=1e-6)


def test_a_shared_layer_has_no_figure() -> None:
    from keras import Input, Model, layers

    shared = layers.Dense(3, activation="relu", name="shared")
    x = Input((3,))
    model = Model(x, layers.Dense(2, name="out")(shared(shared(x))))
    rows = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    errors = sqnr(quantize(Artifact("twice", model), calibration=rows), rows)
    assert [(e.layer, e.sqnr_db is None) for e in errors] == [
        ("shared", True),
        ("shared", True),
        ("out", False),
    ]
