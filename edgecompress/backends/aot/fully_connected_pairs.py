"""ec_fully_connected_pairs: matrices with the weights of two outputs in one halfword."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Reuse, Site, Struct, Value, Values
from edgecompress.backends.aot.decoding import decoded_first
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.layer import Ints, filler, padded
from edgecompress.backends.aot.packing import FAMILY, MOST_BITS, bits_of, pack
from edgecompress.backends.aot.packing import instructions as unpacking
from edgecompress.backends.aot.pairs import (
    MOST_SCRATCH,
    biases,
    expanded_order,
    limits,
    paired,
    proven,
    scales,
)

BLOCK = 8
"""Outputs that are computed together."""


def fully_connected_pairs(
    site: Site, values: Values, bias: Values | None, factors: Sequence[Multiplier], reuse: Reuse
) -> tuple[Call, ...]:
    """Calls of ec_fully_connected_pairs for int8 activations, with int8 weights in flash, packed
    and encoded ones; none where a bound fails.

    `values` are int8 weights [outputs, inputs] with zero point 0, `bias` int32, `factors` one for
    all outputs or one each. The bounds are those of pairs.by_pairs.
    """
    data, out = site.arg(0), site.result()
    outputs, inputs = values.shape
    batches = data.elements // inputs
    folded = -zero_point_of(data) * values.sum(axis=1, dtype=np.int64)
    if bias is not None:
        folded = folded + bias.astype(np.int64)
    flat = padded(values, axis=1, multiple=4, fill=filler(values))
    order = expanded_order(flat.shape[1], 1)
    words = paired(flat, order, block=BLOCK)
    if words is None or 2 * len(order) > MOST_SCRATCH:
        return ()
    each = tuple(factors) * (outputs // len(factors))
    if not proven(values, folded, each):
        return ()
    shared = len(factors) == 1
    zero = zero_point_of(out)
    low, high = activation_range(site.op.options.get("fused_activation_function"), out)
    scaled = scales(factors, zero)
    steps = len(order) // 2
    fields: dict[str, Value] = {
        "batches": batches,
        "inputs": inputs,
        "outputs": outputs,
        "steps": steps,
        "scale_step": 0 if shared else 3,
        "limits": limits(low, high),
        "scales": Array("uint32_t", scaled if shared else padded(scaled, axis=0, multiple=BLOCK)),
    }
    head = biases(folded, block=BLOCK)
    call = Call(
        function="ec_fully_connected_pairs_s8",
        family="ec_fully_connected_pairs",
        params=_params(fields, 8, head, words),
        inputs=site.op.inputs[:1],
        outputs=site.op.outputs,
        scratch=4 * steps,
        reuses=(reuse,),
        instructions=_instructions(outputs, steps, batches),
    )
    return (call, *_packed(call, head, words, batches), *_decoded(call, len(words), batches))


def _packed(call: Call, head: Ints, words: Ints, batches: int) -> Iterator[Call]:
    """`call` with its weights packed, and unpacked a block at a time, for each row of inputs."""
    bits = bits_of(words)
    if bits > MOST_BITS:
        return
    assert call.params is not None
    more = batches * len(words) * (unpacking(words.shape[1], bits) + 40)
    yield replace(
        _by_block(call, more),
        function="ec_fully_connected_pairs_packed_s8",
        params=_params(call.params.fields, bits, head, pack(words, bits)),
        uses=(FAMILY,),
    )


def _decoded(call: Call, blocks: int, batches: int) -> Iterator[Call]:
    """`call` with its weights encoded, and decoded a block at a time, for each row of inputs."""
    whole = decoded_first(call, blocks=blocks, head=BLOCK, paired=True)
    if whole is None:
        return
    assert call.params is not None and whole.unpacked is not None
    assert call.instructions is not None and whole.instructions is not None
    params: dict[str, Value] = {
        "matrix": Struct(call.params.ctype, {**call.params.fields, "weights": None}),
        "decode": replace(
            whole.unpacked.params, fields={**whole.unpacked.params.fields, "blocks": 1}
        ),
    }
    more = batches * (whole.instructions - call.instructions + 90 * blocks)
    yield replace(
        _by_block(call, more),
        function="ec_fully_connected_pairs_decoded_s8",
        params=Struct("ec_fully_connected_pairs_decoded_t", params),
        uses=whole.uses,
    )


def _by_block(call: Call, more: int) -> Call:
    """`call` with room for a block of weights behind the inputs, and `more` instructions."""
    assert call.params is not None and call.instructions is not None
    steps = call.params.fields["steps"]
    assert isinstance(steps, int)
    return replace(call, scratch=4 * (5 * steps + BLOCK), instructions=call.instructions + more)


def _params(fields: Mapping[str, Value], bits: int, head: Ints, words: Ints) -> Struct:
    weights = Array("uint32_t", np.concatenate([head, words], axis=1))
    return Struct("ec_fully_connected_pairs_t", {**fields, "bits": bits, "weights": weights})


def _instructions(outputs: int, steps: int, batches: int) -> int:
    """What the call takes on a Cortex-M4: its loops counted, what is around them as measured."""
    block = 15 * steps + 3 * (1 + (steps - 1) // 8) + 86
    row = 103 + 25 * steps // 4 + (37 if outputs % BLOCK else 0)
    return batches * (row + block * -(-outputs // BLOCK))
