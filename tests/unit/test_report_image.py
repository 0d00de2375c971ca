"""What the bytes of an image are for, in a report: sums, shares, limits."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.report import Report
from edgecompress.report.checks import ReportError
from edgecompress.report.image import OperatorBytes
from tests.reports import EMULATED, IMAGE, REPORT, SYMBOLS, symbol


def test_a_full_report_survives_json() -> None:
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_symbols_are_shared_out_to_their_operators() -> None:
    first, second, third = IMAGE.operators(3)
    assert first == OperatorBytes(1000, 251, 700)
    assert second == OperatorBytes(0, 0, 151)
    assert third == OperatorBytes(3000, 50, 150)


@given(st.integers(0, 1000), st.sets(st.integers(0, 9), min_size=1))
def test_no_byte_of_a_shared_symbol_is_lost(size: int, operators: set[int]) -> None:
    shared = symbol("ec_add_s8", "kernels", size, 0, *sorted(operators))
    parts = dataclasses.replace(
        IMAGE.flash, **dict.fromkeys((f.name for f in dataclasses.fields(IMAGE.flash)), 0)
    )
    ram = dataclasses.replace(IMAGE.ram, arena=0, stack=0, data=0, bss=0)
    image = dataclasses.replace(
        IMAGE, flash=dataclasses.replace(parts, kernels=size), ram=ram, symbols=(shared,)
    )
    found = [one.total for one in image.operators(10)]
    assert sum(found) == size
    assert max(found) - min(found[i] for i in operators) <= 1


def test_what_must_go_before_an_image_fits() -> None:
    assert IMAGE.over == (0, 0)
    tight = dataclasses.replace(IMAGE, flash_limit=6000, ram_limit=1500)
    assert tight.over == (16, 100)
    assert dataclasses.replace(IMAGE, flash_limit=None, ram_limit=None).over == (0, 0)


def test_the_largest_contributions_are_named_by_layer() -> None:
    layers = ("conv", "pool", "classes")
    assert IMAGE.largest(layers, ram=False, count=4) == (
        ("weights of classes", 3000),
        ("weights of conv", 1000),
        ("kernels of conv", 700),
        ("main", 400),
    )
    assert IMAGE.largest((), ram=False, count=1) == (("w_1", 3000),)
    assert IMAGE.largest(layers, ram=True, count=9) == (
        ("the stack", 1024),
        ("the arena", 500),
        ("buffer", 60),
        ("state", 16),
    )


def test_sums_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ReportError, match="symbols: 3000 bytes of flash for weights, its"):
        dataclasses.replace(IMAGE, symbols=SYMBOLS[1:])
    for part, change in (
        ("arena", {"arena": 499}),
        ("stack", {"stack": 0}),
        ("data", {"bss": 61}),
        ("copied", {"copied": 1}),
    ):
        with pytest.raises(ReportError, match=f"symbols: .* bytes of ram for {part}, its"):
            dataclasses.replace(IMAGE, ram=dataclasses.replace(IMAGE.ram, **change))
    swapped = (symbol("w_0", "constants", 1000, 0, 0), *SYMBOLS[1:])
    with pytest.raises(ReportError, match="for weights, its parts say 4000"):
        dataclasses.replace(IMAGE, symbols=swapped)
    with pytest.raises(ReportError, match="image: its parts are 6016 bytes of flash"):
        dataclasses.replace(EMULATED, flash=6000)
    with pytest.raises(ReportError, match="profile: it is given without a timing"):
        dataclasses.replace(EMULATED, timing=None)
