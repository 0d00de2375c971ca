"""One comment per pull request, which is kept up to date: what GitHub and GitLab have in common.

The comment's text may come from a stranger's pull request: `safe` takes it as data.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

MARKER = "<!-- edgecompress-footprint -->"
"""The first line of every comment; by it and its author a comment is found again."""
LONGEST = 64_000
"""Characters of a comment; GitHub takes 65,536."""
TAGS = ("details", "summary", "br")
"""The HTML that a comment may have, without attributes."""
TIMEOUT = 30.0
PAUSES = (1.0, 4.0)
"""Seconds before a request is tried again that only reads and that the server failed to answer."""
PAGE = 100
SAID = 2000
"""Characters of a reason."""

_TAG = re.compile(rf"<(?!/?(?:{'|'.join(TAGS)})>)")
_BREAK = "\u200b"
_LIVE = (
    (re.compile(r"&(?!(?:amp|lt|gt);)"), "&amp;"),  # what may stand for any of the following
    (re.compile(rf"@(?!{_BREAK})"), f"@{_BREAK}"),  # a mention, an address
    (re.compile(r"#(?=\d)"), f"#{_BREAK}"),  # a reference, which the other issue would show
    (re.compile(r"\bGH-(?=\d)", re.I), rf"\g<0>{_BREAK}"),
    (re.compile(r"!(?=\d)"), f"!{_BREAK}"),  # a merge request of GitLab
    (re.compile(r"\](?=[(\[:])"), f"]{_BREAK}"),  # a link, an image
    (re.compile(r":(?=//)"), f":{_BREAK}"),
    (re.compile(r"(?<![0-9A-Za-z])www(?=\.)", re.I), rf"\g<0>{_BREAK}"),
    (re.compile(r"^(\s*)/(?=\w)", re.M), rf"\g<1>{_BREAK}/"),  # a command of GitLab
)
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Query: TypeAlias = Mapping[str, str | int]


class Trouble(Exception):
    """What went wrong, in one line."""


class Unanswered(Trouble):
    """The server did not answer this time."""


class Refused(Exception):
    """Why a stranger's comment is not posted, as the end of a sentence."""


def setting(name: str) -> str:
    """The variable `name` of the environment; Trouble where it is not set."""
    found = os.environ.get(name)
    if not found:
        raise Trouble(f"{name} is not set: docs/ci.md says where it comes from")
    return found


def safe(text: str) -> str:
    """`text` as a comment that notifies nobody, leads nowhere and has no HTML but TAGS.

    Raises Refused for a text that does not begin with MARKER or is longer than LONGEST.
    """
    head, found, body = text.partition(MARKER)
    if head or not found:
        raise Refused("its comment does not begin with the footprint's marker")
    body = "".join(
        char
        for char in body.replace("\r\n", "\n")
        if char in "\n\t" or unicodedata.category(char) != "Cc" and char not in _DIRECTIONS
    )
    body = _TAG.sub("&lt;", body)
    for live, dead in _LIVE:
        body = live.sub(dead, body)
    if len(body) > LONGEST:
        raise Refused(f"its comment has {len(body):,} characters, {LONGEST:,} are taken")
    return MARKER + body


def skipped(why: str) -> str:
    """The comment that stands where there is no comparison."""
    told = why if len(why) <= SAID else f"{why[:SAID]}..."
    text = f"{MARKER}\n\n### Footprint: not measured\n\nComparison skipped because {told}"
    return safe(f"{text}\n")


class Api:
    """A REST API that speaks JSON: `headers` carry the token, which goes to `url` alone."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url, self.headers = url.rstrip("/"), dict(headers)

    def read(self, path: str, query: Query | None = None) -> Any:
        """The answer to GET."""
        return _parsed(path, self.fetch(path, query))

    def pages(self, path: str, query: Query, key: str | None = None) -> Iterator[Any]:
        """All items of a list, or of the list under `key`."""
        number = 1
        while True:
            page = self.read(path, {**query, "per_page": PAGE, "page": number})
            items = page if key is None else page[key]
            yield from items
            if len(items) < PAGE:
                return
            number += 1

    def fetch(self, path: str, query: Query | None = None, limit: int | None = None) -> bytes:
        """The answer to GET, of a longer one the first `limit` + 1 bytes."""
        asked = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        for pause in PAUSES:
            try:
                return self._send("GET", asked, limit=limit)
            except Unanswered:
                time.sleep(pause)
        return self._send("GET", asked, limit=limit)

    def write(self, method: str, path: str, body: Mapping[str, str]) -> Any:
        """The answer to `method`, sent once: the server may have done what it did not answer."""
        return _parsed(path, self._send(method, path, json.dumps(body).encode()))

    def _send(
        self, method: str, path: str, body: bytes | None = None, limit: int | None = None
    ) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", body, method=method)
        request.add_header("Content-Type", "application/json")
        for name, value in self.headers.items():
            request.add_unredirected_header(name, value)
        shown = f"{method} {self.url}{path.partition('?')[0]}"
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                found: bytes = answer.read() if limit is None else answer.read(limit + 1)
        except urllib.error.HTTPError as error:
            raise _refused(shown, error) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{shown}: {getattr(error, 'reason', error)}") from None
        return found


def _parsed(path: str, answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        raise Trouble(f"{path}: the server's answer is no JSON") from None


def _refused(shown: str, error: urllib.error.HTTPError) -> Trouble:
    told = f"{shown}: status {error.code}"
    wait = error.headers.get("Retry-After") or ""
    if error.code == 429 or error.headers.get("X-RateLimit-Remaining") == "0" or wait:
        when = f"in {wait} seconds" if wait.isdecimal() else "in an hour"
        return Trouble(f"{told}: too many requests; run the job again {when}")
    if error.code >= 500:
        return Unanswered(f"{told}: the server failed; run the job again")
    if error.code in (401, 403):
        return Trouble(f"{told}: the token may not do this; docs/ci.md has its permissions")
    return Trouble(told)
