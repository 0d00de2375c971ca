"""Pruning and rounding in one solve: UDFC's two kinds of scale factors together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import channels, pipeline, prune
from edgecompress.artifact import Artifact
from edgecompress.channels.graph import read_weights
from edgecompress.datafree.apply import LEAST, repaired, tempered, variances
from edgecompress.datafree.fold import fold
from edgecompress.datafree.joint import on_grid
from edgecompress.datafree.model import modelled
from edgecompress.datafree.readers import readers
from edgecompress.datafree.weights import put_on_grid
from edgecompress.errors import ConfigError
from edgecompress.pipeline import stages
from edgecompress.recipe import Prune, Quantize, Recipe
from tests.small_models import batch, depthwise_flatten, grouped, outputs, randomised, residual

BITS = 3


def small() -> Any:
    """A residual model whose inner normalisation has a negative factor."""
    model = randomised(residual())
    norm = model.get_layer("inner_bn")
    gamma, *rest = norm.get_weights()
    gamma[1] = -abs(gamma[1])
    norm.set_weights([gamma, *rest])
    return model


def filters(model: Any) -> tuple[Any, Any]:
    """The filters and offsets behind "inner" of `small`, folded."""
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("inner").get_weights())
    norm = model.get_layer("inner_bn")
    known = {k: v.astype(np.float64) for k, v in read_weights(norm).items()}
    factor = known["gamma"] / np.sqrt(known["moving_variance"] + norm.epsilon)
    folded = kernel.reshape(-1, kernel.shape[-1]).T * factor[:, None]
    return folded, known["beta"] + factor * (bias - known["moving_mean"])


def test_channels_are_taken_as_the_folded_model_will_have_them() -> None:
    model = small()
    known = modelled(model)
    found = on_grid(model, known, bits=BITS).read["back"].rounded
    assert found is not None
    later = put_on_grid(fold(model), known, bits=BITS, rounding="nearest", correct_bias=False)
    np.testing.assert_allclose(found[0], filters(later.model)[0], atol=1e-5)
    before, offsets = filters(model)
    assert np.abs(found[0] - before).max() > 0.05 * np.abs(before).max()
    np.testing.assert_allclose(found[1], offsets, atol=1e-6)


def test_only_what_has_filters_is_rounded_and_the_moments_stay() -> None:
    model = randomised(depthwise_flatten())
    known = modelled(model)
    found = on_grid(model, known, bits=BITS)
    assert found.guards == known.guards and found.read.keys() == known.read.keys()
    rounded = {name for name, moments in found.read.items() if moments.rounded is not None}
    assert rounded == {name for name, moments in known.read.items() if moments.filters is not None}
    assert rounded and rounded != known.read.keys()
    for name, moments in found.read.items():
        assert moments.mean is known.read[name].mean
        assert moments.covariance is known.read[name].covariance


def test_the_rounded_channels_reach_the_repair() -> None:
    """The new kernel is the old one times S + S', from filters folded and rounded by hand."""
    model = small()
    known = modelled(model)
    art = prune.prune_structured(
        Artifact("small", model),
        ratio=0.4,
        scope="layer",
        protect=["stem", "back"],
        repair="udfc",
        weight_bits=BITS,
    )
    (group,) = (g for g in art.steps[-1].effect["plan"]["groups"] if g["drop"])
    assert group["name"] == "inner"
    stay = ~np.isin(np.arange(5), group["drop"])
    later = put_on_grid(fold(model), known, bits=BITS, rounding="nearest", correct_bias=False)
    (f, b), (on_f, on_b) = filters(model), filters(later.model)
    v, u, start = on_f[stay], on_b[stay], np.eye(5)[:, stay]
    normal = v @ v.T + 0.01 * np.outer(u, u) + 0.008 * np.eye(3)
    wanted = (f - start @ v) @ v.T + 0.01 * np.outer(b - start @ u, u)
    mixing = start + wanted @ np.linalg.inv(normal)
    view = channels.analyse(model)
    reader = next(r for r in readers(view, known) if r.name == "back")
    means = known.read["back"].mean
    rows = np.zeros((9, 5, 4))
    rows[:, stay] = np.einsum("tco,cp->tpo", reader.rows(), mixing)
    shift = np.einsum("t,tco,c->o", reader.inside, reader.rows(), means - mixing @ means[stay])
    rows, shift = tempered(reader, stay, rows, shift)
    kernel, bias = art.need_keras("test").get_layer("back").get_weights()
    np.testing.assert_allclose(kernel.reshape(9, 3, 4), rows[:, stay], atol=1e-4)
    old = model.get_layer("back").get_weights()[1]
    np.testing.assert_allclose(bias, old + shift, atol=1e-4)


def test_the_variance_that_the_solve_takes_is_given_back() -> None:
    model = small()
    view = channels.analyse(model)
    (group,) = (g.name for g in view.groups if "stem" in g.name)
    keep, plain = view.keep({group: [1]}), replace(modelled(model), guards={})
    known = on_grid(model, plain, bits=BITS)
    changes = repaired(view, keep, known, "udfc").changes
    reader = next(r for r in readers(view, known) if r.name == "inner")
    rows = replace(reader, weights=changes["inner"]).rows()
    share = variances(reader, rows) / variances(reader, reader.rows())
    norm = model.get_layer("inner_bn")
    old = np.asarray(norm.moving_variance)
    new = changes["inner_bn"]["moving_variance"]
    assert (share < 0.99).any()
    expected = (old + norm.epsilon) * np.clip(share, LEAST, 1) - norm.epsilon
    np.testing.assert_allclose(new, expected, rtol=1e-4)
    before = repaired(view, keep, plain, "udfc").changes
    assert np.array_equal(before["inner_bn"]["moving_variance"], old)


def test_groups_of_a_convolution_are_solved_one_by_one() -> None:
    model = randomised(grouped())
    art = prune.prune_structured(
        Artifact("grouped", model), ratio=0.5, scope="layer", repair="udfc", weight_bits=BITS
    )
    repaired = {row["layer"] for row in art.steps[-1].effect["repair"]}
    assert "two_groups" in repaired
    assert np.isfinite(outputs(art.need_keras("test"), batch(model))[0]).all()


def test_eight_bits_change_no_bit() -> None:
    model = small()
    x = batch(model)
    stage = partial(
        prune.prune_structured,
        Artifact("small", model),
        ratio=0.4,
        scope="layer",
        repair="udfc",
    )
    plain, eight, few = stage(), stage(weight_bits=8), stage(weight_bits=BITS)
    made = [outputs(art.need_keras("test"), x)[0] for art in (plain, eight, few)]
    assert np.array_equal(made[0], made[1]) and not np.allclose(made[0], made[2])
    assert [art.steps[-1].params["weight_bits"] for art in (plain, eight, few)] == [8, 8, BITS]


@pytest.mark.parametrize("repair", ["lbyl", "activation"])
def test_other_repairs_know_no_bits(repair: prune.Repair) -> None:
    model = small()
    options: dict[str, Any] = {"ratio": 0.4, "scope": "layer", "repair": repair}
    made = [
        prune.prune_structured(Artifact("small", model), **options, weight_bits=bits)
        for bits in (8, BITS)
    ]
    first, second = (outputs(art.need_keras("test"), batch(model))[0] for art in made)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("bits", [1, 9, 4.5])
def test_other_bits_are_refused(bits: Any) -> None:
    for repair in ("none", "udfc"):
        options: dict[str, Any] = {"ratio": 0.4, "repair": repair, "weight_bits": bits}
        with pytest.raises(ConfigError, match=rf"^prune: weight_bits={bits}; use a whole number"):
            prune.prune_structured(Artifact("small", small()), **options)
        with pytest.raises(ConfigError, match=rf"^prune: weight_bits={bits}; use a whole number"):
            prune.plan(small(), **options)


@pytest.mark.parametrize("repair", ["none", "udfc", "activation"])
def test_a_run_passes_the_bits_of_its_quantisation(
    repair: prune.Repair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pruned(artifact: Artifact, *, weight_bits: int, **options: Any) -> Artifact:
        raise ConfigError(f"stop at {weight_bits}")

    monkeypatch.setattr(stages, "prune_structured", pruned)
    small().save(tmp_path / "small.keras")
    recipe = Recipe(
        prune=Prune(ratio=0.4, repair=repair),
        quantize=Quantize(calibration="data-free", weight_bits=4),
    )
    with pytest.raises(ConfigError, match="^stop at 4$"):
        pipeline.compress(tmp_path / "small.keras", recipe=recipe)
