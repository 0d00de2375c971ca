"""What all pages are made of: tables, charts, and the frame that makes one file of them.

A page is self-contained: style, scripts and the chart library stand in it, and its content
security policy lets nothing else run and nothing be fetched. Names come from model files that
nobody vouches for, so the templates escape everything, and what a chart draws is data: JSON in a
script element that is never executed.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecompress.report.markdown import NONE
from edgecompress.report.text import plain

if TYPE_CHECKING:
    from jinja2 import Environment

ECHARTS = "6.1.0"
ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
"""The version of Apache ECharts in echarts/, and the hash of its echarts.min.js (see
scripts/echarts.sh)."""

NAME = 60
"""Characters of a name that a drawing shows; the table has all of it."""

_HERE = Path(__file__).parent
_SCRIPTS = ("echarts/echarts.min.js", "charts.js", "tables.js")


class Cell(NamedTuple):
    """One cell: what is read, what it is sorted by (None: by its text, behind all numbers), and
    the share of the largest of its column, drawn as a bar behind it. `state` ("ok", "bad", "best",
    "none") is how it is marked, never by colour alone."""

    text: str
    value: float | None = None
    share: float | None = None
    state: str = ""


class Table(NamedTuple):
    """A table: its caption, headings and rows; the first cell of a row is its heading.

    The columns `left` hold words, the others numbers. `tools` lets a reader sort and filter it.
    """

    caption: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    left: Sequence[int] = (0,)
    tools: bool = False


class Chart(NamedTuple):
    """A drawing of `views` (what charts.js draws: kind, label and data; a reader chooses among
    several by the word `choose`); `title` stands below it and `said` is what a screen reader
    says."""

    title: str
    said: str
    views: Sequence[Mapping[str, Any]]
    choose: str = "Show"


def text(value: object, state: str = "") -> Cell:
    """A cell of words; None is what was not measured."""
    return Cell(NONE, state="none") if value is None else Cell(str(value), state=state)


def short(name: str) -> str:
    """The beginning of a name, as a drawing shows it."""
    return plain(name, NAME)


def count(value: float | None, *, zero: str | None = None) -> Cell:
    """A cell of a whole number; `zero` is what stands for 0."""
    if value is None:
        return text(None)
    shown = zero if value == 0 and zero is not None else f"{value:,.0f}"
    return Cell(shown, value)


def with_bars(rows: Iterable[Sequence[Cell]], columns: Iterable[int]) -> list[tuple[Cell, ...]]:
    """`rows` with the share of the largest of its column in each cell of `columns`."""
    table = [list(row) for row in rows]
    for column in columns:
        most = max((row[column].value or 0 for row in table), default=0)
        for row in table:
            value = row[column].value
            if most and value:
                row[column] = row[column]._replace(share=round(value / most, 4))
    return [tuple(row) for row in table]


def page(template: str, **context: Any) -> str:
    """The page that `template` makes of `context`, with all that it needs inside."""
    from markupsafe import Markup

    scripts = [_asset(name) for name in _SCRIPTS]
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            policy=policy,
            style=Markup(_asset("style.css")),
            scripts=[Markup(script) for script in scripts],
        )
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["breaking"] = _breaking
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _plain(value: object) -> object:
    """`value`, in its words a question mark for each character that cannot be printed."""
    if type(value) is str:  # not Markup, which is a page's own
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _breaking(text: str) -> str:
    """`text`; a single word may break behind a dot, a slash or an underscore, not anywhere."""
    from markupsafe import Markup, escape

    if " " in text:
        return text
    return Markup(re.sub(r"[._/](?=\w)", r"\g<0><wbr>", str(escape(plain(text)))))


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
