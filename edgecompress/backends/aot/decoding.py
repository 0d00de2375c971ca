"""Weights without those of 0, or as places in a list of values, decoded to scratch (all, or a block
at a time) for a kernel that reads all: docs/sparse-weights.md; firmware/kernels/ec_decode.c."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Struct, Unpacked, scalar
from edgecompress.backends.aot.layer import Ints, padded
from edgecompress.backends.aot.packing import bits_of, blocks_of, packed_scales
from edgecompress.vocabulary import Core

FAMILY = "ec_decode"
LIST = 32
"""Values that fields of up to 5 bits tell apart."""
BYTE = 8


@dataclass(frozen=True, eq=False)
class Encoding:
    """How weights are stored: fields of `bits` bits, places in `values` (int64; none: the weights
    themselves, in 8 bits), of all weights or, where `masked`, of those that are not 0."""

    masked: bool
    bits: int
    values: Ints

    def bytes(self, weights: Ints) -> float:
        """What int8 `weights` take, about."""
        fields = np.count_nonzero(weights) if self.masked else weights.size
        return (self.bits * fields + self.masked * weights.size) / 8

    def __call__(self, weights: Ints) -> Ints:
        """A block of int8 weights as words (uint32)."""
        kept = weights[weights != 0] if self.masked else weights
        fields = np.searchsorted(self.values, kept) if self.bits < BYTE else kept & 255
        found = [_bits(weights != 0, 1)] if self.masked else []
        return np.concatenate([*found, _bits(fields, self.bits)])


def _bits(fields: Ints, bits: int) -> Ints:
    """`fields` of `bits` bits each one after the other, the first in the lowest bits (uint32)."""
    one_by_one = (fields.astype(np.int64)[:, None] >> np.arange(bits)) & 1
    packed = np.packbits(one_by_one.reshape(-1).astype(np.uint8), bitorder="little")
    return padded(packed, axis=0, multiple=4).view("<u4")


def encodings(weights: Ints) -> tuple[Encoding, ...]:
    """Every way to store int8 `weights`, but for the one that takes all as they are."""
    found = []
    for masked in (False, True):
        values = np.unique(weights[weights != 0] if masked else weights).astype(np.int64)
        if len(values) <= LIST:
            found.append(Encoding(masked, max(int(len(values) - 1).bit_length(), 1), values))
        elif masked:
            found.append(Encoding(True, BYTE, values[:0]))
    return tuple(found)


def decoded_first(
    call: Call,
    *,
    blocks: int = 1,
    head: int = 0,
    out_zero: int | None = None,
    paired: bool = False,
    core: Core = "dsp",
) -> Call | None:
    """`call` with its weights encoded in flash as takes the least, and decoded to scratch each time
    before it runs.

    The field `weights` is as for unpacked_first; `paired` says that its halfwords hold 256 times
    one weight plus another. None where that saves nothing, or no more than unpacked_first does.
    """
    assert call.params is not None
    array = call.params.fields["weights"]
    assert isinstance(array, Array)
    heads, words, scales = blocks_of(array, blocks, head, scaled=out_zero is not None)
    weights = _apart(words) if paired else np.ascontiguousarray(words).view(np.int8)
    known = encodings(weights)
    if not known:
        return None
    how = min(known, key=lambda one: one.bytes(weights))
    if how.bytes(weights) >= min(bits_of(words), BYTE) * weights.size / 8:
        return None
    packed = packed_scales(scales) if out_zero is not None else scales
    parts = zip(heads, packed, [how(row) for row in weights], strict=True)
    stream = np.concatenate([part for block in parts for part in block])
    size = 4 * sum(part.size for part in (heads, words, scales))
    params = Struct(
        "ec_decode_t",
        {
            "blocks": blocks,
            "head": head,
            "words": words.shape[1],
            "scaled": int(out_zero is not None),
            "half": 0 if out_zero is None else 2 * (out_zero + 128) + 1,
            "paired": int(paired),
            "masked": int(how.masked),
            "bits": how.bits,
            "values": (*how.values.tolist(), *[0] * (LIST - len(how.values))),
            "packed": Array("uint32_t", stream),
        },
    )
    if stream.nbytes + 4 * len(params.fields) + LIST >= size:
        return None
    room = -(-size // 16) * 16
    more = blocks * (5 * head + 70 * (out_zero is not None)) + _instructions(weights, how)
    return replace(
        call,
        params=replace(
            call.params,
            fields={**call.params.fields, "weights": Unpacked("ec_decode", params, room)},
        ),
        scratch=room + (call.scratch or 0),
        uses=(*call.uses, FAMILY),
        instructions=None if call.instructions is None else call.instructions + scalar(more, core),
    )


def _apart(words: Ints) -> Ints:
    """The two weights of each halfword, 256 times the second plus the first (int8)."""
    halves = np.ascontiguousarray(words).view("<i2").astype(np.int64)
    first = halves.astype(np.int8)
    both: Ints = np.stack([first, (halves - first) >> 8], axis=-1).astype(np.int8)
    return both.reshape(len(words), -1)


def _instructions(weights: Ints, how: Encoding) -> int:
    """What ec_decode takes on a Cortex-M4 for blocks of `weights` (rows), as measured."""
    if not how.masked:
        return int(60 * len(weights) + 9.4 * weights.size)
    return int(60 * len(weights) + 6.8 * weights.size + 10 * np.count_nonzero(weights))
