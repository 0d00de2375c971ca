"""Quantisation in training: what tfmot's QuantizeWrapperV2 is given for weights and activations.

The wrapper asks a configuration for quantisers, which make their variables in it and are called
with what they quantise. Gradients go straight through the rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.datafree.rounding import fitted_scales, largest
from edgecompress.training import legacy
from edgecompress.training.kernels import Kernel

Tensor = Any
Variables = Mapping[str, Any]
Array = npt.NDArray[Any]

FULL = 8
"""Bits of weights whose scale is the largest weight's; with fewer the scales learn."""


class OnGrid:
    """Weights of a kernel as whole numbers of `bits` bits, signed and symmetric, times scales.

    One scale per output, or with `labels` (the number of each weight's cluster, int32) one for the
    kernel. With 8 bits it is max|w| / 127. With fewer it starts where the squared error is least
    and learns (LSQ, arXiv:1902.08153, equations 1 to 3), as the logarithm of its stretch, so that
    an optimiser's step changes scales of any size alike. Weights of one cluster are their mean, and
    all of them get its gradient; weights where `mask` is False are 0.

    tfmot's own quantisers take the last axis for the outputs, which it is not of depthwise and
    transposed kernels, and know neither clusters nor zeros.
    """

    def __init__(
        self, kernel: Kernel, bits: int, start: Array, mask: Array | None, labels: Array | None
    ) -> None:
        self.kernel, self.bits, self.mask, self.labels = kernel, bits, mask, labels
        self.top = float(largest(bits))
        rows = kernel.rows(start).T[None].astype(np.float64)
        fitted = fitted_scales(rows, bits, np.ones((1, 1, 1)), shared=labels is not None)
        self.start = fitted.astype(np.float32)[: 1 if labels is not None else None]

    def build(self, shape: Any, name: str, layer: Any) -> Variables:
        """The variables in the wrapper `layer`."""
        if self.bits == FULL:
            return {}
        stretch = layer.add_weight(
            f"{name}_stretch", shape=self.start.shape, initializer="zeros", trainable=True
        )
        return {"stretch": stretch}

    def __call__(self, kernel: Tensor, training: bool, weights: Variables) -> Tensor:
        """The kernel as it is quantised."""
        import tensorflow as tf

        points, scales = self.points(kernel, weights)
        return self.kernel.back(points * scales[:, None], tf)

    def points(self, kernel: Tensor, weights: Variables) -> tuple[Tensor, Tensor]:
        """The whole numbers (outputs, rest), float32, and the scales (outputs,) or (1,)."""
        import tensorflow as tf

        rows = self.kernel.rows(self._shaped(kernel), tf)
        scales = self._scales(rows, weights)
        near = tf.clip_by_value(rows / scales[:, None], -self.top, self.top)
        return near + tf.stop_gradient(tf.round(near) - near), scales

    def _scales(self, rows: Tensor, weights: Variables) -> Tensor:
        import tensorflow as tf

        if self.bits < FULL:
            even = float(1 / np.sqrt(self.kernel.size / len(self.start) * self.top))
            stretch = weights["stretch"]
            return self.start * tf.exp(stretch * even + tf.stop_gradient(stretch * (1 - even)))
        axes = [0, 1] if self.labels is not None else [1]
        peak = tf.reshape(tf.reduce_max(tf.abs(rows), axis=axes), (-1,))
        return tf.stop_gradient(tf.where(peak > 0, peak, 1.0) / self.top)

    def _shaped(self, kernel: Tensor) -> Tensor:
        """The kernel with its zeros and its clusters."""
        import tensorflow as tf

        if self.labels is not None:
            count = int(self.labels.max()) + 1
            flat, numbers = tf.reshape(kernel, [-1]), self.labels.ravel()
            means = tf.math.unsorted_segment_mean(flat, numbers, count)
            kernel = tf.reshape(tf.gather(means, numbers), self.labels.shape)
        return kernel if self.mask is None else kernel * self.mask.astype(np.float32)


class Range:
    """An activation in 8 bits between a least and a largest value that follow the batches.

    Moving averages of each batch's ends (tfmot's MovingAverageQuantizer); where several tensors
    have one range (`shared`), as those of a layer that is called twice, all that was ever seen
    (AllValuesQuantizer), as one average of several tensors fits none. While `watching`, nothing is
    quantised and the ends are written down.
    """

    def __init__(self, *, shared: bool) -> None:
        module = legacy.tfmot().quantization.keras.quantizers
        made = module.AllValuesQuantizer if shared else module.MovingAverageQuantizer
        self.shared, self.watching, self.seen = shared, False, list[tuple[float, float]]()
        self.ends: Variables = {}
        self._known = made(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, shape: Any, name: str, layer: Any) -> Variables:
        """The variables in the wrapper `layer`, or in the first of them."""
        if not self.ends:
            self.ends = self._known.build(shape, name, layer)
        return self.ends

    def __call__(self, x: Tensor, training: bool, weights: Variables) -> Tensor:
        """The activation as it is quantised."""
        import tensorflow as tf

        if self.watching:
            self.seen.append((float(tf.reduce_min(x)), float(tf.reduce_max(x))))
            return x
        return self._known(x, training, weights)

    def settle(self) -> None:
        """Start from what was seen while watching."""
        ends = np.array(self.seen)
        low, high = (ends.min(axis=0)[0], ends.max(axis=0)[1]) if self.shared else ends.mean(axis=0)
        self.ends["min_var"].assign(min(low, 0.0))
        self.ends["max_var"].assign(max(high, 0.0))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value."""
        return float(self.ends["min_var"]), float(self.ends["max_var"])


class Config:
    """What a QuantizeWrapperV2 quantises of its layer: weights by attribute, and the output."""

    def __init__(
        self, weights: Sequence[tuple[str, Any, OnGrid]] = (), output: Range | None = None
    ) -> None:
        self._weights, self._output = weights, output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, OnGrid]]:
        """The variables to quantise."""
        return [(variable, quantizer) for _, variable, quantizer in self._weights]

    def set_quantize_weights(self, layer: Any, quantized: Sequence[Tensor]) -> None:
        """Let the layer compute with these."""
        for (attribute, _, _), value in zip(self._weights, quantized, strict=True):
            setattr(layer, attribute, value)

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """None: activations that are operators of their own are layers of their own."""
        return []

    def set_quantize_activations(self, layer: Any, quantized: Sequence[Any]) -> None:
        """There are none to set."""
        assert not quantized

    def get_output_quantizers(self, layer: Any) -> list[Range]:
        """What the output goes through."""
        return [] if self._output is None else [self._output]
