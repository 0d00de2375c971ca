"""Consumer-wise repair: new weights for every layer that reads a tensor which loses channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgecompress.artifact import Json
from edgecompress.channels import View
from edgecompress.channels.graph import Call, Weights, read_weights
from edgecompress.datafree.readers import Reader, part, readers
from edgecompress.datafree.repair import DAMPING, FORMS, Form, Kept, activation, regression
from edgecompress.datafree.statistics import Array, Guard, Statistics
from edgecompress.vocabulary import Repair

KEEPING: Mapping[Repair, float] = {"activation": 0.75}
"""How much of the variance that a repaired layer's outputs lose the BatchNormalization behind it
gives back. Least squares shrinks; without this, a deep network starves."""
JOINT = 1.0
"""The same of UDFC with rounded channels: least squares takes back the scale with which a coarse
grid keeps the variance of its outputs."""
LEAST = 1 / 9
"""No output is blown up to more than three times its deviation."""


Verdict = Literal["trusted", "not trusted", "not checked"]
"""Of a guard; "not checked" where the network has nothing to compare the statistics with, or where
they come from samples."""


@dataclass(frozen=True)
class Effect:
    """What was done to one layer that reads removed channels.

    `removed` of the `channels` that it reads are gone. `predicted` is the error of its outputs
    after the repair relative to their variance, from the statistics; `measured` the same on the
    samples, None without any. `verdict` is that of the guard, `reason` why it does not trust the
    statistics, `spread` and `shift` are what it goes by (`statistics.Guard`).
    """

    layer: str
    groups: tuple[str, ...]
    removed: int
    channels: int
    predicted: float
    measured: float | None = None
    verdict: Verdict = "not checked"
    reason: str = ""
    spread: float | None = None
    shift: float | None = None

    def to_json(self) -> Json:
        """This effect as JSON values."""
        return {**vars(self), "groups": list(self.groups)}


@dataclass(frozen=True, eq=False)
class Outcome:
    """New weights by layer, in the old shapes (a bias that a layer did not have comes last), and
    what was done to each layer."""

    changes: dict[str, Weights] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)


def repaired(view: View, keep: Kept, statistics: Statistics, repair: Repair) -> Outcome:
    """Make up for the channels whose atoms are not kept (`View.keep`), reader by reader.

    Each layer that sums over channels gets its own combination of the kept ones, from the moments
    of the tensor it reads, so that a residual stream is repaired differently for every layer that
    reads it. A layer whose guard does not trust its statistics stays as it is. Nothing removed
    changes nothing.
    """
    outcome = Outcome()
    for reader in readers(view, statistics):
        kept = keep[reader.ids]
        if kept.all():
            continue
        guard = statistics.guards.get(reader.name, Guard(True))
        form: Repair = repair if guard.trusted else "none"
        joint = form == "udfc" and reader.read.rounded is not None
        keeping = JOINT if joint else KEEPING.get(form, 0.0)
        if form == "activation":
            rows, shift = regressed(reader, kept)
        else:
            rows, shift = mixed(reader, kept, FORMS[form])
        if form == "udfc":
            rows, shift = tempered(reader, kept, rows, shift)
        ratio = (variances(reader, rows) / variances(reader, reader.rows())) ** keeping
        change(view, reader, rows, shift, ratio, outcome.changes)
        outcome.effects.append(
            Effect(
                reader.name,
                groups_of(view, reader, kept),
                int((~kept).sum()),
                len(kept),
                relative_error(reader, rows),
                verdict=judged(guard),
                reason=guard.reason,
                spread=guard.spread,
                shift=guard.shift,
            )
        )
    return outcome


def judged(guard: Guard) -> Verdict:
    """What a guard says; nothing where it had nothing to go by."""
    if not guard.trusted:
        return "not trusted"
    return "not checked" if guard.spread is None and guard.shift is None else "trusted"


def mixed(reader: Reader, kept: Kept, form: Form) -> tuple[Array, Array]:
    """The reader's rows with the removed channels mixed into the kept ones and zero for
    themselves, and what its outputs (outputs,) lose by it on average."""
    old = reader.rows()
    new, shift = np.zeros_like(old), np.zeros(old.shape[-1])
    for channels, outputs in reader.parts():
        staying = kept[channels]
        mixture = form(part(reader.read, channels), staying)
        share = old[..., outputs]
        block = np.zeros_like(share)
        block[:, staying] = np.einsum("tco,cp->tpo", share, mixture.mixing)
        new[..., outputs] = block
        shift[outputs] = np.einsum("t,tco,c->o", reader.inside, share, mixture.constant)
    return new, shift


def tempered(reader: Reader, kept: Kept, rows: Array, shift: Array) -> tuple[Array, Array]:
    """As far from the correction of the means alone towards `rows` and `shift` as the predicted
    error of the outputs is not above its own.

    What is fitted before an activation can be wrong behind it, the more so the larger the
    coefficients are.
    """
    start, before = mixed(reader, kept, FORMS["mean"])
    lost, step = reader.rows() - start, rows - start
    ahead, back, whole = (variances(reader, w).sum() for w in (lost + step, lost - step, step))
    share = float(np.clip((ahead - back) / (2 * whole), 0, 1))
    return start + share * step, before + share * (shift - before)


def regressed(reader: Reader, kept: Kept, *, damping: float = DAMPING) -> tuple[Array, Array]:
    """The reader's rows without the removed channels, and what its outputs lose by it on average.

    Least squares over all that the kernel reads at one position, W' = W Cov(x, x_P) Cov(x_P)^-1:
    a removed channel at one tap is made of the kept ones at every tap. The same as `mixed` by
    `activation` for one tap, and where nothing is known of how the positions correlate.
    """
    old = reader.rows()
    new, shift = np.zeros_like(old), np.zeros(old.shape[-1])
    for channels, outputs in reader.parts():
        staying, share, block = kept[channels], old[..., outputs], np.zeros_like(old[..., outputs])
        moments, patches = part(reader.read, channels), reader.patches(channels)
        if patches is None:
            mixing = activation(moments, staying, damping=damping).mixing
            block[:, staying] = np.einsum("tco,cp->tpo", share, mixing)
        else:
            stay, flat = np.tile(staying, len(old)), share.reshape(-1, share.shape[-1])
            block.reshape(flat.shape)[stay] = flat[stay] + (
                regression(patches[np.ix_(~stay, stay)], patches[np.ix_(stay, stay)], damping).T
                @ flat[~stay]
            )
        new[..., outputs] = block
        shift[outputs] = np.einsum("t,tco,c->o", reader.inside, share - block, moments.mean)
    return new, shift


def change(
    view: View,
    reader: Reader,
    rows: Array,
    shift: Array,
    ratio: Array,
    changes: dict[str, Weights],
) -> None:
    """Give the reader new `rows` and add `shift` to its outputs, whose variance is `ratio` of what
    it was: in its bias, in the BatchNormalization behind it, or in a new bias."""
    weights, norm = reader.with_rows(rows), normalisation(view, reader)
    moved = "bias" not in weights and norm is not None
    if not moved:
        bias = weights.get("bias", np.zeros(len(shift), weights[reader.kernel].dtype))
        weights = {**weights, "bias": (bias + shift).astype(bias.dtype)}
    changes[reader.name] = weights
    if norm is None:
        return
    old, epsilon = read_weights(norm.op), norm.op.epsilon
    mean, variance = old["moving_mean"], old["moving_variance"]
    factor = np.clip(ratio, LEAST, 1)
    scaled = np.where(factor < 1, np.maximum((variance + epsilon) * factor - epsilon, 0), variance)
    changes[norm.name] = {
        **old,
        "moving_mean": (mean - shift if moved else mean).astype(mean.dtype),
        "moving_variance": scaled.astype(variance.dtype),
    }


def normalisation(view: View, reader: Reader) -> Call | None:
    """The BatchNormalization that alone takes what the reader makes, and nothing else."""
    made = reader.calls[0].outputs[0]
    taking = view.graph.readers.get(made, ())
    if len(reader.calls) > 1 or len(taking) != 1 or made in view.graph.outputs:
        return None
    (call,) = taking
    alone = view.graph.times[call.name] == 1
    linear = getattr(getattr(reader.layer, "activation", None), "__name__", "linear") == "linear"
    return call if alone and linear and type(call.op).__name__ == "BatchNormalization" else None


def variances(reader: Reader, rows: Array) -> Array:
    """The variances (outputs,) of what a reader with these rows makes, at least a hair above 0."""
    found = np.zeros(rows.shape[-1])
    for channels, outputs in reader.parts():
        own, patches = rows[..., outputs], reader.patches(channels)
        if patches is None:
            mixed = np.einsum("cd,tdo->tco", part(reader.read, channels).covariance, own)
            spread = np.einsum("tu,uco->tco", reader.near(), mixed)
        else:
            spread = (patches @ own.reshape(len(patches), -1)).reshape(own.shape)
        found[outputs] = np.einsum("tco,tco->o", own, spread)
    return np.maximum(found, 1e-12 * max(found.max(initial=0), 1e-12))


def relative_error(reader: Reader, rows: Array) -> float:
    """trace(D Cov D^T) / trace(W Cov W^T) of the change D of the reader's weights W: the error of
    its outputs, apart from their means, relative to their variance."""
    old = reader.rows()
    return float(variances(reader, old - rows).sum() / variances(reader, old).sum())


def groups_of(view: View, reader: Reader, kept: Kept) -> tuple[str, ...]:
    """The channel groups that the removed channels of a reader belong to."""
    gone = set(view.roots[reader.ids[~kept]].tolist())
    return tuple(name for name, classes in view.channels.items() if gone & set(classes.tolist()))
