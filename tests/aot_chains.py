"""Chains of layers over tall maps, and a way to run them in bands of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from random import Random
from typing import Any

from edgecompress.backends.aot.rows import rowwise
from edgecompress.backends.aot.segments import runs
from edgecompress.backends.aot.streams import Segment, Work, streamable, streamed
from edgecompress.tflite import Program
from tests.aot_graphs import ACTIVATIONS, Graph
from tests.aot_harness import SCHEDULE
from tests.tflite_builder import with_file

BANDS = tuple(Fraction(n, 4) for n in (1, 2, 4, 4, 8, 8, 12, 16, 20, 28, 40))


def _start(random: Random, shape: tuple[int, ...]) -> Graph:
    graph = Graph(random)
    graph.tensors, graph.inputs, graph.maps = [], [], []
    graph.inputs = [graph.add(graph.like(shape))]
    graph.maps = list(graph.inputs)
    return graph


def _axis(random: Random, size: int, padding: str, most: int) -> tuple[int, int, int, int]:
    """(kernel, stride, dilation, output size) of one axis."""
    taps = random.randint(1, min(most, size))
    dilation = random.choice((1, 1, 1, 2)) if (taps - 1) * 2 < size else 1
    step = 1 if dilation > 1 else random.choice((1, 1, 1, 2, 2, 3))
    reach = (taps - 1) * dilation + 1
    return (
        taps,
        step,
        dilation,
        -(-size // step) if padding == "SAME" else (size - reach) // step + 1,
    )


def convolution(graph: Graph, *, kind: str, channels: int | None = None, **fixed: Any) -> None:
    """One on the last map; `fixed` are (kernel, stride, dilation, output size) of both axes."""
    random, data = graph.random, graph.maps[-1]
    sizes, depth = graph.shape(data)[1:3], graph.shape(data)[3]
    padding = fixed.get("padding") or random.choice(("SAME", "SAME", "VALID"))
    axes = fixed.get("axes") or [
        _axis(random, size, padding, most) for size, most in zip(sizes, (5, 3), strict=True)
    ]
    values = {
        "padding": padding,
        "fused_activation_function": fixed.get("activation") or random.choice(ACTIVATIONS),
        **{f"stride_{n}": axis[1] for n, axis in zip("hw", axes, strict=True)},
        **{f"dilation_{n}_factor": axis[2] for n, axis in zip("hw", axes, strict=True)},
    }
    taps = axes[0][0], axes[1][0]
    if kind == "DEPTHWISE_CONV_2D":
        count = depth
        constants = graph.weights(1, *taps, count, channels=count, axis=3)
        values["depth_multiplier"] = 1
    else:
        count = channels or random.choice((4, 8, 8, 12, 5))
        constants = graph.weights(count, *taps, depth, channels=count, axis=0)
    graph.step(kind, (data, *constants), (1, axes[0][3], axes[1][3], count), **values)


def _pool(graph: Graph) -> None:
    random, data = graph.random, graph.maps[-1]
    padding = random.choice(("SAME", "VALID"))
    axes = []
    for size in graph.shape(data)[1:3]:
        taps, step = random.randint(1, min(3, size)), random.choice((1, 2))
        axes.append(
            (taps, step, -(-size // step) if padding == "SAME" else (size - taps) // step + 1)
        )
    names = ("height", "width")
    values = {f"filter_{name}": axis[0] for name, axis in zip(names, axes, strict=True)}
    values |= {f"stride_{name[0]}": axis[1] for name, axis in zip(names, axes, strict=True)}
    kind = random.choice(("MAX_POOL_2D", "AVERAGE_POOL_2D"))
    shape = (1, axes[0][2], axes[1][2], graph.shape(data)[3])
    graph.step(kind, (data,), shape, padding=padding, **values)


def average(graph: Graph) -> None:
    """The mean of the last map."""
    _, height, width, channels = graph.shape(graph.maps[-1])
    values = {"filter_height": height, "filter_width": width, "stride_h": 1, "stride_w": 1}
    shape = (1, 1, 1, channels)
    graph.step("AVERAGE_POOL_2D", graph.maps[-1:], shape, padding="VALID", **values)


def _residual(graph: Graph) -> None:
    """A sum of the last map and an older one of its shape."""
    last = graph.maps[-1]
    same = [i for i in graph.maps[:-1] if graph.shape(i) == graph.shape(last)]
    inputs = [last, graph.random.choice(same or [last])]
    graph.random.shuffle(inputs)
    kind = graph.random.choice(("ADD", "ADD", "ADD", "SUB", "MUL", "MAXIMUM"))
    graph.step(kind, inputs, graph.shape(last))


def _same(graph: Graph) -> None:
    """A convolution that keeps the shape, so that sums have something to add."""
    sizes, depth = graph.shape(graph.maps[-1])[1:3], graph.shape(graph.maps[-1])[3]
    taps = graph.random.choice((1, 3))
    axes = [(min(taps, size), 1, 1, size) for size in sizes]
    kind = graph.random.choice(("CONV_2D", "DEPTHWISE_CONV_2D"))
    convolution(graph, kind=kind, channels=depth, axes=axes, padding="SAME")


def _any(graph: Graph) -> None:
    convolution(graph, kind=graph.random.choice(("CONV_2D", "DEPTHWISE_CONV_2D")))


def _unary(graph: Graph) -> None:
    data = graph.maps[-1]
    graph.step(graph.random.choice(("RELU", "HARD_SWISH")), (data,), graph.shape(data))


STEPS: tuple[Callable[[Graph], None], ...] = (
    *(_same, _same, _same, _any, _any, _any, _residual, _residual, _residual, _pool, _unary),
)


def chains(seed: int) -> Program:
    """A random chain of 2 to 8 operators, some of which read older maps; always the same."""
    random = Random(seed)
    shape = (1, random.randint(4, 26), random.randint(1, 7), random.choice((1, 3, 4, 8, 8, 12)))
    graph = _start(random, shape)
    while len(graph.ops) < 2 or random.random() < 0.85 and len(graph.ops) < 8:
        random.choice(STEPS)(graph)
    if random.random() < 0.3:
        average(graph)
    made = [index for op in graph.ops for index in op.outputs]
    outputs = [made[-1], *random.sample(made[:-1], random.choice((0, 0, 0, 1)))]
    return with_file(Program(tuple(graph.tensors), tuple(graph.ops), (0,), tuple(outputs)))


def in_bands(seed: int) -> Callable[..., Iterator[tuple[Work, float]]]:
    """A stand-in for schedule._in_bands: random runs of operators in bands of random height."""

    def chosen(plain: Work, made: Any, core: Any, optimize: Any) -> Iterator[tuple[Work, float]]:
        random = Random(seed * 1000 + len(plain.program.tensors))
        reach = runs(streamable(plain.program, plain.lowered))

        def lower(program: Program, op: Any) -> Any:
            return SCHEDULE._lower(program, op, core)

        for _ in range(20):
            segments, first = [], 0
            while first < len(reach):
                end = random.choice((reach[first], random.randint(first + 1, reach[first])))
                if end - first > 1:
                    last = rowwise(plain.program, end - 1)
                    assert last is not None
                    band = random.choice([b for b in BANDS if b <= last.height])
                    segments.append(Segment(first, end, band))
                first = end
            work = streamed(plain.program, plain.lowered, lower, segments) if segments else None
            if work is not None:
                yield work, 0.0
                return

    return chosen


def mobilenet(size: int = 96, *, seed: int = 0) -> Program:
    """The shape of a MobileNet v1 (alpha 0.25), as for visual wake words, with random weights."""
    graph = _start(Random(seed), (1, size, size, 3))

    def layer(kind: str, taps: int, step: int, channels: int) -> None:
        axes = [(taps, step, 1, -(-n // step)) for n in graph.shape(graph.maps[-1])[1:3]]
        convolution(
            graph, kind=kind, channels=channels, axes=axes, padding="SAME", activation="RELU6"
        )

    layer("CONV_2D", 3, 2, 8)
    plan = [
        (1, 16),
        (2, 32),
        (1, 32),
        (2, 64),
        (1, 64),
        (2, 128),
        *[(1, 128)] * 5,
        (2, 256),
        (1, 256),
    ]
    for step, channels in plan:
        layer("DEPTHWISE_CONV_2D", 3, step, channels)
        layer("CONV_2D", 1, 1, channels)
    average(graph)
    view = (1, 256)
    graph.step("RESHAPE", (graph.maps[-1], graph.numbers(view)), view, new_shape=view)
    weights, _ = graph.weights(2, 256, channels=1, axis=0)
    graph.step("FULLY_CONNECTED", (graph.maps[-1], weights, -1), (1, 2))
    program = Program(tuple(graph.tensors), tuple(graph.ops), (0,), (graph.maps[-1],))
    return with_file(program)
