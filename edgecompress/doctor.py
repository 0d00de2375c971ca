"""What this machine lacks for each board, and the command that gets it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgecompress import boards
from edgecompress.boards import Board
from edgecompress.emulator import QEMU

_SECONDS = 20.0


class Tool(NamedTuple):
    """Something a board needs: what for, whether it is there, and the Debian package with it."""

    name: str
    purpose: str
    found: Callable[[Board], bool]
    package: str


@dataclass(frozen=True)
class Finding:
    """A tool that `board` needs; `fix` is the command that gets it, empty where it is there."""

    board: str
    tool: str
    purpose: str
    found: bool
    fix: str


def examine(board: str | None = None) -> tuple[Finding, ...]:
    """What `board` (None: every board) needs, and whether this machine has it.

    Raises ConfigError for an unknown board.
    """
    chosen = boards.names() if board is None else (board,)
    return tuple(_finding(each, tool) for each in map(boards.load, chosen) for tool in _tools(each))


def remedy(findings: tuple[Finding, ...]) -> str:
    """One command that gets all that is missing, empty where nothing is."""
    packages = {finding.fix.rsplit(" ", 1)[-1] for finding in findings if not finding.found}
    return _install(" ".join(sorted(packages))) if packages else ""


def _finding(board: Board, tool: Tool) -> Finding:
    found = tool.found(board)
    return Finding(
        board.id, tool.name, tool.purpose, found, "" if found else _install(tool.package)
    )


def _install(packages: str) -> str:
    return f"sudo apt-get install --no-install-recommends {packages}"


def _tools(board: Board) -> tuple[Tool, ...]:
    cross = board.compiler == "arm-none-eabi-gcc"
    compiler = "gcc-arm-none-eabi" if cross else "gcc"
    tools = [
        Tool("make", "runs the build", lambda board: _on_path("make"), "make"),
        Tool(board.compiler, "compiles", lambda board: _on_path(board.compiler), compiler),
    ]
    if cross:
        tools.append(Tool("newlib", "the C library", _has_newlib, "libnewlib-arm-none-eabi"))
    if board.kind == "emulator":
        tools.append(Tool(QEMU, f"has {board.machine}", _has_machine, QEMU))
    return tuple(tools)


def _on_path(program: str) -> bool:
    return shutil.which(program) is not None


def _has_newlib(board: Board) -> bool:
    # The compiler prints the bare name of a file that it does not find.
    return "/" in _says(board.compiler, "-print-file-name=nano.specs")


def _has_machine(board: Board) -> bool:
    return f"\n{board.machine} " in _says(QEMU, "-machine", "help")


def _says(*command: str) -> str:
    """What the command prints, empty where it cannot be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
