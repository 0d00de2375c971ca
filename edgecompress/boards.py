"""Boards: firmware/boards/<id>/board.toml -> Board."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecompress import strict
from edgecompress.backends import firmware_folder
from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Core

_LINE = re.compile(r'^(\w+) = (?:"[^"]*"|[^\s"#]+)$', re.M)
_SCALE = re.compile(r"[1-9]\d*(/[1-9]\d*)?")
_MACHINE = ("machine", "flash_origin", "flash_bytes", "ram_origin", "ram_bytes", "stack_bytes")


@dataclass(frozen=True)
class Board:
    """A board as its board.toml describes it.

    `core` is what instructions it has, by which the ahead-of-time C chooses kernels. `kind` says
    how the firmware runs: as a program of this computer, or on the machine `machine` of
    qemu-system-arm. `compiler` and `flags` make its code; `family` is the folder of firmware/ with
    start-up code and linker script shared by several boards. Flash, RAM and the stack at the start
    of RAM are in bytes. One tick is `scale` units ("40" or "125/4"); `hz` ticks are a second, 0
    where ticks say nothing about time.
    """

    id: str
    title: str
    kind: Literal["program", "emulator"]
    compiler: str
    unit: Literal["instructions", "cycles", "nanoseconds"]
    scale: str
    hz: int
    flags: str = ""
    core: Core = "dsp"
    family: str | None = None
    machine: str | None = None
    flash_origin: int | None = None
    flash_bytes: int | None = None
    ram_origin: int | None = None
    ram_bytes: int | None = None
    stack_bytes: int | None = None

    def __post_init__(self) -> None:
        if not _SCALE.fullmatch(self.scale):
            raise ConfigError(f"scale = {self.scale!r}: write units per tick, as 40 or 125/4")
        if self.hz < 0:
            raise ConfigError(f"hz = {self.hz}: write ticks per second, or 0")
        given = {key for key in _MACHINE if getattr(self, key) is not None}
        wanted = set(_MACHINE) if self.kind == "emulator" else set()
        for key in _MACHINE:
            if (key in given) != (key in wanted):
                what = "missing" if key in wanted else "not for"
                raise ConfigError(f"{key}: {what} a board of kind {self.kind}")
        if not 0 <= (self.stack_bytes or 0) <= (self.ram_bytes or 0):
            raise ConfigError(f"stack_bytes = {self.stack_bytes}: more than the board's RAM")

    @property
    def units_per_tick(self) -> Fraction:
        """`scale` as a number."""
        return Fraction(self.scale)

    @property
    def memory(self) -> str:
        """Flash and RAM in words, empty where they are this computer's."""
        if self.flash_bytes is None or self.ram_bytes is None:
            return ""
        return f"{self.flash_bytes // 1024:,} KB flash, {self.ram_bytes // 1024:,} KB RAM"


def names() -> tuple[str, ...]:
    """The ids of all boards, sorted."""
    return tuple(sorted(file.parent.name for file in _folder().glob("*/board.toml")))


def load(board: str) -> Board:
    """The board called `board`.

    Raises ConfigError for an unknown one, which lists all, and for a board.toml that is wrong.
    """
    if board not in names():
        raise ConfigError(f"board {board!r}: no such board; there is {', '.join(names())}")
    return read(_folder() / board / "board.toml")


def read(file: Path) -> Board:
    """The board that `file` describes, whose folder has the board's id for a name.

    Raises ConfigError with the file and the key.
    """
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: no TOML: {error}") from None
    found = strict.build(Board, table, where=str(file), error=ConfigError)
    if found.id != file.parent.name:
        raise ConfigError(f"{file}: id = {found.id!r}: write the folder's name, {file.parent.name}")
    loose = set(table) - set(_LINE.findall(text))
    if loose:
        raise ConfigError(
            f"{file}: {min(loose)}: write `key = value` alone on its line, numbers and texts only:"
            " firmware/Makefile reads it too"
        )
    return found


def _folder() -> Path:
    return firmware_folder() / "boards"
