"""The measured error of a repair without samples, against the outputs of the pruned network."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress import prune
from edgecompress.artifact import Artifact
from edgecompress.errors import ConfigError
from tests.small_models import batch, outputs, randomised, residual


def _error(model, small, layer: str, x) -> float:  # type: ignore[no-untyped-def]
    import keras

    old, new = (
        outputs(keras.Model(m.inputs, m.get_layer(layer).output), x)[0].reshape(-1, 4)
        for m in (model, small)
    )
    return float(np.square(new - old).mean(0).sum() / old.var(0).sum())


@pytest.mark.parametrize("repair", ["none", "mean", "activation"])
def test_it_is_the_error_of_the_layers_outputs(repair: prune.Repair) -> None:
    model = randomised(residual())
    x = batch(model, 70)
    art = prune.prune_structured(
        Artifact("residual", model),
        ratio=0.4,
        scope="layer",
        protect=["stem"],
        repair=repair,
        audit=x,
    )
    rows = {row["layer"]: row for row in art.steps[-1].effect["repair"]}
    if repair == "none":
        assert not rows
        return
    small = art.need_keras("test")
    assert rows["back"]["measured"] == pytest.approx(_error(model, small, "back", x), rel=1e-3)


def test_what_goes_into_the_next_normalisation_counts() -> None:
    """A layer without bias, whose mean is corrected in the BatchNormalization behind it."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 6, 2))
    y = kl.ReLU()(kl.BatchNormalization(name="first_bn")(kl.Conv2D(6, 3, name="first")(inputs)))
    y = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 3, use_bias=False, name="reader")(y))
    model = randomised(keras.Model(inputs, y, name="bare"))
    x = batch(model, 40)
    errors = {
        repair: prune.prune_structured(
            Artifact("bare", model), ratio=0.5, scope="layer", repair=repair, audit=x
        )
        for repair in ("mean", "activation")
    }
    for art in errors.values():
        (row,) = art.steps[-1].effect["repair"]
        small = art.need_keras("test")
        old, new = model.get_layer("norm").get_weights(), small.get_layer("norm").get_weights()
        before, after = (
            outputs(keras.Model(m.inputs, m.get_layer("reader").output), x)[0].reshape(-1, 4)
            for m in (model, small)
        )
        wrong = (after - new[2]) - (before - old[2])
        assert row["measured"] == pytest.approx(
            np.square(wrong).mean(0).sum() / before.var(0).sum()
        )


def test_rows_of_another_shape_are_refused() -> None:
    model = randomised(residual())
    with pytest.raises(ConfigError, match=r"samples: shape \(4, 6, 6, 2\) does not fit"):
        prune.prune_structured(
            Artifact("residual", model),
            ratio=0.4,
            repair="activation",
            audit=np.zeros((4, 6, 6, 2)),
        )
