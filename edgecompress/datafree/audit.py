"""The error of repaired layers on samples, beside the predicted one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.channels import View
from edgecompress.channels.graph import Weights, read_weights
from edgecompress.datafree.apply import Outcome, normalisation
from edgecompress.datafree.measured import linear_output, walked
from edgecompress.datafree.readers import readers
from edgecompress.datafree.statistics import Statistics


def audited(view: View, outcome: Outcome, statistics: Statistics, x: npt.NDArray[Any]) -> Outcome:
    """The same outcome with the `measured` error of each layer, from samples x (N, *input_shape).

    A layer's outputs with its new weights against those with its old ones, both of what the
    unpruned network reads there: the mean squared difference over the variance, of all outputs
    together. Raises ConfigError where x does not fit.
    """
    repaired = {effect.layer for effect in outcome.effects}
    known = {r.name: r for r in readers(view, statistics) if r.name in repaired}
    errors: dict[str, float] = {}
    for call, values in walked(view.graph, x):
        reader = known.get(call.name)
        if reader is None or reader.calls[0] is not call:
            continue
        inputs = [values[i] for i in call.inputs]
        old = linear_output(call, inputs, reader.weights)
        new = linear_output(call, inputs, outcome.changes[call.name])
        norm = normalisation(view, reader)
        if norm is not None and norm.name in outcome.changes:
            new = new + _moved(read_weights(norm.op), outcome.changes[norm.name])
        variance = max(float(old.var(axis=0).sum()), TINY)
        errors[call.name] = float(np.square(new - old).mean(axis=0).sum()) / variance
    effects = [replace(e, measured=errors.get(e.layer, e.measured)) for e in outcome.effects]
    return replace(outcome, effects=effects)


def _moved(old: Weights, new: Weights) -> npt.NDArray[Any]:
    """What a BatchNormalization with the new weights adds to its inputs, against the old."""
    return np.asarray(old["moving_mean"] - new["moving_mean"])


TINY = 1e-12
"""Where a layer's outputs do not vary."""
