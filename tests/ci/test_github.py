"""The comment on a pull request: written, kept up to date, never stale, never a stranger's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ci.forge import BOT, CI, SHA, TABLE, TOKEN, Forge, packed, pull, run_of, script

github, sticky = script("github"), script("sticky")
MARKER = sticky.MARKER
GOOD = packed({"comment.md": f"{MARKER}\n{TABLE}", "number": "5\n"})
LISTED = {"id": 1, "name": github.ARTIFACT, "expired": False, "created_at": "2026-02"}
SOURCE = f"<sub>{SHA[:10]}, [log](https://example.test/runs/7)</sub>\n"


def posted(forge: Forge, run: dict[str, Any] | None = None) -> str:
    api = sticky.Api(forge.url, {"Authorization": f"Bearer {TOKEN}"})
    return github.comment(api, "owner/tiny", run or run_of(), BOT)


def test_the_comment_is_written_then_kept_up_to_date(forge: Forge) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    forge.add(5, "someone", f"{MARKER}\nnot ours")
    forge.add(5, BOT, "another comment of the bot")
    assert posted(forge) == "pull request 5 has the comment now"
    text = f"{MARKER}\n{TABLE}\n{SOURCE}"
    assert forge.bodies(5) == [f"{MARKER}\nnot ours", "another comment of the bot", text]
    forge.artifacts = {1: GOOD, 2: packed({"comment.md": f"{MARKER}\nnew\n", "number": "5"})}
    assert posted(forge) == "the comment on pull request 5 is up to date"
    assert forge.bodies(5)[2:] == [f"{MARKER}\nnew\n\n{SOURCE}"]
    assert {token for _, path, token in forge.said if "elsewhere" in path} == {None}
    assert {token for _, path, token in forge.said if "elsewhere" not in path} == {
        f"Bearer {TOKEN}"
    }


def test_the_comment_is_found_on_a_later_page(forge: Forge) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    for number in range(250):
        forge.add(5, "someone", f"comment {number}")
    forge.add(5, BOT, f"{MARKER}\nold")
    assert posted(forge) == "the comment on pull request 5 is up to date"
    assert len(forge.bodies(5)) == 251
    assert forge.bodies(5)[-1].startswith(f"{MARKER}\n| |")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": "0" * 40},  # it has moved on
        {"repo": {"full_name": "other/tiny"}},
        {"repo": None},
        {"ref": "another"},
    ],
)
def test_another_pull_request_gets_no_comment(forge: Forge, changes: dict[str, Any]) -> None:
    forge.pulls, forge.artifacts = [pull(5, **changes)], {1: GOOD}
    assert posted(forge).startswith("nothing to do")
    assert not forge.comments


@pytest.mark.parametrize("changes", [{"event": "push"}, {"head_repository": None}])
def test_a_run_of_no_pull_request_is_left_alone(forge: Forge, changes: dict[str, Any]) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    assert posted(forge, run_of(**changes)).startswith("nothing to do")
    assert not forge.comments


def test_the_artifact_chooses_among_the_requests_of_its_commit_alone(forge: Forge) -> None:
    forge.pulls, forge.artifacts = [pull(5), pull(6)], {1: GOOD}
    posted(forge)
    assert list(forge.comments) == [5]
    forge.artifacts = {1: packed({"comment.md": f"{MARKER}\n{TABLE}", "number": "99"})}
    posted(forge)
    assert list(forge.comments) == [5, 6]
    for number in (5, 6):
        (body,) = forge.bodies(number)
        assert "skipped because the run's artifact names another pull request\n" in body
        assert "flash" not in body


@pytest.mark.parametrize(
    ("artifact", "conclusion", "why"),
    [
        (None, "failure", "the run that measured it failed"),
        (None, "cancelled", "the run that measured it was cancelled"),
        (None, "stale", "the run that measured it did not end well"),
        (b"no zip", "success", "artifact is no zip with a comment"),
        (packed({"number": "5"}), "success", "artifact is no zip with a comment"),
        (packed({"comment.md": TABLE, "number": "5"}), "success", "does not begin with"),
        (packed({"comment.md": b"\xff\xfe", "number": "5"}), "success", "does not begin with"),
        (
            packed({"comment.md": MARKER + "x" * 10_000_000, "number": "5"}),
            "success",
            " characters, 64,000 are taken",
        ),
        (os.urandom(1 << 20) + b"..", "success", "more than 1,048,576 bytes"),
    ],
)
def test_no_stale_table_is_left(
    forge: Forge, artifact: bytes | None, conclusion: str, why: str
) -> None:
    forge.pulls = [pull(5)]
    forge.artifacts = {} if artifact is None else {1: artifact}
    forge.add(5, BOT, f"{MARKER}\n{TABLE}")
    posted(forge, run_of(conclusion))
    (body,) = forge.bodies(5)
    assert re.search(rf"\nComparison skipped because .*{re.escape(why)}.*\n", body)
    assert "flash" not in body
    assert body.endswith(SOURCE)


def test_the_comment_of_an_earlier_attempt_is_not_taken(forge: Forge) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    posted(forge, run_of("failure", run_started_at="2026-01-02T03:01:30Z"))
    (body,) = forge.bodies(5)
    assert "Comparison skipped because the run that measured it failed\n" in body


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_artifact_is_refused_or_read(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(GOOD)
    for place, value in changes:
        damaged[place] = value

    class Api:
        pages = staticmethod(lambda *_: [LISTED])
        fetch = staticmethod(lambda *_, limit: bytes(damaged))

    with contextlib.suppress(github.Refused):
        assert set(github._files(Api, "owner/tiny", run_of())) == {"comment.md", "number"}


def test_a_hostile_comment_is_posted_as_text(forge: Forge) -> None:
    hostile = f"{MARKER}\n@owner <script>x</script> [a](http://evil.test)\n"
    forge.pulls, forge.artifacts = [pull(5)], {1: packed({"comment.md": hostile, "number": "5"})}
    posted(forge)
    (body,) = forge.bodies(5)
    assert "@owner" not in body and "<script>" not in body and "](http:" not in body
    assert body.count(MARKER) == 1 and body.endswith(SOURCE)


def test_a_failing_server_is_asked_again_but_not_told_twice(forge: Forge) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    forge.failures = [("pulls", 502, {}), ("zip", 503, {}), ("pulls", 500, {})]
    assert posted(forge) == "pull request 5 has the comment now"
    forge.failures = [("pulls", 500, {})] * 3
    with pytest.raises(sticky.Trouble, match="/pulls: status 500: the server failed; run the job"):
        posted(forge)
    forge.said = []
    forge.failures = [("issues/comments", 500, {})]
    with pytest.raises(sticky.Trouble, match="PATCH .* status 500"):
        posted(forge)
    assert [method for method, *_ in forge.said].count("PATCH") == 1


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (403, {"Retry-After": "60"}, "too many requests; run the job again in 60 seconds"),
        (403, {"X-RateLimit-Remaining": "0"}, "too many requests; run the job again in an hour"),
        (429, {}, "too many requests"),
        (403, {}, "the token may not do this"),
        (401, {}, "the token may not do this"),
        (404, {}, "/pulls: status 404$"),
    ],
)
def test_a_refusal_is_one_clear_line(
    forge: Forge, status: int, headers: dict[str, str], why: str
) -> None:
    forge.failures = [("pulls", status, headers)]
    with pytest.raises(sticky.Trouble, match=why):
        posted(forge)
    assert len(forge.said) == 1


def test_the_script(forge: Forge, tmp_path: Path) -> None:
    forge.pulls, forge.artifacts = [pull(5)], {1: GOOD}
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"workflow_run": run_of()}))
    variables = {
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": "owner/tiny",
        "GITHUB_TOKEN": TOKEN,
    }

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CI / "github.py")]
        environment = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = run()
    assert (done.returncode, done.stdout) == (0, "pull request 5 has the comment now\n"), (
        done.stderr
    )
    assert forge.bodies(5)[0].startswith(MARKER)
    event.write_text("{}")
    done = run()
    assert done.returncode == 1
    assert "this is for a workflow that starts on workflow_run" in done.stderr
    del variables["GITHUB_TOKEN"]
    done = run()
    assert done.returncode == 1
    assert (
        done.stderr == "footprint: GITHUB_TOKEN is not set: docs/ci.md says where it comes from\n"
    )
