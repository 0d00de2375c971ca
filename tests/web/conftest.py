"""A browser for the pages, and what every page must be like in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from tests.conftest import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, LocatorAssertions, Page

BROWSERS = ("chromium", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, SMALL, DESKTOP = 390, 360, 1280
SOON = 20_000
"""Milliseconds that a page is waited for at most."""
Scheme: TypeAlias = Literal["light", "dark"]

FIGURES = """() => [...document.querySelectorAll("figure.chart")].map(figure => {
    const svg = figure.querySelector(".canvas svg");
    const box = svg && svg.getBoundingClientRect();
    return {
        name: figure.querySelector("figcaption").textContent,
        said: figure.querySelector(".canvas[role=img]").getAttribute("aria-label"),
        size: svg ? [box.width, box.height] : [0, 0],
        marks: svg ? svg.querySelectorAll("path, rect").length : 0,
        words: svg ? svg.querySelectorAll("text").length : 0,
        cut: svg ? [...svg.querySelectorAll("text")].filter(text => {
            const own = text.getBoundingClientRect();
            return own.width && (own.left < box.left - 2 || own.right > box.right + 2
                || own.top < box.top - 2 || own.bottom > box.bottom + 2);
        }).map(text => text.textContent) : [],
    };
})"""
"""What each figure of the page has drawn, and the words of it that its edge cuts."""

FAULTS = """() => {
    const faults = [], wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > wide) faults.push("the page scrolls sideways");
    const seen = element => element.getClientRects().length && !element.matches(".skip");
    const named = element => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    for (const element of document.querySelectorAll("body *")) {
        if (!seen(element) || element.closest(".scroll > *, svg")) continue;
        const box = element.getBoundingClientRect();
        if (box.right > wide + 1 || box.left < -1) faults.push(`sticks out: ${named(element)}`);
    }
    const apart = "body, main, header.top, section, .panel, .pair, .facts, figure, nav ul, .filter";
    for (const parent of document.querySelectorAll(apart)) {
        const children = [...parent.children].filter(seen).map(c => [c, c.getBoundingClientRect()]);
        children.forEach(([a, one], at) => children.slice(at + 1).forEach(([b, other]) => {
            const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
            const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
            if (across > 1 && down > 1) faults.push(`overlap: ${named(a)} / ${named(b)}`);
        }));
    }
    return faults;
}"""
"""What sticks out of the page or lies over something else."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        absent("browser", f"{' or '.join(BROWSERS)} not found on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        absent("browser", "playwright is not installed (pip install playwright)")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = DESKTOP, scheme: Scheme = "light", **more: Any
) -> Iterator[Page]:
    """The page at `path`; it must have no error to tell and ask for nothing else."""
    told: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **more
    )
    context.set_default_timeout(SOON)
    page = context.new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: told.append(request.url))
    url = path.as_uri()
    page.goto(url)
    yield page
    context.close()
    assert told in ([url], [url, "data:,"])


def expect(locator: Locator) -> LocatorAssertions:
    """What must come true of `locator` soon."""
    from playwright.sync_api import expect as soon

    soon.set_options(timeout=SOON)
    return soon(locator)


def well_drawn(page: Page, figures: int) -> None:
    """Assert that every one of `figures` has something in it, and that nothing is cut off,
    sticks out or lies over anything else."""
    drawn = page.evaluate(FIGURES)
    assert len(drawn) == figures
    for figure in drawn:
        assert min(figure["size"]) > 100, figure
        assert figure["marks"] > 2 and figure["words"] > 2 and figure["said"], figure
        assert figure["cut"] == [], figure
    assert page.evaluate(FAULTS) == []


def accessible(page: Page) -> None:
    """Assert that axe-core finds no serious or critical fault, folded parts included."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = Axe().run(page).response["violations"]
    grave = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert grave == []
