"""Which channels of a Keras model must be removed together, and their physical removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecompress.channels.rewrite import mask, remove
from edgecompress.channels.view import ChannelGroup, Drops, Member, View, analyse
from edgecompress.vocabulary import Unknown

if TYPE_CHECKING:
    import keras

__all__ = [
    "ChannelGroup",
    "Drops",
    "Member",
    "Unknown",
    "View",
    "analyse",
    "groups",
    "mask",
    "remove",
]


def groups(model: keras.Model, *, unknown: Unknown = "error") -> tuple[ChannelGroup, ...]:
    """The coupled-channel groups of a Functional or Sequential Keras 3 model, in graph order.

    Every channel of every tensor is in exactly one group. Raises UnsupportedError at a layer
    without a rule (its name, class, shapes); with `unknown="barrier"` its channels are protected.
    """
    return analyse(model, unknown=unknown).groups
