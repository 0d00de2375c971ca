"""Keras 3 model -> `.tflite`, quantised or not, and what that costs per layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress import runtimes
from edgecompress.artifact import Artifact, Step
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.progress import Progress, silent
from edgecompress.quantization import calibrated, trained
from edgecompress.quantization.conversion import (
    ROOT,
    SETTINGS,
    Float,
    Tensor,
    convert,
    layer_of,
    walk,
)
from edgecompress.quantization.grids import OwnWeights, check_bits, convert_on_grids
from edgecompress.tflite import Op, Program, read
from edgecompress.vocabulary import IO_TYPES, MODES, ROUNDINGS, IoType, Mode, Rounding, Source

if TYPE_CHECKING:
    from keras import Model


@dataclass(frozen=True)
class LayerError:
    """How far one operator of the quantised model is from the float model.

    `layer` is the Keras layer (nested ones by `/`; "" where unknown), `kind` the TFLite operator.
    `sqnr_db` is the signal to quantisation noise ratio in dB (inf: no error), `max_abs` the largest
    difference in the float model's units. They are None for an operator in the middle of a layer
    and for one whose output cannot be matched with a layer's.
    """

    layer: str
    kind: str
    sqnr_db: float | None
    max_abs: float | None


def quantize(
    artifact: Artifact,
    *,
    calibration: npt.ArrayLike | Source | None = None,
    mode: Mode = "int8",
    weight_bits: int | Mapping[str, int] = 8,
    weight_flash: float | None = None,
    rounding: Rounding = "nearest",
    correct_bias: bool = False,
    equalise: bool = False,
    input_range: Sequence[float] | None = None,
    input_type: IoType | None = None,
    output_type: IoType | None = None,
    per_channel: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Artifact:
    """Convert the Keras model to a flatbuffer with a batch of 1, quantised after training.

    `mode`: `int8` (all integer), `int16x8` (int16 activations, int8 weights), `float16` and
    `dynamic` (only the weights are smaller), `float32` (plain conversion). The integer modes need
    `calibration` for the activations' ranges: float (N, *input_shape) in the model's input domain;
    in the int8 mode also "data-free", from the weights alone, "distilled", inputs made from them
    with `seed`, or "trained", the ranges and grids of the last qat step (`trained`).
    `input_type` and `output_type` default to the mode's own type. `per_channel=False` gives each
    weight tensor one scale.

    The rest is for the int8 mode. `weight_bits` (2 to 8) is that of the weights, of all or by
    layer, 8 where a layer is not named; up to 4 they are int4 in convolutions, else whole numbers
    of so many bits in int8 tensors, which the ahead-of-time C can pack. `weight_flash` chooses 8 or
    4 bits for each layer instead, by what that does to the model's outputs on the rows
    (`precision`), so that all kernels take at most so many bytes: up to 1 a share of what 8 bits
    take, above 1 a whole number. `rounding` is how weights go onto their grid and `correct_bias`
    takes the mean of the rounding's errors out (see `datafree.weights.put_on_grid`); `equalise`
    first makes channels of like size (see `datafree.equalise`). Kernels that `cluster` left with
    few distinct weights keep them, in both integer modes: they take its grids. `input_range` is
    that of the inputs where no samples show it; without it, it is estimated from what the first
    layers tell.

    The step's effect lists operators of an integer mode that TFLite computes in float
    (`float_operators`), of weights on a grid of ours their predicted errors by layer (`layers`),
    an `estimated_input_range`, and the choice of bits (`precision`).

    Raises ConfigError for impossible options, unusable calibration data and an `input_range` left
    out where no layer tells it, UnsupportedError for layers that TFLite cannot express or that
    nothing is known of without samples, StageOrderError for an artifact without a Keras model, or
    without the qat step that "trained" goes by.
    Numerics: tf.lite.TFLiteConverter; scheme: Jacob et al. 2018 (arXiv:1712.05877), section 2.
    """
    model = artifact.need_keras("quantize")
    types = _io_types(mode, input_type, output_type, per_channel)
    _check_model(model)
    weights = OwnWeights(weight_bits, weight_flash, rounding, correct_bias, equalise, per_channel)
    source = _source(calibration, mode)
    plain = weights == OwnWeights(per_channel=per_channel)
    own = source in ("data-free", "distilled") or not plain
    ends = _check_own(model, weights, own=own, mode=mode, source=source, input_range=input_range)
    rows = _rows(model, calibration, source, seed=seed, progress=progress)
    effect: dict[str, Any] = {}
    if source == "trained":
        data, effect = trained.convert_trained(model, trained.last_step(artifact), types)
    elif own:
        data, effect = convert_on_grids(
            model, weights, types, rows=rows, ends=ends, progress=progress
        )
    else:
        data = convert(
            model,
            mode=mode,
            types=types,
            rows=rows,
            per_channel=per_channel,
            progress=progress,
        )
    if SETTINGS[mode].ops and source != "trained" and trained.clustered(artifact):
        data, effect["layers"] = trained.put_on(data, model, trained.clustered(artifact))
    if SETTINGS[mode].ops:
        data = calibrated.zeros_scaled(data)
    params: dict[str, Any] = {
        "mode": mode,
        "input_type": types[0],
        "output_type": types[1],
        "per_channel": per_channel,
        "calibration": source,
        "calibration_samples": None if rows is None else len(rows),
    }
    if own:
        params |= weights.to_json() | {"input_range": None if ends is None else list(ends)}
    effect["tflite_bytes"] = len(data)
    if SETTINGS[mode].ops:
        effect["float_operators"] = _float_operators(read(data))
    return artifact.after(Step("quantize", params, effect), tflite=data)


def _source(calibration: npt.ArrayLike | Source | None, mode: Mode) -> Source | None:
    """Where the ranges of activations come from; None where a mode needs none."""
    if isinstance(calibration, str):
        source = next((name for name in _ROWLESS if name == calibration), None)
        if source is None:
            raise ConfigError(
                f'calibration {calibration!r}: pass float rows, or use "data-free", "distilled" or'
                ' "trained"'
            )
        if SETTINGS[mode].ops is None:
            raise ConfigError(
                f"quantize: calibration {calibration!r} means nothing in mode {mode}, whose"
                " activations are float; leave it out"
            )
        return source
    return None if SETTINGS[mode].ops is None else "samples"


_ROWLESS: tuple[Source, ...] = ("data-free", "distilled", "trained")


def _check_own(
    model: Model,
    weights: OwnWeights,
    *,
    own: bool,
    mode: Mode,
    source: Source | None,
    input_range: Sequence[float] | None,
) -> tuple[float, float] | None:
    """The checked ends of the input's range."""
    if (own or source == "trained") and mode != "int8":
        raise ConfigError(
            "quantize: weight_bits, weight_flash, rounding, correct_bias, equalise and calibration"
            f' without samples are for mode "int8", not {mode!r}; leave them out'
        )
    if source == "trained" and weights != OwnWeights():
        raise ConfigError(
            'quantize: calibration "trained" takes the grids of the qat step; leave weight_bits,'
            " weight_flash, rounding, correct_bias, equalise and per_channel out"
        )
    check_bits(model, weights, source=source)
    if weights.rounding not in ROUNDINGS:
        raise ConfigError(
            f"quantize: rounding {weights.rounding!r} is unknown; use {', '.join(ROUNDINGS)}"
        )
    if input_range is None:
        return None
    if source != "data-free":
        raise ConfigError(
            'quantize: input_range goes with calibration "data-free" alone; leave it out'
        )
    ends = [float(end) for end in input_range]
    if len(ends) != 2 or not ends[0] < ends[1] or not all(map(math.isfinite, ends)):
        raise ConfigError(f"quantize: input_range {ends}: use two numbers, the least first")
    return ends[0], ends[1]


def _rows(
    model: Model,
    calibration: npt.ArrayLike | Source | None,
    source: Source | None,
    *,
    seed: int,
    progress: Progress,
) -> Float | None:
    """The rows to calibrate with; None where there are none."""
    if source == "samples":
        return _calibration(model, calibration)
    if source == "distilled":
        from edgecompress.datafree.distil import distilled

        return _calibration(model, distilled(model, seed=seed, progress=progress))
    return None


def sqnr(
    artifact: Artifact,
    x: npt.ArrayLike,
    *,
    timeout: float = runtimes.TIMEOUT,
) -> tuple[LayerError, ...]:
    """The quantisation error of each operator on the rows `x` (N, *input_shape), in order.

    Float Keras activations f against the dequantised activations q of the flatbuffer under LiteRT's
    reference kernels: 10 log10(sum f^2 / sum (f - q)^2) over all rows. A few rows (16 to 32) do.
    Raises StageOrderError before quantisation or without a Keras model, else like `runtimes.run`.
    """
    data = artifact.need_tflite("sqnr")
    model = Artifact(artifact.name, artifact.keras).need_keras("sqnr")
    job = runtimes.submit(data, x, runtime="litert", tensors=True, timeout=timeout)
    floats = activations(model, np.asarray(x, np.float32))
    outcome = job.result()
    order = {layer: place for place, layer in enumerate(floats)}
    layers = [layer_of(outcome.program, op, order) for op in outcome.program.ops]
    last = {layer: place for place, layer in enumerate(layers)}
    return tuple(
        _error(outcome, op, layer, floats.get(layer) if last[layer] == place else None)
        for place, (op, layer) in enumerate(zip(outcome.program.ops, layers, strict=True))
    )


def activations(model: Model, x: Float) -> dict[str, Float | None]:
    """What each layer computes for `x` (N, *input_shape), by path, in execution order.

    None for a layer that is called more than once or gives several tensors.
    """
    import tensorflow as tf

    calls: dict[str, list[Tensor]] = {}
    with tf.name_scope(ROOT):
        walk(model, (tf.constant(x),), ROOT, lambda path, y: calls.setdefault(path, []).append(y))
    return {
        path: np.asarray(outputs[0], np.float32)
        if len(outputs) == 1 and tf.is_tensor(outputs[0])
        else None
        for path, outputs in calls.items()
    }


def _error(outcome: runtimes.Outcome, op: Op, layer: str, expected: Float | None) -> LayerError:
    """`expected` (N, ...) against the output of `op`; None: there is nothing to compare it with."""
    index = op.outputs[0]
    stored = outcome.tensors.get(index)
    if expected is None or stored is None or _squeezed(expected) != _squeezed(stored):
        return LayerError(layer, op.title, None, None)
    f = expected.astype(np.float64)
    q = outcome.program.tensors[index].dequantize(stored).reshape(expected.shape)
    noise = float(np.sum((f - q) ** 2))
    signal = float(np.sum(f**2))
    if noise == 0:
        ratio: float | None = math.inf
    else:
        ratio = 10 * math.log10(signal / noise) if signal else None
    return LayerError(layer, op.title, ratio, float(np.abs(f - q).max()))


def _squeezed(values: npt.NDArray[Any]) -> tuple[int, ...]:
    return (len(values), *(size for size in values.shape[1:] if size != 1))


def _float_operators(program: Program) -> list[str]:
    """Operators that compute in float in a model that should be integer, with their layers."""
    return [
        f"{op.title} ({program.layer_of(op) or 'unknown layer'})"
        for op in program.ops
        if op.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(tensor.dtype == "float32" for tensor in program.results(op))
    ]


def _io_types(
    mode: Mode, input_type: IoType | None, output_type: IoType | None, per_channel: bool
) -> tuple[IoType, IoType]:
    if mode not in SETTINGS:
        raise ConfigError(f"quantize: mode {mode!r} is unknown; use {', '.join(MODES)}")
    types = IO_TYPES[mode]
    for key, value in (("input_type", input_type), ("output_type", output_type)):
        if value is not None and value not in types:
            raise ConfigError(
                f"quantize: {key} {value!r} does not go with mode {mode}; use {' or '.join(types)}"
            )
    if not per_channel and mode in ("float16", "float32"):
        raise ConfigError(f"quantize: per_channel=False means nothing in mode {mode}; leave it out")
    return input_type or types[0], output_type or types[0]


def _check_model(model: Model) -> None:
    if len(model.inputs) != 1:
        raise UnsupportedError(
            f"quantize: {model.name} has {len(model.inputs)} inputs; models with one are supported"
        )
    kind, shape = str(model.inputs[0].dtype), tuple(model.inputs[0].shape[1:])
    if kind != "float32" or None in shape:
        raise UnsupportedError(
            f"quantize: the input of {model.name} is {kind} {list(shape)}; it must be float32 of"
            " fixed size"
        )


def _calibration(model: Model, given: npt.ArrayLike | None) -> Float:
    want = tuple(model.inputs[0].shape[1:])
    shape = f"(N, {', '.join(map(str, want))})"
    if given is None:
        raise ConfigError(f"calibration: none given; pass float rows {shape}, about 200 of them")
    rows = np.asarray(given)
    if rows.dtype.kind != "f":
        raise ConfigError(
            f"calibration: its type is {rows.dtype}; pass float32 in the model's input domain"
        )
    if rows.shape[1:] != want or rows.ndim == 0:
        raise ConfigError(f"calibration: shape {list(rows.shape)} does not fit the model's {shape}")
    if not len(rows):
        raise ConfigError("calibration: no rows; pass at least 1, about 200 are enough")
    if not np.isfinite(rows).all():
        raise ConfigError("calibration: NaN or infinite values; remove those rows")
    if rows.min() == rows.max():
        raise ConfigError(
            f"calibration: every value is {rows.flat[0]:g}, which gives no range; pass real rows"
        )
    return rows.astype(np.float32, copy=False)
