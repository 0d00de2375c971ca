"""Channels by predicted loss: the curve, the shares, the greedy choice, as a scope of pruning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecompress import channels, cost, prune
from edgecompress.artifact import Artifact
from edgecompress.backends import aot
from edgecompress.backends.aot.choose import flash
from edgecompress.datafree import obs
from edgecompress.datafree.readers import readers
from edgecompress.datafree.statistics import Moments, Statistics
from edgecompress.errors import ConfigError
from edgecompress.prune import allocate, budgets
from edgecompress.quantization import quantize
from edgecompress.tflite import read
from tests.small_models import batch, randomised, residual


def moments(n: int, seed: int = 3, scale: float = 1.0) -> Moments:
    root = np.random.default_rng(seed).normal(size=(n, 2 * n))
    return Moments(np.zeros(n), scale * root @ root.T / n)


@pytest.fixture(scope="module")
def pair() -> Any:
    """Groups a (8 channels) and b (8, the first 4 copies of the others), all of gamma 1."""
    import keras
    from keras import layers as kl

    x = inputs = kl.Input((6, 6, 3))
    for name in ("a", "b"):
        x = kl.Conv2D(8, 3, padding="same", use_bias=False, name=name)(x)
        x = kl.ReLU()(kl.BatchNormalization(name=f"{name}_bn")(x))
    model = randomised(keras.Model(inputs, kl.Conv2D(2, 1, name="last")(x), name="pair"))
    kernel = np.array(model.get_layer("b").kernel)
    kernel[..., :4] = kernel[..., 4:]
    model.get_layer("b").kernel.assign(kernel)
    beta = np.tile(np.random.default_rng(5).uniform(-0.5, 0.5, 4), 2)
    for name in ("a_bn", "b_bn"):
        model.get_layer(name).set_weights([np.ones(8), beta, np.zeros(8), np.ones(8)])
    return model


def test_the_convex_curve_touches_from_below() -> None:
    for seed in range(5):
        curve = np.cumsum(np.random.default_rng(seed).uniform(0, 1, 12))
        below = curve[0] + np.concatenate([[0], np.cumsum(allocate.convex(curve))])
        assert (np.diff(below, 2) > -1e-12).all()
        assert (below <= curve + 1e-12).all()
        assert below[0] == curve[0] and below[-1] == pytest.approx(curve[-1])
        corners = np.flatnonzero(np.diff(below, 2) > 1e-9) + 1
        assert np.allclose(below[corners], curve[corners])
    assert allocate.convex(np.array([0.0, 5.0, 6.0])).tolist() == [3, 3]
    assert allocate.convex(np.array([0.0, 1.0, 6.0])).tolist() == [1, 5]


def test_errors_along_the_greedy_order_are_those_of_the_order() -> None:
    view = channels.analyse(randomised(residual()))
    known = Statistics({name: moments(n) for name, n in sizes(view).items()}, {})
    for reader in readers(view, known):
        for group in view.groups:
            if not group.protected and obs.covered(view, group.name, [reader]):
                found = obs.order(view, group.name, [reader], damping=0.1)
                errors = obs.errors(view, group.name, [reader], found.channels, damping=0.1)
                assert np.allclose(errors[reader.name], found.losses)
                mixed = obs.errors(view, group.name, [reader], found.channels[::-1], damping=0.1)
                assert mixed[reader.name][0] >= found.losses[0]
                return
    raise AssertionError("no group with one reader")


def sizes(view: channels.View) -> dict[str, int]:
    return {name: len(axis.ids) for name, _, axis in view.axes("in")}


def test_shares_go_by_the_variances_of_a_sum() -> None:
    import keras
    from keras import layers as kl

    inputs = kl.Input((4, 4, 3), name="image")
    x = kl.Conv2D(4, 1, name="stem")(inputs)
    y = kl.Conv2D(4, 1, name="branch")(kl.ReLU(name="corner")(x))
    end = kl.Conv2D(2, 1, name="end")(kl.Add(name="sum")([x, y]))
    view = channels.analyse(randomised(keras.Model(inputs, end)))
    made = {"stem": moments(4), "branch": moments(4, scale=3.0)}
    shares = allocate.shares_of(view, Statistics({}, made))
    wanted = {"end": 1, "sum": 1, "branch": 0.75, "corner": 0.75, "stem": 1}
    assert {name: shares[name] for name in wanted} == pytest.approx(wanted)
    unknown = allocate.shares_of(view, Statistics({}, {}))
    assert unknown["branch"] == 1 and unknown["stem"] == 2


def test_the_loss_is_the_logarithm_of_what_is_left_times_the_share() -> None:
    view = channels.analyse(randomised(residual()))
    known = list(readers(view, Statistics({"back": moments(5)}, {})))
    order = np.array([3, 1, 0, 4, 2])
    errors = obs.errors(view, "inner", known, order, damping=allocate.DAMPING)["back"]
    found = allocate.losses(view, "inner", known, order, {"back": 0.5})
    assert np.allclose(np.exp(-2 * found), [1, *(1 - errors[:-1])])


def test_outputs_count_as_the_normalisation_behind_them_has_it(pair: Any) -> None:
    view = channels.analyse(pair)
    (reader,) = readers(view, Statistics({"b": moments(8)}, {}))
    norm = pair.get_layer("b_bn")
    old = norm.get_weights()
    norm.set_weights([2 * old[0], old[1], old[2], np.arange(1.0, 9.0) - norm.epsilon])
    scaled = allocate.folded(view, reader).rows() / reader.rows()
    norm.set_weights(old)
    assert np.allclose(scaled, 2 / np.sqrt(np.arange(1.0, 9.0)))


def test_a_channel_counts_by_what_it_saves() -> None:
    """Of the early layer it saves multiplications, of the late one parameters."""
    import keras
    from keras import layers as kl

    x = inputs = kl.Input((12, 12, 3))
    for name, stride in (("early", 1), ("middle", 4), ("late", 1)):
        x = kl.Conv2D(8, 3, stride, padding="same", use_bias=False, name=name)(x)
        x = kl.ReLU()(kl.BatchNormalization(name=f"{name}_bn")(x))
    model = randomised(keras.Model(inputs, kl.Dense(4, name="head")(kl.Flatten()(x))))
    options: dict[str, Any] = {"repair": "activation", "samples": batch(model, 64)}
    macs, params = (
        prune.plan(model, **{target: 0.8}, scope="predicted", **options).drops
        for target in ("macs", "params")
    )
    assert len(macs["early"]) > len(params.get("early", ()))
    assert len(macs.get("late", ())) < len(params["late"])


def test_copies_go_before_anything_else(pair: Any) -> None:
    options: dict[str, Any] = {"score": "bn_gamma", "repair": "activation"}
    plan = prune.plan(pair, ratio=0.25, scope="predicted", **options)
    assert plan.drops == {"b": (0, 1, 2, 3)}
    assert set(prune.plan(pair, ratio=0.25, scope="global", **options).drops) == {"a"}


@pytest.mark.parametrize("target", ["ratio", "macs", "params"])
def test_the_scope_keeps_to_its_bounds(target: str, pair: Any) -> None:
    plan = prune.plan(
        pair,
        **{target: 0.5},
        scope="predicted",
        repair="activation",
        round_to=2,
        min_channels=3,
    )
    kept = [group.size - len(group.drop) for group in plan.groups if group.protected is None]
    assert all(k >= 3 and k % 2 == 0 for k in kept)
    if target != "ratio":
        measure = getattr(cost, target)
        assert measure(prune.cut(pair, plan)) <= 0.5 * measure(pair)
    kept_whole = prune.plan(pair, ratio=0.2, scope="predicted", repair="activation", protect=["a"])
    assert set(kept_whole.drops) == {"b"}


def test_without_a_repair_nothing_is_predicted(pair: Any) -> None:
    with pytest.raises(ConfigError, match=r'^prune: scope predicted goes by .*repair="activation"'):
        prune.plan(pair, ratio=0.2, scope="predicted")


def test_samples_do_where_the_weights_do_not() -> None:
    model = randomised(residual())
    x = batch(model, 64)
    options: dict[str, Any] = {"ratio": 0.4, "scope": "predicted", "repair": "activation"}
    plan = prune.plan(model, samples=x, **options)
    assert plan.channels == (9, 6)
    assert plan == prune.plan(model, samples=x, **options)


def test_what_stands_for_a_target_counts_what_is_kept(pair: Any) -> None:
    view = channels.analyse(pair)
    drops: dict[str, tuple[int, ...]] = {"b": (0, 1)}
    for kept, b in ((view.keep({}), 8), (view.keep(drops), 6)):
        held = [3 + 8, 8 + 8, 8 + b, b + b, b + 2]  # read and made by a, a_bn, b, b_bn, last
        assert budgets.meter(view, "ram")(kept) == pytest.approx(
            36 * np.linalg.norm(held, budgets.PEAK)
        )
        assert budgets.meter(view, "ratio")(kept) == 8 + b
    whole = cost.total(pair)
    assert budgets.meter(view, "instructions")(view.keep({})) == whole.macs
    assert budgets.meter(view, "flash")(view.keep({})) == whole.params


@pytest.mark.parametrize(
    ("target", "share"), [("flash", 0.95), ("ram", 0.8), ("instructions", 0.85)]
)
def test_a_budget_on_the_device_is_met(target: str, share: float, pair: Any) -> None:
    given: dict[str, Any] = {target: share}
    artifact = prune.prune_structured(Artifact("pair", pair), **given, min_channels=5)
    found = artifact.steps[-1].effect["target"]
    assert (found["target"], found["asked"]) == (target, share)
    assert found["limit"] == int(share * found["before"])
    assert found["predicted"] == found["reached"] <= found["limit"] < found["before"]
    assert 0 < artifact.steps[-1].effect["channels"]["after"] < 16


def test_a_budget_on_the_device_counts_weights_of_fewer_bits() -> None:
    import keras
    from keras import layers as kl

    inputs = kl.Input((4, 4, 32))
    y = kl.Conv2D(64, 1, name="wide")(inputs)
    model = randomised(keras.Model(inputs, kl.Conv2D(32, 1, name="last")(y), name="wide_model"))
    found = {
        bits: prune.prune_structured(
            Artifact("wide", model), flash=0.9, min_channels=32, weight_bits=bits
        )
        for bits in (8, 4)
    }
    goals = {bits: artifact.steps[-1].effect["target"] for bits, artifact in found.items()}
    assert goals[8]["before"] - goals[4]["before"] > 0.4 * 2 * 64 * 32
    for bits, artifact in found.items():
        made = quantize(artifact, calibration=batch(model, 4), weight_bits=bits)
        calls = [step.call for step in aot.schedule(read(made.need_tflite("test"))).steps]
        assert goals[bits]["predicted"] == goals[bits]["reached"] == flash(calls)
