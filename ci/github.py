"""Put the footprint that a pull request's run measured on that pull request, as one comment.

Runs in the workflow footprint-comment, which may write comments, after the workflow footprint,
which ran the pull request's code and may do nothing. So nothing of that code is run here, and its
one file, comment.md of the artifact, is data: see `sticky.safe`. Which pull request it belongs to
is asked of GitHub. Reads GITHUB_EVENT_PATH, GITHUB_API_URL, GITHUB_REPOSITORY and GITHUB_TOKEN.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from sticky import LONGEST, MARKER, Api, Refused, Trouble, safe, setting, skipped

ARTIFACT = "footprint-comment"
COMMENT, NUMBER = "comment.md", "number"
LARGEST = 1 << 20
"""Bytes of the artifact."""
ENDS = {
    "success": "the run that measured it left no comment",
    "failure": "the run that measured it failed",
    "cancelled": "the run that measured it was cancelled",
    "timed_out": "the run that measured it took too long",
    "action_required": "the run that measures it waits for approval",
}
"""Why there is no comment, by how the run ended."""


def main() -> int:
    """Do it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--author", default="github-actions[bot]", help="who the token belongs to")
    author: str = parser.parse_args().author
    try:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {setting('GITHUB_TOKEN')}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        api = Api(setting("GITHUB_API_URL"), headers)
        event = json.loads(Path(setting("GITHUB_EVENT_PATH")).read_text(encoding="utf-8"))
        if "workflow_run" not in event:
            raise Trouble("this is for a workflow that starts on workflow_run; see docs/ci.md")
        print(comment(api, setting("GITHUB_REPOSITORY"), event["workflow_run"], author))
    except Trouble as trouble:
        print(f"footprint: {trouble}", file=sys.stderr)
        return 1
    return 0


def comment(api: Api, repository: str, run: dict[str, Any], author: str) -> str:
    """Write the comment of a workflow run; what was done, in a sentence."""
    if run["event"] != "pull_request":
        return f"nothing to do: the run was started by {run['event']}"
    requests = _requests(api, repository, run)
    if not requests:
        return "nothing to do: the run is of no open pull request's last commit"
    try:
        files = _files(api, repository, run)
        if files is None:
            raise Refused(ENDS.get(run["conclusion"], "the run that measured it did not end well"))
        named = [number for number in requests if str(number) == files[NUMBER].strip()]
        if not named:
            raise Refused("the run's artifact names another pull request")
        requests, text = named, safe(files[COMMENT])
    except Refused as reason:
        text = skipped(str(reason))
    source = f"<sub>{run['head_sha'][:10]}, [log]({run['html_url']})</sub>"
    whole = f"{text.rstrip()}\n\n{source}\n"
    return "; ".join(_put(api, repository, number, whole, author) for number in requests)


def _requests(api: Api, repository: str, run: dict[str, Any]) -> list[int]:
    """The open pull requests whose last commit the run is of."""
    source = run["head_repository"]  # null: the fork was deleted
    if source is None:
        return []
    head = f"{source['owner']['login']}:{run['head_branch']}"
    found = api.pages(f"/repos/{repository}/pulls", {"state": "open", "head": head})
    return [
        int(one["number"])
        for one in found
        if one["head"]["sha"] == run["head_sha"]
        and (one["head"]["repo"] or {}).get("full_name") == source["full_name"]
        and one["base"]["repo"]["full_name"] == repository
    ]


def _files(api: Api, repository: str, run: dict[str, Any]) -> dict[str, str] | None:
    """The texts in the artifact of the run's last attempt, None where it left none; Refused for one
    that is none."""
    path = f"/repos/{repository}/actions"
    listed = f"{path}/runs/{run['id']}/artifacts"
    found = [
        one["id"]
        for one in api.pages(listed, {"name": ARTIFACT}, "artifacts")
        if one["name"] == ARTIFACT
        and not one["expired"]
        and one["created_at"] >= run["run_started_at"]
    ]
    if not found:
        return None
    packed = api.fetch(f"{path}/artifacts/{max(found)}/zip", limit=LARGEST)
    if len(packed) > LARGEST:
        raise Refused(f"the run's artifact has more than {LARGEST:,} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return {name: _text(archive, name) for name in (COMMENT, NUMBER)}
    except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, RuntimeError):
        raise Refused("the run's artifact is no zip with a comment") from None


def _text(archive: zipfile.ZipFile, name: str) -> str:
    """As much of a file as a comment may have, and a little more."""
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(name)
    with archive.open(name) as stream:
        return stream.read(4 * LONGEST + 1).decode("utf-8", errors="replace")


def _put(api: Api, repository: str, number: int, text: str, author: str) -> str:
    """Write the comment: the one that is there is replaced."""
    path = f"/repos/{repository}/issues"
    for one in api.pages(f"{path}/{number}/comments", {}):
        user = one["user"] or {}
        if user.get("login") == author and str(one["body"]).startswith(MARKER):
            api.write("PATCH", f"{path}/comments/{one['id']}", {"body": text})
            return f"the comment on pull request {number} is up to date"
    api.write("POST", f"{path}/{number}/comments", {"body": text})
    return f"pull request {number} has the comment now"


if __name__ == "__main__":
    sys.exit(main())
