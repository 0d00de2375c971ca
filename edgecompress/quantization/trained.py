"""What training with fake quantisation left, its ranges and grids, carried into the flatbuffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact, Step
from edgecompress.channels.graph import Call, Graph, read_weights, trace
from edgecompress.datafree import fold
from edgecompress.datafree.kernels import Kernel, kernels
from edgecompress.datafree.rounding import largest
from edgecompress.datafree.statistics import Array, Statistics
from edgecompress.errors import StageOrderError
from edgecompress.quantization import calibrated
from edgecompress.quantization.conversion import in_ranges
from edgecompress.training.kernels import DEPTHWISE
from edgecompress.vocabulary import IoType

if TYPE_CHECKING:
    import keras

STAGE = "qat"
"""The stage whose step holds ranges and grids."""
EXACT = 1e-3
"""Of a grid's step, how far float32 may put a weight from its whole number."""


class Trained(NamedTuple):
    """One kernel on the grid that it was trained on: `points` int8 (outputs, rest) and `scales`
    float64 (outputs,), before a BatchNormalization behind it is folded."""

    kernel: Kernel
    bits: int
    points: npt.NDArray[np.int8]
    scales: Array


def last_step(artifact: Artifact) -> Step:
    """The last qat step; StageOrderError where there is none."""
    for step in reversed(artifact.steps):
        if step.stage == STAGE:
            return step
    raise StageOrderError(
        f'quantize: {artifact.name} was not trained with grids, which calibration "trained" goes'
        " by; call qat first, or calibrate with samples"
    )


def clustered(artifact: Artifact) -> Mapping[str, Any]:
    """The grids of the last cluster step, by kernel as in `put_on`; none without one."""
    return next((s.effect["grids"] for s in reversed(artifact.steps) if s.stage == "cluster"), {})


def convert_trained(
    model: keras.Model, step: Step, types: tuple[IoType, IoType]
) -> tuple[bytes, dict[str, Any]]:
    """The int8 flatbuffer of a model with the `ranges` and the `grids` of its qat step, and the
    effect of the conversion: a row for each kernel.

    `ranges[layer]` are named as `datafree.ranges.ranges` names them. `grids[layer]`, of the first
    kernel of a separable convolution `grids[layer + DEPTHWISE]`, holds a `weight`, its `bits` and
    `scales`, one for each output or one in all; every weight of the kernel is a whole number times
    its scale. A BatchNormalization that folds into the kernel scales the steps by |gamma / sigma|
    and gives the whole numbers its sign. A kernel that the converter merges with more than that is
    rounded by the converter, to 8 bits; its row says so.

    Raises StageOrderError where the model's weights are not on those grids.
    """
    named = {
        layer: (min(float(low), 0.0), max(float(high), 0.0))
        for layer, (low, high) in step.effect["ranges"].items()
    }
    data = in_ranges(fold.fold(model), named, types)
    data, layers = put_on(data, model, step.effect["grids"])
    return data, {"layers": layers}


def put_on(
    data: bytes, model: keras.Model, grids: Mapping[str, Any]
) -> tuple[bytes, list[dict[str, Any]]]:
    """The int8 flatbuffer `data` of a model with its kernels on exactly their `grids`, and a row
    for each of these; see `convert_trained`."""
    graph = trace(model)
    found = list(_trained(graph, grids, model.name))
    candidates = [
        (place, rows) for place, each in enumerate(found) for rows in _folded(graph, each)
    ]
    data, used = calibrated.on_grids(data, [rows for _, rows in candidates])
    kept = {candidates[place][0] for place in used}
    layers = [
        {
            "layer": each.kernel.call.name,
            "weight": each.kernel.weight,
            "bits": each.bits if place in kept else 8,
            "rule": "trained" if place in kept else "nearest",
            "error": None,
        }
        for place, each in enumerate(found)
    ]
    few = any(each.bits <= 4 for each in found)
    return calibrated.packed(data) if few else data, layers


def _trained(graph: Graph, grids: Mapping[str, Any], name: str) -> Iterator[Trained]:
    """The kernels that have a grid, in graph order."""
    left = dict(grids)
    for kernel in kernels(graph, Statistics({}, {})):
        layer = kernel.call.name
        key = layer + DEPTHWISE if layer + DEPTHWISE in left and kernel.depthwise else layer
        if key not in left or left[key]["weight"] != kernel.weight:
            continue
        given = left.pop(key)
        rows, outputs = kernel.rows, kernel.rows.shape[-1]
        scales = np.asarray(given["scales"], np.float64)
        if scales.shape not in ((1,), (outputs,)):
            raise _stale(name, layer)
        scales = np.broadcast_to(scales, outputs)
        points = np.rint(rows / scales)
        off = np.abs(rows / scales - points).max(initial=0.0)
        if not (off <= EXACT and np.abs(points).max(initial=0.0) <= largest(given["bits"])):
            raise _stale(name, layer)
        flat = points.transpose(2, 0, 1).reshape(outputs, -1).astype(np.int8)
        yield Trained(kernel, given["bits"], flat, scales)
    for layer in left:
        raise _stale(name, layer)


def _stale(name: str, layer: str) -> StageOrderError:
    return StageOrderError(
        f"quantize: the weights of layer {layer} of {name} are not those that its last qat or"
        " cluster step left; let no stage that changes weights follow"
    )


def _folded(graph: Graph, each: Trained) -> Iterator[tuple[npt.NDArray[np.int8], Array]]:
    """The grids that the converter may make of one: that of the BatchNormalization which `fold`
    puts into it, else as it is and with each that reads a call of its layer."""
    name = each.kernel.call.name
    norms: list[Call] = []
    if not (each.kernel.depthwise and type(each.kernel.call.op).__name__.startswith("Separable")):
        norms = [norm for layer, norm in fold.pairs(graph) if layer.name == name]
    if not norms:
        yield each.points, each.scales
        calls = [call for call in graph.calls if call.name == name]
        readers = [r for call in calls for r in graph.readers.get(call.outputs[0], ())]
        norms = [r for r in readers if type(r.op).__name__ == "BatchNormalization"]
    for norm in {id(norm.op): norm for norm in norms}.values():
        factor = fold.factor(norm.op, read_weights(norm.op))
        if len(factor) == len(each.scales):
            points = each.points * np.sign(factor)[:, None]
            alive = np.where(factor == 0, 1.0, np.abs(factor))
            yield points.astype(np.int8), each.scales * alive
