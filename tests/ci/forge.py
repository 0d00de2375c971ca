"""A GitHub and a GitLab on 127.0.0.1 that know pull requests, artifacts and comments."""

from __future__ import annotations

import importlib
import io
import json
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "ci"
BOT = "github-actions[bot]"
TOKEN = "secret-token"
SHA = "5e" * 20
TABLE = "| | base | head |\n|---|---:|---:|\n| flash | 1 | 2 |\n"


def script(name: str) -> ModuleType:
    """The script ci/<name>.py as a module."""
    sys.path.insert(0, str(CI))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CI))


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """An artifact."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def pull(number: int, **changes: Any) -> dict[str, Any]:
    """A pull request from the fork stranger/tiny to owner/tiny."""
    head = {"sha": SHA, "ref": "larger", "repo": {"full_name": "stranger/tiny"}, **changes}
    return {"number": number, "head": head, "base": {"repo": {"full_name": "owner/tiny"}}}


def run_of(conclusion: str = "success", **changes: Any) -> dict[str, Any]:
    """The workflow run that measured it."""
    return {
        "id": 7,
        "event": "pull_request",
        "conclusion": conclusion,
        "head_sha": SHA,
        "head_branch": "larger",
        "head_repository": {"full_name": "stranger/tiny", "owner": {"login": "stranger"}},
        "run_started_at": "2026-01-02T03:00:00Z",
        "html_url": "https://example.test/runs/7",
        **changes,
    }


@dataclass
class Forge:
    """What is on the server: `comments` by number of the pull or merge request, `failures` the
    statuses with which the next requests whose path has a word in it are refused."""

    pulls: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[int, bytes] = field(default_factory=dict)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    said: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def add(self, number: int, author: str, body: str) -> None:
        listed = self.comments.setdefault(number, [])
        listed.append({"id": len(listed) + 100 * number, "user": {"login": author}, "body": body,
                       "author": {"id": author}})  # fmt: skip

    def bodies(self, number: int) -> list[str]:
        return [one["body"] for one in self.comments.get(number, [])]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The answer to a request: JSON values, bytes, or a place to go to (str)."""
        match [method, *path.strip("/").split("/")]:
            case ["GET", "repos", "owner", "tiny", "pulls"]:
                assert query["state"] == "open"
                return [one for one in self.pulls if f"stranger:{one['head']['ref']}"
                        == query["head"]]  # fmt: skip
            case ["GET", "repos", "owner", "tiny", "actions", "runs", "7", "artifacts"]:
                return {"artifacts": [
                    {"id": each, "name": "footprint-comment", "expired": False,
                     "created_at": f"2026-01-02T03:{each:02}:00Z"}
                    for each in self.artifacts]}  # fmt: skip
            case ["GET", "repos", "owner", "tiny", "actions", "artifacts", number, "zip"]:
                return f"{self.url}/elsewhere/{number}"
            case ["GET", "elsewhere", number]:
                return self.artifacts[int(number)]
            case ["GET", "user"]:
                return {"id": BOT}
            case ["GET", "repos", "owner", "tiny", "issues", number, "comments"]:
                return self.comments.get(int(number), [])
            case ["GET", "projects", "3", "merge_requests", number, "notes"]:
                return self.comments.get(int(number), [])
            case ["POST", "repos", "owner", "tiny", "issues", number, "comments"] | [
                "POST", "projects", "3", "merge_requests", number, "notes"
            ]:  # fmt: skip
                self.add(int(number), BOT, body["body"])
                return {}
            case ["PATCH", "repos", "owner", "tiny", "issues", "comments", each] | [
                "PUT", "projects", "3", "merge_requests", _, "notes", each
            ]:  # fmt: skip
                (one,) = (one for listed in self.comments.values() for one in listed
                          if one["id"] == int(each))  # fmt: skip
                one["body"] = body["body"]
                return {}
        raise AssertionError(f"{method} {path}")


class Handler(BaseHTTPRequestHandler):
    forge: Forge

    def handle_any(self) -> None:
        forge, asked = self.forge, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(asked.query))
        token = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN")
        forge.said.append((self.command, self.path, token))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for failure in forge.failures:
            word, status, headers = failure
            if word in asked.path:
                forge.failures.remove(failure)
                self.reply(status, b"{}", headers)
                return
        found = forge.answer(self.command, asked.path, query, json.loads(sent) if sent else None)
        if isinstance(found, bytes):
            self.reply(200, found)
            return
        if isinstance(found, str):
            self.reply(302, b"", {"Location": found})
            return
        if isinstance(found, list) and "page" in query:
            first = (int(query["page"]) - 1) * int(query["per_page"])
            found = found[first : first + int(query["per_page"])]
        self.reply(200, json.dumps(found).encode())

    do_GET = do_POST = do_PATCH = do_PUT = handle_any

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:  # noqa: B006
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Served:
    """A forge that is served while the context lasts."""

    def __init__(self) -> None:
        self.forge = Forge()
        handler = type("Bound", (Handler,), {"forge": self.forge})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.forge.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Forge:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self.forge

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
