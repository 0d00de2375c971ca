"""Put a footprint on its merge request, as one note that is kept up to date.

Reads CI_API_V4_URL, CI_PROJECT_ID and CI_MERGE_REQUEST_IID, which GitLab sets, and FOOTPRINT_TOKEN,
an access token with the scope api.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sticky import MARKER, Api, Refused, Trouble, safe, setting, skipped


def main() -> int:
    """Do it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comment", type=Path, help="comment.md of the measurement")
    file: Path = parser.parse_args().comment
    try:
        api = Api(setting("CI_API_V4_URL"), {"PRIVATE-TOKEN": setting("FOOTPRINT_TOKEN")})
        project, request = setting("CI_PROJECT_ID"), setting("CI_MERGE_REQUEST_IID")
        print(note(api, f"/projects/{project}/merge_requests/{request}/notes", _text(file)))
    except Trouble as trouble:
        print(f"footprint: {trouble}", file=sys.stderr)
        return 1
    return 0


def _text(file: Path) -> str:
    if not file.is_file():
        return skipped("the job that measured it failed")
    try:
        return safe(file.read_text(encoding="utf-8", errors="replace"))
    except Refused as reason:
        return skipped(str(reason))


def note(api: Api, path: str, text: str) -> str:
    """Write the note under `path`: the one that is there is replaced; what was done."""
    author = api.read("/user")["id"]
    for one in api.pages(path, {"sort": "asc"}):
        if one["author"]["id"] == author and one["body"].startswith(MARKER):
            api.write("PUT", f"{path}/{one['id']}", {"body": text})
            return "the note is up to date"
    api.write("POST", path, {"body": text})
    return "the merge request has the note now"


if __name__ == "__main__":
    sys.exit(main())
