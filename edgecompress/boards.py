"""Boards: firmware/boards/<id>/board.toml -> Board."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecompress import strict
from edgecompress.backends import firmware_folder
from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Core

Kind: TypeAlias = Literal["program", "emulator", "serial"]

_LINE = re.compile(r'^(\w+) = (?:"[^"]*"|0|[1-9]\d*|0x[0-9a-fA-F]+)$', re.M)
_SCALE = re.compile(r"[1-9]\d*(/[1-9]\d*)?")
_AREA = r"(0x[0-9a-f]{1,8})\+(0x[0-9a-f]{1,8})"
_AREAS = re.compile(rf"{_AREA}( {_AREA})*")
_USB = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}( [0-9a-f]{4}:[0-9a-f]{4})*")
_SHARED = ("family", "flash_bytes", "ram_bytes")
_MACHINE = ("compiler", "machine", "flash_origin", "ram_origin", "stack_bytes")
_PORT = ("ram_at", "clock_hz", "memory_speed", "ticks", "usb", "baud", "connect", "press")
_PORT_TOO = ("bootloader", "loader", "note")
"""What a board of kind serial may have beside those of its kind."""
_WANTED: dict[Kind, tuple[str, ...]] = {
    "program": ("compiler",),
    "emulator": _SHARED + _MACHINE,
    "serial": _SHARED + _PORT,
}
"""The keys that a board of each kind must have; those of the other kinds it may not."""
_POSITIVE = ("flash_bytes", "ram_bytes", "clock_hz", "baud")
_TICKS = {"dwt": ("cycles", "1"), "micros": ("nanoseconds", "1000")}
"""What a tick of each source is: unit and scale."""
_MICROS_HZ = 1_000_000


@dataclass(frozen=True)
class Board:
    """A board as its board.toml describes it.

    `core` is what instructions it has, by which the ahead-of-time C chooses kernels. `kind` says
    how the firmware runs: as a program of this computer, on the machine `machine` of
    qemu-system-arm, or on a real board at a serial port, which PlatformIO builds for and uploads
    to. `compiler` and `flags` make its code where that is not PlatformIO's platform; `family` is
    the folder of firmware/ with the code shared by several boards. Flash and RAM (what a program
    may use of them) and the stack at the start of RAM are in bytes. One tick is `scale` units ("40"
    or "125/4"); `hz` ticks are a second, 0 where ticks say nothing about time.

    The RAM of a real board that `ram_bytes` speaks of lies at `ram_at` ("0x20000000+0x40000":
    address and bytes, blanks between several); of two addresses of the same RAM, only the one at
    which the core's linker script accounts for all of it. The board counts `ticks` with its core's
    cycle counter ("dwt") or with microseconds. Its core runs at `clock_hz`, its memories as
    `memory_speed` says. `usb` are the ids ("2341:805a", blanks between them) that its port may
    have, `bootloader` those that it has while it waits for an upload, where they are others and it
    has a port then; `loader` is "usb" where an upload needs no port at all. `baud` is the speed of
    a UART. `connect` and `press` tell a person what to do, `note` what else there is to know.
    """

    id: str
    title: str
    kind: Kind
    unit: Literal["instructions", "cycles", "nanoseconds"]
    scale: str
    hz: int
    compiler: str = ""
    flags: str = ""
    core: Core = "dsp"
    family: str | None = None
    machine: str | None = None
    flash_origin: int | None = None
    flash_bytes: int | None = None
    ram_origin: int | None = None
    ram_bytes: int | None = None
    stack_bytes: int | None = None
    ram_at: str | None = None
    clock_hz: int | None = None
    memory_speed: str | None = None
    ticks: Literal["dwt", "micros"] | None = None
    usb: str | None = None
    bootloader: str | None = None
    loader: Literal["usb"] | None = None
    baud: int | None = None
    connect: str | None = None
    press: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if not _SCALE.fullmatch(self.scale):
            raise ConfigError(f"scale = {self.scale!r}: write units per tick, as 40 or 125/4")
        if self.hz < 0:
            raise ConfigError(f"hz = {self.hz}: write ticks per second, or 0")
        wanted = _WANTED[self.kind]
        for key in _SHARED + _MACHINE + _PORT:
            if (getattr(self, key) not in (None, "")) != (key in wanted):
                what = "missing" if key in wanted else "not for"
                raise ConfigError(f"{key}: {what} a board of kind {self.kind}")
        needs = [("flags", self.compiler), *((key, self.usb) for key in _PORT_TOO)]
        for key, needed in needs:
            if getattr(self, key) and not needed:
                raise ConfigError(f"{key}: not for a board of kind {self.kind}")
        for key in _POSITIVE:
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} = {value}: write 1 or more")
        if not 0 <= (self.stack_bytes or 0) <= (self.ram_bytes or 0):
            raise ConfigError(f"stack_bytes = {self.stack_bytes}: more than the board's RAM")
        for key, ids in (("usb", self.usb), ("bootloader", self.bootloader)):
            if ids is not None and not _USB.fullmatch(ids):
                raise ConfigError(f"{key} = {ids!r}: write ids as 2341:805a, blanks between them")
        if self.ram_at is not None:
            self._check_ram(self.ram_at)
        if self.ticks is not None:
            self._check_ticks(self.ticks)

    def _check_ram(self, places: str) -> None:
        if not _AREAS.fullmatch(places):
            raise ConfigError(f"ram_at = {places!r}: write 0x20000000+0x40000, blanks between them")
        if sum(map(len, self.ram)) < (self.ram_bytes or 0):
            raise ConfigError(f"ram_at = {places!r}: less than ram_bytes = {self.ram_bytes}")

    def _check_ticks(self, source: str) -> None:
        tick = {"unit": _TICKS[source][0], "scale": _TICKS[source][1]}
        tick["hz"] = str(self.clock_hz if source == "dwt" else _MICROS_HZ)
        for key, value in tick.items():
            if (found := str(getattr(self, key))) != value:
                raise ConfigError(f"{key} = {found}: with ticks = {source!r} it is {value}")

    @property
    def ram(self) -> tuple[range, ...]:
        """The addresses of `ram_at`; none for a board that is not real."""
        areas = re.findall(_AREA, self.ram_at or "")
        starts = ((int(start, 16), int(size, 16)) for start, size in areas)
        return tuple(range(start, start + size) for start, size in starts)

    @property
    def running_ids(self) -> tuple[str, ...]:
        """The USB ids of the port while the firmware runs; none for a board without a port."""
        return tuple((self.usb or "").split())

    @property
    def usb_ids(self) -> tuple[str, ...]:
        """All USB ids of the port: `running_ids`, then the bootloader's."""
        return (*self.running_ids, *(self.bootloader or "").split())

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
            " firmware/project.py reads it too"
        )
    return found


def _folder() -> Path:
    return firmware_folder() / "boards"
