"""Repair from a few samples over whole windows of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecompress import channels
from edgecompress.datafree import sequential as module
from edgecompress.datafree.measured import windows
from edgecompress.datafree.sequential import sequential
from tests.small_models import batch, outputs, randomised

WINDOWED: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "same": ((7, 6, 3), lambda kl: kl.Conv2D(2, (3, 2), padding="same")),
    "strided": ((7, 6, 3), lambda kl: kl.Conv2D(2, 3, strides=(2, 3), padding="same")),
    "valid": ((7, 6, 3), lambda kl: kl.Conv2D(2, (2, 4), strides=2)),
    "dilated": ((7, 6, 3), lambda kl: kl.Conv2D(2, 3, dilation_rate=(1, 2), padding="same")),
    "causal": ((9, 3), lambda kl: kl.Conv1D(2, 4, padding="causal")),
    "cube": ((4, 5, 3, 2), lambda kl: kl.Conv3D(2, (1, 3, 2), padding="same")),
}


@pytest.mark.parametrize("kind", WINDOWED)
def test_windows_times_the_kernel_are_the_convolution(kind: str) -> None:
    import keras

    shape, made = WINDOWED[kind]
    inputs, layer = keras.Input(shape), made(keras.layers)
    model = randomised(keras.Model(inputs, layer(inputs)))
    x, (kernel, bias) = batch(model, 3), layer.get_weights()
    wanted = outputs(model, x)[0].reshape(-1, 2)
    at = np.random.default_rng(0).permutation(len(wanted))[: len(wanted) // 2]
    found = windows(layer, x, at) @ kernel.reshape(-1, 2) + bias
    np.testing.assert_allclose(found, wanted[at], atol=1e-4)
    some = windows(layer, x[..., 1:], at) @ kernel[..., 1:, :].reshape(-1, 2)
    rest = windows(layer, x[..., :1], at) @ kernel[..., :1, :].reshape(-1, 2)
    np.testing.assert_allclose(some + rest, found - bias, atol=1e-4)


def shifted(groups: int = 1) -> Any:
    """Channels 2 and 5 are channels 0 and 3 one column further on, and read by 3x3 kernels."""
    import keras
    from keras import layers as kl

    inputs = kl.Input((8, 8, 4))
    x = kl.Conv2D(6, (1, 3), padding="same", name="maker")(inputs)
    x = kl.Conv2D(4, 3, padding="same", groups=groups, name="reader")(x)
    model = randomised(keras.Model(inputs, x, name="shifted"))
    kernel, bias = model.get_layer("maker").get_weights()
    for first, second in ((0, 2), (3, 5)):
        kernel[0, ::2, :, first] = 0
        kernel[..., second] = np.roll(kernel[..., first], 1, axis=1)
        bias[second] = bias[first]
    model.get_layer("maker").set_weights([kernel, bias])
    kernel, bias = model.get_layer("reader").get_weights()
    kernel[:, 2, 2::3] = 0  # here it would need what lies beyond the window
    model.get_layer("reader").set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("groups", [1, 2])
def test_a_channel_is_made_of_another_one_at_the_next_position(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shifted(groups)
    view, x = channels.analyse(model), batch(model, 64)
    drops = {"maker": [2, 5] if groups == 1 else [2]}  # grouped channels go together
    keep = view.keep(drops)

    def error() -> float:
        first, again = (sequential(view, keep, x) for _ in range(2))
        for name, value in first.changes["reader"].items():
            assert np.array_equal(value, again.changes["reader"][name])
        assert not first.changes["reader"]["kernel"][:, :, 2].any()
        (effect,) = first.effects
        small = channels.remove(model, drops, changes=first.changes)
        fresh = batch(model, 200)[64:]
        old, new = outputs(model, fresh)[0], outputs(small, fresh)[0]
        outside = float(np.square(new - old).mean() / old.var())
        assert effect.measured == pytest.approx(outside, rel=0.3)
        return outside

    whole = error()
    assert whole < 0.04
    monkeypatch.setattr(module, "POSITIONS", 500)
    assert whole < error() < 0.04
    monkeypatch.setattr(module, "MOST_INPUTS", 1)
    assert error() > 0.08
