"""What was measured on boards, in the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgecompress.report import Report, markdown, parts
from edgecompress.report.boards import TOO_LARGE, BoardRow, Outputs, Timing, merged
from edgecompress.report.checks import ReportError
from tests.reports import EMULATED, IMAGE, REAL, UNBUILT, changed

REPORT = changed(boards=())

TIMING = Timing("instructions", "counting plugin", 5345, 0, 3, None, None, 6142, 7825)
ROW = BoardRow("qemu_m4", "aot", 39168, 8812, 8584, None, TIMING, Outputs(11, 1, 0))
BARE = BoardRow("host", "aot", None, None, None, None, None, None)


def test_rows_go_through_json_and_into_the_page(tmp_path: Path) -> None:
    report = dataclasses.replace(REPORT, boards=(BARE, ROW))
    report.save(tmp_path)
    assert Report.read(tmp_path) == report
    page = (tmp_path / "report.md").read_text()
    assert (
        "| qemu_m4 | aot | 39,168 | 8,812 | 8,584 | not measured | 5,345 instructions"
        " | 0 in 3 (counting plugin) | 6,142 to 7,825 | 11 / 1 / 0 |"
    ) in page
    assert f"| host | aot |{' not measured |' * 5}  |  | not measured |" in page
    assert "with zero wait states, not a measurement" in page
    assert "latency" not in page
    assert "On boards" not in markdown.render(REPORT)


def test_a_latency_stands_in_the_page_with_its_conditions(tmp_path: Path) -> None:
    real = Timing("cycles", "DWT", 640_000, 12, 3, 64_000_000, "2 wait states; -O2", None, None)
    report = dataclasses.replace(REPORT, boards=(dataclasses.replace(ROW, timing=real),))
    report.save(tmp_path)
    assert Report.read(tmp_path) == report
    page = (tmp_path / "report.md").read_text()
    assert "| 640,000 cycles: 10.000 ms at 64 MHz (2 wait states; -O2) | 12 in 3 (DWT) |" in page
    micros = dataclasses.replace(real, unit="nanoseconds", per_inference=2_500_000)
    assert micros.seconds == 0.0025


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda row: row["timing"].update(per_inference=0), "per_inference = 0: it must be 1"),
        (lambda row: row["timing"].update(runs=0), "runs = 0: it must be 1 or more"),
        (lambda row: row["timing"].update(spread=-1), "spread = -1: it must be 0 or more"),
        (lambda row: row["timing"].update(clock_hz=0), "clock_hz = 0: it must be 1 or more"),
        (lambda row: row["timing"].update(clock_hz=1), "clock_hz and conditions: one is given"),
        (lambda row: row["timing"].update(cycles_lo=None), "one is given without the other"),
        (lambda row: row["timing"].update(cycles_lo=7826), "cycles_lo = 7826: more than 7825"),
        (lambda row: row["timing"].pop("unit"), r"missing key boards\[0\].timing.unit"),
        (lambda row: row["outputs"].update(exact=-1), "exact = -1"),
        (lambda row: row["outputs"].update(exact=0, off_by_one=0), "elements = 0"),
        (lambda row: row.update(ram=-1), "ram = -1"),
        (lambda row: row.update(flash="9"), r"boards\[0\].flash = '9': write a whole number"),
        (lambda row: row.update(latency=1), r"unknown key boards\[0\].latency"),
    ],
)
def test_a_wrong_row_is_refused(edit: Any, why: str) -> None:
    table = json.loads(dataclasses.replace(REPORT, boards=(ROW,)).to_json())
    edit(table["boards"][0])
    with pytest.raises(ReportError, match=f"report.json: .*{why}"):
        Report.from_json(json.dumps(table))


def test_a_new_row_takes_the_place_of_the_old_one() -> None:
    newer = dataclasses.replace(ROW, flash=1)
    other = dataclasses.replace(ROW, backend="tflm")
    assert merged((), ROW) == (ROW,)
    assert merged((ROW, BARE), newer) == (BARE, newer)
    assert merged((ROW,), other) == (ROW, other)


def test_what_was_measured_stays_while_the_image_is_the_same() -> None:
    built = dataclasses.replace(
        EMULATED, timing=None, outputs=None, stack=None, profile=(), compiler="gcc 13"
    )
    assert merged((EMULATED,), built) == (dataclasses.replace(EMULATED, compiler="gcc 13"),)
    larger = dataclasses.replace(
        IMAGE.symbols[0], name="more", part="weights", flash=1, ram=0, operators=()
    )
    image = dataclasses.replace(
        IMAGE,
        flash=dataclasses.replace(IMAGE.flash, weights=IMAGE.flash.weights + 1),
        symbols=(*IMAGE.symbols, larger),
    )
    grown = dataclasses.replace(built, flash=image.flash.total, image=image)
    assert merged((EMULATED,), grown) == (grown,)
    failed = dataclasses.replace(built, note="built, not measured: it is gone")
    (kept,) = merged((EMULATED,), failed)
    assert (kept.timing, kept.note) == (EMULATED.timing, None)
    # Chosen for something else, or an image that nothing is known of: it may be another.
    other = dataclasses.replace(built, optimize="ram")
    assert merged((EMULATED,), other) == (other,)
    program = dataclasses.replace(BARE, note="built, not measured: it is gone")
    measured = dataclasses.replace(BARE, timing=EMULATED.timing)
    assert merged((measured,), program) == (program,)


def test_a_board_that_cannot_be_built_takes_the_place_of_no_measurement() -> None:
    unbuilt = dataclasses.replace(UNBUILT, board=REAL.board)
    assert merged((REAL,), unbuilt) == (REAL,)
    newer = dataclasses.replace(unbuilt, note="still not")
    assert merged((unbuilt,), newer) == (newer,)
    assert merged((unbuilt,), REAL) == (REAL,)
    assert (REAL.found, unbuilt.found, BARE.found) == (True, False, False)
    # Where what was asked is another question, or the answer is no estimate, it is the answer.
    asked = dataclasses.replace(unbuilt, optimize="ram")
    assert merged((REAL,), asked) == (asked,)
    refused = dataclasses.replace(unbuilt, cost=None, note=f"{TOO_LARGE}: RAM by 9 bytes")
    assert merged((REAL,), refused) == (refused,)


def test_whether_a_board_has_room() -> None:
    assert EMULATED.fits is True and UNBUILT.fits is None and REAL.fits is None
    tight = dataclasses.replace(EMULATED, image=dataclasses.replace(IMAGE, ram_limit=100))
    assert tight.fits is False
    stackless = dataclasses.replace(EMULATED, note=f"{TOO_LARGE}: it leaves no RAM for the stack")
    assert stackless.fits is False
    assert (UNBUILT.estimated, EMULATED.estimated, BARE.estimated) == (True, False, False)


def test_a_choice_of_kernels_that_is_not_the_default_is_told() -> None:
    assert not list(parts.remarks(dataclasses.replace(EMULATED, optimize="balanced")))
    told = list(parts.remarks(dataclasses.replace(EMULATED, optimize="ram")))
    assert told == ["qemu_m4: its kernels were chosen for ram (--optimize ram)"]
