"""Planning and cutting: targets, scores, options, and the step they leave behind."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest

from edgecompress import channels, cost, prune
from edgecompress.artifact import Artifact
from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError
from edgecompress.prune import PrunePlan
from tests.small_models import batch, depthwise_flatten, outputs, randomised, residual


@pytest.fixture(scope="module")
def model() -> Any:
    return randomised(residual())


@pytest.fixture(scope="module")
def chain() -> Any:
    """Dense 4 -> 8 (a) -> 6 (b) -> 2 with weights that grow with the channel."""
    import keras
    from keras import layers as kl

    x = kl.Input((4,))
    a = kl.Dense(8, name="a")(x)
    b = kl.Dense(6, name="b")(kl.Activation("relu")(a))
    made = randomised(keras.Model(x, kl.Dense(2, name="c")(b), name="chain"))
    for name, order in (("a", [3, 1, 2, 7, 5, 4, 6, 8]), ("b", [10, 60, 30, 20, 50, 40])):
        kernel, bias = made.get_layer(name).get_weights()
        made.get_layer(name).set_weights([np.ones_like(kernel) * order, bias * 0])
    made.get_layer("c").set_weights([np.zeros((6, 2)), np.zeros(2)])
    return made


def dropped(plan: PrunePlan) -> dict[str, list[int]]:
    return {name: list(drop) for name, drop in plan.drops.items()}


@pytest.mark.parametrize("score", prune.SCORE_NAMES)
def test_every_score_prunes_and_masked_equals_cut(score: prune.ScoreName, model: Any) -> None:
    data = (batch(model, 40), np.arange(40) % 3)
    plan = prune.plan(model, ratio=0.5, score=score, data=data)
    again = prune.plan(model, ratio=0.5, score=score, data=data)
    assert plan == again
    assert plan.channels == (9, 5)
    smaller, x = prune.cut(model, plan), batch(model)
    assert cost.macs(smaller) < cost.macs(model)
    assert cost.params(smaller) < cost.params(model)
    np.testing.assert_allclose(
        outputs(smaller, x)[0], outputs(prune.mask(model, plan), x)[0], atol=1e-5
    )


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_ratio_zero_is_the_identity(scope: prune.Scope, model: Any) -> None:
    same, x = prune.cut(model, prune.plan(model, ratio=0, scope=scope)), batch(model)
    assert np.array_equal(outputs(model, x)[0], outputs(same, x)[0])


def test_the_least_channels_go(chain: Any) -> None:
    plan = prune.plan(chain, ratio=0.5, scope="layer")
    assert dropped(plan) == {"a": [0, 1, 2, 5], "b": [0, 2, 3]}


def test_a_global_ranking_compares_channels_relative_to_their_layer() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((1,))
    sides = [kl.Dense(4, use_bias=False, name=name)(x) for name in ("small", "large")]
    y = kl.Dense(1, name="head")(kl.Concatenate()(sides))
    made = keras.Model(x, y)
    made.get_layer("small").set_weights([np.array([[1, 2, 3, 4]])])
    made.get_layer("large").set_weights([np.array([[200, 300, 400, 900]])])
    made.get_layer("head").set_weights([np.zeros((8, 1)), np.zeros(1)])
    assert dropped(prune.plan(made, ratio=0.5)) == {"small": [0, 1], "large": [0, 1]}
    assert dropped(prune.plan(made, ratio=0.3)) == {"small": [0], "large": [0]}


def test_channels_that_hold_more_layers_together_go_last() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((3,))
    stream = kl.Dense(4, name="stream")(x)
    for name in ("one", "two"):
        inner = kl.Dense(4, activation="relu", name=name)(stream)
        stream = kl.Add()([stream, kl.Dense(4, name=f"{name}_back")(inner)])
    made = randomised(keras.Model(x, kl.Dense(2, name="head")(stream)))
    assert set(prune.plan(made, ratio=0.5).drops) == {"one", "two"}


def test_a_flattened_channel_counts_once() -> None:
    """A reader of 100 pixels is one reader: its 100 rows per channel are one part of the sum."""
    import keras
    from keras import layers as kl

    x = kl.Input((10, 10, 1))
    big = kl.Conv2D(2, 1, use_bias=False, name="big")(x)
    flat = kl.Flatten()(kl.Conv2D(2, 1, use_bias=False, name="last")(big))
    made = keras.Model(x, kl.Dense(1, use_bias=False, name="head")(flat))
    made.get_layer("big").set_weights([np.array([[[[1, 1.2]]]])])
    made.get_layer("last").set_weights([np.array([[[[1, 2.0], [1, 2.0]]]])])
    made.get_layer("head").set_weights([np.tile([1.2, 1.0], 100).reshape(-1, 1)])
    assert dropped(prune.plan(made, ratio=0.25)) == {"last": [0]}


def test_random_depends_on_the_seed_alone(model: Any) -> None:
    plans = [prune.plan(model, ratio=0.5, score="random", seed=s) for s in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert plans[0] != prune.plan(model, ratio=0.5, score="random", seed=3)


def test_the_floating_point_ratio_is_exact() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((2,))
    wide = randomised(keras.Model(x, kl.Dense(1)(kl.Dense(100)(x))))
    for scope in ("global", "layer"):
        assert prune.plan(wide, ratio=0.29, scope=scope).channels == (100, 71)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(("target", "share"), [("macs", 0.5), ("params", 0.4), ("macs", 1.0)])
def test_a_cost_target_is_met_and_not_overshot(
    target: str, share: float, scope: prune.Scope, model: Any
) -> None:
    plan = prune.plan(model, **{target: share}, scope=scope)
    measure = getattr(cost, target)
    assert measure(prune.cut(model, plan)) <= share * measure(model)
    whole = prune.plan(model, **{target: int(share * measure(model))}, scope=scope)
    assert whole == plan
    before, after = plan.channels
    if share == 1:
        assert after == before
        return
    # One channel fewer removed and the target is missed.
    ratios = [(before - after - 1) / before] if scope == "global" else [k / 60 for k in range(60)]
    looser = [prune.plan(model, ratio=r, scope=scope) for r in ratios]
    looser = [p for p in looser if p.channels[1] > after]
    assert looser
    assert all(measure(prune.cut(model, p)) > share * measure(model) for p in looser[-1:])


def test_round_to_and_min_channels(chain: Any) -> None:
    def kept(**options: Any) -> list[int]:
        plan = prune.plan(chain, **options)
        return [g.size - len(g.drop) for g in plan.groups if g.protected is None]

    assert kept(ratio=0.5, scope="layer", round_to=4) == [4, 4]
    assert kept(ratio=0.9, scope="layer", round_to=4) == [4, 4]
    assert kept(ratio=0.4, scope="layer", round_to=5) == [5, 5]
    assert kept(ratio=0.1, scope="layer", round_to=16) == [8, 6]
    assert kept(ratio=0.99) == [1, 1]
    assert kept(ratio=0.99, min_channels=3) == [3, 3]
    assert kept(ratio=0.99, min_channels=7) == [7, 6]
    assert kept(ratio=0.99, min_channels=3, round_to=2, scope="layer") == [4, 4]


def test_protected_layers_stay(model: Any) -> None:
    plan = prune.plan(model, ratio=0.5, protect=["back"])
    reasons = {g.name: g.protected for g in plan.groups}
    assert reasons == {
        "image": "model input",
        "stem": "protected by request",
        "inner": None,
        "head": "model output",
    }
    assert set(plan.drops) == {"inner"}
    with pytest.raises(
        ConfigError, match=r"^protect: no layer 'iner' in the model; use inner, inner_bn"
    ):
        prune.plan(model, ratio=0.5, protect=["iner"])


def test_gamma_scores_only_where_there_is_one() -> None:
    tall = randomised(depthwise_flatten())
    tall.get_layer("bn").gamma.assign([5, -5, 0.1, 0.1, 5, 5, -0.2, 5])
    plan = prune.plan(tall, ratio=0.5, score="bn_gamma")
    assert dropped(plan) == {"point": [1, 3]}
    hidden = next(g for g in plan.groups if g.name == "hidden")
    assert hidden.protected == "score bn_gamma does not apply"


def test_the_geometric_median_takes_a_filter_that_others_can_replace() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((2,))
    made = randomised(keras.Model(x, kl.Dense(2)(kl.Dense(4, name="a")(x))))
    points = np.array([[0, 0], [1, 0], [0.5, 0.1], [9, 9]], "float32")
    made.get_layer("a").set_weights([points.T, np.zeros(4)])
    assert dropped(prune.plan(made, ratio=0.25, score="geometric_median")) == {"a": [2]}


def test_taylor_is_the_slope_of_the_loss_along_the_mask() -> None:
    """Silencing one of many tiny channels changes the loss by what the score says."""
    from edgecompress.prune.scores import SCORES, Task

    small = randomised(residual())
    head = small.get_layer("head")
    head.kernel.assign(np.asarray(head.kernel) * 1e-2)
    x, y = batch(small, 20), np.arange(20) % 3
    view = channels.analyse(small)
    task = Task(view, small, (x, y), 0, lambda *_: None)
    score = SCORES["taylor"](task)[view.channels["inner"]]

    def loss(made: Any) -> float:
        return float(-np.log(outputs(made, x)[0][np.arange(20), y]).mean())

    changes = [loss(channels.mask(small, {"inner": [k]})) - loss(small) for k in range(len(score))]
    np.testing.assert_allclose(np.sqrt(score), np.abs(changes), rtol=0.1)  # second order


@pytest.mark.parametrize("target", ["integer", "values", "autoencoder"])
def test_taylor_takes_classes_values_or_the_input_as_target(target: str) -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4,))
    units = {"integer": 1, "values": 3, "autoencoder": 4}[target]
    made = randomised(keras.Model(x, kl.Dense(units)(kl.Dense(5, name="a")(x))))
    made.layers[-1].kernel.assign(np.outer([0, 1, 1, 1, 1], np.ones(units)))
    inputs = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = {"integer": np.arange(8) % 2, "values": np.ones((8, 3), "float32"), "autoencoder": None}
    plan = prune.plan(made, ratio=0.2, score="taylor", data=(inputs, y[target]))
    assert dropped(plan) == {"a": [0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^prune: give exactly one of ratio, .*, instructions; got none$"),
        ({"ratio": 0.1, "macs": 0.5}, r"^prune: give exactly one of .*; got ratio, macs$"),
        ({"ratio": 1.0}, r"^prune: ratio=1.0 is not in \[0, 1\); 0.3 removes 30%"),
        ({"ratio": -0.1}, r"^prune: ratio=-0.1 is not in \[0, 1\)"),
        ({"ratio": float("nan")}, r"^prune: ratio=nan is not in \[0, 1\)"),
        ({"macs": 0.0}, r"^prune: macs=0.0 is not in \(0, 1\], nor a whole .*; 0.5 keeps at most"),
        ({"flash": 1.5}, r"^prune: flash=1.5 is not in \(0, 1\], nor a whole number above"),
        ({"ram": float("inf")}, r"^prune: ram=inf is not in \(0, 1\], nor a whole number"),
        ({"ratio": 0.1, "score": "l3"}, r"^prune: unknown score 'l3'; use l1, l2, random, bn_"),
        (
            {"ratio": 0.1, "scope": "net"},
            r"^prune: unknown scope 'net'; use global, layer, predicted, sensitivity$",
        ),
        ({"ratio": 0.1, "round_to": 0}, r"^prune: round_to=0 is not a whole number from 1$"),
        ({"ratio": 0.1, "min_channels": 1.5}, r"^prune: min_channels=1.5 is not a whole number"),
        (
            {"ratio": 0.1, "score": "random", "seed": -1},
            r"^prune: seed=-1 is not a whole number fr",
        ),
        ({"ratio": 0.1, "score": "taylor"}, r"^prune: score taylor needs data=\(x, y\)"),
        ({"macs": 0.01}, r"^prune: macs=0.01 cannot be reached: at best \d+ of \d+ remain \(0\."),
        ({"params": 0.01, "scope": "layer"}, r"^prune: params=0.01 cannot be reached: at best"),
        ({"ratio": 0.1, "protect": ["stem", "inner"]}, r"^prune: every channel .* is protected: "),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], message: str, model: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        prune.plan(model, **options)


def test_wrong_taylor_data_is_explained(model: Any) -> None:
    x = batch(model, 4)
    for data, message in (
        ((x, np.zeros(3, int)), r"^prune: data has 4 inputs and 3 targets$"),
        ((x, np.array(3)), r"^prune: data has 4 inputs and a single value as targets$"),
        ((x, np.zeros((4, 2))), r"^prune: targets have shape \(4, 2\), the model's output"),
        ((x, np.eye(4, 3, dtype=int)), r"^prune: targets are whole .* of shape \(4, 3\), .*argmax"),
        ((x, np.array([0, 1, 2, 3])), r"^prune: class 3 is out of range; .* 3 classes \(0\.\.2\)$"),
        ((x, np.array([0, -1, 2, 1])), r"^prune: class -1 is out of range; "),
    ):
        with pytest.raises(ConfigError, match=message):
            prune.plan(model, ratio=0.5, score="taylor", data=data)


def test_a_column_of_classes_is_a_list_of_classes(model: Any) -> None:
    x, y = batch(model, 8), np.arange(8) % 3
    plans = [
        prune.plan(model, ratio=0.3, score="taylor", data=(x, target))
        for target in (y, y[:, None], y.astype(np.uint8))
    ]
    assert plans[0] == plans[1] == plans[2]


def test_taylor_takes_classes_of_an_output_with_sides_of_one() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4, 4, 3))
    flat = kl.GlobalAveragePooling2D(keepdims=True)(kl.Conv2D(6, 3, name="a")(x))
    made = randomised(keras.Model(x, kl.Conv2D(3, 1, name="head")(flat)))
    kernel = np.array(made.get_layer("head").kernel)
    kernel[:, :, [1, 4]] = 0
    made.get_layer("head").kernel.assign(kernel)
    plan = prune.plan(made, ratio=0.34, score="taylor", data=(batch(made, 8), np.arange(8) % 3))
    assert dropped(plan) == {"a": [1, 4]}


def test_macs_cannot_be_the_target_where_they_are_not_known() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((5, 3))
    y = kl.Dense(2)(kl.Dense(6)(kl.SimpleRNN(4, name="memory")(x)))
    made = keras.Model(x, y)
    with pytest.raises(UnsupportedError, match=r"those of memory \(SimpleRNN\) are not known"):
        prune.plan(made, macs=0.5, unknown="barrier")
    artifact = prune.prune_structured(Artifact("rnn", made), params=0.9, unknown="barrier")
    assert artifact.steps[0].effect["macs"] == {"before": None, "after": None}


def test_the_step_tells_what_changed_and_repeats_the_run(model: Any) -> None:
    before = Artifact("small", model)
    weights = [w.copy() for w in model.get_weights()]
    after = prune.prune_structured(before, ratio=0.5, round_to=2, seed=7)
    (step,) = after.steps
    assert before.steps == () and before.keras is model and after.keras is not model
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert step.stage == "prune_structured"
    assert step.params == {
        "ratio": 0.5,
        "score": "l2",
        "scope": "global",
        "round_to": 2,
        "min_channels": 1,
        "floor": 0.0,
        "sizes": {},
        "protect": [],
        "seed": 7,
        "unknown": "error",
        "repair": "none",
        "weight_bits": 8,
    }
    assert step.effect["params"] == {
        "before": model.count_params(),
        "after": after.need_keras("x").count_params(),
    }
    assert step.effect["macs"]["after"] == cost.macs(after.need_keras("x"))
    assert step.effect["channels"]["after"] < step.effect["channels"]["before"] == 9

    stored = PrunePlan.from_json(json.loads(json.dumps(step.effect["plan"])))
    again = prune.plan(model, **step.params)
    assert stored == again
    x = batch(model)
    repeated = prune.cut(model, stored)
    assert np.array_equal(outputs(repeated, x)[0], outputs(after.keras, x)[0])
    with pytest.raises(ConfigError, match=r"^prune plan: made for another model than residual: "):
        prune.cut(repeated, stored)
    with pytest.raises(StageOrderError, match=r"^prune: lite is a .tflite without"):
        prune.prune_structured(Artifact("lite", tflite=b""), ratio=0.1)


def test_every_option_reaches_the_plan(chain: Any) -> None:
    """prune_structured and plan take the same options and choose the same channels."""
    public = inspect.signature(prune.prune_structured).parameters
    own = {"artifact", "data", "audit", "progress"}
    fields = {field.name for field in dataclasses.fields(prune.Options)}
    assert public.keys() - own == fields
    options: dict[str, Any] = {
        "ratio": 0.8,
        "score": "random",
        "scope": "layer",
        "round_to": 2,
        "min_channels": 3,
        "floor": 0.1,
        "sizes": {"a": 12},
        "protect": ["b"],
        "seed": 5,
        "unknown": "barrier",
        "repair": "mean",
        "weight_bits": 4,
    }
    step = prune.prune_structured(Artifact("chain", chain), **options).steps[0]
    assert step.params == options
    assert step.effect["plan"] == prune.plan(chain, **options).to_json()
    assert [row["layer"] for row in step.effect["repair"]] == ["b"]
    for name in options.keys() - {"ratio", "scope", "repair", "weight_bits", "floor", "sizes"}:
        fewer = {key: value for key, value in options.items() if key != name}
        assert prune.plan(chain, **fewer).to_json() != step.effect["plan"], name
    for unknown in ("ratoi", "calibration"):
        with pytest.raises(TypeError, match=unknown):
            prune.plan(chain, ratio=0.5, **{unknown: "data-free"})


def test_a_share_of_every_group_stays(chain: Any) -> None:
    """Of its channels, or of those it had before."""
    for options, stay in (
        ({}, [1, 1]),
        ({"floor": 0.5}, [4, 3]),
        ({"floor": 0.5, "min_channels": 5}, [5, 5]),
        ({"floor": 0.5, "sizes": {"a": 12, "b": 7}}, [6, 4]),
        ({"floor": 0.5, "sizes": {"a": 40}}, [8, 3]),
    ):
        for scope in ("layer", "global"):
            given: dict[str, Any] = {"ratio": 0.99, "scope": scope, **options}
            groups = prune.plan(chain, **given).groups
            kept = {group.name: group.size - len(group.drop) for group in groups}
            assert [kept["a"], kept["b"]] == stay, given
    with pytest.raises(ConfigError, match=r"^prune: floor=2 is not in \[0, 1\]$"):
        prune.plan(chain, ratio=0.5, floor=2)


def test_samples_count_where_they_are_looked_at(model: Any) -> None:
    x = batch(model, 5)
    for options, looked_at in (({}, 0), ({"repair": "mean"}, 5), ({"score": "obs"}, 5)):
        chosen: dict[str, Any] = {"ratio": 0.3, "samples": x, **options}
        artifact = prune.prune_structured(Artifact("small", model), **chosen)
        assert artifact.steps[0].effect["samples"] == looked_at


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"groups": []},
        {"groups": [], "unknown": "guess"},
        {"groups": [{"name": "a"}], "unknown": "error"},
        {"groups": [{"name": "a", "size": 3, "drop": [0], "extra": 1}], "unknown": "error"},
    ],
)
def test_a_damaged_plan_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^prune plan: not what PrunePlan.to_json writes"):
        PrunePlan.from_json(value)
