"""ec_fully_connected_sparse: matrices with few weights other than 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Site, Struct, Value, Values, scalar
from edgecompress.backends.aot.decoding import BYTE, Encoding
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.layer import MOST_SHIFT, MOST_SUM, Ints
from edgecompress.backends.aot.pairs import limits
from edgecompress.backends.aot.sparse import VALUES, codebook, coded, entries

STEP = 4
"""Entries that are taken together."""
MASK = 32
"""Inputs of a word of bits."""
STEP_WORDS = {"": 2, "_coded": 1}
STEP_INSTRUCTIONS = {"": 15, "_coded": 24}
"""Words of a step of entries, and instructions on a Cortex-M4."""
MOST_STEPS = (1 << 16) - 1


def fully_connected_sparse(
    site: Site, values: Values, bias: Values | None, factors: Sequence[Multiplier]
) -> tuple[Call, ...]:
    """Calls of ec_fully_connected_sparse for int8 activations: with distances and a byte or, for
    few values, an index of 4 bits per weight, and with a bit per input.

    What saves no flash is left out, and all where a bound fails: sums below 2^30 - 2^14 whatever
    the input, factors in [2^-23, 1/2) or 0.

    `values` are int8 weights [outputs, inputs] with zero point 0, `bias` int32, `factors` one for
    all outputs or one each.
    """
    outputs, inputs = values.shape
    each = tuple(factors) * (outputs // len(factors))
    folded = -zero_point_of(site.arg(0)) * values.sum(axis=1, dtype=np.int64)
    if bias is not None:
        folded = folded + bias.astype(np.int64)
    known = codebook(values)
    if not bounded(values, folded, each) or not _may_save(values, known):
        return ()
    zero = zero_point_of(site.result())
    low, high = activation_range(site.op.options.get("fused_activation_function"), site.result())
    fields: dict[str, Value] = {
        "batches": site.arg(0).elements // inputs,
        "inputs": inputs,
        "outputs": outputs,
        "half": 2 * (zero + 128) + 1,
        "limits": limits(low, high),
    }
    none = {**fields, "values": (0,) * VALUES}
    rows = [entries(row, multiple=STEP) for row in values]
    masked = [Encoding(True, BYTE, values[:0])(row) for row in values]
    found = [
        _call(site, "", none, rows, folded, each),
        _call(site, "_masked", none, masked, folded, each),
    ]
    if known is not None:
        rows = [coded(row, known, multiple=STEP) for row in values]
        table = tuple(known.tolist()) + (0,) * (VALUES - len(known))
        found.append(_call(site, "_coded", {**fields, "values": table}, rows, folded, each))
    return tuple(call for call in found if call is not None and _saves(call, values))


def _call(
    site: Site,
    form: str,
    fields: Mapping[str, Value],
    rows: Sequence[Ints],
    bias: Ints,
    factors: Sequence[Multiplier],
) -> Call | None:
    """The call for `rows` of entries, None where one of them is too long."""
    values = site.constant(1)
    if form == "_masked":
        steps = np.full(len(rows), -(-values.shape[1] // MASK))
        turns = 46 + 7 * steps + 8 * np.count_nonzero(values, axis=1)
    else:
        steps = np.array([len(row) // STEP_WORDS[form] for row in rows])
        turns = 25 + STEP_INSTRUCTIONS[form] * steps + 2 * (steps // 4)
    if steps.max() > MOST_STEPS:
        return None
    heads = heads_of(bias, factors, steps)
    stream = np.concatenate([part for pair in zip(heads, rows, strict=True) for part in pair])
    count = site.arg(0).elements // values.shape[1] * (40 + int(turns.sum()))
    return Call(
        function=f"ec_fully_connected_sparse{form}_s8",
        family="ec_fully_connected_sparse",
        params=Struct(
            "ec_fully_connected_sparse_t", {**fields, "weights": Array("uint32_t", stream)}
        ),
        inputs=site.op.inputs[:1],
        outputs=site.op.outputs,
        instructions=scalar(count, site.core),
    )


def _may_save(values: Ints, known: Ints | None) -> bool:
    """Whether entries for the weights other than 0 could take less flash than all of `values`."""
    kept = int(np.count_nonzero(values))
    return (kept if known is not None else kept + values.size // 8) < values.size


def _saves(call: Call, values: Ints) -> bool:
    """Whether the call's weights take less flash than all of `values`."""
    assert call.params is not None
    weights = call.params.fields["weights"]
    assert isinstance(weights, Array)
    return bool(weights.values.nbytes < values.size)


def bounded(weights: Ints, bias: Ints, multipliers: Sequence[Multiplier]) -> bool:
    """Whether ec_requantize_right holds for every sum, whatever the int8 input: `weights` has a row
    per output, `bias` is the folded one (int64, exact)."""
    reach = 128 * np.abs(weights.astype(np.int64)).sum(axis=1) + np.abs(bias)
    return bool(
        reach.max() < MOST_SUM
        and all(not value or -MOST_SHIFT <= shift <= -1 for value, shift in multipliers)
    )


def heads_of(bias: Ints, multipliers: Sequence[Multiplier], steps: Ints) -> Ints:
    """Per output (rows) three words (uint32): bias, multiplier, steps and right shift."""
    rights = np.array([-shift if value else 1 for value, shift in multipliers])
    counts = steps + ((rights - 1) << 16) + (rights << 24)
    made: Ints = np.stack([bias, [value for value, _ in multipliers], counts], axis=1)
    return (made & 0xFFFFFFFF).astype("<u4")
