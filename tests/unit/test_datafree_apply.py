"""Consumer-wise repair of Keras models: exact cases, masked equals cut, the pruning stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress import channels, prune
from edgecompress.artifact import Artifact
from edgecompress.datafree.apply import (
    change,
    mixed,
    regressed,
    relative_error,
    repaired,
    tempered,
)
from edgecompress.datafree.measured import measured
from edgecompress.datafree.model import modelled
from edgecompress.datafree.readers import Reader, readers
from edgecompress.datafree.repair import FORMS, activation
from edgecompress.datafree.sequential import sequential
from edgecompress.datafree.statistics import Array, Guard, Moments, Statistics
from edgecompress.errors import ConfigError
from edgecompress.prune import plans
from edgecompress.recipe.settings import BY_SAMPLES, Prune
from edgecompress.vocabulary import REPAIRS, Repair
from tests.conftest import nightly
from tests.small_models import (
    batch,
    concat,
    depthwise_flatten,
    outputs,
    randomised,
    residual,
    shared,
)

READERS: dict[str, Callable[[Any], Any]] = {
    "same": lambda kl: [kl.Conv2D(3, 3, padding="same", name="reader")],
    "strided": lambda kl: [kl.Conv2D(3, (3, 2), strides=2, padding="same", name="reader")],
    "valid": lambda kl: [kl.Conv2D(3, 3, name="reader")],
    "dilated": lambda kl: [kl.Conv2D(3, 3, dilation_rate=2, padding="same", name="reader")],
    "padded": lambda kl: [kl.ZeroPadding2D(((1, 0), (2, 1))), kl.Conv2D(3, 3, name="reader")],
    "transposed": lambda kl: [kl.Conv2DTranspose(3, 3, strides=2, padding="same", name="reader")],
    "transposed valid": lambda kl: [kl.Conv2DTranspose(3, 4, strides=2, name="reader")],
    "separable": lambda kl: [kl.SeparableConv2D(3, 3, padding="valid", name="reader")],
    "dense": lambda kl: [kl.Dense(3, name="reader")],
    "flattened": lambda kl: [kl.Flatten(), kl.Dense(3, name="reader")],
    "without bias": lambda kl: [kl.Conv2D(3, 3, use_bias=False, name="reader")],
    "normalised": lambda kl: [
        kl.Conv2D(3, 3, use_bias=False, name="reader"),
        kl.BatchNormalization(name="norm"),
    ],
}


def flat_channel(tail: Callable[[Any], Any]) -> Any:
    """A tensor of 4 channels, of which channel 1 is the same everywhere, and its reader."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((7, 6, 2))
    x = kl.Conv2D(4, 1, activation="relu", name="maker")(inputs)
    for layer in tail(kl):
        x = layer(x)
    model = randomised(keras.Model(inputs, x, name="flat_channel"))
    kernel, bias = model.get_layer("maker").get_weights()
    kernel[..., 1], bias[1] = 0, 2.5
    model.get_layer("maker").set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("kind", READERS)
def test_the_mean_correction_keeps_the_mean_of_the_outputs(kind: str) -> None:
    model = flat_channel(READERS[kind])
    view, drops, x = channels.analyse(model), {"maker": [1]}, batch(model, 4)
    found = repaired(view, view.keep(drops), measured(view, x), "mean")
    small = channels.remove(model, drops, changes=found.changes)
    before, after = outputs(model, x)[0], outputs(small, x)[0]
    np.testing.assert_allclose(
        after.reshape(-1, 3).mean(0), before.reshape(-1, 3).mean(0), atol=1e-5
    )
    lost = outputs(channels.remove(model, drops), x)[0]
    assert np.abs(lost.reshape(-1, 3).mean(0) - before.reshape(-1, 3).mean(0)).max() > 0.05
    assert set(found.changes) == ({"reader", "norm"} if kind == "normalised" else {"reader"})
    assert small.get_layer("reader").use_bias == (kind != "normalised")


@pytest.mark.parametrize("kind", READERS)
def test_a_duplicated_channel_is_recovered_exactly(kind: str) -> None:
    model = flat_channel(READERS[kind])
    maker = model.get_layer("maker")
    kernel, bias = maker.get_weights()
    kernel[..., 1], bias[1] = kernel[..., 3], bias[3]
    maker.set_weights([kernel, bias])
    if kind == "separable":  # a depthwise layer must treat them alike, too
        first, *rest = model.get_layer("reader").get_weights()
        first[:, :, 1] = first[:, :, 3]
        model.get_layer("reader").set_weights([first, *rest])
    view, drops, x = channels.analyse(model), {"maker": [1]}, batch(model, 4)
    reader = next(r for r in readers(view, measured(view, x)) if r.name == "reader")
    keep, changes = view.keep(drops), dict[str, Any]()
    rows, shift = mixed(reader, keep[reader.ids], partial(activation, damping=1e-10))
    change(view, reader, rows, shift, np.ones(3), changes)
    small = channels.remove(model, drops, changes=changes)
    np.testing.assert_allclose(outputs(small, x)[0], outputs(model, x)[0], atol=2e-4)


def grouped() -> Any:
    import keras
    from keras import layers as kl

    inputs = kl.Input((6, 3))
    x = kl.Conv1D(8, 3, padding="causal", activation="relu", name="stem")(inputs)
    x = kl.Conv1D(6, 3, groups=2, padding="same", name="grouped")(x)
    x = kl.SeparableConv1D(4, 3, depth_multiplier=2, name="separable")(x)
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.Flatten()(x)), name="grouped_model")


@pytest.mark.parametrize("made", [residual, concat, depthwise_flatten, shared, grouped])
@pytest.mark.parametrize("how", ["activation", "merge", "samples"])
def test_masked_equals_cut(made: Callable[[], Any], how: Any) -> None:
    model = randomised(made())
    x = batch(model, 20)
    plan = prune.plan(model, ratio=0.5, scope="layer")
    view = channels.analyse(model)
    keep = view.keep(plan.drops)
    if how == "samples":
        found = sequential(view, keep, x)
    else:
        found = repaired(view, keep, measured(view, x), how)
    cut = channels.remove(model, plan.drops, changes=found.changes)
    masked = channels.mask(model, plan.drops, changes=found.changes)
    for a, b in zip(outputs(cut, x), outputs(masked, x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))
        assert np.isfinite(a).all()
    assert found.effects and all(0 < e.removed < e.channels for e in found.effects)


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("few", [True, False])
def test_nothing_removed_changes_no_bit(repair: Repair, few: bool) -> None:
    model = randomised(residual())
    x = batch(model, 20)
    samples = x if few and repair in BY_SAMPLES else None
    art = prune.prune_structured(
        Artifact("residual", model), ratio=0.0, repair=repair, samples=samples
    )
    assert np.array_equal(outputs(art.need_keras("test"), x)[0], outputs(model, x)[0])
    assert art.steps[-1].effect["repair"] == []


def test_every_reader_of_a_stream_has_its_own_combination() -> None:
    """The stream of `residual` is read by a convolution, and as a sum by the head."""
    model = randomised(residual())
    view = channels.analyse(model)
    group = next(g for g in view.groups if g.name == "stem")
    keep = view.keep({"stem": [2]})
    mixtures = {
        r.name: activation(r.read, keep[r.ids]).mixing
        for r in readers(view, measured(view, batch(model, 50)))
        if not keep[r.ids].all()
    }
    assert group.protected is None and set(mixtures) == {"inner", "head"}
    assert np.abs(mixtures["inner"] - mixtures["head"]).max() > 0.05


def test_a_guarded_group_stays_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(residual())

    def doubtful(view: Any) -> Statistics:
        return replace(modelled(view), guards={"back": Guard(False, "not normal")})

    monkeypatch.setattr(plans, "modelled", doubtful)
    plan = prune.plan(model, ratio=0.5, scope="layer", repair="activation")
    kept = {g.name: g.protected for g in plan.groups}
    assert kept["inner"] == "repair: back: not normal; give samples"
    assert plan.drops.keys() == {"stem"}
    free = prune.plan(model, ratio=0.5, scope="layer", repair="activation", samples=batch(model, 9))
    assert free.drops.keys() == {"stem", "inner"}


def test_an_untrusted_reader_is_not_reconstructed() -> None:
    model = randomised(residual())
    view = channels.analyse(model)
    known = replace(measured(view, batch(model, 20)), guards={"back": Guard(False, "why")})
    found = repaired(view, view.keep({"inner": [0]}), known, "activation")
    old, new = model.get_layer("back").get_weights(), found.changes["back"]
    assert np.array_equal(new["kernel"][:, :, 1:], old[0][:, :, 1:])
    assert np.array_equal(new["bias"], old[1])
    (effect,) = found.effects
    assert (effect.verdict, effect.reason, effect.groups) == ("not trusted", "why", ("inner",))


@pytest.mark.parametrize(
    ("guard", "verdict"),
    [
        (Guard(True, spread=0.2), "trusted"),
        (Guard(True, shift=0.1), "trusted"),
        (Guard(True, spread=0.2, shift=0.1), "trusted"),
        (Guard(True), "not checked"),
        (None, "not checked"),
        (Guard(False, "why", 0.9, 0.1), "not trusted"),
    ],
)
def test_the_verdict_says_whether_anything_was_compared(guard: Any, verdict: str) -> None:
    model = randomised(residual())
    view = channels.analyse(model)
    guards = {} if guard is None else {"back": guard}
    known = replace(measured(view, batch(model, 20)), guards=guards)
    (effect,) = repaired(view, view.keep({"inner": [0]}), known, "activation").effects
    wanted = guard or Guard(True)
    assert (effect.verdict, effect.reason) == (verdict, wanted.reason)
    assert (effect.spread, effect.shift) == (wanted.spread, wanted.shift)


def test_a_repair_with_samples_has_nothing_to_check() -> None:
    model = randomised(residual())
    view = channels.analyse(model)
    found = sequential(view, view.keep({"inner": [0]}), batch(model, 20))
    assert {effect.verdict for effect in found.effects} == {"not checked"}


@pytest.mark.parametrize("repair", ["merge", "lbyl", "udfc"])
def test_repairs_by_filters_take_no_samples(repair: Repair) -> None:
    model = randomised(residual())
    options: dict[str, Any] = {"ratio": 0.4, "repair": repair, "samples": batch(model, 9)}
    message = rf'^prune: repair="{repair}" goes by the weights alone; leave the samples out'
    with pytest.raises(ConfigError, match=message):
        prune.plan(model, **options)
    with pytest.raises(ConfigError, match=message):
        prune.prune_structured(Artifact("residual", model), **options)
    message = rf'^prune.calibration = "distilled": repair = "{repair}" goes by the weights alone'
    with pytest.raises(ConfigError, match=message):
        Prune(ratio=0.4, repair=repair, calibration="distilled")


def test_groups_kept_by_guards_are_named_where_a_target_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = randomised(residual())

    def doubtful(view: Any) -> Statistics:
        return replace(modelled(view), guards={"back": Guard(False, "not normal")})

    monkeypatch.setattr(plans, "modelled", doubtful)
    options: dict[str, Any] = {"params": 0.1, "repair": "activation"}
    with pytest.raises(ConfigError, match="protected layers; kept whole .* give samples: inner$"):
        prune.plan(model, **options)
    with pytest.raises(ConfigError, match="and protected layers$"):
        prune.plan(model, **options, protect=["inner"])
    with pytest.raises(ConfigError, match="and protected layers$"):
        prune.plan(model, **options, samples=batch(model, 9))


def test_the_step_tells_of_every_repaired_layer() -> None:
    model = randomised(residual())
    art = prune.prune_structured(
        Artifact("residual", model),
        ratio=0.4,
        scope="layer",
        repair="activation",
        samples=batch(model, 64),
    )
    step = json.loads(json.dumps(vars(art.steps[-1])))
    rows = {row["layer"]: row for row in step["effect"]["repair"]}
    assert rows.keys() == {"inner", "back", "head"}
    assert step["params"]["repair"] == "activation" and step["effect"]["samples"] == 64
    assert rows["back"]["groups"] == ["inner"]
    assert (rows["back"]["removed"], rows["back"]["channels"]) == (2, 5)
    for row in rows.values():
        assert 0 <= row["predicted"] < 1 and 0 <= row["measured"]


def test_samples_of_another_shape_are_refused() -> None:
    model = randomised(residual())
    with pytest.raises(ConfigError, match=r"samples: shape \(4, 6, 6, 2\) does not fit"):
        prune.plan(model, ratio=0.4, repair="activation", samples=np.zeros((4, 6, 6, 2)))


def network(depth: int, normalised: bool, seed: int) -> tuple[Any, Any]:
    """A random convolutional network, its moving statistics those of the normal inputs given."""
    import keras
    from keras import layers as kl

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(96, 8, 8, 3)).astype("float32")
    inputs = y = kl.Input((8, 8, 3))
    for _ in range(depth):
        y = kl.Conv2D(int(rng.integers(5, 9)), 3, padding="same", use_bias=not normalised)(y)
        if normalised:
            y = kl.BatchNormalization(momentum=0.0)(y)
        y = kl.ReLU()(y)
    y = kl.Dense(4)(kl.GlobalAveragePooling2D()(y))
    model = keras.Model(inputs, y, name="network")
    for layer in model.layers:
        if layer.weights:
            shape = layer.weights[0].shape
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            layer.weights[0].assign(values if len(shape) > 1 else rng.normal(0.5, 1.0, shape))
        if layer.weights and len(layer.weights) > 1:
            layer.weights[1].assign(rng.normal(0, 0.3, layer.weights[1].shape))
    model(x, training=True)
    return model, x


@settings(max_examples=nightly(4, 60), deadline=None)
@given(
    depth=st.integers(1, nightly(4, 20)),
    normalised=st.booleans(),
    ratio=st.sampled_from([0.2, 0.5]),
    seed=st.integers(0, 2**16),
)
def test_repair_is_not_worse_than_none(
    depth: int, normalised: bool, ratio: float, seed: int
) -> None:
    """With samples always; `test_datafree_random` has the same without."""
    model, x = network(depth, normalised, seed)
    plan = prune.plan(model, ratio=ratio, scope="layer")
    view = channels.analyse(model)
    keep, wanted = view.keep(plan.drops), outputs(model, x)[0]

    def error(found: Any) -> float:
        masked = channels.mask(model, plan.drops, changes=found.changes)
        return float(((outputs(masked, x)[0] - wanted) ** 2).mean())

    none = error(repaired(view, keep, measured(view, x), "none"))
    assert error(sequential(view, keep, x)) <= 1.05 * none + 1e-9


def rolling(image: int = 8) -> tuple[Reader, Array]:
    """A 3x3 reader of three channels, of which channel 2 is channel 0 one column to the left, and
    periodic images (N, H, W, 3) of what it reads."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((image, image, 2))
    x = kl.Conv2D(3, 1, use_bias=False, name="maker")(inputs)
    made = keras.Model(inputs, kl.Conv2D(4, 3, padding="same", name="reader")(x), name="rolling")
    x = np.random.default_rng(0).normal(size=(200, image, image, 3))
    x += np.roll(x, 1, axis=1)
    x[..., 2] = np.roll(x[..., 0], -1, axis=2)
    spectrum = np.fft.fft2(x, axes=(1, 2))
    power = np.einsum("nhwi,nhwj->hwij", spectrum.conj(), spectrum) / (len(x) * image**2)
    spread = np.fft.ifft2(power, axes=(0, 1)).real / image**2
    spread -= (mean := x.mean((0, 1, 2))) * mean[:, None]
    read = Moments(mean, spread[0, 0], spread=spread)
    view = channels.analyse(randomised(made))
    (reader,) = readers(view, Statistics({"reader": read}, {}))
    return reader, x


def response(rows: Array, x: Array) -> Array:
    """What rows (9, channels, outputs) make of periodic images, about its mean."""
    shifted = [np.roll(x, (1 - a, 1 - b), (1, 2)) for a in range(3) for b in range(3)]
    found = np.einsum("tnhwc,tco->nhwo", shifted, rows)
    return np.asarray(found - found.mean((0, 1, 2)))


def test_a_channel_is_made_of_another_one_at_the_next_position() -> None:
    reader, x = rolling()
    rows = reader.rows()
    rows[[2, 5, 8], 2] = 0  # at these taps channel 2 would need channel 0 outside the window
    reader = replace(reader, weights=reader.with_rows(rows))
    rows, stay = reader.rows(), np.array([True, True, False])
    found, _ = regressed(reader, stay, damping=1e-9)
    assert not found[:, 2].any()
    np.testing.assert_allclose(response(found, x), response(rows, x), atol=1e-4)
    by_channel, _ = mixed(reader, stay, activation)
    lost = np.square(response(rows - by_channel, x)).sum() / np.square(response(rows, x)).sum()
    assert lost > 0.1
    assert relative_error(reader, by_channel) == pytest.approx(lost, rel=1e-2)
    assert regressed(reader, np.ones(3, np.bool_))[0].tolist() == rows.tolist()


def test_a_window_as_wide_as_the_image_goes_by_channels() -> None:
    reader, _ = rolling(3)
    stay = np.array([True, True, False])
    found, wanted = regressed(reader, stay), mixed(reader, stay, activation)
    assert reader.patches(slice(None)) is None
    np.testing.assert_allclose(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 1.0, 30.0])
def test_a_step_too_far_is_cut_short(factor: float) -> None:
    reader, _ = rolling()
    stay = np.array([True, True, False])
    start, before = mixed(reader, stay, FORMS["mean"])
    best, _ = regressed(reader, stay)
    wild = start + factor * (best - start)
    rows, shift = tempered(reader, stay, wild, before + 1)
    if factor <= 1:
        np.testing.assert_allclose(rows, wild)
        np.testing.assert_allclose(shift, before + 1)
    else:
        error = relative_error(reader, start)
        assert relative_error(reader, wild) > 10 * error
        assert relative_error(reader, rows) == pytest.approx(error)
        assert (shift - before == pytest.approx(shift[0] - before[0])) and shift[0] < before[0] + 1


def test_no_repair_is_predicted_to_be_worse_than_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(residual())
    view = channels.analyse(model)
    keep, known = view.keep({"inner": [0, 3]}), measured(view, batch(model, 50))

    def wild(read: Moments, kept: Any) -> Any:
        found = activation(read, kept)
        return replace(found, mixing=np.where(kept[:, None], found.mixing, 50.0))

    monkeypatch.setitem(FORMS, "udfc", wild)
    (means,) = repaired(view, keep, known, "mean").effects
    (found,) = repaired(view, keep, known, "udfc").effects
    assert found.predicted <= means.predicted + 1e-9
