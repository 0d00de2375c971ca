"""report.html in a browser: what is drawn, read, clicked, typed and printed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecompress.report import Change, Report
from edgecompress.report.html import render
from tests.reports import EMULATED, IMAGE, REPORT, changed, operator, symbol
from tests.web.conftest import (
    DESKTOP,
    PHONE,
    SMALL,
    Scheme,
    accessible,
    expect,
    opened,
    well_drawn,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OTHER = dataclasses.replace(
    IMAGE,
    flash=dataclasses.replace(IMAGE.flash, runtime=9050),
    symbols=(*IMAGE.symbols, symbol("usb_stack", "runtime", 9000)),
    flash_limit=8192,
)
TWO = changed(
    size=dataclasses.replace(REPORT.size, macs=Change(12_501_632, 4500)),
    boards=(
        *REPORT.boards,
        dataclasses.replace(EMULATED, board="tiny16", flash=OTHER.flash.total, image=OTHER),
    ),
)
FIGURES = 6
"""before and after, treemap, arena, accuracy, trade, confusion."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report with two boards whose images are taken apart."""
    return saved(TWO, tmp_path_factory.mktemp("page"))


def saved(report: Report, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


def column(page: Page, table: str, heading: str) -> list[str]:
    """The visible cells of a column of the table with the caption `table`."""
    grid = page.locator("table", has=page.locator("caption", has_text=table)).first
    headings = grid.locator("thead th").all_inner_texts()
    names = [one.rstrip(" ↕↑↓").strip() for one in headings]
    cells = grid.locator(f"tbody tr:visible > :nth-child({names.index(heading) + 1})")
    return [one.strip() for one in cells.all_inner_texts()]


def pointed_at(page: Page, canvas: str) -> list[str]:
    """What the tooltip says where the mouse moves in the middle of the drawing."""
    drawing = page.locator(canvas).first
    drawing.hover()
    drawing.hover(position={"x": 200, "y": 200})
    drawing.hover(position={"x": 202, "y": 201})
    tip = drawing.locator("> div").last
    expect(tip).to_be_visible()
    return tip.inner_text().splitlines()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(SMALL, "dark"), (PHONE, "light"), (PHONE, "dark"), (DESKTOP, "light"), (DESKTOP, "dark")],
)
def test_everything_is_drawn_and_nothing_overlaps(
    browser: Browser, file: Path, width: int, scheme: Scheme
) -> None:
    with opened(browser, file, width=width, scheme=scheme) as page:
        well_drawn(page, FIGURES)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        well_drawn(page, FIGURES)


def test_the_page_says_what_the_report_says(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        assert page.title() == "tiny: footprint report"
        assert page.locator(".verdict").inner_text().endswith("Within budget: 2 limits kept")
        assert column(page, "Before and after", "after")[:2] == ["208", "4,500"]
        assert column(page, "Layers", "layer") == [row.layer for row in TWO.operators]
        assert column(page, "Layers", "MACs") == ["2,500", "", "2,000"]
        assert column(page, "Layers", "qemu_m4 instructions") == ["6,000", "100", "2,800"]
        owned = [f"{one.total:,}" for one in IMAGE.operators(3)]
        assert column(page, "Layers", "qemu_m4 flash bytes") == owned
        assert column(page, "Boards", "fits?") == [
            "not taken apart",
            "perhaps",
            "fits",
            "no: 6,824 bytes of flash must go",
        ]
        assert column(page, "Boards", "stack bytes")[:2] == ["not measured", "not measured"]
        parts = column(page, "Flash of qemu_m4", "bytes")
        assert parts == ["4,000", "301", "1,099", "50", "400", "150", "16", "6,016"]
        drawn = page.locator("#flash svg text").all_text_contents()
        assert "weights  4,000" in drawn
        assert (
            "top1 test against .tflite bytes" in page.locator("#accuracy option").all_inner_texts()
        )
        cells = page.locator("#accuracy figure", has_text="true classes").locator("svg text")
        assert {"31", "32", "30"} <= set(cells.all_text_contents())


def test_a_heading_sorts(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        heading = page.locator("#layers th", has_text="MACs")
        assert heading.get_attribute("aria-sort") is None
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert column(page, "Layers", "MACs") == ["2,500", "2,000", ""]
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        assert column(page, "Layers", "layer") == ["pool", "classes", "conv"]
        page.locator("#layers th", has_text="layer").locator("button").click()
        assert heading.get_attribute("aria-sort") is None
        assert column(page, "Layers", "layer") == ["classes", "conv", "pool"]
        page.locator("#layers th", has_text="SQNR").locator("button").click()
        assert column(page, "Layers", "SQNR dB")[-1] == "not matched"


def test_a_filter_leaves_the_rows_that_match(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        field = page.get_by_label("Filter: Layers")
        field.fill("FULLY")
        assert column(page, "Layers", "layer") == ["classes"]
        assert page.locator("#layers output").inner_text() == "1 of 3 rows"
        field.fill("nothing of the kind")
        assert page.locator("#layers tbody tr:visible").count() == 0
        field.fill("")
        assert len(column(page, "Layers", "layer")) == 3


def test_another_board_has_another_treemap(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        texts = page.locator("#flash svg text")
        assert "runtime  50" not in " ".join(texts.all_text_contents())
        assert page.locator("#flash .panel:visible h3").all_inner_texts() == ["qemu_m4"]
        page.locator("#flash select").select_option(label="tiny16")
        assert "runtime  9,050" in texts.all_text_contents()
        assert page.locator("#flash .panel:visible h3").all_inner_texts() == ["tiny16"]
        assert "9,050" in column(page, "Flash of tiny16", "bytes")
        well_drawn(page, FIGURES)


@pytest.mark.parametrize("width", [SMALL, PHONE, DESKTOP])
def test_a_number_in_the_treemap_is_whole(browser: Browser, tmp_path: Path, width: int) -> None:
    sizes = {1000 + 9 * at for at in range(40)}
    symbols = [symbol(f"w_{size}", "weights", size, 0, size % 3) for size in sorted(sizes)]
    rest = [one for one in IMAGE.symbols if one.part != "weights"]
    flash = dataclasses.replace(IMAGE.flash, weights=sum(sizes))
    image = dataclasses.replace(IMAGE, flash=flash, symbols=(*rest, *symbols))
    row = dataclasses.replace(EMULATED, flash=flash.total, image=image)
    with opened(browser, saved(changed(boards=(row,)), tmp_path), width=width) as page:
        drawn = page.locator("#flash svg text").all_text_contents()
        numbers = {int(one.replace(",", "")) for one in drawn if re.fullmatch("[0-9,]+", one)}
        assert numbers <= sizes | {one.flash for one in rest}
        assert numbers & sizes or width == SMALL
        wholes = [one for one in drawn if re.search("  ", one)]
        assert f"weights  {sum(sizes):,}" in wholes
        assert all(re.search("  [0-9,]+$", one) for one in wholes)


def test_a_part_of_the_treemap_opens(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        page.locator("#flash svg text", has_text="kernels").click()
        expect(page.locator("#flash svg text", has_text="w_1")).to_have_count(0)
        assert page.locator("#flash svg text", has_text="ec_conv_s8").count() == 1
        page.locator("#flash svg text", has_text="qemu_m4").click()
        expect(page.locator("#flash svg text", has_text="w_1")).to_have_count(1)


def test_a_tooltip_tells_the_numbers(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        assert pointed_at(page, "#arena .canvas") == [
            "conv:0",
            "400 bytes at 100",
            "steps 0 to 1",
            "in place over x",
        ]


def test_the_keyboard_reaches_everything(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        wanted = page.evaluate(
            "[...document.querySelectorAll('a, button, select, input, summary, .scroll')]"
            ".filter(one => one.checkVisibility()).length"
        )
        reached = 0
        for _ in range(wanted + 1):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", page.evaluate("document.activeElement.outerHTML")
            reached += 1
        assert reached == wanted
        page.locator("#layers th", has_text="MACs").locator("button").focus()
        page.keyboard.press("Enter")
        assert column(page, "Layers", "MACs") == ["2,500", "2,000", ""]
        page.locator("#flash select").focus()
        page.keyboard.press("ArrowDown")
        assert page.locator("#flash .panel:visible h3").all_inner_texts() == ["tiny16"]


def test_the_colours_follow_the_system(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        word = page.locator("#flash svg text", has_text="weights").first
        ink = str(word.get_attribute("fill"))
        page.emulate_media(color_scheme="dark")
        expect(word).not_to_have_attribute("fill", ink)
        page.emulate_media(color_scheme="light")
        expect(word).to_have_attribute("fill", ink)


def test_a_narrower_window_redraws(browser: Browser, file: Path) -> None:
    with opened(browser, file) as page:
        page.set_viewport_size({"width": SMALL, "height": 800})
        expect(page.locator("#flash svg")).to_have_attribute("width", re.compile("^3.."))
        well_drawn(page, FIGURES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_grave_fault(browser: Browser, file: Path, scheme: Scheme) -> None:
    with opened(browser, file, scheme=scheme) as page:
        accessible(page)


def test_on_paper_it_is_light_and_open(browser: Browser, file: Path) -> None:
    with opened(browser, file, scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        assert page.locator("#flash .panel:visible h3").all_inner_texts() == ["qemu_m4", "tiny16"]
        page.set_viewport_size({"width": 1000, "height": 700})
        cut = "one => one.scrollWidth > one.clientWidth + 1"
        assert not page.evaluate(f"[...document.querySelectorAll('.scroll')].some({cut})")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        assert page.locator("details[open]").count() == 0
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
        assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_the_tables_remain(browser: Browser, file: Path) -> None:
    with opened(browser, file, java_script_enabled=False) as page:
        assert page.locator("figure:visible").count() == 0
        assert page.locator("button:visible, select:visible, input:visible").count() == 0
        assert page.locator("#flash h3:visible").all_inner_texts() == ["qemu_m4", "tiny16"]
        assert column(page, "Layers", "MACs") == ["2,500", "", "2,000"]


def test_names_from_a_file_do_nothing(browser: Browser, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028\u202e\ud800"
    blocks = tuple(dataclasses.replace(one, label=evil) for one in TWO.memory.blocks)  # type: ignore[union-attr]
    report = changed(
        TWO,
        name=evil,
        operators=tuple(operator(evil, evil) for _ in TWO.operators),
        labels=(evil,) * 3,
        tools={evil: evil},
        accuracy=tuple(dataclasses.replace(one, split=evil) for one in TWO.accuracy[:1]),
        memory=dataclasses.replace(TWO.memory, name=evil, blocks=blocks),
        boards=tuple(dataclasses.replace(one, note=evil) for one in TWO.boards),
    )
    with opened(browser, saved(report, tmp_path), width=PHONE) as page:
        assert page.locator("h1").inner_text().startswith("</script><script>alert(1)")
        assert page.locator("img").count() == 0
        assert pointed_at(page, "#arena .canvas")[0].startswith("</script><script>")
        assert page.locator("img").count() == 0
        well_drawn(page, FIGURES)


def test_what_was_not_measured_is_said(browser: Browser, tmp_path: Path) -> None:
    bare = changed(
        accuracy=(),
        boards=(),
        memory=None,
        operators=(),
        steps=(),
        budget=(),
        proof=None,
        labels=(),
        density=(),
    )
    with opened(browser, saved(bare, tmp_path)) as page:
        well_drawn(page, 1)
        said = page.locator("main").inner_text()
        assert "Measured on no board yet" in said
        assert "Not measured: no data was given." in said
        assert "No image was taken apart yet" in said
        assert page.locator(".verdict").inner_text() == "No budget"
        accessible(page)
