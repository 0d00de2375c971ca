"""Generated sources and a board become a firmware image.

PlatformIO does the building (firmware/platformio.ini); this module gives it the sources, reads what
came out and puts it in place as a whole.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from edgecompress import boards, footprint, microlite, platformio
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.errors import ConfigError, DeviceError, ToolError
from edgecompress.files import write_folder
from edgecompress.footprint import Footprint
from edgecompress.progress import Progress, silent
from edgecompress.vocabulary import Optimize

ELF, MAP, LOG, GENERATED = "firmware.elf", "firmware.map", "log.txt", "generated"
IMAGE, FLAGS = "image.json", "flags.txt"
TIMEOUT = 600.0
"""Seconds that a build may take, once PlatformIO has all that it needs."""
FETCHING = 3600.0
"""Seconds that the first build for a board may take, which fetches its compiler and framework."""

_OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")
_BACKWARDS = re.compile(r"cannot move location counter backwards \(from (\w+) to (\w+)\)")
_NO_STACK = re.compile(r"heap region overflowed into stack|region RAM overflowed")
"""Where a linker script gives the heap all RAM up to the stack, it says so in one of these ways."""
_COMPILING = re.compile(r"^(Compiling|Archiving|Linking) ")
_MODEL, _EMPTY = "model", "empty"
"""The two images that a build makes and the folders it makes them in; firmware/ has the model that
is none under the second name too."""
_OWN = frozenset({".pio", GENERATED, platformio.CONFIG, "project.py"})
"""What in firmware/ is PlatformIO's own, and no source."""
_SHOWN = 3
_EMPTIES: dict[tuple[Path, Board, str | None], Footprint] = {}
"""What images without a model take, of those that this process has built."""


@dataclass(frozen=True)
class Image:
    """A firmware image, built: the model `name` for `board` by the backend `backend`.

    `footprint` is what it takes, `empty` what an image without a model takes; both are None where
    the firmware is a program of this computer. `tflite` is the model's file, to judge the image's
    outputs by, None where its sources were not made of one; `flags` are the
    compiler's for the model's code, `optimize` is what its kernels were chosen for.
    """

    elf: Path
    board: Board
    backend: str
    name: str
    footprint: Footprint | None
    empty: Footprint | None
    tflite: bytes | None = field(repr=False)
    flags: str = ""
    optimize: Optimize = "balanced"

    @property
    def conditions(self) -> str | None:
        """What the time on real hardware depends on beside its clock, None for other boards."""
        speed = self.board.memory_speed
        return None if speed is None else f"{speed}; compiled with {self.flags}"

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
            *(("RAM", part, size) for part in footprint.RAM if (size := getattr(found, part))),
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
            "flags": self.flags,
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
    <out>/<board>-<backend>/ gets firmware.elf, firmware.map, log.txt, image.json, generated/ and
    what else an upload to the board needs: all of it or nothing. Raises UnsupportedError for C++
    sources where there is no TFLite Micro for the board (see `microlite`); ConfigError for an
    unknown board or a path that leads out of the folder; ToolError where a tool is missing or
    fails; DeviceError where the image is too large.
    """
    target = boards.load(board) if isinstance(board, str) else board
    home = firmware_folder()
    library = microlite.settings(home, target) if _check(sources) else {}
    need(target)
    folder = out / f"{target.id}-{backend}"
    image = Image(folder / ELF, target, backend, name, None, None, tflite)

    def fill(fresh: Path) -> None:
        nonlocal image
        for path, text in sources.items():
            file = fresh / GENERATED / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        # Not every tool that PlatformIO calls copes with a blank in a path, as `out` may have one.
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as name:
            work = Path(name)
            log = _compile(home, image, work, fresh / GENERATED, library, progress)
            if target.kind != "program":
                key = _without_model(home, target)
                if key not in _EMPTIES:
                    _EMPTIES[key] = _footprint(work, target, _EMPTY)
                full = _footprint(work, target, _MODEL)
                image = dataclasses.replace(image, footprint=full, empty=_EMPTIES[key])
            _fit(image)
            made = _made(work, target, _MODEL)
            image = dataclasses.replace(image, flags=(made / FLAGS).read_text(encoding="utf-8"))
            for file in made.iterdir():
                if file.is_file() and file.name != FLAGS and not file.name.startswith("."):
                    shutil.copyfile(file, fresh / file.name)
        (fresh / ELF).chmod(0o755)
        (fresh / LOG).write_text(log, encoding="utf-8")
        (fresh / IMAGE).write_text(json.dumps(image.table(), indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill)
    return image


def keep(image: Image) -> None:
    """Leave the image's sources in firmware/generated of a checkout: `pio run` there builds them.

    An installed edgecompress has no such folder, and nothing is done.
    """
    home = firmware_folder()

    def fill(fresh: Path) -> None:
        shutil.copytree(image.elf.parent / GENERATED, fresh, dirs_exist_ok=True)

    if (home.parent / "pyproject.toml").is_file():
        write_folder(home / GENERATED, fill)


def _check(sources: Mapping[str, str]) -> bool:
    """Whether there is C++ among the sources, which is for TFLite Micro; ConfigError for a path
    that leads out of their folder."""
    paths = [PurePosixPath(path) for path in sources]
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError(f"source {str(path)!r}: give a path within the folder of the sources")
    return any(path.suffix not in (".c", ".h") for path in paths)


def need(board: Board) -> None:
    """Raise ToolError where this machine lacks something that the build of `board` needs."""
    if board.compiler and shutil.which(board.compiler) is None:
        raise ToolError(
            f"{board.compiler}: not found on PATH; `edgecompress doctor --board {board.id}` says"
            " how to get it"
        )
    if board.kind == "serial":
        platformio.need(firmware_folder(), board.id)


def _compile(
    home: Path,
    image: Image,
    work: Path,
    model: Path,
    library: Mapping[str, str],
    progress: Progress,
) -> str:
    """Build an image with `model`, which takes `library` to build, and one without where it is not
    known yet, each in a folder of `work`; what was said."""
    board = image.board
    known = board.kind == "program" or _without_model(home, board) in _EMPTIES
    images = (_MODEL,) if known else (_MODEL, _EMPTY)
    done = 0

    def heard(line: str) -> None:
        nonlocal done
        if _COMPILING.match(line):
            done += 1
            progress("building", done, done + 1)

    running: list[subprocess.Popen[str]] = []

    def one(which: str) -> str:
        sources = _sources(home, work / which, model if which == _MODEL else home / _EMPTY)
        settings = {
            "PLATFORMIO_SRC_DIR": str(sources.resolve()),
            "PLATFORMIO_BUILD_DIR": str((work / which / "built").resolve()),
            "PLATFORMIO_WORKSPACE_DIR": str((work / which).resolve()),
            **(library if which == _MODEL else {}),
        }
        limit = FETCHING if board.kind == "serial" else TIMEOUT
        return platformio.run(
            home,
            board.id,
            settings=settings,
            timeout=limit,
            started=running.append,
            heard=heard,
        )

    platformio.prepare(home)
    # PlatformIO fetches packages for one environment at a time.
    width = 1 if board.kind == "serial" else len(images)
    try:
        with ThreadPoolExecutor(width) as pool:
            builds = [pool.submit(one, which) for which in images]
            try:
                logs = [build.result() for build in builds]
            except BaseException:  # one that failed, or an interrupt: none goes on
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    platformio.end(process)
                raise
    except platformio.Failed as failed:
        raise _failure(image, work, failed) from None
    progress("building", done, done)
    return "".join(logs)


def _sources(home: Path, work: Path, generated: Path) -> Path:
    """A folder of links in `work`: the sources in `home`, and `generated` as the model's."""
    sources = work / "sources"
    sources.mkdir(parents=True)
    for folder in home.resolve().iterdir():
        if folder.name not in _OWN:
            (sources / folder.name).symlink_to(folder)
    (sources / GENERATED).symlink_to(generated.resolve())
    return sources


def _without_model(home: Path, board: Board) -> tuple[Path, Board, str | None]:
    """What an image without a model depends on, its sources in `home` taken as fixed."""
    return home, board, shutil.which(board.compiler)


def _made(work: Path, board: Board, which: str) -> Path:
    """The folder in which PlatformIO put the image."""
    return work / which / "built" / board.id


def _footprint(work: Path, board: Board, which: str) -> Footprint:
    made = _made(work, board, which)
    return footprint.read(made / ELF, made / MAP, board.ram)


def _failure(image: Image, work: Path, failed: platformio.Failed) -> ToolError | DeviceError:
    """The error that the user gets to see: what does not fit, where that is the reason."""
    board, made = image.board, _made(work, image.board, _MODEL)
    over = {region: int(size) for region, size in _OVERFLOW.findall(failed.log)}
    for end, limit in _BACKWARDS.findall(failed.log):
        over["RAM"] = int(end, 16) - int(limit, 16)
    if over:
        much = " and ".join(f"{region} by {size:,} bytes" for region, size in over.items())
        return _too_large(image, f"it is larger than {much} ({board.memory})", made / MAP)
    if _NO_STACK.search(failed.log):
        return _too_large(image, f"it leaves no RAM for the stack ({board.memory})", made / MAP)
    if (made / ELF).is_file() and (made / MAP).is_file():  # linked, then refused by PlatformIO
        try:
            _fit(dataclasses.replace(image, footprint=_footprint(work, board, _MODEL)))
        except DeviceError as error:
            return error
    return failed


def _fit(image: Image) -> None:
    """Raise DeviceError where the image takes more than the board has, by its board.toml."""
    found, board = image.footprint, image.board
    if found is None:
        return
    for memory, parts, takes, has in (
        ("flash", footprint.FLASH, found.flash, board.flash_bytes),
        ("RAM", footprint.RAM, found.ram + found.stack, board.ram_bytes),
    ):
        if has is not None and takes > has:
            sizes = ", ".join(f"{part} {getattr(found, part):,}" for part in parts)
            raise _too_large(image, f"{takes:,} bytes of {memory}, it has {has:,}: {sizes}")


def _too_large(image: Image, why: str, map_file: Path | None = None) -> DeviceError:
    sections = ""
    if map_file is not None and map_file.is_file():
        sizes = footprint.sections(map_file).most_common(_SHOWN)
        sections = f"; {', '.join(f'{name} {size:,}' for name, size in sizes)}"
    return DeviceError(
        f"{image.board.id}: {image.name} does not fit: {why}{sections}; take a larger board, or"
        " compress more"
    )


def _sums(found: Footprint | None) -> dict[str, int] | None:
    if found is None:
        return None
    return {**dataclasses.asdict(found), "flash": found.flash, "ram": found.ram}
