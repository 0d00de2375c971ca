"""Channel groups, removal and masks: coupling is exact, or it is an error or a barrier."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress import channels, cost
from edgecompress.errors import ConfigError, UnsupportedError
from tests.small_models import MODELS, batch, outputs, randomised

TOLERANCE = 1e-5
"""Cut and masked add the same terms in another order."""


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: randomised(build()) for name, build in MODELS.items()}


def described(model: Any, *, unknown: channels.Unknown = "error") -> list[str]:
    return [str(group) for group in channels.groups(model, unknown=unknown)]


def some(model: Any, *, seed: int = 0, unknown: channels.Unknown = "error") -> channels.Drops:
    """A random half of every prunable group."""
    rng = np.random.default_rng(seed)
    return {
        g.name: sorted(rng.choice(g.size, g.size // 2, replace=False).tolist())
        for g in channels.groups(model, unknown=unknown)
        if g.protected is None
    }


def assert_masked_equals_cut(
    model: Any, drops: channels.Drops, *, unknown: channels.Unknown = "error"
) -> None:
    x = batch(model)
    cut = outputs(channels.remove(model, drops, unknown=unknown), x)
    masked = outputs(channels.mask(model, drops, unknown=unknown), x)
    for a, b in zip(cut, masked, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE * max(1, np.abs(b).max()), rtol=0)
        assert a.std() > 0


@pytest.mark.parametrize("name", MODELS)
def test_removal_shrinks_the_model_and_computes_what_the_mask_computes(
    name: str, models: dict[str, Any]
) -> None:
    model = models[name]
    before = [w.copy() for w in model.get_weights()]
    config = model.get_config()
    drops = some(model)
    smaller = channels.remove(model, drops)

    assert sum(map(len, drops.values())) > 0
    assert smaller.count_params() < model.count_params()
    assert cost.macs(smaller) < cost.macs(model)
    sizes = {g.name: g.size for g in channels.groups(smaller)}
    for group in channels.groups(model):
        assert sizes[group.name] == group.size - len(drops.get(group.name, ()))
    assert_masked_equals_cut(model, drops)
    changed = outputs(smaller, batch(model))
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(changed, outputs(model, batch(model)), strict=True)
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config


@pytest.mark.parametrize("name", MODELS)
def test_removing_nothing_gives_an_equal_copy(name: str, models: dict[str, Any]) -> None:
    model = models[name]
    copy = channels.remove(model, {})
    x = batch(model)
    assert all(
        np.array_equal(a, b) for a, b in zip(outputs(model, x), outputs(copy, x), strict=True)
    )
    assert copy is not model and copy.name == model.name
    first, second = (sorted((*w.shape, float(np.sum(w))) for w in m.weights) for m in (model, copy))
    assert first == second
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize("name", MODELS)
def test_the_meter_equals_the_cost_of_the_rebuilt_model(name: str, models: dict[str, Any]) -> None:
    model, drops = models[name], some(models[name], seed=3)
    view = channels.analyse(model)
    smaller = channels.remove(model, drops)
    measured = cost.meter(view)(view.keep(drops))
    assert measured == cost.total(smaller)
    assert measured.params == smaller.count_params()


GROUPS = {
    "residual": [
        "image: 3 channels of image.out[3], stem.in[3]; stays: model input",
        "stem: 4 channels of stem.out[3], stem_bn.through[3], inner.in[3], back.out[3], head.in[1]",
        "inner: 5 channels of inner.out[3], inner_bn.through[3], back.in[3]",
        "head: 3 channels of head.out[1]; stays: model output",
    ],
    "concat": [
        "image: 3 channels of image.out[3], left.in[3], right.in[3], wide.in[3], below.in[3];"
        " stays: model input",
        "left: 4 channels of left.out[3], wide.out[3], below.out[3], mix.in[3]",
        "right: 5 channels of right.out[3], wide.out[3], below.out[3], mix.in[3]",
        "mix: 3 channels of mix.out[3], head.in[1]",
        "head: 2 channels of head.out[1]; stays: model output",
    ],
    "nested": [
        "image: 3 channels of image.out[3], conv.in[3]; stays: model input",
        "conv: 4 channels of conv.out[3], block.conv.in[3], block.conv.out[3], tail.conv.in[3]",
        "tail.conv: 5 channels of tail.conv.out[3], bn.through[3], head.in[1]",
        "head: 2 channels of head.out[1]; stays: model output",
    ],
    "grouped": [
        "image: 3 channels of image.out[3], stem.in[3]; stays: model input",
        "stem: 4 channels of stem.out[3], two_groups.in[3]",
        "two_groups: 6 channels of two_groups.out[3], mix.in[3]",
        "mix: 12 channels of mix.out[3], one_each.through[3], head.in[1]",
        "head: 2 channels of head.out[1]; stays: model output",
    ],
    "squeeze_excite": [
        "image: 3 channels of image.out[3], stem.in[3]; stays: model input",
        "stem: 6 channels of stem.out[3], squeeze.in[1], excite.out[1], spread.through[3],"
        " where.in[3], narrow.in[3]",
        "squeeze: 4 channels of squeeze.out[1], excite.in[1]",
        "where: 1 channels of where.out[3]; stays: multiply: broadcast over channels",
        "narrow: 4 channels of narrow.out[3], norm.in[3]; stays: norm (LayerNormalization):"
        " its statistics run over channels",
        "norm: 4 channels of norm.out[3], last.in[3]; stays: norm (LayerNormalization):"
        " its statistics run over channels",
        "last: 5 channels of last.out[3], head.in[1]",
        "head: 2 channels of head.out[1]; stays: model output",
    ],
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_name_every_member_and_why_some_stay(name: str, models: dict[str, Any]) -> None:
    lines = [re.sub(r"multiply_\d+", "multiply", line) for line in described(models[name])]
    assert lines == GROUPS[name]


def test_a_mask_silences_what_a_hand_written_mask_silences() -> None:
    """The oracle multiplies by 0 after the activation: no rule of ours takes part."""
    import keras
    from keras import layers as kl

    def build(left: Any, right: Any) -> Any:
        x = kl.Input((5, 4, 2))
        a = kl.Activation("sigmoid")(kl.BatchNormalization()(kl.Conv2D(4, 2)(x)))
        b = kl.Conv2D(3, 2, bias_initializer="ones")(x)
        if left is not None:
            a = kl.Rescaling(left)(a)
            b = kl.Rescaling(right)(b)
        y = kl.Dense(2)(kl.Flatten()(kl.Concatenate()([a, b])))
        return keras.Model(x, y)

    model = randomised(build(None, None))
    oracle = build([1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0])
    oracle.set_weights(model.get_weights())
    left, right = (g.name for g in channels.groups(model) if g.protected is None)
    drops = {left: [1], right: [0, 2]}
    x = batch(model)
    for made in (channels.remove(model, drops), channels.mask(model, drops)):
        np.testing.assert_allclose(outputs(made, x)[0], outputs(oracle, x)[0], atol=TOLERANCE)


def test_grouped_convolutions_stay_equal(models: dict[str, Any]) -> None:
    smaller = channels.remove(
        models["grouped"], {"stem": [1], "two_groups": [0, 5], "mix": [2, 3, 4]}
    )
    two, each = smaller.get_layer("two_groups"), smaller.get_layer("one_each")
    assert (two.groups, two.filters, two.kernel.shape) == (2, 8, (3, 3, 3, 8))
    assert (each.groups, each.filters, each.kernel.shape) == (9, 18, (3, 3, 1, 18))


def test_an_unknown_layer_is_named_or_becomes_a_barrier() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((6, 3), name="wave")
    y = kl.Conv1D(4, 1, name="before")(x)
    y = kl.SimpleRNN(5, return_sequences=True, name="memory")(y)
    y = kl.Dense(2, name="head")(kl.Dense(6, name="after")(y))
    model = randomised(keras.Model(x, y))
    with pytest.raises(
        UnsupportedError,
        match=r"^channels: layer memory \(SimpleRNN\) \(None, 6, 4\) -> \(None, 6, 5\): no rule for"
        r' this layer; pass unknown="barrier" to keep its channels$',
    ):
        channels.groups(model)
    assert described(model, unknown="barrier")[1:4] == [
        "before: 4 channels of before.out[2], memory.in[2];"
        " stays: memory (SimpleRNN): no rule for this layer",
        "memory: 5 channels of memory.out[2], after.in[2];"
        " stays: memory (SimpleRNN): no rule for this layer",
        "after: 6 channels of after.out[2], head.in[2]",
    ]
    assert_masked_equals_cut(model, {"after": [0, 3]}, unknown="barrier")
    assert cost.total(model).macs is None


def test_a_custom_class_with_a_known_name_is_unknown() -> None:
    import keras
    from keras import layers as kl

    class ReLU(kl.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x / keras.ops.sum(x)

    x = kl.Input((4,))
    model = keras.Model(x, kl.Dense(2)(ReLU(name="mine")(kl.Dense(3)(x))))
    with pytest.raises(UnsupportedError, match=r"layer mine \(ReLU\)"):
        channels.groups(model)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("Softmax", "softmax over channels"),
        ("log_softmax", "log_softmax over channels"),
        ("UnitNormalization", "its statistics run over channels"),
        ("GroupNormalization", "its statistics run over groups of channels"),
        ("Rescaling", "per-channel constants"),
        ("BatchNormalization", "normalises another axis than the channels'"),
        ("Permute", "channels are not on the last axis"),
        ("Reshape", "spreads channels over several axes"),
        ("Add", "its inputs carry channels on different axes"),
    ],
)
def test_layers_that_mix_channels_are_barriers(layer: str, reason: str) -> None:
    import keras
    from keras import layers as kl

    turned = kl.Permute((2, 1))
    make = {
        "Softmax": kl.Softmax(),
        "log_softmax": kl.Activation("log_softmax"),
        "UnitNormalization": kl.UnitNormalization(),
        "GroupNormalization": kl.GroupNormalization(2),
        "Rescaling": kl.Rescaling([1.0, 2.0, 3.0, 4.0]),
        "BatchNormalization": kl.BatchNormalization(axis=1),
        "Permute": lambda y: kl.Dense(3)(turned(y)),
        "Reshape": kl.Reshape((4, 2, 2)),
        "Add": lambda y: kl.Add()([y, turned(y)]),
    }
    x = kl.Input((4, 3))
    y = make[layer](kl.Dense(4, name="free")(kl.Dense(6, name="more")(x)))
    model = randomised(keras.Model(x, kl.Dense(2)(y)))
    free = next(group for group in channels.groups(model) if group.name == "free")
    assert free.protected is not None and free.protected.endswith(reason)
    with pytest.raises(ConfigError, match=r"^drops: group free must stay: "):
        channels.remove(model, {"free": [0]})
    assert_masked_equals_cut(model, {"more": [1, 4]})


def test_an_unknown_activation_is_an_error() -> None:
    import keras
    from keras import layers as kl

    def centred(x: Any) -> Any:
        return x - keras.ops.mean(x, axis=-1, keepdims=True)

    x = kl.Input((4,))
    model = keras.Model(x, kl.Dense(2)(kl.Dense(3, activation=centred, name="odd")(x)))
    with pytest.raises(UnsupportedError, match="layer odd .* activation centred is not known"):
        channels.groups(model)


def test_a_layer_shared_between_layouts_stays() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4, 3))
    first = kl.Dense(4, name="first")(x)
    dense = kl.Dense(4, name="both_ways")
    y = kl.Add()([dense(first), dense(kl.Permute((2, 1))(kl.Dense(4, name="second")(x)))])
    model = randomised(keras.Model(x, kl.Dense(2, name="head")(kl.Dense(5, name="free")(y))))
    free = [group.name for group in channels.groups(model) if group.protected is None]
    assert free == ["free"]
    assert_masked_equals_cut(model, some(model))


def test_a_layer_blocked_once_is_blocked_in_every_call() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4, 3))
    dense = kl.Dense(5, name="both_ways")
    turned = dense(kl.Permute((2, 1))(kl.Dense(4, name="first")(x)))
    y = kl.Add()([turned, dense(kl.Dense(4, name="second")(x))])
    model = randomised(keras.Model(x, kl.Dense(2, name="head")(y)))
    assert all(group.protected for group in channels.groups(model))


def test_weights_without_a_rule_are_an_error() -> None:
    import keras
    from keras import layers as kl

    x = kl.Input((4,))
    dense = kl.Dense(3, name="tuned")
    model = keras.Model(x, kl.Dense(2)(dense(x)))
    dense.enable_lora(2)
    with pytest.raises(UnsupportedError, match=r"tuned \(Dense\) has a weight lora_kernel_a"):
        channels.groups(model)


@pytest.mark.parametrize(
    ("drops", "message"),
    [
        ({"stme": [0]}, r"^drops: no channel group 'stme'; known: image, stem, inner, head$"),
        ({"stem": [4]}, r"^drops: group stem has channels 0 to 3; got \[4\]$"),
        ({"stem": [-1]}, r"^drops: group stem has channels 0 to 3; got \[-1\]$"),
        ({"stem": [1, 1]}, r"^drops: group stem has channels 0 to 3; got \[1, 1\]$"),
        ({"stem": [0, 1, 2, 3]}, r"^drops: group stem would lose all its 4 channels$"),
        ({"head": [0]}, r"^drops: group head must stay: model output$"),
    ],
)
def test_drops_that_do_not_fit_are_refused(
    drops: dict[str, list[int]], message: str, models: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=message):
        channels.remove(models["residual"], drops)


def test_a_subclassed_model_has_no_graph() -> None:
    import keras

    class Mine(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedError, match=r"^model mine \(Mine\) has no layer graph; build"):
        channels.groups(Mine(name="mine"))


def test_several_inputs_and_a_sequential_model() -> None:
    import keras
    from keras import layers as kl

    a, b = kl.Input((3,), name="a"), kl.Input((2,), name="b")
    y = kl.Dense(4, name="join")(kl.Concatenate()([a, kl.Dense(5, name="up")(b)]))
    model = randomised(keras.Model({"a": a, "b": b}, {"y": kl.Dense(2, name="head")(y)}))
    x = {"a": np.ones((2, 3), "float32"), "b": np.ones((2, 2), "float32")}
    drops = {"up": [0, 3], "join": [2]}
    cut, masked = channels.remove(model, drops), channels.mask(model, drops)
    np.testing.assert_allclose(cut(x)["y"], masked(x)["y"], atol=TOLERANCE)

    chain = keras.Sequential([kl.Input((4,)), kl.Dense(6, name="one"), kl.Dense(2, name="two")])
    assert_masked_equals_cut(randomised(chain), {"one": [0, 5]})


STEPS = ("conv", "depthwise", "residual", "concat", "shared", "pool", "norm", "gate", "grouped")


def grown(steps: list[str], widths: list[int]) -> Any:
    """A random model: each step extends it, reusing one shared convolution."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((4, 4, 2))
    x = kl.Conv2D(4, 1)(inputs)
    twin = kl.Conv2D(4, 3, padding="same")
    for step, width in zip(steps, widths, strict=True):
        wide = x.shape[-1]
        if step == "conv":
            x = kl.Conv2D(width, 3, padding="same", activation="relu")(x)
        elif step == "depthwise":
            x = kl.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + width % 2)(x)
        elif step == "residual":
            x = kl.Add()([x, kl.Conv2D(wide, 1)(kl.Conv2D(width, 1, activation="tanh")(x))])
        elif step == "concat":
            x = kl.Concatenate()([kl.Conv2D(width, 1)(x), x])
        elif step == "shared":
            x = twin(x if wide == 4 else kl.Conv2D(4, 1)(x))
        elif step == "pool":
            x = kl.MaxPooling2D(3, strides=1, padding="same")(x)
        elif step == "norm":
            x = kl.PReLU()(kl.BatchNormalization()(x))
        elif step == "gate":
            gate = kl.Dense(wide, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(x))
            x = kl.Multiply()([x, gate])
        elif step == "grouped":
            x = kl.Conv2D(2 * width, 1, groups=2)(x if wide % 2 == 0 else kl.Conv2D(4, 1)(x))
    return randomised(keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x))))


@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(2, 5)), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_random_models_masked_equals_cut_and_nothing_removed_changes_nothing(
    steps: list[tuple[str, int]], seed: int
) -> None:
    model = grown([name for name, _ in steps], [width for _, width in steps])
    assert_masked_equals_cut(model, some(model, seed=seed))
    x = batch(model)
    assert np.array_equal(outputs(channels.remove(model, {}), x)[0], outputs(model, x)[0])
