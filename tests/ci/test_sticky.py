"""A stranger's text as a comment: it notifies nobody, leads nowhere, has no HTML but ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ci.forge import TABLE, script

sticky = script("sticky")
MARKER = sticky.MARKER


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TABLE, TABLE),
        ("<details><summary>Layers</summary>\n\n**a**\n</details>", None),
        ("a `b` *c* 5 < 6 -2.0%", "a `b` *c* 5 &lt; 6 -2.0%"),
        ("@owner \\@owner", "@\u200bowner \\@\u200bowner"),
        (
            "@&#111;wner &commat;x &lt; &amp;",
            "@\u200b&amp;#\u200b111;wner &amp;commat;x &lt; &amp;",
        ),
        ("fixes #12, GH-12, !12", "fixes #\u200b12, GH-\u200b12, !\u200b12"),
        ("[click](https://evil.test)", "[click]\u200b(https:\u200b//evil.test)"),
        ("![x](//evil.test/x.png)", "![x]\u200b(//evil.test/x.png)"),
        ("[a][b]\n[b]: //evil.test", "[a]\u200b[b]\n[b]\u200b: //evil.test"),
        ("www.evil.test _WWW.x", "www\u200b.evil.test _WWW\u200b.x"),
        ("/merge\n  /close", "\u200b/merge\n  \u200b/close"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("<details open>", "&lt;details open>"),
        ("</sub ><SCRIPT>", "&lt;/sub >&lt;SCRIPT>"),
        (f"<!-- x -->{MARKER}", "&lt;!-- x -->&lt;!-- edgecompress-footprint -->"),
        ("a\u202eb\x00c\x1b[31m\r\nd", "abc[31m\nd"),
    ],
)
def test_safe(given: str, expected: str | None) -> None:
    text = f"{MARKER}\n{given}"
    assert sticky.safe(text) == f"{MARKER}\n{given if expected is None else expected}"


@given(st.text(alphabet="@#!<>/[]():\u202e\nwabGH-1.&`\\ \u200b"))
def test_safe_leaves_nothing_alive(body: str) -> None:
    found = sticky.safe(MARKER + body)
    assert found.startswith(MARKER)
    rest = found.removeprefix(MARKER)
    assert not re.search(r"@(?!\u200b)|#\d|\]\(|://|<(?!/?(details|summary|br)>)", rest)
    assert sticky.safe(found) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "does not begin"),
        ("", "does not begin"),
        (f"x{MARKER}", "does not begin"),
        (f"{MARKER}{'<' * 30_000}", "120,000 characters, 64,000 are taken"),
    ],
)
def test_safe_refuses(text: str, why: str) -> None:
    with pytest.raises(sticky.Refused, match=why):
        sticky.safe(text)


def test_skipped() -> None:
    text = sticky.skipped("`x` failed @you")
    assert text.startswith(f"{MARKER}\n")
    assert text.endswith("\nComparison skipped because `x` failed @\u200byou\n")
    long = sticky.skipped("<" * 100_000)
    assert len(long) < sticky.LONGEST and long.endswith("&lt;...\n")
