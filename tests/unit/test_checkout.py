"""What is checked out where a command runs."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from edgecompress import checkout

DATE = "2026-01-02T03:04:05+02:00"


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_COMMITTER_DATE": DATE},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_head_is_the_last_commit_and_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert checkout.head() is None  # no commit yet
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    head = checkout.head()
    assert head is not None and head.commit == git(tmp_path, "rev-parse", "HEAD")
    assert datetime.fromisoformat(head.date) == datetime.fromisoformat(DATE)


def test_outside_of_a_checkout_and_without_git_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkout.head() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout.head() is None
