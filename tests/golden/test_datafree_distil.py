"""Inputs distilled from a trained network in place of samples."""

from __future__ import annotations

from pathlib import Path

from benchmarks.references import load
from edgecompress import runtimes
from edgecompress.datafree.distil import distilled
from edgecompress.prune import prune_structured
from edgecompress.quantization import quantize


def test_repair_and_ranges_by_distilled_inputs(data_dir: Path) -> None:
    reference = load("kws_dscnn", data_dir)
    start = reference.artifact
    made = distilled(reference.model, count=64, seed=0)
    pruned = prune_structured(
        start,
        ratio=0.4,
        scope="layer",
        protect=reference.protect,
        repair="activation",
        samples=made,
    )
    assert reference.top1(pruned.need_keras("test")) >= 86
    data = quantize(start, calibration=made).need_tflite("test")
    found = runtimes.run(data, reference.x, runtime="tflite", kernels="fast")
    assert reference.share(found.values) >= 90.5
