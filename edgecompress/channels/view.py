"""The channel view of a model: which channels must be removed together, and why some must stay.

Scoring, cost and removal all read this one object, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecompress.channels.atoms import Atoms, Ids, Layout
from edgecompress.channels.graph import Call, Graph, trace
from edgecompress.channels.rules import Barrier, Flow, Side, Site, WeightAxis, rule_for
from edgecompress.errors import ConfigError, UnsupportedError
from edgecompress.vocabulary import Unknown

if TYPE_CHECKING:
    import keras

Drops = Mapping[str, Sequence[int]]
"""Group name -> indices (0 .. size - 1) of the channels to remove."""


class Member(NamedTuple):
    """A layer's part in a group: the axis of its input or output tensor (batch is axis 0)."""

    layer: str
    axis: int
    side: Side


@dataclass(frozen=True)
class ChannelGroup:
    """Channels with the same members: channel k of the group is removed from all members at once.

    `name` is that of the layer that makes the channels (`layer[0]`, `layer[1]`, .. where a
    layer's channels fall into several groups); `protected` says why the group must stay, None
    where it can be pruned.
    """

    name: str
    members: tuple[Member, ...]
    size: int
    protected: str | None = None

    def __str__(self) -> str:
        members = ", ".join(f"{layer}.{side}[{axis}]" for layer, axis, side in self.members)
        why = f"; stays: {self.protected}" if self.protected else ""
        return f"{self.name}: {self.size} channels of {members}{why}"


@dataclass(frozen=True, eq=False)
class View:
    """The analysis of one model.

    `flows` holds what each weighted or resized layer does, by flat name; `roots` maps an atom to
    its class; `channels` maps a group's name to the class of each of its channels.
    """

    graph: Graph
    groups: tuple[ChannelGroup, ...]
    flows: Mapping[str, Flow]
    roots: Ids
    channels: Mapping[str, Ids]

    def keep(self, drops: Drops) -> npt.NDArray[np.bool_]:
        """For every atom whether its channel stays; ConfigError where `drops` does not fit."""
        gone = np.zeros(len(self.roots), dtype=np.bool_)
        known = {group.name: group for group in self.groups}
        for name, indices in drops.items():
            group = known.get(name)
            if group is None:
                raise ConfigError(f"drops: no channel group {name!r}; known: {', '.join(known)}")
            wrong = [i for i in indices if not 0 <= i < group.size]
            if wrong or len(set(indices)) != len(indices):
                raise ConfigError(
                    f"drops: group {name} has channels 0 to {group.size - 1}; got {list(indices)}"
                )
            if group.protected and indices:
                raise ConfigError(f"drops: group {name} must stay: {group.protected}")
            if len(indices) == group.size:
                raise ConfigError(f"drops: group {name} would lose all its {group.size} channels")
            gone[self.channels[name][list(indices)]] = True
        return ~gone[self.roots]

    def axes(self, side: Side | None = None) -> Iterator[tuple[str, str, WeightAxis]]:
        """Every (layer, weight, axis) that runs along channels, of one side or of all."""
        for layer, flow in self.flows.items():
            for weight, axes in flow.weights.items():
                for axis in axes:
                    if side is None or axis.side == side:
                        yield layer, weight, axis


def analyse(model: keras.Model, *, unknown: Unknown = "error", protect: Sequence[str] = ()) -> View:
    """The channel view of a Functional or Sequential Keras 3 model, which is only read.

    `unknown="error"` raises UnsupportedError at a layer without a rule, naming it; "barrier"
    keeps all channels around it. The output channels of the layers in `protect` (names of the
    flat graph) stay; a name that is not in the model is a ConfigError.
    """
    graph = trace(model)
    atoms = Atoms()
    layouts: dict[int, Layout] = {}
    for name, index in zip(graph.input_names, graph.inputs, strict=True):
        layouts[index] = _fixed(graph, index, name, "model input", atoms)
    flows: dict[str, Flow] = {}
    blocked: dict[str, Barrier] = {}
    first: dict[str, tuple[Layout, ...]] = {}
    members: list[tuple[Member, Ids]] = [
        (Member(name, len(graph.shapes[i]) - 1, "out"), layouts[i].ids)
        for name, i in zip(graph.input_names, graph.inputs, strict=True)
    ]
    for call in graph.calls:
        site = _site(graph, call, layouts, atoms)
        if call.name in first:
            _tie(site, first[call.name], flows[call.name])
            layouts[call.outputs[0]] = flows[call.name].output
            continue
        flow = blocked.get(call.name) or _flow(site, unknown)
        if isinstance(flow, Barrier):
            blocked[call.name] = flow
            members += _block(graph, call, site, flow, layouts)
            continue
        layouts[call.outputs[0]] = flow.output
        if flow.weights or flow.config:
            _check_weights(site, flow)
            flows[call.name], first[call.name] = flow, site.ins
            members += _members(site, flow)
    outputs = {
        name: np.concatenate([layouts[i].ids for call in calls for i in call.outputs])
        for name, _, calls in graph.layers()
    }
    _protect(protect, outputs, atoms)
    for index in graph.outputs:
        atoms.freeze(layouts[index].ids, "model output")
    roots, channels = atoms.roots(), dict[str, Ids]()
    groups = tuple(_groups(atoms, roots, members, channels))
    return View(graph, groups, flows, roots, channels)


def _site(graph: Graph, call: Call, layouts: Mapping[int, Layout], atoms: Atoms) -> Site:
    import keras

    flat = keras.tree.flatten((call.node.arguments.args, call.node.arguments.kwargs))
    return Site(
        name=call.name,
        layer=call.op,
        ins=tuple(layouts[i] for i in call.inputs),
        in_shapes=tuple(graph.input_shapes(call)),
        out_shape=graph.output_shape(call),
        constants=tuple(a for a in flat if not isinstance(a, keras.KerasTensor)),
        atoms=atoms,
    )


def _flow(site: Site, unknown: Unknown) -> Flow | Barrier:
    """The rule's answer for one call; raises for an unknown layer unless barriers are asked."""
    rule = rule_for(site.layer)
    answer = rule(site) if rule else Barrier("no rule for this layer", known=False)
    if isinstance(answer, Barrier) and not answer.known and unknown == "error":
        shapes = ", ".join(str(shape) for shape in site.in_shapes)
        raise UnsupportedError(
            f"channels: layer {site.name} ({type(site.layer).__name__}) {shapes} ->"
            f' {site.out_shape}: {answer.reason}; pass unknown="barrier" to keep its channels'
        )
    return answer


def _fixed(graph: Graph, index: int, name: str, reason: str, atoms: Atoms) -> Layout:
    """New channels on the last axis of a tensor that must stay as they are."""
    size = graph.shapes[index][-1] if len(graph.shapes[index]) > 1 else 1
    if size is None:
        raise UnsupportedError(
            f"channels: {name} has shape {graph.shapes[index]}; load the model with a fixed shape"
        )
    ids = atoms.fresh(size, owner=name)
    atoms.freeze(ids, reason)
    return Layout(-1, ids)


def _block(
    graph: Graph, call: Call, site: Site, barrier: Barrier, layouts: dict[int, Layout]
) -> Iterator[tuple[Member, Ids]]:
    """Keep all channels around a barrier; its outputs carry new, protected ones."""
    reason = f"{call.name} ({type(call.op).__name__}): {barrier.reason}"
    for x, shape in zip(site.ins, site.in_shapes, strict=True):
        site.atoms.freeze(x.ids, reason)
        yield Member(call.name, len(shape) + x.axis, "in"), x.ids
    for index in call.outputs:
        layouts[index] = _fixed(graph, index, call.name, reason, site.atoms)
        yield Member(call.name, len(graph.shapes[index]) - 1, "out"), layouts[index].ids


def _tie(site: Site, first: tuple[Layout, ...], flow: Flow) -> None:
    """A later call of a shared layer: the same weights, so the same channels as the first."""
    for x, y in zip(site.ins, first, strict=True):
        if x.axis == y.axis and len(x.ids) == len(y.ids):
            site.atoms.union(x.ids, y.ids)
            continue
        for ids in (x.ids, y.ids, flow.output.ids):
            site.atoms.freeze(ids, f"{site.name}: shared between different layouts")


def _check_weights(site: Site, flow: Flow) -> None:
    """A weight that the rule does not know (quantised kernel, LoRA) would be cut wrongly."""
    for variable in getattr(site.layer, "weights", []):
        if variable.name not in flow.weights:
            raise UnsupportedError(
                f"channels: layer {site.name} ({type(site.layer).__name__}) has a weight"
                f" {variable.name} {tuple(variable.shape)} without a rule; known:"
                f" {', '.join(flow.weights) or 'none'}"
            )


def _members(site: Site, flow: Flow) -> Iterator[tuple[Member, Ids]]:
    """The layer's sides that run along channels, as group members."""
    rank_in, rank_out = len(site.in_shapes[0]), len(site.out_shape)
    sides = {axis.side for axes in flow.weights.values() for axis in axes}
    if "in" in sides:
        yield Member(site.name, rank_in + site.x.axis, "in"), site.x.ids
    if "out" in sides:
        yield Member(site.name, rank_out + flow.output.axis, "out"), flow.output.ids
    elif flow.output.ids.size:
        yield Member(site.name, rank_out + flow.output.axis, "through"), flow.output.ids


def _protect(names: Sequence[str], outputs: Mapping[str, Ids], atoms: Atoms) -> None:
    for name in names:
        if name not in outputs:
            close = get_close_matches(name, outputs, n=3, cutoff=0.5) or list(outputs)
            raise ConfigError(f"protect: no layer {name!r} in the model; use {', '.join(close)}")
        atoms.freeze(outputs[name], "protected by request")


def _groups(
    atoms: Atoms, roots: Ids, members: list[tuple[Member, Ids]], channels: dict[str, Ids]
) -> Iterator[ChannelGroup]:
    """Classes made by the same layers form a group, in order of first appearance.

    Every tensor's channels are whole groups, so a group is entirely removable or not at all.
    """
    makers: dict[int, list[int]] = {}
    for i, (_, ids) in enumerate(atoms.made):
        for root in dict.fromkeys(roots[ids].tolist()):
            makers.setdefault(root, []).append(i)
    found: dict[tuple[int, ...], list[int]] = {}
    for root, made_by in makers.items():
        found.setdefault(tuple(made_by), []).append(root)
    owners = [atoms.made[made_by[0]][0] for made_by in found]
    group_of = np.full(len(roots), -1)
    for g, classes in enumerate(found.values()):
        group_of[classes] = g
    parts: dict[int, dict[Member, None]] = {}
    for member, ids in members:
        for g in np.unique(group_of[roots[ids]]).tolist():
            parts.setdefault(g, {})[member] = None
    reasons, seen = atoms.reasons(), dict[str, int]()
    for g, (owner, classes) in enumerate(zip(owners, found.values(), strict=True)):
        index = seen[owner] = seen.get(owner, -1) + 1
        name = owner if owners.count(owner) == 1 else f"{owner}[{index}]"
        channels[name] = np.array(classes, dtype=np.int64)
        reason = next((reasons[c] for c in classes if c in reasons), None)
        yield ChannelGroup(name, tuple(parts.get(g, {})), len(classes), reason)


def kept_shape(flow: Flow, weight: str, shape: Sequence[int], keep: Any) -> tuple[int, ...]:
    """The shape of a layer's weight after removal."""
    new = list(shape)
    for axis in flow.weights[weight]:
        new[axis.axis] = int(np.count_nonzero(keep[axis.ids]))
    return tuple(new)
