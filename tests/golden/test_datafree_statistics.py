"""The modelled statistics of trained networks, against those of their training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.references import load
from edgecompress.datafree.model import modelled
from tests.small_models import outputs

LIMITS = {
    "resnet20_cifar10": (0.18, 0.62, 0.62),
    "ic_resnet": (0.18, 0.60, 0.62),
    "kws_dscnn": (0.14, 0.92, 0.42),
}
"""Largest mean error of the means and of the covariances, and least correlation between modelled
and measured correlations, over the layers that sum over channels, the first and last left out."""


@pytest.mark.parametrize("name", LIMITS)
def test_modelled_statistics_are_near_those_of_data(name: str, data_dir: Path) -> None:
    import keras

    reference = load(name, data_dir)
    model, x = reference.model, reference.few(200, seed=0)
    found = modelled(model)
    layers = [name for name in found.read if "depthwise" not in name][1:-1]
    tensors = [model.get_layer(layer).input for layer in layers]
    measured = outputs(keras.Model(model.inputs, tensors), x)
    errors = np.array(
        [_errors(found.read[layer], y) for layer, y in zip(layers, measured, strict=True)]
    )
    means, covariances, agreement = errors.mean(axis=0)
    most, widest, least = LIMITS[name]
    assert means < most
    assert covariances < widest
    assert agreement > least


def _errors(moments: Any, y: Any) -> tuple[float, float, float]:
    flat = y.reshape(-1, y.shape[-1]).astype(np.float64)
    mean, covariance = flat.mean(axis=0), np.cov(flat.T)
    alive = covariance.diagonal() > 1e-3 * covariance.diagonal().max()
    pairs = np.outer(alive, alive) & ~np.eye(len(mean), dtype=bool)
    correlations = [
        (c / np.sqrt(np.outer(c.diagonal(), c.diagonal()) + 1e-12))[pairs]
        for c in (moments.covariance, covariance)
    ]
    return (
        float(np.linalg.norm(moments.mean - mean) / np.linalg.norm(mean)),
        float(np.linalg.norm(moments.covariance - covariance) / np.linalg.norm(covariance)),
        float(np.corrcoef(correlations)[0, 1]),
    )


def test_the_stem_of_a_network_on_raw_features_is_not_trusted(data_dir: Path) -> None:
    """What the first pointwise convolution of the keyword spotter reads is far from normal."""
    guards = modelled(load("kws_dscnn", data_dir).model).guards
    assert not guards["conv2d_1"].trusted
    assert all(guards[f"conv2d_{i}"].trusted for i in (2, 3, 4))
