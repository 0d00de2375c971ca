"""Random graphs of operators that share tensors, which TFLM and the aot backend both run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from edgecompress.tflite import Op, Program, Tensor
from tests.tflite_builder import constant, options, quantized, with_file


class Graph:
    """A program under construction: every step reads tensors made before, old ones too.

    All int8 maps share one scale and zero point, so that any two of one shape can be joined.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.values = np.random.default_rng(random.getrandbits(32))
        self.scale, self.zero = random.choice((0.02, 0.05, 0.11)), random.randint(-20, 20)
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.inputs: list[int] = []
        self.maps: list[int] = []
        for _ in range(random.choice((1, 1, 2))):
            shape = (1, *(random.randint(1, 6) for _ in range(2)), random.choice((1, 3, 4, 6)))
            self.inputs.append(self.add(self.like(shape)))
        self.maps += self.inputs

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def like(self, shape: tuple[int, ...]) -> Tensor:
        return quantized(f"t{len(self.tensors)}", shape, "int8", self.scale, self.zero)

    def numbers(self, values: Any) -> int:
        return self.add(constant(f"c{len(self.tensors)}", np.asarray(values), "int32"))

    def pick(self, rank: int | None = None) -> int:
        """A map, rather a late one; of `rank` axes where there is one."""
        found = [i for i in self.maps if rank in (None, len(self.tensors[i].shape))]
        found = found or self.maps
        return found[max(self.random.randrange(len(found)) for _ in range(2))]

    def shape(self, index: int) -> tuple[int, ...]:
        return self.tensors[index].shape

    def op(
        self, kind: str, inputs: Sequence[int], *results: Tensor, **values: Any
    ) -> tuple[int, ...]:
        made = tuple(self.add(result) for result in results)
        self.ops.append(Op(kind, tuple(inputs), made, options(kind, **values)))
        return made

    def step(self, kind: str, inputs: Sequence[int], *shapes: tuple[int, ...], **v: Any) -> None:
        self.maps += self.op(kind, inputs, *map(self.like, shapes), **v)

    def weights(self, *shape: int, channels: int, axis: int) -> tuple[int, int]:
        scales = tuple(self.values.uniform(0.002, 0.01, channels))
        weights = constant("w", self.values.integers(-128, 128, shape), "int8", scales=scales)
        bias = self.values.integers(-500, 500, channels)
        bias_scales = tuple(scale * self.scale for scale in scales)
        return (
            self.add(replace(weights, name=f"w{len(self.tensors)}", axis=axis)),
            self.add(constant(f"b{len(self.tensors)}", bias, "int32", scales=bias_scales)),
        )


def _window(graph: Graph, data: int) -> tuple[tuple[int, int], tuple[int, int], dict[str, Any]]:
    """The kernel, the output's height and width, and the options of a sliding window."""
    sizes = graph.shape(data)[1:3]
    padding = graph.random.choice(("SAME", "VALID"))
    kernel, stride, out = [], [], []
    for size in sizes:
        taps = graph.random.randint(1, 3 if padding == "SAME" else min(3, size))
        step = graph.random.choice((1, 1, 2))
        kernel.append(taps)
        stride.append(step)
        out.append(-(-size // step) if padding == "SAME" else (size - taps) // step + 1)
    values = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    return (kernel[0], kernel[1]), (out[0], out[1]), values


ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6")


def _conv(graph: Graph) -> None:
    data = graph.pick(4)
    if len(graph.shape(data)) != 4:
        return
    kernel, out, values = _window(graph, data)
    batch, channels = graph.shape(data)[0], graph.shape(data)[3]
    activation = graph.random.choice(ACTIVATIONS)
    if graph.random.random() < 0.5:
        fan = graph.random.choice((1, 1, 2))
        count = channels * fan
        constants = graph.weights(1, *kernel, count, channels=count, axis=3)
        values["depth_multiplier"] = fan
        kind = "DEPTHWISE_CONV_2D"
    else:
        count = graph.random.choice((1, 2, 4, 5, 8, channels))
        constants = graph.weights(count, *kernel, channels, channels=count, axis=0)
        kind = "CONV_2D"
    shape = (batch, *out, count)
    inputs = (data, *constants)
    graph.step(kind, inputs, shape, fused_activation_function=activation, **values)


def _pool(graph: Graph) -> None:
    data = graph.pick(4)
    if len(graph.shape(data)) != 4:
        return
    kernel, out, values = _window(graph, data)
    values |= {"filter_height": kernel[0], "filter_width": kernel[1]}
    kind = graph.random.choice(("MAX_POOL_2D", "AVERAGE_POOL_2D"))
    graph.step(kind, (data,), (graph.shape(data)[0], *out, graph.shape(data)[3]), **values)


def _pad(graph: Graph) -> None:
    data = graph.pick()
    pairs = [
        (graph.random.randint(0, 2), graph.random.randint(0, 2)) if 0 < axis < 3 else (0, 0)
        for axis in range(len(graph.shape(data)))
    ]
    shape = tuple(n + sum(pair) for n, pair in zip(graph.shape(data), pairs, strict=True))
    graph.step("PAD", (data, graph.numbers(pairs)), shape)
    if len(shape) == 4 and graph.random.random() < 0.5:
        constants = graph.weights(2, 1, 1, shape[3], channels=2, axis=0)
        values = {"padding": "VALID", "stride_h": 1, "stride_w": 1}
        graph.step("CONV_2D", (graph.maps[-1], *constants), (*shape[:3], 2), **values)


def _merge(graph: Graph) -> None:
    """A residual: two maps of one shape, maybe the same one, or a map and a row of channels."""
    first = graph.pick()
    same = [i for i in graph.maps if graph.shape(i) == graph.shape(first)]
    second = graph.random.choice(same)
    if graph.random.random() < 0.2:
        row = graph.values.integers(-128, 128, graph.shape(first)[-1])
        second = graph.add(replace(constant("row", row, "int8"), **_quantisation(graph)))
    inputs = (first, second) if graph.random.random() < 0.5 else (second, first)
    kind = graph.random.choice(("ADD", "ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM"))
    graph.step(kind, inputs, graph.shape(first))


def _quantisation(graph: Graph) -> dict[str, Any]:
    like = graph.like(())
    return {"scales": like.scales, "zero_points": like.zero_points}


def _unary(graph: Graph) -> None:
    data = graph.pick()
    kind = graph.random.choice(("RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "ABS"))
    graph.step(kind, (data,), graph.shape(data), **({"alpha": 0.2} if "LEAKY" in kind else {}))


def _own_scale(graph: Graph) -> None:
    """An operator whose output has a scale of its own, and back."""
    data = graph.pick()
    kind, scale, zero = graph.random.choice(
        (("LOGISTIC", 1 / 256, -128), ("SOFTMAX", 1 / 256, -128), ("TANH", 1 / 128, 0))
    )
    values = {"beta": 1.0} if kind == "SOFTMAX" else {}
    made = quantized(f"t{len(graph.tensors)}", graph.shape(data), "int8", scale, zero)
    graph.step("QUANTIZE", graph.op(kind, (data,), made, **values), graph.shape(data))


def _wide(graph: Graph) -> None:
    """To float32 or int16, an operator there, and back."""
    data = graph.pick()
    kind, dtype = graph.random.choice((("DEQUANTIZE", "float32"), ("QUANTIZE", "int16")))
    shape = graph.shape(data)

    def made() -> Tensor:
        return quantized(f"t{len(graph.tensors)}", shape, dtype, graph.scale / 16)

    wide = graph.op(kind, (data,), made())
    if graph.random.random() < 0.7:
        wide = graph.op("ADD", graph.random.choice((wide * 2, wide[::-1] * 2)), made())
    graph.step("QUANTIZE", wide, shape)


def _concatenation(graph: Graph) -> None:
    first = graph.pick()
    shape = graph.shape(first)
    axis = graph.random.randrange(1, len(shape)) if len(shape) > 1 else 0
    fits = [
        i
        for i in graph.maps
        if len(graph.shape(i)) == len(shape)
        and all(
            k == axis or a == b for k, (a, b) in enumerate(zip(graph.shape(i), shape, strict=True))
        )
    ]
    parts = [graph.random.choice(fits) for _ in range(graph.random.randint(1, 3))]
    whole = sum(graph.shape(i)[axis] for i in parts)
    if whole <= 16:
        graph.step("CONCATENATION", parts, (*shape[:axis], whole, *shape[axis + 1 :]), axis=axis)


def _split(graph: Graph) -> None:
    data = graph.pick()
    axis = graph.random.randrange(len(graph.shape(data)))
    size = graph.shape(data)[axis]
    count = graph.random.choice([n for n in range(1, size + 1) if size % n == 0])
    part = (*graph.shape(data)[:axis], size // count, *graph.shape(data)[axis + 1 :])
    graph.step("SPLIT", (graph.numbers(axis), data), *[part] * count, num_splits=count)


def _slice(graph: Graph) -> None:
    data = graph.pick()
    begins = [graph.random.randrange(size) for size in graph.shape(data)]
    counts = tuple(
        graph.random.randint(1, n - b) for n, b in zip(graph.shape(data), begins, strict=True)
    )
    graph.step("SLICE", (data, graph.numbers(begins), graph.numbers(counts)), counts)


def _view(graph: Graph) -> None:
    data = graph.pick()
    shape = graph.shape(data)
    size = graph.tensors[data].elements
    chosen = graph.random.choice(
        [(1, size), (1, 1, 1, size), (*shape[:1], *shape[1:][::-1]), (1, 1, size, 1), shape]
    )
    graph.step("RESHAPE", (data, graph.numbers(chosen)), chosen, new_shape=chosen)


def _transpose(graph: Graph) -> None:
    data = graph.pick()
    order = list(range(1, len(graph.shape(data))))
    graph.random.shuffle(order)
    shape = tuple(graph.shape(data)[axis] for axis in (0, *order))
    graph.step("TRANSPOSE", (data, graph.numbers([0, *order])), shape)


def _mean(graph: Graph) -> None:
    data = graph.pick(4)
    rank = len(graph.shape(data))
    axes = sorted(graph.random.sample(range(1, rank), graph.random.randint(1, rank - 1)))
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(graph.shape(data)))
    graph.step("MEAN", (data, graph.numbers(axes)), shape, keep_dims=True)


def _dense(graph: Graph) -> None:
    data = graph.pick()
    inputs, outputs = graph.shape(data)[-1], graph.random.randint(1, 9)
    constants = graph.weights(outputs, inputs, channels=1, axis=0)[:1]
    bias = graph.values.integers(-500, 500, outputs)
    scale = graph.tensors[constants[0]].scales[0] * graph.scale
    added = graph.add(constant(f"b{len(graph.tensors)}", bias, "int32", scales=(scale,)))
    rows = graph.tensors[data].elements // inputs
    graph.step("FULLY_CONNECTED", (data, *constants, added), (rows, outputs))


def _resize(graph: Graph) -> None:
    data = graph.pick(4)
    if len(graph.shape(data)) != 4:
        return
    size = graph.random.randint(1, 7), graph.random.randint(1, 7)
    shape = (graph.shape(data)[0], *size, graph.shape(data)[3])
    kind = graph.random.choice(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"))
    graph.step(kind, (data, graph.numbers(size)), shape)


def lstm(graph: Graph) -> None:
    """Over the last axis as features; its state lives from run to run."""
    data = graph.pick()
    features, units = graph.shape(data)[-1], graph.random.randint(1, 5)
    steps = graph.tensors[data].elements // features
    sequence = (1, steps, features)
    (view,) = graph.op("RESHAPE", (data, graph.numbers(sequence)), graph.like(sequence))
    places = [-1] * 24
    places[0] = view
    for gate in range(4):
        for place, columns in ((1, features), (5, units)):
            weights = graph.values.integers(-127, 128, (units, columns))
            made = constant(f"w{len(graph.tensors)}", weights, "int8", scales=(0.01,))
            places[place + gate] = graph.add(made)
        bias = graph.values.integers(-900, 900, units)
        scales = (0.01 * graph.scale,)
        places[12 + gate] = graph.add(constant("b", bias, "int32", scales=scales))
    hidden, cell = graph.like((1, units)), quantized("cell", (1, units), "int16", 2.0**-12)
    for place, state in ((18, hidden), (19, cell)):
        places[place] = graph.add(replace(state, name=f"s{len(graph.tensors)}", variable=True))
    values = {"fused_activation_function": "TANH", "cell_clip": 10.0}
    graph.step("UNIDIRECTIONAL_SEQUENCE_LSTM", places, (1, steps, units), **values)


STEPS: tuple[Callable[[Graph], None], ...] = (
    *(_conv, _conv, _conv, _merge, _merge, _concatenation, _concatenation, _split, _view, _view),
    *(_pool, _pad, _unary, _own_scale, _wide, _slice, _transpose, _mean, _dense, _resize, lstm),
)


def graphs(seed: int) -> Program:
    """A random graph, always the same for one seed: 1 to 12 steps, 1 to 4 outputs."""
    random = Random(seed)
    graph = Graph(random)
    while len(graph.ops) < 1 or random.random() < 0.88 and len(graph.ops) < 14:
        random.choice(STEPS)(graph)
    made = [index for op in graph.ops for index in op.outputs]
    outputs = [graph.maps[-1], *random.sample(made, min(len(made), random.choice((0, 0, 1, 3))))]
    outputs = [index for index in dict.fromkeys(outputs) if index in made] or made[-1:]
    program = Program(tuple(graph.tensors), tuple(graph.ops), tuple(graph.inputs), tuple(outputs))
    return with_file(program)
