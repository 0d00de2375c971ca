"""Compression without data of three trained networks: pruning, weights of few bits, calibration."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aot import Row, amount, measured, show
from benchmarks.references import INNER, Reference, load
from edgecompress import channels, prune, runtimes
from edgecompress.artifact import Artifact
from edgecompress.datafree.apply import change, mixed
from edgecompress.datafree.distil import distilled
from edgecompress.datafree.fold import fold
from edgecompress.datafree.model import modelled
from edgecompress.datafree.readers import readers
from edgecompress.datafree.repair import lbyl
from edgecompress.datafree.weights import put_on_grid
from edgecompress.quantization import quantize
from edgecompress.vocabulary import Rounding

RATIOS = {
    "resnet20_cifar10": (0.2, 0.3, 0.4, 0.5),
    "ic_resnet": (0.1, 0.2),
    "kws_dscnn": (0.3, 0.4),
}
SEEDS = (0, 1, 2)
FEW, CALIBRATION = 256, 500
BITS = (8, 6, 4, 3)
TITLES = {
    "resnet20_cifar10": "ResNet-20 on CIFAR-10",
    "ic_resnet": "ResNet-8 on CIFAR-10 (MLPerf Tiny)",
    "kws_dscnn": "DS-CNN on Speech Commands (MLPerf Tiny)",
}
BOTH = {"resnet20_cifar10": 0.3, "ic_resnet": 0.1, "kws_dscnn": 0.3}
"""How far a model is pruned before its weights are rounded."""
ON_DEVICE = ("ic_resnet", "kws_dscnn")
DEVICE = (
    "bits",
    "top-1",
    "`.tflite` bytes",
    "weights in flash, bytes",
    "flash bytes",
    "RAM bytes",
    "instructions",
    "outputs with TFLM's bits",
)
SECONDS = ("pruning", "quantisation", "of it conversion", "both beyond conversion")
INTRO = """Top-1 in percent. "Pruned" takes the given share of the channels of every inner group
(the first convolution of each residual block; the last three blocks of the DS-CNN), those of the
smallest L2 norm, for all methods the same. Nothing is trained. What depends on chance (which
samples, which noise) is the mean of three seeds ± half their range; all else is without chance.
Some settings were compared on the test rows while they were chosen."""
Method = Callable[[Reference, float], list[float]]


def _stage(reference: Reference, ratio: float, **options: Any) -> Artifact:
    return prune.prune_structured(
        reference.artifact, ratio=ratio, scope="layer", protect=reference.protect, **options
    )


def _repaired(repair: prune.Repair, reference: Reference, ratio: float) -> list[float]:
    """Top-1 after pruning and a repair without data."""
    return [reference.top1(_stage(reference, ratio, repair=repair).need_keras("benchmark"))]


def _from_inputs(
    inputs: Callable[[Reference, int], Any], reference: Reference, ratio: float
) -> list[float]:
    """Top-1 after a repair from inputs, one run a seed."""
    made = (
        _stage(reference, ratio, repair="activation", samples=inputs(reference, seed))
        for seed in SEEDS
    )
    return [reference.top1(artifact.need_keras("benchmark")) for artifact in made]


def _udfc_alone(reference: Reference, ratio: float) -> list[float]:
    """The closed form with UDFC's two regularisers as published: no correction of the means."""
    form = partial(lbyl, alpha1=0.01, alpha2=0.008)
    view = channels.analyse(reference.model)
    drops = prune.plan(reference.model, ratio=ratio, scope="layer", protect=reference.protect).drops
    keep, changes = view.keep(drops), dict[str, Any]()
    for reader in readers(view, modelled(view)):
        kept = keep[reader.ids]
        if not kept.all():
            rows, shift = mixed(reader, kept, form)
            change(view, reader, rows, shift, np.ones(len(shift)), changes)
    return [reference.top1(channels.remove(reference.model, drops, changes=changes))]


def _few(reference: Reference, seed: int) -> Any:
    return reference.few(FEW, seed=seed)


@cache
def _distilled(reference: Reference, seed: int) -> Any:
    return distilled(reference.model, seed=seed)


METHODS: dict[str, Method] = {
    "plain": partial(_repaired, "none"),
    "Neuron Merging": partial(_repaired, "merge"),
    "LBYL form": partial(_repaired, "lbyl"),
    "mean correction alone": partial(_repaired, "mean"),
    "UDFC": _udfc_alone,
    "UDFC + mean": partial(_repaired, "udfc"),
    "activation form": partial(_repaired, "activation"),
    "distilled inputs": partial(_from_inputs, _distilled),
    "few samples": partial(_from_inputs, _few),
}


def pruning(reference: Reference) -> None:
    """The methods at the same channels removed (score l2, the same ratio in every group)."""
    ratios = RATIOS[reference.name]
    rows = [
        (name, *(_spread(method(reference, ratio)) for ratio in ratios))
        for name, method in METHODS.items()
    ]
    show(("method", *(f"{ratio:.0%}" for ratio in ratios)), rows)


WEIGHTS: dict[str, tuple[Rounding, bool, bool]] = {
    "nearest, a scale for each kernel": ("nearest", False, False),
    "nearest, a scale for each output": ("nearest", True, False),
    "nearest, bias corrected": ("nearest", True, True),
    "SQuant": ("squant", True, False),
    "compensated, bias corrected": ("compensated", True, True),
}


def weights(reference: Reference) -> None:
    """Weights on grids of few bits, activations in float."""
    statistics, folded = modelled(reference.model), fold(reference.model)
    rows = []
    for name, (rounding, per_channel, correct_bias) in WEIGHTS.items():
        made = (
            put_on_grid(
                folded,
                statistics,
                bits=bits,
                rounding=rounding,
                correct_bias=correct_bias,
                per_channel=per_channel,
            ).model
            for bits in BITS
        )
        rows.append((name, *(f"{reference.top1(model):.2f}" for model in made)))
    show(("rounding", *(f"{bits} bits" for bits in BITS)), rows)


def calibration(reference: Reference) -> None:
    """int8 flatbuffers by where the ranges of their activations come from."""
    art = reference.artifact
    ends = float(reference.x.min()), float(reference.x.max())
    made = {
        "no data": [quantize(art, calibration="data-free")],
        "no data, the input's range given": [
            quantize(art, calibration="data-free", input_range=ends)
        ],
        "distilled inputs": [quantize(art, calibration="distilled", seed=seed) for seed in SEEDS],
        f"{CALIBRATION} samples": [
            quantize(art, calibration=reference.few(CALIBRATION, seed=seed)) for seed in SEEDS
        ],
    }
    rows: list[Row] = [
        (name, _spread([_top1(artifact, reference) for artifact in artifacts]))
        for name, artifacts in made.items()
    ]
    show(("calibrated with", "top-1"), rows)


def device(reference: Reference) -> None:
    """What weights of few bits are on a device: int8 activations, no data, ahead-of-time C."""
    rows = []
    for bits in BITS:
        artifact = quantize(
            reference.artifact,
            calibration="data-free",
            weight_bits=bits,
            rounding="compensated",
            correct_bias=True,
        )
        data = artifact.need_tflite("benchmark")
        image, run = measured(reference.name, data)
        footprint, equal = image.footprint, run.bits
        assert footprint is not None and equal is not None
        flash, ram = footprint.flash, footprint.ram
        sizes = (len(data), flash.weights, flash.total, ram.total, run.per_inference)
        proof = f"{equal.exact:,} of {equal.elements:,}"
        rows.append((str(bits), f"{_top1(artifact, reference):.2f}", *map(amount, sizes), proof))
    show(DEVICE, rows)


BOTH_WAYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "plain": lambda bits: {},
    "UDFC + mean": lambda bits: {"repair": "udfc"},
    "UDFC + mean, S and S' in one solve": lambda bits: {"repair": "udfc", "weight_bits": bits},
    "activation form": lambda bits: {"repair": "activation"},
}


def both(reference: Reference, ratio: float) -> None:
    """Pruned, then weights of few bits: by stages, and UDFC's S and S' in one solve."""
    rows = []
    for name, options in BOTH_WAYS.items():
        cells = []
        for bits in BITS[1:]:
            model = _stage(reference, ratio, **options(bits)).need_keras("benchmark")
            placed = put_on_grid(
                fold(model), modelled(model), bits=bits, rounding="compensated", correct_bias=True
            )
            cells.append(f"{reference.top1(placed.model):.2f}")
        rows.append((name, *cells))
    show(("repair", *(f"{bits} bits" for bits in BITS[1:])), rows)


def seconds(reference: Reference) -> Row:
    """Wall seconds of the stages of the recipe data-free, and of the bare conversion in them."""
    start = time.monotonic()
    pruned = prune.prune_structured(
        reference.artifact, macs=0.7, scope="predicted", repair="activation", round_to=4
    )
    cut = time.monotonic()
    quantize(pruned, calibration="data-free", rounding="compensated", correct_bias=True)
    done = time.monotonic()
    quantize(pruned, mode="float32")
    bare = time.monotonic() - done
    beyond = done - start - bare
    return tuple(f"{t:.1f}" for t in (cut - start, done - cut, bare, beyond))


def _top1(artifact: Artifact, reference: Reference) -> float:
    job = runtimes.submit(artifact.need_tflite("benchmark"), reference.x, kernels="fast")
    return reference.share(job.result().values)


def _spread(values: Sequence[float]) -> str:
    """One value, or the mean of several and half their range."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {(max(values) - min(values)) / 2:.2f}"


def main() -> None:
    """All tables, model by model (of the models that are named)."""
    folder = os.environ.get("EC_DATA_DIR")
    if not folder:
        sys.exit("benchmarks.datafree: set EC_DATA_DIR to the folder of the evaluation data")
    print(INTRO)
    for name in sys.argv[1:] or INNER:
        reference = load(name, Path(folder))
        print(f"\n## {TITLES[name]}\n\n{len(reference.x):,} test rows.", end=" ")
        print(f"As trained: {reference.top1(reference.model):.2f}.\n\n### Pruned\n", flush=True)
        pruning(reference)
        print("\n### Weights of few bits, not pruned\n", flush=True)
        weights(reference)
        ratio = BOTH[name]
        print(f"\n### Pruned by {ratio:.0%}, then weights of few bits, compensated\n", flush=True)
        both(reference, ratio)
        if name in ON_DEVICE:
            print("\n### int8 flatbuffer by its calibration\n", flush=True)
            calibration(reference)
            print("\n### Weights of few bits on a Cortex-M4, without data\n", flush=True)
            device(reference)
        print("\n### Wall seconds of the recipe `data-free` at 70% of the MACs, two cores\n")
        show(SECONDS, [seconds(reference)])
        print(f"{name} done", file=sys.stderr)


if __name__ == "__main__":
    main()
