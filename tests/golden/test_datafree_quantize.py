"""Quantisation without data of the MLPerf Tiny networks, against that with samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.references import load
from edgecompress import runtimes
from edgecompress.backends.aot.choose import arrays
from edgecompress.backends.aot.schedule import schedule
from edgecompress.prune import prune_structured
from edgecompress.quantization import quantize
from edgecompress.tflite import read
from tests.aot_harness import case, check
from tests.conftest import nightly

POINT = 1.0
"""Percentage points that a model without data may be behind one with 500 samples."""
FLOORS = {"ic_resnet": {4: 84.0, 3: 77.0}, "kws_dscnn": {4: 89.0, 3: 84.0}}
"""Top-1 in % that k-bit weights must keep, activations in 8 bits and without data."""


@pytest.mark.parametrize("name", nightly(["kws_dscnn"], list(FLOORS)))
def test_without_data_as_good_as_with(name: str, data_dir: Path) -> None:
    reference = load(name, data_dir)
    start = reference.artifact
    made = {"samples": quantize(start, calibration=reference.few(500, seed=0))}
    for bits in (8, 4, 3):
        made[str(bits)] = quantize(
            start,
            calibration="data-free",
            weight_bits=bits,
            rounding="nearest" if bits == 8 else "compensated",
            correct_bias=bits < 8,
        )
    jobs = {
        key: runtimes.submit(artifact.need_tflite("test"), reference.x, kernels="fast")
        for key, artifact in made.items()
    }
    top = {key: reference.share(job.result().values) for key, job in jobs.items()}
    assert top["8"] >= top["samples"] - POINT
    for bits, floor in FLOORS[name].items():
        assert top[str(bits)] >= floor
    size = {key: len(artifact.need_tflite("test")) for key, artifact in made.items()}
    assert size["4"] < 0.75 * size["8"]


def test_pruned_repaired_and_in_four_bits(data_dir: Path) -> None:
    """The statistics of a repaired network are good enough to round its weights by."""
    reference = load("resnet20_cifar10", data_dir)
    pruned = prune_structured(
        reference.artifact,
        ratio=0.3,
        scope="layer",
        protect=reference.protect,
        repair="activation",
    )
    four = quantize(
        pruned,
        calibration="data-free",
        weight_bits=4,
        rounding="compensated",
        correct_bias=True,
    )
    job = runtimes.submit(four.need_tflite("test"), reference.x, kernels="fast")
    assert reference.share(job.result().values) >= 80


def test_few_bits_are_few_on_the_device_and_as_quick(data_dir: Path) -> None:
    start = load("kws_dscnn", data_dir).artifact
    made = {
        bits: quantize(start, calibration="data-free", weight_bits=bits).need_tflite("test")
        for bits in (8, 6, 3)
    }
    programs = {bits: read(data) for bits, data in made.items()}
    calls = {
        bits: [step.call for step in schedule(program).steps] for bits, program in programs.items()
    }
    flash = {bits: arrays(found) for bits, found in calls.items()}
    count = {bits: sum(call.instructions or 0 for call in found) for bits, found in calls.items()}
    assert flash[6] < 0.8 * flash[8]
    assert flash[3] < 0.6 * flash[8]
    assert max(count[6], count[3]) < 1.05 * count[8]
    check([case(programs[bits], rows=1) for bits in (6, 3)])
