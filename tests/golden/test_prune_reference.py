"""The reference models, pruned: shapes, MACs and parameters shrink, masked equals cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import channels, cost, prune
from edgecompress.artifact import Artifact
from edgecompress.quantization import quantize
from tests.small_models import batch, outputs

REFERENCE = {
    "ic_resnet": cost.Total(macs=12_501_632, params=78_666),
    "kws_dscnn": cost.Total(macs=2_656_768, params=24_908),
    "resnet20_cifar10": cost.Total(macs=40_813_184, params=273_658),
}
"""MACs of the first two are those of the MLPerf Tiny .tflite files, operator by operator."""


@pytest.fixture(scope="module", params=REFERENCE)
def reference(request: pytest.FixtureRequest, data_dir: Path) -> tuple[str, Any]:
    import keras

    path = data_dir / "models" / f"{request.param}.keras"
    return request.param, keras.models.load_model(path, compile=False)


def test_cost_is_the_published_one(reference: tuple[str, Any]) -> None:
    name, model = reference
    assert cost.total(model) == REFERENCE[name]


def test_half_of_the_channels_go(reference: tuple[str, Any]) -> None:
    _, model = reference
    x = 50 * batch(model, 4)
    plan = prune.plan(model, ratio=0.5, scope="layer", round_to=2)
    small = prune.cut(model, plan)

    for group in plan.groups:
        assert len(group.drop) == (0 if group.protected else group.size // 2)
    for layer in small.layers:
        if type(layer).__name__ == "Conv2D":
            assert layer.filters == model.get_layer(layer.name).filters // 2
    assert cost.macs(small) < 0.32 * cost.macs(model)
    assert cost.params(small) < 0.35 * cost.params(model)
    assert small.output_shape == model.output_shape
    cut, masked = outputs(small, x)[0], outputs(prune.mask(model, plan), x)[0]
    np.testing.assert_allclose(cut, masked, atol=1e-5 * max(1, np.abs(masked).max()), rtol=0)


def test_half_the_channels_of_resnet8_leave_the_tflite_too(data_dir: Path) -> None:
    import keras

    model = keras.models.load_model(data_dir / "models" / "ic_resnet.keras", compile=False)
    whole = Artifact("ic_resnet", model)
    half = prune.prune_structured(whole, ratio=0.5, scope="layer")
    before, after = (
        len(quantize(artifact, mode="float32").need_tflite("test")) for artifact in (whole, half)
    )
    weights = 4 * (cost.params(model) - cost.params(half.need_keras("test")))
    assert before - after > 0.95 * weights
    assert after < 0.4 * before


def test_nothing_removed_changes_nothing(reference: tuple[str, Any]) -> None:
    _, model = reference
    x = 50 * batch(model, 4)
    assert np.array_equal(outputs(channels.remove(model, {}), x)[0], outputs(model, x)[0])


def test_half_of_the_macs_remain(reference: tuple[str, Any]) -> None:
    _, model = reference
    share = cost.macs(prune.cut(model, prune.plan(model, macs=0.5, round_to=4))) / cost.macs(model)
    assert 0.4 < share <= 0.5
