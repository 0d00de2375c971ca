"""Texts of a build are the same wherever and whenever it was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.building import placeless

PLACES = {Path("/tmp/ec-1"): "work", Path("/tmp/ec-1/built"): "", Path("/home/a b/fw"): "firmware"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" .text 0x0 0x4 /tmp/ec-1/built/src/app.o", " .text 0x0 0x4 src/app.o"),
        ("/tmp/ec-1/sources/x.c:3: warning", "work/sources/x.c:3: warning"),
        ("(platform: symlink:///home/a b/fw/platform)", "(platform: symlink://firmware/platform)"),
        ("LOAD /tmp/ec-1/built", "LOAD ."),
        ("/usr/lib/gcc/../lib/libc_nano.a(lib_a-memcpy.o)", "libc_nano.a(lib_a-memcpy.o)"),
        ("OUTPUT(/opt/x.elf elf32-littlearm)", "OUTPUT(x.elf elf32-littlearm)"),
        ("https://bit.ly/configure-pio-ldf", "https://bit.ly/configure-pio-ldf"),
        ("a = b / c; src/app/app.c; 3/4", "a = b / c; src/app/app.c; 3/4"),
    ],
)
def test_paths(text: str, expected: str) -> None:
    assert placeless.paths(text, PLACES) == expected


def test_log() -> None:
    def said(first: str, second: str, seconds: str, fetched: str = "") -> str:
        return (
            f"$ pio run\n{fetched}Processing x\n{fetched}Building\nCompiling {first}.o\n"
            f"Compiling {second}.o\nLinking x.elf\n"
            f"========= [SUCCESS] Took {seconds} seconds =========\n\nqemu 00:00:0{seconds}\n"
        )

    short = placeless.log(said("a", "b", "1.25"))
    fetching = "Platform Manager: Installing x\nDownloading  0% 10%\n"
    assert short == placeless.log(said("b", "a", "2.50", fetching))
    assert short == (
        "$ pio run\nProcessing x\nBuilding\nCompiling a.o\nCompiling b.o\nLinking x.elf\n"
    )


def test_what_is_said_before_the_build_is_left_out() -> None:
    assert placeless.log("$ pio run\n****\nwelcome\nProcessing x\n") == "$ pio run\nProcessing x\n"
    assert placeless.log("$ pio run\nnothing else\n") == "$ pio run\nnothing else\n"
