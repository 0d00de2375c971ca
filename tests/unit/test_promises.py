"""What training promises is checked on the converted file: kept, broken, and upstream's faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecompress.artifact import Step
from edgecompress.channels.graph import trace
from edgecompress.errors import EdgeCompressError
from edgecompress.quantization import conversion
from edgecompress.tflite import Program, read
from edgecompress.training import kernels, promises
from edgecompress.training.promises import check
from tests import small_models

ROWS = np.random.default_rng(3).normal(size=(16, 4, 4, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Any:
    """A 1x1 and a depthwise convolution with BatchNormalization, a nested block that is called
    twice, a separable convolution and a Dense; half of the weights are 0, the others +1 or -1
    times 1 to 7."""
    import keras
    from keras import layers as kl

    a = kl.Input((4, 4, 8), name="a")
    block = keras.Model(a, kl.Conv2D(8, 1, name="point")(a), name="block")
    x = kl.Input((4, 4, 8), name="x")
    y = kl.BatchNormalization(name="norm")(kl.Conv2D(8, 1, use_bias=False, name="point")(x))
    y = block(block(kl.ReLU(name="relu")(y)))
    y = kl.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = kl.SeparableConv2D(8, 3, name="separable")(y)
    y = kl.Dense(10, activation="softmax", name="head")(kl.Flatten(name="flat")(y))
    model = small_models.randomised(keras.Model(x, y, name="promising"))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.name:
            values = rng.integers(1, 8, weight.shape) * rng.choice([-0.1, 0.1], weight.shape)
            values.flat[::2] = 0
            weight.assign(values)
        if weight.name == "gamma":
            weight.assign(np.abs(weight) + 0.5)
    return model


@pytest.fixture(scope="module")
def floats(model: Any) -> Program:
    data = conversion.convert(model, mode="float32", types=("float32", "float32"), rows=None)
    return read(data)


@pytest.fixture(scope="module")
def integers(model: Any) -> Program:
    return read(conversion.convert(model, mode="int8", types=("int8", "int8"), rows=ROWS))


def steps(model: Any, stage: str, **promised: Any) -> list[Step]:
    """A step of `stage` that promises the same of every kernel."""
    found = {}
    for kernel in kernels.kernels(trace(model)):
        found[kernel.key] = {**kernel.row(1), **promised}
        if stage == "sparsify" and "zeros" not in promised:
            found[kernel.key].setdefault("zeros", kernel.size // 2)
    return [Step(stage, effect={"grids" if stage == "qat" else "kernels": found})]


def changed(program: Program, layer: str, change: Any) -> Program:
    """The program with `change` (array -> array) applied to the kernel of one layer."""
    tensors = list(program.tensors)
    for op in program.ops:
        if program.layer_of(op) == layer and op.kind in promises.AXES:
            kernel = tensors[op.inputs[1]]
            array = np.array(kernel.array)
            tensors[op.inputs[1]] = replace(kernel, data=change(array).tobytes())
    return program.edit(tensors=tuple(tensors))


def one_weight(array: Any) -> Any:
    """A zero less."""
    array.flat[np.flatnonzero(array.ravel() == 0)[0]] = 3
    return array


def test_every_kernel_is_found_and_counted(model: Any, floats: Program, integers: Program) -> None:
    promised = steps(model, "sparsify", block=1)
    for program in (floats, integers):
        found = [each for each in check(program, promised) if each.what == "zeros"]
        # The block is called twice, and the separable convolution has two kernels.
        assert sorted(each.layer for each in found) == sorted(
            ["point", "block.point", "block.point", "depthwise", "separable/depthwise"]
            + ["separable", "head"]
        )
        assert all(each.kept and each.found >= each.promised > 0 for each in found)


LAYERS = ["point", "block/point", "depthwise", "separable/separable_conv2d", "separable", "head"]


@pytest.mark.parametrize("layer", LAYERS)
def test_one_changed_weight_breaks_the_promise(layer: str, model: Any, floats: Program) -> None:
    promised = steps(model, "sparsify", block=1)
    name = layer.removesuffix("/separable_conv2d").replace("/", ".")
    with pytest.raises(EdgeCompressError, match=rf"^sparsify: .* layer '{name}(/depthwise)?' has"):
        check(changed(floats, layer, one_weight), promised)


def test_patterns_are_counted_along_the_input_channels(model: Any, floats: Program) -> None:
    def dense(array: Any) -> Any:
        return np.ones_like(array)

    def paired(array: Any) -> Any:  # (outputs, 1, 1, inputs): pairs of input channels
        array[:] = 0
        array[..., :4] = 1
        return array

    def spread(array: Any) -> Any:  # as many zeros, none of them in pairs
        array[:] = 0
        array[..., ::2] = 1
        return array

    pairs = steps(model, "sparsify", block=2, zeros=16)[0].effect["kernels"]["point"]
    groups = {**pairs, "group": [2, 4], "inputs": 8}
    of_pairs = [Step("sparsify", effect={"kernels": {"point": pairs}})]
    of_groups = [Step("sparsify", effect={"kernels": {"point": groups}})]
    check(changed(floats, "point", paired), of_pairs)
    check(changed(floats, "point", spread), of_groups)
    with pytest.raises(EdgeCompressError, match=r"0 blocks of 2 zeros, 16 were promised"):
        check(changed(floats, "point", spread), of_pairs)
    for wrong in (dense, paired):
        with pytest.raises(EdgeCompressError, match=r"4 weights in a group of 4 .*, 2 were"):
            check(changed(floats, "point", wrong), of_groups)


def test_a_kernel_of_zeros_alone_is_a_fault(model: Any, floats: Program) -> None:
    """tfmot's PCQAT made 1x1 convolutions zero (issue 979): sparse enough, and dead."""
    promised = steps(model, "sparsify", block=1)
    with pytest.raises(EdgeCompressError, match=r"'point' has 0 weights that are not 0, 1 were"):
        check(changed(floats, "point", np.zeros_like), promised)


def test_clusters_that_a_scale_per_output_tears_apart_are_a_fault(
    model: Any, floats: Program, integers: Program
) -> None:
    """Quantised without grids, as tfmot's CQAT may be (issue 1056), each output keeps its clusters
    and the kernel has more of them."""
    promised = steps(model, "cluster", distinct=15)
    check(floats, promised)
    with pytest.raises(EdgeCompressError, match=r"^cluster: .* distinct weights, 15 were promised"):
        check(integers, promised)


def test_grids_of_few_bits_and_operators_in_float(
    model: Any, floats: Program, integers: Program
) -> None:
    check(floats, steps(model, "qat", bits=4))
    with pytest.raises(EdgeCompressError, match=r"^qat: .*distinct weights in an output, 7 were"):
        check(floats, steps(model, "qat", bits=3))
    mixed = integers.edit(
        tensors=tuple(
            replace(tensor, dtype="float32") if "relu" in tensor.name else tensor
            for tensor in integers.tensors
        )
    )
    with pytest.raises(EdgeCompressError, match=r"'point' computes in float32"):
        check(mixed, steps(model, "qat", bits=8))


def test_a_kernel_that_is_not_there_is_a_fault(model: Any, floats: Program) -> None:
    (step,) = steps(model, "sparsify", block=1)
    row: Mapping[str, Any] = {**step.effect["kernels"]["head"], "path": "tail"}
    with pytest.raises(EdgeCompressError, match=r"no kernel of \[10, 32\] of layer 'tail'"):
        check(floats, [Step("sparsify", effect={"kernels": {"tail": row}})])
