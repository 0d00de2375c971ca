"""Weights of 2 to 7 bits in flash: the packed form, and calls that unpack it to scratch first.

docs/packed-weights.md describes the form; firmware/kernels/ec_unpack.c reads it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Struct, Unpacked, scalar
from edgecompress.backends.aot.layer import Ints, padded
from edgecompress.vocabulary import Core

FAMILY = "ec_unpack"
GROUP = 8
"""Words that are packed together."""
MOST_BITS = 7
SCALES = 4
"""Output channels of a block whose scales are packed as well."""
_SCALE_WORDS = 3
_PARTS = (1, 2, 4)
"""Bits that are stored side by side, from the highest on; k is the sum of some."""
_ONES = 0x01010101


def _offset(bits: int) -> np.uint32:
    """2^(k-1) - 1 in every byte: what makes the digits of a word 0 or more."""
    return np.uint32(((1 << (bits - 1)) - 1) * _ONES)


def bits_of(words: Ints) -> int:
    """The least k from 2 to 7 in which `pack` holds `words` (uint32); 8 where none does."""
    flat = np.ascontiguousarray(words, "<u4").reshape(-1)
    for bits in range(2, MOST_BITS + 1):
        if (flat + _offset(bits)).view(np.uint8).max(initial=0) < 1 << bits:
            return bits
    return MOST_BITS + 1


def pack(words: Ints, bits: int) -> Ints:
    """`words` (uint32, four weights each, one row per block) with `bits` per weight (uint32).

    A row is filled up with zeros to whole groups of 8 words, and each group becomes `bits` words:
    see docs/packed-weights.md. `bits` must be at least `bits_of(words)`.
    """
    rows = np.ascontiguousarray(words, "<u4")
    groups = padded(rows, axis=1, multiple=GROUP).reshape(-1, GROUP) + _offset(bits)
    assert groups.view(np.uint8).max(initial=0) < 1 << bits, f"a weight of more than {bits} bits"
    parts, rest = [], bits
    for width in _PARTS:
        if bits & width:
            rest -= width
            fields = (groups >> np.uint32(rest)) & np.uint32(((1 << width) - 1) * _ONES)
            together = fields.reshape(len(groups), width, -1)
            shifts = np.arange(together.shape[2], dtype=np.uint32) * np.uint32(width)
            parts.append(np.bitwise_or.reduce(together << shifts, axis=2))
    packed: Ints = np.concatenate(parts, axis=1).reshape(len(rows), -1)
    return packed


def unpack(packed: Ints, bits: int, count: int) -> Ints:
    """The first `count` words of each row that `pack` packed with `bits` (uint32)."""
    groups = np.ascontiguousarray(packed, "<u4").reshape(-1, bits)
    words, used = np.zeros((len(groups), GROUP), np.uint32), 0
    for width in _PARTS:
        if bits & width:
            shifts = np.arange(GROUP // width, dtype=np.uint32) * np.uint32(width)
            together = groups[:, used : used + width, None] >> shifts
            fields = together.reshape(-1, GROUP) & np.uint32(((1 << width) - 1) * _ONES)
            words = (words << np.uint32(width)) + fields
            used += width
    unpacked: Ints = (words - _offset(bits)).reshape(len(packed), -1)[:, :count]
    return unpacked


def unpacked_first(
    call: Call,
    *,
    blocks: int = 1,
    head: int = 0,
    out_zero: int | None = None,
    core: Core = "dsp",
) -> Call | None:
    """`call` with its weights packed in flash, and unpacked to scratch each time before it runs.

    The field `weights` holds `blocks` blocks of as many bytes: `head` words that stay as they are,
    weights and, with `out_zero` (the output's zero point), the scales of 4 channels as
    ec_conv_pairs has them. None where that saves nothing.
    """
    assert call.params is not None
    array = call.params.fields["weights"]
    assert isinstance(array, Array)
    scaled = out_zero is not None
    heads, weights, scales = blocks_of(array, blocks, head, scaled=scaled)
    bits = bits_of(weights)
    if bits > MOST_BITS:
        return None
    packed = packed_scales(scales) if scaled else scales
    stream = np.concatenate([heads, packed, pack(weights, bits)], axis=1)
    words = weights.shape[1]
    params = Struct(
        "ec_unpack_t",
        {
            "bits": bits,
            "blocks": blocks,
            "head": head,
            "words": words,
            "scaled": int(scaled),
            "half": 0 if out_zero is None else 2 * (out_zero + 128) + 1,
            "packed": Array("uint32_t", stream),
        },
    )
    if stream.nbytes + 4 * len(params.fields) >= array.values.nbytes:
        return None
    behind = 0 if scaled else -words % GROUP
    size = -(-4 * (heads.size + weights.size + scales.size + behind) // 16) * 16
    unpacked = Unpacked("ec_unpack", params, size)
    more = blocks * (instructions(words, bits) + 5 * head + 70 * scaled)
    return replace(
        call,
        params=replace(call.params, fields={**call.params.fields, "weights": unpacked}),
        scratch=size + (call.scratch or 0),
        uses=(*call.uses, FAMILY),
        instructions=None if call.instructions is None else call.instructions + scalar(more, core),
    )


def blocks_of(array: Array, blocks: int, head: int, *, scaled: bool) -> tuple[Ints, Ints, Ints]:
    """Heads, weights and scales (words, a row per block) of the weights of a kernel."""
    data = np.ascontiguousarray(array.values).reshape(-1).view(np.uint8)
    rows = padded(data, axis=0, multiple=4).view("<u4").reshape(blocks, -1)
    end = rows.shape[1] - (_SCALE_WORDS * SCALES if scaled else 0)
    return rows[:, :head], rows[:, head:end], rows[:, end:]


def packed_scales(scales: Ints) -> Ints:
    """Four multipliers, and their right shifts in one word; from rows of 12 words."""
    each = scales.reshape(len(scales), SCALES, _SCALE_WORDS)
    rights = np.maximum(each[:, :, 2], 1).astype(np.uint8)
    return np.concatenate([each[:, :, 0], rights.view("<u4")], axis=1)


def instructions(words: int, bits: int) -> int:
    """What ec_unpack_words takes on a Cortex-M4 for `words` words of weights, as measured."""
    group = {2: 28, 3: 47, 4: 29, 5: 46, 6: 49, 7: 68}[bits]
    return 30 + group * -(-words // GROUP)
