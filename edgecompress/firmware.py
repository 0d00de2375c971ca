"""Generated sources and a board become a firmware image.

firmware/Makefile does the building; this module gives it a folder, reads what came out and puts it
in place as a whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from edgecompress import boards, footprint
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.errors import ConfigError, DeviceError, ToolError, UnsupportedError
from edgecompress.files import write_folder
from edgecompress.footprint import Footprint
from edgecompress.progress import Progress, silent
from edgecompress.vocabulary import Optimize

ELF, MAP, LOG, GENERATED = "firmware.elf", "firmware.map", "log.txt", "generated"
IMAGE = "image.json"
SOURCES = "firmware"
"""What the folder of C sources is called while an image is built."""
TIMEOUT = 600.0
"""Seconds that a build may take."""

_OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")
_LAST_LINES = 20
_MAKE = frozenset(
    {"GNUMAKEFLAGS", "MAKEFILES", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
)
"""What an outer make, or the user for another one, would pass on: variables and job server."""
_LANGUAGE = {"LC_ALL": "C"}
"""The linker's map and its complaints are read here: in English, whatever the user speaks."""


@dataclass(frozen=True)
class Image:
    """A firmware image, built: the model `name` for `board` by the backend `backend`.

    `footprint` is what it takes, `empty` what an image without a model takes; both are None where
    the firmware is a program of this computer. `tflite` is the model's file, to judge the image's
    outputs by, None where its sources were not made of one; `optimize` what its kernels were
    chosen for.
    """

    elf: Path
    board: Board
    backend: str
    name: str
    footprint: Footprint | None
    empty: Footprint | None
    tflite: bytes | None = field(repr=False)
    optimize: Optimize = "balanced"

    @property
    def cost(self) -> tuple[int, int] | None:
        """Bytes of flash and of RAM that the model adds to an image without one."""
        if self.footprint is None or self.empty is None:
            return None
        return self.footprint.flash - self.empty.flash, self.footprint.ram - self.empty.ram

    HEADINGS: ClassVar[tuple[str, ...]] = ("memory", "what", "bytes")

    def rows(self) -> list[tuple[str, ...]]:
        """The footprint under HEADINGS, with sums; none where there is no footprint."""
        found = self.footprint
        if found is None:
            return []
        lines = [
            *(("flash", part, getattr(found, part)) for part in footprint.FLASH),
            ("flash", "all", found.flash),
            *(("RAM", part, getattr(found, part)) for part in footprint.RAM),
            ("RAM", "all, without the stack", found.ram),
            ("RAM", "stack", found.stack),
        ]
        if self.cost is not None:
            lines += [
                (memory, "cost of the model", bytes_)
                for memory, bytes_ in zip(("flash", "RAM"), self.cost, strict=True)
            ]
        return [(memory, part, f"{size:,}") for memory, part, size in lines]

    def table(self) -> dict[str, Any]:
        """As JSON values: the footprint in bytes, with its sums and the cost of the model."""
        return {
            "name": self.name,
            "board": self.board.id,
            "backend": self.backend,
            "elf": str(self.elf),
            "footprint": _sums(self.footprint),
            "empty": _sums(self.empty),
            "cost": dict(zip(("flash", "ram"), self.cost, strict=True)) if self.cost else None,
        }


def build(
    sources: Mapping[str, str],
    *,
    board: str | Board,
    backend: str,
    out: Path,
    name: str,
    tflite: bytes | None = None,
    progress: Progress = silent,
) -> Image:
    """Compile and link the generated `sources` (path: text) of the model `name` for `board`.

    `tflite` is the file that they were made of; the image only carries it. The folder
    <out>/<board>-<backend>/ gets firmware.elf, firmware.map, log.txt, image.json and generated/,
    all of it or nothing. Raises UnsupportedError for C++ sources, which need the TFLite Micro
    library; ConfigError for an unknown board or a path that leads out of the folder; ToolError
    where a tool is missing or fails; DeviceError where the image is too large.
    """
    target = boards.load(board) if isinstance(board, str) else board
    _check(sources, backend)
    for tool in ("make", target.compiler):
        if shutil.which(tool) is None:
            raise ToolError(
                f"{tool}: not found on PATH; `edgecompress doctor --board {target.id}` says how to"
                " get it"
            )
    folder = out / f"{target.id}-{backend}"
    image = Image(folder / ELF, target, backend, name, None, None, tflite)

    def fill(fresh: Path) -> None:
        nonlocal image
        # A link, because a Makefile cannot name a path with a blank in it.
        (fresh / SOURCES).symlink_to(firmware_folder().resolve(), target_is_directory=True)
        for path, text in sources.items():
            file = fresh / GENERATED / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        progress("building", 0, 2)
        _make(fresh, target, GENERATED, "objects", name)
        progress("building", 1, 2)
        if target.kind != "program":
            _make(fresh, target, f"{SOURCES}/empty", "without", "empty")
            full, empty = (
                footprint.read(fresh / out / ELF, fresh / out / MAP)
                for out in ("objects", "without")
            )
            image = dataclasses.replace(image, footprint=full, empty=empty)
        progress("building", 2, 2)
        for kept in (ELF, MAP):
            (fresh / "objects" / kept).rename(fresh / kept)
        for objects in ("objects", "without"):
            shutil.rmtree(fresh / objects, ignore_errors=True)
        (fresh / SOURCES).unlink()
        (fresh / IMAGE).write_text(json.dumps(image.table(), indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill)
    return image


def _check(sources: Mapping[str, str], backend: str) -> None:
    for path in sources:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise ConfigError(f"source {path!r}: give a path within the folder of the sources")
        if parts.suffix not in (".c", ".h"):
            raise UnsupportedError(
                f"{path}: the {backend} backend makes C++ for the TFLite Micro library, which"
                " edgecompress does not ship; add the sources to your TFLite Micro project, or"
                " build with --backend aot"
            )


def _make(work: Path, board: Board, generated: str, out: str, name: str) -> None:
    """Run firmware/Makefile in `work`, which fills `out`."""
    command = ["make", "-f", f"{SOURCES}/Makefile", f"BOARD={board.id}"]
    command += [f"GENERATED={generated}", f"OUT={out}"]
    environment = {key: text for key, text in os.environ.items() if key not in _MAKE} | _LANGUAGE
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"{' '.join(command)}: not done after {TIMEOUT:.0f} seconds") from None
    log = done.stdout.decode("utf-8", "replace")
    with (work / LOG).open("a", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(command)}\n{log}")
    if done.returncode:
        raise _failure(name, board, command, done.returncode, log)


def _failure(
    name: str, board: Board, command: list[str], status: int, log: str
) -> ToolError | DeviceError:
    over = {region: int(size) for region, size in _OVERFLOW.findall(log)}
    if over:
        much = " and ".join(f"{region} by {size:,} bytes" for region, size in over.items())
        return DeviceError(
            f"{board.id}: {name} does not fit: it is larger than {much} ({board.memory}); take a"
            " larger board, or compress more"
        )
    last = "; ".join(line.strip() for line in log.splitlines()[-_LAST_LINES:] if line.strip())
    return ToolError(f"{' '.join(command)}: exit status {status}: {last}")


def _sums(found: Footprint | None) -> dict[str, int] | None:
    if found is None:
        return None
    return {**dataclasses.asdict(found), "flash": found.flash, "ram": found.ram}
