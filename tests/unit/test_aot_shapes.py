"""Lowering of operators on shapes: what is refused, and how; views; distances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.backends.aot import pooling, reduction, resize, shaping
from edgecompress.backends.aot.calls import Call, Lowering, Site, View
from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program, Tensor
from tests.conftest import nightly
from tests.tflite_builder import constant, options, quantized

OPERATORS: dict[str, Lowering] = {
    **pooling.OPERATORS,
    **reduction.OPERATORS,
    **resize.OPERATORS,
    **shaping.OPERATORS,
}
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 70000, 1 << 30]), max_size=5).map(tuple)
TYPES = st.sampled_from(["int8", "int8", "int16", "float32", "int32", "int4", "float16", "string"])
SCALES = st.sampled_from([(), (0.5,), (0.5,), (0.0,), (math.nan,), (math.inf,), (0.5, 0.25)])


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    if draw(st.booleans()):
        values = draw(
            st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 5), max_size=8)
        )
        shaped = np.asarray(values, np.int64)
        if len(values) % 2 == 0 and draw(st.booleans()):
            shaped = shaped.reshape(-1, 2)
        return constant("c", shaped, draw(st.sampled_from(["int32", "int32", "int64", "float32"])))
    scales = draw(SCALES)
    zeros = (draw(st.integers(-200, 200)),) * draw(st.sampled_from([len(scales), len(scales), 1]))
    return Tensor("t", draw(SHAPES), draw(TYPES), scales, zeros)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    kind = draw(st.sampled_from(sorted(OPERATORS)))
    found = draw(st.lists(tensors(), min_size=1, max_size=6))
    if draw(st.booleans()):
        found = [
            found[0],
            *(replace(one, dtype=found[0].dtype) for one in found[1:] if one.data is None),
        ]
    places = st.integers(-1, len(found) - 1)
    inputs, outputs = draw(st.lists(places, max_size=4)), draw(st.lists(places, max_size=3))
    values = {
        name: draw(st.integers(-3, 8) | st.integers(-(1 << 31), (1 << 31) - 1))
        for name, value in options(kind).items()
        if type(value) is int
    }
    op = Op(kind, tuple(inputs), tuple(i for i in outputs if i >= 0), options(kind, **values))
    return Site(Program(tuple(found), (op,), (), ()), op)


@settings(max_examples=nightly(500, 5000), deadline=None)
@given(sites())
def test_odd_operators_are_lowered_or_refused(site: Site) -> None:
    try:
        lowered = OPERATORS[site.op.kind](site)
    except UnsupportedError as error:
        assert str(error)
    else:
        assert isinstance(lowered, View) or all(isinstance(call, Call) for call in lowered)


def site_of(kind: str, inputs: list[Tensor], output: Tensor, **values: object) -> Site:
    op = Op(kind, tuple(range(len(inputs))), (len(inputs),), options(kind, **values))
    return Site(Program((*inputs, output), (op,), (), ()), op)


def numbers(*values: int) -> Tensor:
    return constant("n", values, "int32")


IMAGE = quantized("in", (1, 4, 4, 2), "int8", 0.5, 3)
PAIRS = constant("pairs", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32")
NEGATIVE = constant("pairs", [[0, 0], [-1, 1], [0, 0], [0, 0]], "int32")


def image(*shape: int, scale: float = 0.5, dtype: str = "int8") -> Tensor:
    return quantized("out", shape, dtype, scale, 3 if dtype == "int8" else 0)


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (
            site_of("MAX_POOL_2D", [IMAGE], image(1, 2, 2, 2), stride_h=2, stride_w=2),
            "window of 0",
        ),
        (
            site_of(
                "MAX_POOL_2D",
                [IMAGE],
                image(1, 3, 2, 2),
                stride_h=2,
                stride_w=2,
                filter_height=2,
                filter_width=2,
            ),
            "its options give 2",
        ),
        (
            site_of(
                "AVERAGE_POOL_2D",
                [IMAGE],
                image(1, 2, 2, 2, scale=0.25),
                stride_h=2,
                stride_w=2,
                filter_height=2,
                filter_width=2,
            ),
            "must be equal",
        ),
        (site_of("MEAN", [IMAGE, numbers(4)], image(1, 4, 4)), "axis 4 of a tensor with 4 axes"),
        (site_of("MEAN", [IMAGE, numbers(3)], image(1, 4)), "another number of elements"),
        (
            site_of("MEAN", [IMAGE, quantized("axis", (1,), "int32")], image(1, 4, 4)),
            "computed at run time",
        ),
        (site_of("MEAN", [IMAGE, numbers(3)], image(1, 4, 4, dtype="int16")), "int16; supported"),
        (site_of("ARG_MAX", [IMAGE, numbers(3)], image(1, 4, 4)), "supported: int32"),
        (site_of("PAD", [IMAGE, NEGATIVE], image(1, 4, 4, 2)), "does not become 4"),
        (site_of("PAD", [IMAGE, PAIRS], image(1, 6, 6, 2, scale=1.0)), "must be equal"),
        (
            site_of("MIRROR_PAD", [image(1, 1, 4, 2), PAIRS], image(1, 3, 6, 2)),
            "at most 0, not 1",
        ),
        (site_of("RESHAPE", [IMAGE], image(1, 31)), "different numbers of elements"),
        (site_of("TRANSPOSE", [IMAGE, numbers(0, 1, 1, 3)], IMAGE), "is no order of 4 axes"),
        (
            site_of("SLICE", [IMAGE, numbers(0, 3, 0, 0), numbers(1, 2, 4, 2)], IMAGE),
            "do not fit an axis of 4",
        ),
        (
            site_of(
                "STRIDED_SLICE",
                [IMAGE, numbers(0, 0, 0, 0), numbers(1, 4, 4, 2), numbers(1, 1, 1, 1)],
                IMAGE,
                new_axis_mask=1,
            ),
            "new_axis_mask is set",
        ),
        (
            site_of("CONCATENATION", [IMAGE, image(1, 4, 3, 2)], image(1, 8, 4, 2), axis=1),
            "differ elsewhere than on axis 1",
        ),
        (
            site_of("CONCATENATION", [IMAGE, IMAGE], image(1, 8, 4, 2, scale=0.1), axis=1),
            "scales and zero points",
        ),
        (
            site_of("SPLIT", [numbers(1), IMAGE], image(1, 3, 4, 2), num_splits=1),
            "do not add up",
        ),
        (
            site_of("RESIZE_BILINEAR", [IMAGE, numbers(8, 8)], image(1, 8, 7, 2)),
            "do not agree",
        ),
    ],
)
def test_refusals_say_what_is_wrong(site: Site, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        OPERATORS[site.op.kind](site)


@pytest.mark.parametrize(
    "site",
    [
        site_of("RESHAPE", [IMAGE, numbers(1, 32)], image(1, 32), new_shape=(1, 32)),
        site_of("SQUEEZE", [IMAGE], image(4, 4, 2)),
        site_of("EXPAND_DIMS", [IMAGE, numbers(0)], image(1, 1, 4, 4, 2)),
        site_of("TRANSPOSE", [IMAGE, numbers(1, 0, 2, 3)], image(4, 1, 4, 2)),
        site_of("SLICE", [IMAGE, numbers(0, 0, 0, 0), numbers(-1, -1, 4, 2)], IMAGE),
        site_of("PAD", [IMAGE, constant("p", [[0, 0]] * 4, "int32")], IMAGE),
    ],
)
def test_what_moves_nothing_is_a_view(site: Site) -> None:
    assert OPERATORS[site.op.kind](site) == View(site.op.inputs[0], site.op.outputs[0])


def test_copies_take_as_few_axes_as_they_can() -> None:
    site = site_of("SLICE", [IMAGE, numbers(0, 1, 0, 0), numbers(1, 2, 4, 2)], image(1, 2, 4, 2))
    (call,) = shaping.OPERATORS["SLICE"](site)  # type: ignore[misc]
    assert call.params is not None
    assert (call.params.fields["rank"], call.params.fields["run"]) == (1, 16)


def test_a_global_pool_may_begin_where_its_input_begins() -> None:
    fields = {"filter_height": 4, "filter_width": 4, "stride_h": 4, "stride_w": 4}
    site = site_of("AVERAGE_POOL_2D", [IMAGE], image(1, 1, 1, 2), padding="VALID", **fields)
    (call,) = pooling.OPERATORS["AVERAGE_POOL_2D"](site)  # type: ignore[misc]
    assert [(reuse.forward, reuse.backward) for reuse in call.reuses] == [(0, 0)]
