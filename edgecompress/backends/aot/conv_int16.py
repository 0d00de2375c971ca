"""ec_conv_s16: convolutions of int16 maps, four pixels by two channels at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Struct, Value
from edgecompress.backends.aot.fixedpoint import Multiplier, activation_range, zero_point_of
from edgecompress.backends.aot.int16 import ending, fits, high_factors, unsigned
from edgecompress.backends.aot.layer import Ints, Layer, padded
from edgecompress.backends.aot.sliding import MOST_PIXELS, Shape

SEGMENT = 255
"""EC_CONV_S16_SEGMENT of firmware/kernels/ec_conv_s16.h."""
MOST_SCRATCH = 1 << 24
"""Bytes of working memory."""
MOST_WIDE_SHIFT = 7
PIXELS, BLOCK = 4, 2


def conv_int16(layer: Layer, multipliers: Sequence[Multiplier], *, wide: bool) -> Call | None:
    """The call of ec_conv_s16 for an int16 `layer` of one group, None where it does not apply.

    `wide`: TFLite's sums have 64 bits. Where those are proven to fit 32, whatever the input, and
    the factors are in [2^-18, 1/2) or 0, one multiplication makes a result of a sum; otherwise sums
    are made in segments that fit, and the rest is TFLite's arithmetic as it stands.
    """
    shape = layer.shape
    run, runs = _runs(shape)
    count = runs * shape.height.kernel
    pairs = -(-run // 2)
    steps = pairs * count
    scratch = 16 * steps
    if layer.groups != 1 or layer.nibbles or scratch > MOST_SCRATCH:
        return None
    if wide and max(shift for _, shift in multipliers) > MOST_WIDE_SHIFT:
        return None
    zero_point_of(layer.data)
    flat = padded(layer.flat.reshape(-1, count, run), axis=2, multiple=2)
    words = paired(flat.reshape(len(flat), -1))
    factors = high_factors(multipliers) if wide and fits(layer.flat, layer.bias) else None
    low, high = activation_range(layer.activation, layer.out)
    fields: dict[str, Value] = {
        "shape": shape.struct(),
        "run": run,
        "runs_per_row": runs,
        "steps": steps,
        "ending": ending(low, high),
        "low": low,
        "high": high,
        "wide": int(wide),
        "reverse": 0,
    }
    if factors is not None:
        bias = np.zeros(len(flat), np.int64) if layer.bias is None else layer.bias
        ends = [_by_block(bias), words, _by_block(factors)]
        fields |= {
            "weights": Array("uint32_t", np.concatenate(ends, axis=1)),
            "bias": None,
            "multipliers": None,
            "shifts": None,
        }
    else:
        fields |= {
            "weights": Array("uint32_t", _segments(words)),
            "bias": None if layer.bias is None else Array("int64_t", layer.bias.astype(np.int64)),
            "multipliers": Array("int32_t", np.array([m.value for m in multipliers], np.int32)),
            "shifts": Array("int8_t", np.array([m.shift for m in multipliers], np.int8)),
        }
    return Call(
        function="ec_conv_s16",
        family="ec_conv_s16",
        params=Struct("ec_conv_s16_t", fields),
        inputs=layer.site.op.inputs[:1],
        outputs=layer.site.op.outputs[:1],
        scratch=scratch,
        reuses=shape.reuse(itemsize=2, step=PIXELS, staged=True),
        instructions=_instructions(
            shape, steps=steps, runs=count, ends=fields["ending"], long=factors is None
        ),
    )


def _runs(shape: Shape) -> tuple[int, int]:
    """Elements that lie side by side in the input and in a row of weights; such runs per row."""
    taps = shape.width.kernel
    if shape.width.dilation > 1:
        return shape.channels, taps
    return taps * shape.channels, 1


def paired(weights: Ints) -> Ints:
    """Weights [channels, even count] as words [blocks, pairs]: two weights of two channels each.

    The even channel's are in bytes 0 and 2, where SXTB16 finds them, the odd one's in 1 and 3.
    """
    both = padded(weights, axis=0, multiple=BLOCK).reshape(-1, BLOCK, weights.shape[1])
    halves = np.ascontiguousarray(both.transpose(0, 2, 1).astype(np.int8))
    return halves.reshape(len(both), -1).view("<u4")


def _by_block(values: Ints) -> Ints:
    return unsigned(padded(values, axis=0, multiple=BLOCK).reshape(-1, BLOCK))


def _segments(words: Ints) -> Ints:
    """Words [blocks, steps] with two words of zeros before each segment."""
    parts: list[Ints] = []
    for start in range(0, words.shape[1], SEGMENT):
        parts += [np.zeros((len(words), 2), "<u4"), words[:, start : start + SEGMENT]]
    return np.concatenate(parts, axis=1)


def _instructions(shape: Shape, *, steps: int, runs: int, ends: Value, long: bool) -> int:
    """What the call takes on a Cortex-M4: its loops counted, what is around them as measured."""
    assert isinstance(ends, int)
    blocks = -(-shape.out_channels // BLOCK)
    block = 13 * steps + 3 * (1 + (steps - 1) // 16) + (37, 37, 54)[ends]
    if long:
        block += 90 * (1 + (steps - 1) // SEGMENT) + 8 * 40
    quads = -(-shape.pixels // PIXELS)
    inside = _quads_inside(shape) if shape.pixels <= MOST_PIXELS else quads
    near = 320 + 20 * runs + 21 * steps // 4
    edge = 1170 + 112 * runs + 48 * steps // 5
    return quads * block * blocks + inside * near + (quads - inside) * edge


def _quads_inside(shape: Shape) -> int:
    """How many fours of output pixels see nothing of the padding."""
    whole = []
    for axis in (shape.height, shape.width):
        first = np.arange(axis.out) * axis.stride - axis.pad
        whole.append((first >= 0) & (first + (axis.kernel - 1) * axis.dilation < axis.size))
    pixels = np.tile(np.outer(*whole).reshape(-1), shape.batches)
    return int(np.pad(pixels, (0, -len(pixels) % PIXELS), mode="edge").reshape(-1, 4).all(1).sum())
