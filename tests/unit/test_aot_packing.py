"""Packed weights: the form that docs/packed-weights.md describes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.backends.aot.packing import bits_of, pack, unpack

BITS = range(2, 8)


@st.composite
def weights(draw: st.DrawFn) -> tuple[int, Any]:
    """k, and rows of weights that k bits can hold."""
    bits = draw(st.sampled_from(BITS))
    most = (1 << (bits - 1)) - 1
    shape = draw(st.integers(1, 3)), 4 * draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ends = draw(st.booleans())
    values = (
        random.choice([-most, most], shape) if ends else random.integers(-most, most + 1, shape)
    )
    return bits, values


def words_of(values: Any) -> Any:
    return values.astype(np.int8).view("<u4")


def halfwords_of(values: Any) -> Any:
    """Two weights in a halfword, as ec_conv_pairs has them."""
    return (256 * values[:, 1::2] + values[:, ::2]).astype("<i2").view("<u4")


@settings(deadline=None)
@given(weights(), st.sampled_from([words_of, halfwords_of]))
def test_round_trip(given_: tuple[int, Any], form: Any) -> None:
    bits, values = given_
    words = form(values)
    assert bits_of(words) <= bits
    for more in range(bits, 8):
        packed = pack(words, more)
        assert packed.dtype == np.uint32
        assert packed.shape == (len(words), -(-words.shape[1] // 8) * more)
        assert np.array_equal(unpack(packed, more, words.shape[1]), words)


@settings(deadline=None)
@given(weights())
def test_is_as_described(given_: tuple[int, Any]) -> None:
    """Decoded field by field."""
    bits, values = given_
    words = words_of(values)
    packed = pack(words, bits).reshape(-1, bits)
    decoded = []
    for group in packed.tolist():
        for word in range(8):
            total = 0
            for lane in range(4):
                field, used = 0, 0
                for width in (1, 2, 4):
                    if bits & width:
                        per = 8 // width
                        byte = group[used + word // per] >> (8 * lane) & 255
                        field = field << width | byte >> (word % per * width) & ((1 << width) - 1)
                        used += width
                total += (field - ((1 << (bits - 1)) - 1)) << (8 * lane)
            decoded.append(total & 0xFFFFFFFF)
    rows = np.array(decoded, np.uint32).reshape(len(words), -1)
    assert np.array_equal(rows[:, : words.shape[1]], words)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_least_bits(bits: int, sign: int) -> None:
    values = np.zeros((1, 16), np.int64)
    values[0, 5] = sign * ((1 << (bits - 1)) - 1)
    for form in (words_of, halfwords_of):
        assert bits_of(form(values)) == bits
        values[0, 4] = values[0, 5]
        assert bits_of(form(values)) == bits
        values[0, 4] = 0
    values[0, 5] = -(1 << (bits - 1))
    assert bits_of(words_of(values)) == bits + 1


def test_refuses_what_does_not_fit() -> None:
    assert bits_of(words_of(np.full((1, 4), -128))) == 8
    with pytest.raises(AssertionError, match="more than 3 bits"):
        pack(words_of(np.full((1, 4), 5)), 3)
