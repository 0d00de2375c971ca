"""compare.html and the page of a history in a browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecompress.report import Change, Report
from edgecompress.report.history import entry
from edgecompress.report.html import compare, trend
from tests.reports import REPORT, changed
from tests.web.conftest import DESKTOP, SMALL, accessible, opened, well_drawn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def sized(tflite: int) -> Report:
    """REPORT with another size, and less accurate the smaller it is."""
    size = dataclasses.replace(REPORT.size, tflite=Change(20000, tflite))
    first = dataclasses.replace(REPORT.accuracy[0], compressed=0.9 + tflite / 1e6)
    return changed(size=size, accuracy=(first, *REPORT.accuracy[1:]))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    runs = [("large", sized(9000)), ("small", sized(5000)), ("worse", sized(10000))]
    worse = changed(runs[2][1], accuracy=runs[1][1].accuracy)
    path.write_text(compare([*runs[:2], ("worse", worse)]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trend") / "trend.html"
    entries = [
        entry(changed(sized(size), name=name), date=f"2026-03-0{day}", commit=f"{day}" * 40)
        for day, size in enumerate((8000, 8400, 8400), start=1)
        for name in ("one", "two")
    ]
    path.write_text(trend(entries[:-1]), encoding="utf-8")
    return path


def rows(page: Page, caption: str) -> list[list[str]]:
    """The visible text of the body of the table with that caption."""
    table = page.locator("table", has=page.locator("caption", has_text=caption)).first
    lines = table.locator("tbody tr").all_inner_texts()
    return [[cell.strip() for cell in line.split("\t")] for line in lines]


@pytest.mark.parametrize("width", [SMALL, DESKTOP])
def test_runs_stand_side_by_side(browser: Browser, compared: Path, width: int) -> None:
    with opened(browser, compared, width=width, scheme="dark") as page:
        well_drawn(page, 3)
        assert rows(page, "Figures")[0] == [".tflite bytes", "9,000", "5,000", "10,000"]
        assert page.locator("td.best").first.inner_text() == "5,000"
        assert rows(page, "Layers, .tflite bytes")[0] == ["conv", "116", "116", "116"]


def test_the_trade_can_be_seen_for_each_cost(browser: Browser, compared: Path) -> None:
    with opened(browser, compared) as page:
        names = page.locator("#trade svg text")
        assert {"large", "small", "worse"} <= set(names.all_text_contents())
        assert ".tflite bytes" in names.all_text_contents()
        page.locator("#trade select").select_option(label="top1 test against qemu_m4 instructions")
        assert "qemu_m4 instructions" in names.all_text_contents()
        page.locator("#layers select").select_option(label="qemu_m4 flash bytes")
        assert page.locator("#layers .panel:visible h3").inner_text() == "qemu_m4 flash bytes"


def test_axe_finds_no_grave_fault_in_a_comparison(browser: Browser, compared: Path) -> None:
    with opened(browser, compared) as page:
        accessible(page)


@pytest.mark.parametrize("width", [SMALL, DESKTOP])
def test_a_history_is_drawn(browser: Browser, trended: Path, width: int) -> None:
    with opened(browser, trended, width=width) as page:
        well_drawn(page, 1)
        shown = rows(page, ".tflite bytes")
        assert [row[0] for row in shown] == ["3" * 10, "2" * 10, "1" * 10]
        assert shown[0][2:] == ["8,400", "same", "not measured", ""]
        assert shown[1][2:] == ["8,400", "+5.00%", "8,400", "+5.00%"]
        drawn = page.locator("#figures svg text")
        assert {"one", "two", "1" * 10} <= set(drawn.all_text_contents())
        page.locator("#figures select").select_option(label="MACs per inference")
        assert page.locator(".panel:visible h3").inner_text() == "MACs per inference"
        well_drawn(page, 1)


def test_axe_finds_no_grave_fault_in_a_history(browser: Browser, trended: Path) -> None:
    with opened(browser, trended, scheme="dark") as page:
        accessible(page)
