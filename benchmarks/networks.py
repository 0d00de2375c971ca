"""Networks of random weights whose operators stand for a grid of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecompress.tflite import Op, Program, Tensor, write
from edgecompress.tflite.operators import OPTIONS, OPTIONS_OF
from edgecompress.tflite.program import DTYPES, Options

Shape = tuple[int, ...]


@dataclass
class Network:
    """A chain of operators in the making: `at` is the tensor that the next one reads."""

    dtype: str = "int8"
    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    at: int = -1
    seed: int = 0

    def start(self, *shape: int) -> Network:
        """The input."""
        self.at = self._activation((1, *shape))
        return self

    def conv(self, outputs: int, window: int, stride: int = 1, *, padding: str = "SAME") -> Network:
        """A convolution with ReLU."""
        _, height, width, channels = self._shape
        shape = (outputs, window, window, channels)
        out = (1, *_slid((height, width), window, stride, padding), outputs)
        values = _options(padding, stride)
        return self._layer("CONV_2D", shape, 0, out, values)

    def depthwise(self, window: int, stride: int = 1, *, multiplier: int = 1) -> Network:
        """A depthwise convolution with ReLU."""
        _, height, width, channels = self._shape
        outputs = channels * multiplier
        out = (1, *_slid((height, width), window, stride, "SAME"), outputs)
        values = {**_options("SAME", stride), "depth_multiplier": multiplier}
        return self._layer("DEPTHWISE_CONV_2D", (1, window, window, outputs), 3, out, values)

    def dense(self, outputs: int) -> Network:
        """A fully connected layer with ReLU."""
        inputs = math.prod(self._shape)
        values = {"fused_activation_function": "RELU"}
        return self._layer("FULLY_CONNECTED", (outputs, inputs), 0, (1, outputs), values)

    def add(self) -> Network:
        """The sum of the last two tensors of one shape."""
        return self._binary("ADD", {})

    def mul(self) -> Network:
        """Their product."""
        return self._binary("MUL", {})

    def pool(self, kind: str, window: int) -> Network:
        """AVERAGE_POOL_2D or MAX_POOL_2D, stride as wide as the window."""
        _, height, width, channels = self._shape
        values = {
            **{f"filter_{axis}": window for axis in ("height", "width")},
            **{f"stride_{axis}": window for axis in ("h", "w")},
            "padding": "VALID",
        }
        before, at = self.tensors[self.at], self.at
        size = _slid((height, width), window, window, "VALID")
        self.at = self._activation((1, *size, channels), scale=before.scales[0])
        self._op(kind, (at,), values)
        return self

    def bytes(self) -> bytes:
        """The network as a `.tflite`."""
        program = Program(tuple(self.tensors), tuple(self.ops), (0,), (self.at,))
        return write(program)

    @property
    def _shape(self) -> Shape:
        return self.tensors[self.at].shape

    def _activation(self, shape: Shape, *, scale: float = 0.05) -> int:
        tensor = Tensor(f"t{len(self.tensors)}", shape, self.dtype, (scale,), (0,))
        if self.dtype == "int8" and self.ops:
            tensor = Tensor(tensor.name, shape, self.dtype, (scale,), (-128,))
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _constant(self, values: Any, dtype: str, scales: Sequence[float], axis: int) -> int:
        array = np.asarray(values).astype(DTYPES[dtype].numpy)
        zeros = (0,) * len(scales)
        name = f"c{len(self.tensors)}"
        self.tensors.append(
            Tensor(name, array.shape, dtype, tuple(scales), zeros, axis, array.tobytes())
        )
        return len(self.tensors) - 1

    def _layer(
        self, kind: str, shape: Shape, axis: int, out: Shape, values: dict[str, Any]
    ) -> Network:
        random = np.random.default_rng(self.seed + len(self.ops))
        outputs, inputs = shape[axis], math.prod(shape) // shape[axis]
        # Of outputs that use their range: weights of variance 73^2, inputs of about 40 steps.
        spread = 1 / (73 * math.sqrt(inputs))
        scales = np.float32(random.uniform(0.8, 1.2, outputs) * spread).astype(float)
        if self.dtype == "int16" and kind == "FULLY_CONNECTED":
            scales = scales[:1]
        weights = self._constant(random.integers(-127, 128, shape), "int8", scales.tolist(), axis)
        given = self.tensors[self.at].scales[0]
        wide = "int64" if self.dtype == "int16" else "int32"
        steps = np.float32(scales * given).astype(float).tolist()
        bias = self._constant(random.integers(-500, 500, outputs), wide, steps, 0)
        before = self.at
        self.at = self._activation(out)
        self._op(kind, (before, weights, bias), values)
        return self

    def _binary(self, kind: str, values: dict[str, Any]) -> Network:
        same = [i for i, t in enumerate(self.tensors) if t.data is None and t.shape == self._shape]
        first, second = same[-2:]
        self.at = self._activation(self._shape)
        self._op(kind, (first, second), values)
        return self

    def _op(self, kind: str, inputs: tuple[int, ...], values: dict[str, Any]) -> None:
        fields = OPTIONS.get(OPTIONS_OF[kind] or "", ())
        options = {f.name: values.get(f.name, f.default) for f in fields if f}
        self.ops.append(Op(kind, inputs, (self.at,), Options(options)))


def _slid(size: tuple[int, int], window: int, stride: int, padding: str) -> tuple[int, int]:
    less = 0 if padding == "SAME" else window - 1
    height, width = (-(-(n - less) // stride) for n in size)
    return height, width


def _options(padding: str, stride: int) -> dict[str, Any]:
    return {
        "padding": padding,
        "stride_h": stride,
        "stride_w": stride,
        "dilation_h_factor": 1,
        "dilation_w_factor": 1,
        "fused_activation_function": "RELU",
    }
