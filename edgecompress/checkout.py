"""The git checkout that a command runs in."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Head:
    """What is checked out: the hash of the commit and its committer's date (ISO 8601)."""

    commit: str
    date: str


def head() -> Head | None:
    """The commit that is checked out where the command runs, None outside a git checkout."""
    command = ["git", "log", "-1", "--no-show-signature", "--format=%H %cI"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit, _, date = done.stdout.strip().partition(" ")
    if done.returncode or not date:
        return None
    return Head(commit, date.replace("Z", "+00:00"))
