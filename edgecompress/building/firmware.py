"""Generated sources and a board become a firmware image.

PlatformIO does the building (firmware/platformio.ini); this module gives it the sources, reads what
came out and puts it in place as a whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.boards import Board
from edgecompress.building import footprint, microlite, placeless, platformio
from edgecompress.errors import ConfigError, DeviceError, ToolError
from edgecompress.files import write_folder
from edgecompress.progress import Progress, silent
from edgecompress.report.boards import TOO_LARGE, Cost
from edgecompress.report.image import Attribution
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
_REFUSED = re.compile(r"The program size \((\d+) bytes\) is greater than .* \((\d+) bytes\)")
"""How PlatformIO says that an image is larger than the board."""
_COMPILING = re.compile(r"^(Compiling|Archiving|Linking) ")
_UNDEFINED = "undefined reference"
_SOURCES, _BUILT = "sources", "built"
_MODEL, _EMPTY = "model", "empty"
"""The two images that a build makes and the folders it makes them in; firmware/ has the model that
is none under the second name too."""
_OWN = frozenset({".pio", GENERATED, platformio.CONFIG, "project.py"})
"""What in firmware/ is PlatformIO's own, and no source."""
_SHOWN = 3
_EMPTIES: dict[tuple[Path, Board, str | None], Attribution] = {}
"""What images without a model take, of those that this process has built."""


@dataclass(frozen=True)
class Image:
    """A firmware image, built: the model `name` for `board` by the backend `backend`.

    `footprint` is what it takes, `empty` what an image without a model takes; both are None where
    the firmware is a program of this computer. `tflite` is the model's file, to judge the image's
    outputs by, None where its sources were not made of one; `flags` are the
    compiler's for the model's code, `optimize` is what its kernels were chosen for. `too_large`
    says by how much the image is larger than the board, empty where it fits. `compiler` is what
    built it, None where the linker's map does not tell; `layers` are what the model's operators are
    called, as far as that is known.
    """

    elf: Path
    board: Board
    backend: str
    name: str
    footprint: Attribution | None
    empty: Attribution | None
    tflite: bytes | None = field(repr=False)
    flags: str = ""
    optimize: Optimize = "balanced"
    too_large: str = ""
    compiler: str | None = None
    layers: tuple[str, ...] = field(default=(), repr=False)

    @property
    def chosen_for(self) -> Optimize | None:
        """`optimize`; None under a backend without a choice of kernels."""
        return self.optimize if self.backend == "aot" else None

    @property
    def excess(self) -> str:
        """Why the image does not fit, in words, with its largest parts; empty where it fits."""
        if not self.too_large:
            return ""
        told = f"{TOO_LARGE}: {self.too_large} ({self.board.memory})"
        found = self.footprint
        if found is None:
            return told
        return told + _most(found.largest(self.layers, ram=not found.over[0], count=_SHOWN))

    @property
    def conditions(self) -> str | None:
        """What the time on real hardware depends on beside its clock, None for other boards."""
        speed = self.board.memory_speed
        return None if speed is None else f"{speed}; compiled with {self.flags}"

    @property
    def cost(self) -> Cost | None:
        """What the model adds to an image without one."""
        if self.footprint is None or self.empty is None:
            return None
        return Cost(
            self.footprint.flash.total - self.empty.flash.total,
            self.footprint.ram.total - self.empty.ram.total,
            self.board.id,
        )

    HEADINGS: ClassVar[tuple[str, ...]] = ("memory", "what", "bytes")

    def rows(self) -> list[tuple[str, ...]]:
        """The footprint under HEADINGS, with sums; none where there is no footprint."""
        found, cost = self.footprint, self.cost
        if found is None or cost is None:
            return []
        ram = dataclasses.asdict(found.ram)
        stack = ram.pop("stack")
        lines = [
            *(("flash", part, size) for part, size in dataclasses.asdict(found.flash).items()),
            ("flash", "all", found.flash.total),
            *(("RAM", part, size) for part, size in ram.items() if size),
            ("RAM", "all, without the stack", found.ram.total),
            ("RAM", "stack", stack),
            ("flash", "cost of the model", cost.flash),
            ("RAM", "cost of the model", cost.ram),
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
            "optimize": self.chosen_for,
            "compiler": self.compiler,
            "footprint": _sums(self.footprint),
            "empty": _sums(self.empty),
            "cost": None if self.cost is None else dataclasses.asdict(self.cost),
            "too_large": self.too_large,
        }


class TooLarge(DeviceError):
    """The image is larger than its board: `why` in words."""

    def __init__(self, image: Image, why: str) -> None:
        self.why = why
        super().__init__(
            f"{image.board.id}: {image.name} {why}; take a larger board, or compress more"
        )


def build(
    sources: Mapping[str, str],
    *,
    board: str | Board,
    backend: str,
    out: Path,
    name: str,
    tflite: bytes | None = None,
    owners: Mapping[str, tuple[int, ...]] | None = None,
    layers: Sequence[str] = (),
    optimize: Optimize = "balanced",
    oversize: bool = False,
    progress: Progress = silent,
) -> Image:
    """Compile and link the generated `sources` (path: text) of the model `name` for `board`.

    `tflite` is the file that they were made of, `optimize` what their kernels were chosen for; the
    image only carries them. `owners` says which operators their constants, functions and files are
    there for (see `footprint.read`), `layers` what each operator is called. The folder
    <out>/<board>-<backend>/ gets firmware.elf, firmware.map, log.txt, image.json, generated/ and
    what else an upload to the board needs: all of it or nothing.

    An image that is larger than the board is linked all the same, to see what is in it: with
    `oversize` it is the answer, and `too_large` in it is set. Raises TooLarge for one without
    `oversize`, and where even that link fails; UnsupportedError for C++ sources where there is no
    TFLite Micro for the board (see `microlite`); ConfigError for an unknown board or a path that
    leads out of the folder; ToolError where a tool is missing or fails.
    """
    target = boards.load(board) if isinstance(board, str) else board
    home = firmware_folder()
    library = microlite.settings(home, target) if _check(sources) else {}
    need(target)
    folder = out / f"{target.id}-{backend}"
    image = Image(
        folder / ELF, target, backend, name, None, None, tflite,
        optimize=optimize, layers=tuple(layers),
    )  # fmt: skip

    def fill(fresh: Path) -> None:
        nonlocal image
        for path, text in sources.items():
            file = fresh / GENERATED / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        # Not every tool that PlatformIO calls copes with a blank in a path, as `out` may have one.
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as name:
            work = Path(name)
            log, why = _compile(home, image, work, fresh / GENERATED, library, progress)
            image = _examined(image, home, work, why, owners)
            if image.too_large and not oversize:
                raise TooLarge(image, image.excess)
            for file in _made(work, target, _MODEL).iterdir():
                if file.is_file() and file.name != FLAGS and not file.name.startswith("."):
                    shutil.copyfile(file, fresh / file.name)
            places = _places(home, work, target)
        _describe(image, fresh, log, places)

    write_folder(folder, fill)
    return image


def _examined(
    image: Image,
    home: Path,
    work: Path,
    why: str,
    owners: Mapping[str, tuple[int, ...]] | None,
) -> Image:
    """`image`, built in `work`, with what it takes; `why` the linker says that it does not fit."""
    made = _made(work, image.board, _MODEL)
    image = dataclasses.replace(
        image,
        flags=(made / FLAGS).read_text(encoding="utf-8"),
        compiler=footprint.compiler(made / MAP),
    )
    if image.board.kind == "program":
        return image
    key = _without_model(home, image.board)
    if key not in _EMPTIES:
        bare = _made(work, image.board, _EMPTY)
        _EMPTIES[key] = footprint.read(bare / ELF, bare / MAP, image.board)
    full = footprint.read(made / ELF, made / MAP, image.board, owners)
    # The linker counts gaps between sections too: the figure that the parts add up to is told.
    return dataclasses.replace(
        image, footprint=full, empty=_EMPTIES[key], too_large=_excess(full) or why
    )


def _describe(image: Image, fresh: Path, log: str, places: Mapping[Path, str]) -> None:
    """Say in `fresh`, beside the files of `image`, what it is, without the `places` it was made."""
    (fresh / ELF).chmod(0o755)
    listed = (fresh / MAP).read_text(encoding="utf-8", errors="replace")
    (fresh / MAP).write_text(placeless.paths(listed, places), encoding="utf-8")
    said = placeless.log(placeless.paths(log, places))
    (fresh / LOG).write_text(said, encoding="utf-8")
    table = {**image.table(), "elf": ELF}
    (fresh / IMAGE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


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
) -> tuple[str, str]:
    """Build an image with `model`, which takes `library` to build, and one without where it is not
    known yet, each in a folder of `work`; what was said of the first, and why the linker says that
    it does not fit (empty: it does)."""
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

    def one(which: str, **more: str) -> str:
        return platformio.run(
            home,
            board.id,
            settings={**_folders(work / which), **(library if which == _MODEL else {}), **more},
            timeout=FETCHING if board.kind == "serial" else TIMEOUT,
            started=running.append,
            heard=heard,
        )

    def linked(which: str) -> tuple[str, str]:
        _link(home, work / which / _SOURCES, model if which == _MODEL else home / _EMPTY)
        try:
            return one(which), ""
        except platformio.Failed as failed:
            made = _made(work, board, which)
            why = _overflow(failed.log)
            if which == _EMPTY or not why:
                raise
            if not (made / ELF).is_file() and not _BACKWARDS.search(failed.log):
                with contextlib.suppress(platformio.Failed):  # linked, then refused for its size
                    one(which, EC_OVERSIZE="1")
            if not (made / ELF).is_file():
                raise _unlinkable(image, made, why) from None
            return failed.log, why

    platformio.prepare(home)
    # PlatformIO fetches packages for one environment at a time.
    width = 1 if board.kind == "serial" else len(images)
    with ThreadPoolExecutor(width) as pool, _ended(pool, running):
        logs = [build.result() for build in [pool.submit(linked, which) for which in images]]
    progress("building", done, done)
    return logs[0]


@contextlib.contextmanager
def _ended(pool: Executor, running: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """Where one of the builds in `pool` fails, or an interrupt comes, none goes on."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            platformio.end(process)
        raise


def _folders(place: Path) -> dict[str, str]:
    """PlatformIO's settings for an image that is built in the folder `place`."""
    place = place.resolve()
    return {
        "PLATFORMIO_SRC_DIR": str(place / _SOURCES),
        "PLATFORMIO_BUILD_DIR": str(place / _BUILT),
        "PLATFORMIO_WORKSPACE_DIR": str(place),
    }


def _unlinkable(image: Image, made: Path, why: str) -> TooLarge:
    """The error for an image that is too large to be linked at all; its map may be in `made`."""
    told = dataclasses.replace(image, too_large=why).excess
    if (made / MAP).is_file():
        told += _most(footprint.sections(made / MAP).most_common(_SHOWN))
    return TooLarge(image, told)


def _link(home: Path, sources: Path, generated: Path) -> None:
    """Make the folder `sources` of links: to the sources in `home`, and to `generated` as the
    model's."""
    sources.mkdir(parents=True)
    for folder in home.resolve().iterdir():
        if folder.name not in _OWN:
            (sources / folder.name).symlink_to(folder)
    (sources / GENERATED).symlink_to(generated.resolve())


def _without_model(home: Path, board: Board) -> tuple[Path, Board, str | None]:
    """What an image without a model depends on, its sources in `home` taken as fixed."""
    return home, board, shutil.which(board.compiler)


def _made(work: Path, board: Board, which: str) -> Path:
    """The folder in which PlatformIO put the image."""
    return work / which / _BUILT / board.id


def _places(home: Path, work: Path, board: Board) -> dict[Path, str]:
    """Folders that differ from machine to machine, and from build to build."""
    return {
        _made(work.resolve(), board, _MODEL): "",
        work.resolve(): "work",
        home.resolve(): "firmware",
        platformio.prepare(home).resolve(): "firmware",
        platformio.packages(home): "packages",
    }


def _overflow(log: str) -> str:
    """How the linker says in a `log` that there is not memory enough; empty: it does not."""
    if _UNDEFINED in log:
        return ""
    over = {region: int(size) for region, size in _OVERFLOW.findall(log)}
    for end, limit in _BACKWARDS.findall(log):
        over["RAM"] = int(end, 16) - int(limit, 16)
    for takes, most in _REFUSED.findall(log):
        over["flash"] = int(takes) - int(most)
    if over:
        much = (f"{region} by {size:,} bytes" for region, size in over.items())
        return f"it is larger than {' and '.join(much)}"
    refused = _NO_STACK.search(log)
    return "it leaves no RAM for the stack" if refused else ""


def _excess(found: Attribution) -> str:
    """By how much the image takes more than the board has, by its board.toml; empty: it fits."""
    over = zip(("flash", "RAM"), found.over, strict=True)
    much = [f"{memory} by {size:,} bytes" for memory, size in over if size]
    return f"it is larger than {' and '.join(much)}" if much else ""


def _most(sizes: Sequence[tuple[str, int]]) -> str:
    return f"; most of it: {', '.join(f'{name} {size:,} bytes' for name, size in sizes)}"


def _sums(found: Attribution | None) -> dict[str, int] | None:
    if found is None:
        return None
    parts = {**dataclasses.asdict(found.flash), **dataclasses.asdict(found.ram)}
    return {**parts, "flash": found.flash.total, "ram": found.ram.total}
