"""Names out of model files, made safe to stand in a text."""

from __future__ import annotations

import re
from html import escape

LONG = 80
"""Characters of a name that are shown."""

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
_TAG = re.compile(r"&|[<>](?!=)")
_LINK = re.compile(r"://|www\.", re.I)
_APART = "\u200b"
"""A blank of no width, which ends what GitHub and GitLab take for a mention or a reference."""


def plain(text: str, long: int | None = None) -> str:
    """`text` on one line: a question mark for each character that cannot be printed, and its end
    cut off behind `long` characters."""
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown if long is None or len(shown) <= long else f"{shown[: long - 3]}..."


def escaped(text: str, long: int | None = LONG) -> str:
    """`text` to stand in Markdown, a table's cell included, as nothing but these characters: no
    markup, tag, link, mention or reference."""
    found = _SPECIAL.sub(r"\\\g<0>", tagless(text, long))
    return _LINK.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", found)


def tagless(text: str, long: int | None = LONG) -> str:
    """`text` to stand between two tags of HTML, without a mention or reference."""
    found = _TAG.sub(lambda match: escape(match[0]), plain(text, long))
    return re.sub(r"[@#!]", rf"\g<0>{_APART}", found)
