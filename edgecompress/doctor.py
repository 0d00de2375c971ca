"""What this machine lacks for each board, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import platformio
from edgecompress.measuring import link
from edgecompress.measuring.emulator import QEMU

_SECONDS = 20.0
_APT = "sudo apt-get install --no-install-recommends "
_MODULES = {"platformio": "platformio", "scons": "SCons"}
"""The distributions that build, and a module of each."""
_ONLINE = (
    "connect to the Internet, or set HTTPS_PROXY; until then the emulated boards work, and"
    " `edgecompress export` makes a project to build elsewhere"
)


class Need(NamedTuple):
    """Something that a board needs: what for, and what to do to get it ("" where it is there)."""

    name: str
    purpose: str
    fix: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """A `tool` that `board` needs; `fix` is what gets it, a command where one does, empty where it
    is there."""

    board: str
    tool: str
    purpose: str
    found: bool
    fix: str


def examine(board: str | None = None) -> tuple[Finding, ...]:
    """What `board` needs, and whether this machine has it.

    None: every board that is not a thing of its own, at a port. It may take some seconds where
    PlatformIO's registry has to be asked. Raises ConfigError for an unknown board.
    """
    if board is not None:
        return tuple(_findings(boards.load(board)))
    every = map(boards.load, boards.names())
    return tuple(found for one in every if one.kind != "serial" for found in _findings(one))


def remedy(findings: tuple[Finding, ...]) -> str:
    """How to get all that is missing, one command for all packages; empty where nothing is."""
    fixes = dict.fromkeys(one.fix for one in findings if not one.found)
    packages = sorted({fix.removeprefix(_APT) for fix in fixes if fix.startswith(_APT)})
    commands = [_APT + " ".join(packages)] if packages else []
    return "; ".join([*commands, *(fix for fix in fixes if not fix.startswith(_APT))])


def _findings(board: Board) -> Iterator[Finding]:
    for need in _needs(board):
        fix = need.fix()
        yield Finding(board.id, need.name, need.purpose, not fix, fix)


def _needs(board: Board) -> Iterator[Need]:
    for name, module in _MODULES.items():
        yield Need(name, "builds the firmware", partial(_module, name, module))
    if board.compiler:
        cross = board.compiler == "arm-none-eabi-gcc"
        package = "gcc-arm-none-eabi" if cross else "gcc"
        yield Need(board.compiler, "compiles", partial(_program, board.compiler, package))
        if cross:
            yield Need("newlib", "the C library", partial(_newlib, board.compiler))
    if board.kind == "emulator":
        yield Need(QEMU, f"has {board.machine}", partial(_machine, str(board.machine)))
    if board.kind == "serial":
        if not _module("platformio", _MODULES["platformio"]):
            yield Need("packages", "compiler and core", partial(_packages, board))
        ports = link.ports(board.usb_ids)
        yield Need(
            "port", f"USB id {' or '.join(board.usb_ids)}", partial(_connected, board, ports)
        )
        for port in ports:
            yield Need(port, "may be opened", partial(_permission, port))


def _module(name: str, module: str) -> str:
    there = importlib.util.find_spec(module) is not None
    return "" if there else f"{sys.executable} -m pip install {name}"


def _program(program: str, package: str) -> str:
    return "" if shutil.which(program) else _APT + package


def _newlib(compiler: str) -> str:
    # The compiler prints the bare name of a file that it does not find.
    there = "/" in _says(compiler, "-print-file-name=nano.specs")
    return "" if there else f"{_APT}libnewlib-arm-none-eabi"


def _machine(machine: str) -> str:
    return "" if f"\n{machine} " in _says(QEMU, "-machine", "help") else _APT + QEMU


def _packages(board: Board) -> str:
    """PlatformIO has them already, or can fetch them."""
    if platformio.installed(firmware_folder(), board.id):
        return ""
    why = platformio.registry()
    return "" if why is None else f"PlatformIO's registry cannot be reached ({why}): {_ONLINE}"


def _connected(board: Board, ports: list[str]) -> str:
    return "" if ports else f"connect {board.connect} (to press: {board.press})"


def _permission(port: str) -> str:
    return "" if os.access(port, os.R_OK | os.W_OK) else link.permission(port)


def _says(*command: str) -> str:
    """What the command prints, empty where it cannot be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
