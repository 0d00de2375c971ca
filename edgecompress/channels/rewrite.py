"""Remove channels physically, or mask them: two models that must compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels.graph import Weights, rebuild
from edgecompress.channels.view import Drops, View, analyse
from edgecompress.vocabulary import Unknown

if TYPE_CHECKING:
    import keras

Keep = npt.NDArray[np.bool_]


def remove(
    model: keras.Model,
    drops: Drops,
    *,
    unknown: Unknown = "error",
    changes: Mapping[str, Weights] | None = None,
) -> keras.Model:
    """A new Functional model without the channels in `drops`; `model` is not touched.

    Weights are sliced and the config keys that count channels rewritten; nested models are
    inlined. `changes` are new weights of layers, in the old shapes, to cut in place of theirs; a
    bias that a layer does not have is added to it. Empty `drops` give an equal copy. Raises
    ConfigError where `drops` names an unknown or protected group, a channel outside it or all of
    its channels; UnsupportedError as `groups`.
    """
    view = analyse(model, unknown=unknown)
    keep, changed = view.keep(drops), changes or {}

    def config(name: str) -> Mapping[str, Any]:
        flow = view.flows.get(name)
        biased = _biased(changed.get(name, {}))
        if flow is None or flow.config is None:
            return biased
        return {**flow.config(lambda ids: int(np.count_nonzero(keep[ids]))), **biased}

    return rebuild(
        view.graph,
        config=config,
        weights=lambda name, old: _cut(view, keep, name, changed.get(name, old)),
    )


def mask(
    model: keras.Model,
    drops: Drops,
    *,
    unknown: Unknown = "error",
    changes: Mapping[str, Weights] | None = None,
) -> keras.Model:
    """A new model of unchanged shapes that computes what `remove` with the same arguments does.

    A dropped channel is multiplied by 0 where it is read: every layer that sums over channels
    has zeros in its kernel for it. Whatever a bias, a BatchNormalization or a sigmoid makes of
    the channel on the way there does not matter. Raises as `remove`.
    """
    view = analyse(model, unknown=unknown)
    keep, changed = view.keep(drops), changes or {}
    return rebuild(
        view.graph,
        config=lambda name: _biased(changed.get(name, {})),
        weights=lambda name, old: _silence(view, keep, name, changed.get(name, old)),
    )


def _biased(weights: Weights) -> Mapping[str, Any]:
    return {"use_bias": True} if "bias" in weights else {}


def _cut(view: View, keep: Keep, name: str, old: Weights) -> Weights:
    if name not in view.flows:
        return old
    new = dict(old)
    for weight, axes in view.flows[name].weights.items():
        for axis in axes:
            if weight in new:
                new[weight] = np.compress(keep[axis.ids], new[weight], axis=axis.axis)
    return new


def _silence(view: View, keep: Keep, name: str, old: Weights) -> Weights:
    if name not in view.flows:
        return old
    new = {weight: array.copy() for weight, array in old.items()}
    for weight, axes in view.flows[name].weights.items():
        for axis in axes:
            if axis.side == "in":
                np.moveaxis(new[weight], axis.axis, 0)[~keep[axis.ids]] = 0
    return new
