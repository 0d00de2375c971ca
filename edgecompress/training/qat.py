"""Quantisation-aware training: weights and activations are what an int8 flatbuffer will have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact
from edgecompress.data import Dataset
from edgecompress.datafree.ranges import LINEAR
from edgecompress.progress import Progress, silent
from edgecompress.recipe.settings import Qat, Train
from edgecompress.training import legacy, placement, preserve
from edgecompress.training.bridge import Bridged, Layer, to_tf_keras
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.fakequant import Config, OnGrid, Range
from edgecompress.training.kernels import Kernel, grid, kernels, variable
from edgecompress.training.trainer import Trainer

if TYPE_CHECKING:
    import keras
    import tf_keras

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]

_DEFAULT, _TRAIN = Qat(), Train()


def qat(
    artifact: Artifact,
    *,
    data: Dataset,
    options: Qat = _DEFAULT,
    train: Train = _TRAIN,
    teacher: keras.Model | None = None,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Train the model quantised, put its kernels on grids, and check the converted result.

    Every kernel is of `options.weight_bits` bits, with one scale per output (`fakequant.OnGrid`),
    and quantised as it is in front of BatchNormalization; activations are of 8 bits where the
    flatbuffer has a tensor of its own (`placement.points`). The zeros of `sparsify` and the
    clusters of `cluster` stay (PQAT, CQAT, PCQAT): a clustered kernel has one scale, so that its
    int8 weights have no more distinct values. The wrappers are tfmot's QuantizeWrapperV2, layer by
    layer: its quantize_apply rewrites the graph, and does so wrongly for shared and nested layers
    and 1x1 convolutions.

    The step's effect has the training, `ranges` (by the names of `datafree.ranges.ranges`: the
    least and the largest value) and `grids` (by kernel: bits, and scales by which all weights are
    whole numbers), from which `quantize(calibration="trained")` makes the flatbuffer.

    Raises like `training.fit`, `bridge.to_tf_keras` and `promises.check`.
    """
    source = artifact.need_keras("qat")
    trainer = Trainer("qat", artifact, data, options, train, teacher, seed, checkpoints, progress)
    bridged = to_tf_keras(source)
    watched = _Watched(bridged, artifact, options.weight_bits)
    model = bridged.wrapped(watched.wrap, feed=watched.feed)
    watched.settle(model, data.calibration(seed=seed), trainer.own.batch)
    signs = preserve.keep_signs(bridged, watched.clustered)
    done = trainer.fit(bridged, model, after_step=signs)
    made, grids = {}, {}
    for kernel, (points, scales) in watched.grids().items():
        made[kernel] = kernel.back(points * scales[:, None])
        grids[kernel.key] = grid(kernel, options.weight_bits, points, scales)
    ranges = {name: list(each.range) for name, each in watched.ranges.items()}
    return trainer.finished(bridged, done, made, ranges=ranges, grids=grids)


class _Watched:
    """The quantisers of a model by name, as its layers are wrapped."""

    def __init__(self, bridged: Bridged, artifact: Artifact, bits: int) -> None:
        self.bridged, self.bits = bridged, bits
        self.points = placement.points(bridged.graph)
        self.sparse = preserve.masks(artifact.steps, bridged.graph)
        self.clustered = preserve.labels(artifact.steps, bridged.graph)
        self.ops = {name: op for name, op, _ in bridged.graph.layers()}
        self.kernels: dict[str, list[Kernel]] = {}
        for kernel in kernels(bridged.graph):
            self.kernels.setdefault(kernel.layer, []).append(kernel)
        self.ranges: dict[str, Range] = {}
        self.weights: dict[Kernel, tuple[OnGrid, Any]] = {}

    def feed(self, name: str) -> Layer:
        """What quantises an input."""
        layer = legacy.tf_keras().layers.Activation("linear")
        return self._quantised(layer, f"{name}/quantised", output=name)

    def wrap(self, name: str, layer: Layer) -> Layer:
        """A layer with what quantises its kernels and its output."""
        if type(self.ops[name]).__name__ == "BatchNormalization":
            _freeze(layer)
        output = name if name in self.points else None
        if type(self.ops[name]).__name__ in placement.SEPARABLE:
            _open(layer, self._range(name, name + LINEAR))
        if placement.activation(self.ops[name]) in placement.FUSED or name not in self.kernels:
            return self._quantised(layer, layer.name, name, output)
        module = legacy.tf_keras()
        then = module.layers.Activation(layer.activation, name=layer.name)
        layer.activation = module.activations.linear
        first = self._quantised(layer, layer.name + LINEAR, name, name + LINEAR)
        last = self._quantised(then, layer.name, output=output)
        return lambda x: last(first(x))

    def settle(self, model: tf_keras.Model, rows: Float, batch: int) -> None:
        """Start all ranges from what `rows` make of the model."""
        for each in self.ranges.values():
            each.watching = True
        for start in range(0, len(rows), batch):
            model(rows[start : start + batch], training=False)
        for each in self.ranges.values():
            each.watching = False
            each.settle()

    def grids(self) -> dict[Kernel, tuple[Float, Float]]:
        """The whole numbers (outputs, rest) and the scales of every kernel, float32."""
        found = {}
        for kernel, (quantizer, wrapper) in self.weights.items():
            own = variable(self.bridged, kernel)
            known = next(known for one, _, known in wrapper._weight_vars if one is own)
            points, scales = quantizer.points(own, known)
            found[kernel] = np.rint(points), np.asarray(scales)
        return found

    def _range(self, name: str, point: str) -> Range:
        """The range of a point, which belongs to the layer or input `name`; it may have one."""
        shared = (
            self.bridged.graph.times.get(name, 1) > 1
            or type(self.ops.get(name)).__name__ in placement.SEPARABLE
        )
        return self.ranges.setdefault(point, Range(shared=shared))

    def _quantised(
        self, layer: Layer, called: str, name: str = "", output: str | None = None
    ) -> Layer:
        """tfmot's wrapper around a layer, or the layer where there is nothing to quantise."""
        weights = []
        for kernel in self.kernels.get(name, []):
            own = variable(self.bridged, kernel)
            quantizer = OnGrid(
                kernel,
                self.bits,
                np.asarray(own),
                self.sparse.get(kernel),
                self.clustered.get(kernel),
            )
            weights.append((kernel, own, quantizer))
        if output is None and not weights:
            return layer
        config = Config(
            [(kernel.attribute, own, quantizer) for kernel, own, quantizer in weights],
            None if output is None else self._range(name or output, output),
        )
        module = legacy.tfmot().quantization.keras
        made = module.QuantizeWrapperV2(layer, config, name=called)
        self.weights.update({kernel: (quantizer, made) for kernel, _, quantizer in weights})
        return made


def _freeze(layer: Layer) -> None:
    """Let a BatchNormalization go by its moving statistics, in training too; gamma and beta learn.

    That is what the flatbuffer does, and on small tasks it beat batch statistics in all steps and
    in the first two thirds of them, with 8, 4 and 2 bits alike.
    """
    known = layer.call
    layer.call = lambda inputs, training=None: known(inputs, training=False)


def _open(layer: Layer, between: Range) -> None:
    """Let a separable convolution quantise what its first kernel makes, with `between`."""
    import keras

    known = between.build(None, "between", layer)

    def call(inputs: Any, training: Any = None) -> Any:
        made = keras.ops.depthwise_conv(
            inputs,
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
        )
        made = keras.ops.conv(between(made, bool(training), known), layer.pointwise_kernel)
        return layer.activation(made if layer.bias is None else made + layer.bias)

    layer.call = call
