"""The serial protocol, host's side: exact lines in and out, nothing else accepted."""

from __future__ import annotations

import re
import zlib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.errors import DeviceError, MeasurementError
from edgecompress.measuring import protocol
from edgecompress.measuring.protocol import (
    Bye,
    Damaged,
    End,
    Fail,
    Hello,
    Lines,
    Memory,
    Message,
    Ok,
    OpTimed,
    Out,
    Timed,
)

HELLO = (
    "@hello proto=1 board=qemu_m4 model=my%20kws sha=9f2c backend=aot inputs=490,12 outputs=-"
    " ops=13 arena=16016 unit=instructions scale=125/4 hz=0"
)


def line(text: str) -> bytes:
    """`text` as a board sends it, by the definition of docs/protocol.md."""
    return f"{text} *{zlib.crc32(text.encode()):08x}\n".encode()


def test_the_documented_line_has_the_documented_crc() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert line("@run i=0 ticks=79005").decode() in page
    assert protocol.parse(b"@run i=0 ticks=79005 *d4adf8dd\r\n") == Timed(0, 79005)
    assert protocol.go(7, profile=True) == line("@go i=7 profile=1")
    assert protocol.hi() == line("@hi")
    assert protocol.bye() == line("@bye")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HELLO,
            Hello(
                board="qemu_m4",
                model="my kws",
                sha="9f2c",
                backend="aot",
                inputs=(490, 12),
                outputs=(),
                ops=13,
                arena=16016,
                unit="instructions",
                scale=Fraction(125, 4),
                hz=0,
            ),
        ),
        ("@ok n=1 o=64", Ok(1, 64)),
        ("@op i=2 t=5 n=3 kind=CONV_2D ticks=0", OpTimed(2, 5, 3, "CONV_2D", 0)),
        ("@op i=2 t=5 n=3 kind=%c3%a4%25 ticks=4294967295", OpTimed(2, 5, 3, "ä%", 4294967295)),
        ("@out i=0 n=1 o=64 hex=00ff7f", Out(0, 1, 64, b"\x00\xff\x7f")),
        ("@mem i=3 stack=868 arena=16016", Memory(3, 868, 16016)),
        ("@mem i=3 stack=- arena=0", Memory(3, None, 0)),
        ("@end i=3 turns=9", End(3, 9)),
        ("@bye", Bye()),
        ("@fail where=invoke code=3", Fail("invoke", 3)),
    ],
)
def test_every_message_is_read(text: str, message: Message) -> None:
    found = protocol.parse(line(text))
    assert (type(found), found) == (type(message), message)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@nothing", "no message is called 'nothing'"),
        ("@", "no message is called ''"),
        ("@ok", "ok has the keys n, o, in this order"),
        ("@ok n=0 o=1 p=2", "ok has the keys n, o"),
        ("@ok n=0  o=1", "ok has the keys n, o"),
        ("@bye code=0", "bye has the keys"),
        ("@op i=2 n=3 t=1 kind=A ticks=1", "in this order"),
        ("@ok n=0 o=-1", "'-1' is no number"),
        ("@ok n=0 o=4294967296", "is no number from 0 to 4294967295"),
        ("@ok n=0 o=+1", "is no number"),
        ("@ok n=0 o=1_0", "is no number"),
        ("@ok n=0 o=\u0661", "is no number"),
        ("@out i=0 n=0 o=0 hex=", "not 1 to 64 bytes"),
        ("@out i=0 n=0 o=0 hex=0F", "not 1 to 64 bytes"),
        ("@out i=0 n=0 o=0 hex=0ff", "not 1 to 64 bytes"),
        (f"@out i=0 n=0 o=0 hex={'00' * 65}", "not 1 to 64 bytes"),
        ("@op i=0 t=0 n=0 kind=%zz ticks=1", "is no text"),
        (HELLO.replace("proto=1", "proto=2"), "protocol '2'; this version speaks 1"),
        (HELLO.replace("125/4", "0"), "is not above 0"),
        (HELLO.replace("125/4", "1/0"), "is not above 0"),
        (HELLO.replace("490,12", "490,,12"), "is no number"),
    ],
)
def test_a_line_that_is_not_understood_is_an_error(text: str, why: str) -> None:
    with pytest.raises(MeasurementError, match=re.escape(why)):
        protocol.parse(line(text))


@pytest.mark.parametrize(
    "damaged",
    [
        b"@run i=0 ticks=79006 *d4adf8dd\n",
        b"@run i=0 ticks=79005 *d4adf8de\n",
        b"@run i=0 ticks=79005 *D4ADF8DD\n",
        b"@run i=0 ticks=79005 *d4adf8d\n",
        b"@run i=0 ticks=79005*d4adf8dd\n",
        b"@run i=0 ticks=79005\n",
        b"@\n",
    ],
)
def test_a_damaged_line_is_told_from_all_others(damaged: bytes) -> None:
    assert isinstance(protocol.parse(damaged), Damaged)


@pytest.mark.parametrize("text", [b"", b"\n", b"hello\n", b" @run\n", b"\xff\xfe\n"])
def test_anything_else_is_log(text: bytes) -> None:
    assert protocol.parse(text) is None


@given(st.binary(max_size=200))
def test_garbage_is_log_or_damaged(garbage: bytes) -> None:
    assert garbage.startswith(b"@") or protocol.parse(garbage) is None
    for text in (b"@" + garbage, b"@hello " + garbage):
        assert isinstance(protocol.parse(text), Damaged)


@given(
    st.sampled_from(["hello", "ok", "run", "op", "out", "mem", "end", "bye", "fail"]),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=5),
)
def test_garbage_with_a_right_crc_is_read_or_an_error(word: str, fields: list[str]) -> None:
    try:
        protocol.parse(line(" ".join([f"@{word}", *fields])))
    except MeasurementError as error:
        assert "\n" not in str(error)


@given(st.data())
def test_a_flipped_bit_never_passes(data: st.DataObject) -> None:
    sound = line(HELLO)
    place = data.draw(st.integers(8, 8 * (len(sound) - 1) - 1))
    broken = bytearray(sound)
    broken[place // 8] ^= 1 << place % 8
    assert isinstance(protocol.parse(bytes(broken)), Damaged)


@given(st.binary(max_size=300), st.integers(0, 9))
def test_inputs_go_out_whole_in_short_lines(data: bytes, index: int) -> None:
    lines = protocol.inputs(index, data)
    got = b""
    for sent in lines:
        assert len(sent) <= 191
        found = re.fullmatch(rb"(@in n=(\d+) o=(\d+) hex=([0-9a-f]+)) \*[0-9a-f]{8}\n", sent)
        assert found is not None
        assert sent == line(found[1].decode())
        assert (int(found[2]), int(found[3])) == (index, len(got))
        got += bytes.fromhex(found[4].decode())
    assert got == data


@given(st.lists(st.binary(max_size=9000), max_size=8), st.integers(1, 9000))
def test_lines_are_the_same_however_they_arrive(parts: list[bytes], size: int) -> None:
    stream, got, lines = b"\n".join(parts), [], Lines()
    for start in range(0, len(stream), size):
        lines.add(stream[start : start + size])
        while (found := lines.take()) is not None:
            got.append(found)
    rest = stream[sum(map(len, got)) :]
    assert b"".join([*got, rest]) == stream
    assert b"\n" not in rest and len(rest) <= protocol.LINE
    for found in got:
        assert found.count(b"\n") == found.endswith(b"\n")
        assert found.endswith(b"\n") or len(found) > protocol.LINE
    lines.clear()
    assert lines.take() is None
    lines.add(b"a\n")
    assert lines.take() == b"a\n"


def test_a_failure_says_phase_code_and_meaning() -> None:
    with pytest.raises(MeasurementError, match=r"m4: .*phase board, code 1 \(.*needs -icount\)"):
        raise protocol.failure(Fail("board", 1), board="m4")
    with pytest.raises(DeviceError, match=r"phase invoke, code 6 \(ec_model_invoke failed"):
        raise protocol.failure(Fail("invoke", 6), board="m4")
    with pytest.raises(DeviceError, match=r"phase odd, code 7$"):
        raise protocol.failure(Fail("odd", 7), board="m4")
