"""Pruning and repair of the reference models: accuracy without data, and with few samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.references import load
from edgecompress.prune import prune_structured
from tests.conftest import nightly

FLOORS = {
    "resnet20_cifar10": ({0.2: 86.5, 0.3: 82.5, 0.4: 74}, {0.3: 86.5, 0.5: 75}),
    "ic_resnet": ({0.1: 82, 0.2: 75}, {0.2: 80.5}),
    "kws_dscnn": ({0.3: 87, 0.4: 83.5}, {0.4: 88}),
}
"""Top-1 in % by ratio: repaired without data, and with 256 samples."""
PLAIN = {"resnet20_cifar10": 70, "ic_resnet": 70, "kws_dscnn": 60}
"""What pruning alone stays below, at the last ratio without data."""


@pytest.mark.parametrize("name", nightly(["ic_resnet", "kws_dscnn"], list(FLOORS)))
def test_accuracy(data_dir: Path, name: str) -> None:
    reference, (free, few) = load(name, data_dir), FLOORS[name]

    def top1(ratio: float, **options: Any) -> float:
        pruned = prune_structured(
            reference.artifact, ratio=ratio, scope="layer", protect=reference.protect, **options
        )
        return reference.top1(pruned.need_keras("test"))

    assert top1(max(free)) < PLAIN[name]
    for ratio, floor in free.items():
        assert top1(ratio, repair="activation") >= floor, ratio
    samples = reference.few(256, seed=0)
    for ratio, floor in few.items():
        assert top1(ratio, repair="activation", samples=samples) >= floor, ratio


@pytest.mark.parametrize(("name", "macs"), [("kws_dscnn", 0.8), *nightly([], [("ic_resnet", 0.9)])])
def test_predicted_ratios_keep_more_than_equal_ones(data_dir: Path, name: str, macs: float) -> None:
    reference = load(name, data_dir)
    equal, predicted = (
        prune_structured(reference.artifact, macs=macs, scope=scope, repair="activation")
        for scope in ("layer", "predicted")
    )
    assert (
        predicted.steps[-1].effect["target"]["reached"]
        <= equal.steps[-1].effect["macs"]["before"] * macs
    )
    best = reference.top1(predicted.need_keras("test"))
    assert best >= reference.top1(equal.need_keras("test")) + 1
