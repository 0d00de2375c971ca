"""A compressed model to build without edgecompress: an Arduino library, or a PlatformIO project."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from edgecompress import __version__, boards
from edgecompress.artifact import Artifact
from edgecompress.backends import cgen, firmware_folder, tflm
from edgecompress.building import deployment, microlite, platformio
from edgecompress.errors import ConfigError
from edgecompress.files import write_bytes, write_folder
from edgecompress.vocabulary import Backend, Core, Optimize

BOARD = "qemu_m4"
"""The board that a project is for unless another one is asked for."""
MARK = "export.json"
"""The file by which a folder is known as an earlier export."""

_TEMPLATES = "export"
_SKETCH, _PROPERTIES, _README = "sample.ino", "library.properties", "README.md"
_SHARED = ("app", "boards", "include", "platform")
_KEPT = ".pio"
"""PlatformIO's own folder in a project: its packages, and what it built."""
_EXAMPLE = "_sample"
_LONGEST = 63
"""Characters that the name of an Arduino library, or of a sketch, may have."""
_TFLITE_MICRO = (
    "TFLite Micro is not in here. Real boards that have one take a pinned library from"
    " PlatformIO's registry; all\nothers need `TFLM_DIR=FOLDER` in the environment of `pio`: the"
    " folder in which TFLite Micro's own makefile built\nit for the board's core.\n\n"
)


def arduino(
    artifact: Artifact, file: Path, *, core: Core = "dsp", optimize: Optimize = "balanced"
) -> tuple[str, int]:
    """Write the ahead-of-time C of a quantised model to the zip `file`, an Arduino library with an
    example sketch; the library's name, and how many files it has.

    The same model and settings give the same bytes. `core` and `optimize` are as in `aot.schedule`:
    on any core the C gives the same outputs. Raises ConfigError for a name that is no .zip or the
    name of a folder, and the errors of `deployment.sources`.
    """
    if file.suffix.lower() != ".zip":
        raise ConfigError(f"{file}: an Arduino library is a .zip; give a name such as my_model.zip")
    if file.is_dir():
        raise ConfigError(f"{file}: it is a folder; give the name of a new .zip")
    sources = _needed(deployment.sources(artifact, core=core, optimize=optimize))
    library = f"edgecompress_{cgen.identifier(artifact.name)}"[: _LONGEST - len(_EXAMPLE)]
    example = f"{library}{_EXAMPLE}"
    header = f"{library}.h"
    words = {**_about(artifact), "library": library, "header": header}
    files = {
        _PROPERTIES: _filled(_PROPERTIES, words),
        f"src/{header}": cgen.guarded(header, '#include "ec_model.h"\n'),
        f"examples/{example}/{example}.ino": _filled(_SKETCH, words),
        **{f"src/{path}": text for path, text in sources.items()},
    }
    write_bytes(file, _zip({f"{library}/{path}": text for path, text in files.items()}))
    return library, len(files)


def project(
    artifact: Artifact,
    folder: Path,
    *,
    board: str = BOARD,
    backend: Backend = "aot",
    core: Core | None = None,
    optimize: Optimize = "balanced",
) -> None:
    """Write a PlatformIO project with a quantised model, for `board` first and for all boards.

    An earlier export in `folder` is replaced, but for what PlatformIO keeps there. `core` is the
    board's unless given; kernels for a core run on all others too. Raises ConfigError for an
    unknown board and for a folder with anything else in it, be it a file of the earlier export that
    was changed, and the errors of `deployment.sources`.
    """
    target = boards.load(board)
    folder = folder.resolve()
    _check(folder)
    sources = _needed(
        deployment.sources(artifact, backend=backend, core=core or target.core, optimize=optimize)
    )
    home = firmware_folder()
    families = sorted({name for name in map(_family, boards.names()) if name})
    words = {
        **_about(artifact),
        "board": board,
        "families": ", ".join(f"`{name}/`" for name in families),
        "library": _TFLITE_MICRO if backend == tflm.NAME else "",
    }
    mark = {"name": artifact.name, "sha256": artifact.sha256, "backend": backend, "board": board}
    tools = Path(_KEPT, "core")
    again = (folder / _KEPT).is_dir()
    if again:
        platformio.provide_scons(home, folder / tools)

    def fill(fresh: Path) -> None:
        for name in (*_SHARED, *families):
            shutil.copytree(home / name, fresh / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(home / "project.py", fresh / "project.py")
        texts = {
            platformio.CONFIG: _config(home, board, backend),
            _README: _filled(_README, words),
            **{f"generated/{path}": text for path, text in sources.items()},
        }
        for path, text in texts.items():
            (fresh / path).parent.mkdir(exist_ok=True)
            (fresh / path).write_text(text, encoding="utf-8")
        files = {path: _sha(fresh / path) for path in _files(fresh)}
        about = {"edgecompress": __version__, **mark, "files": files}
        (fresh / MARK).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if not again:
            platformio.provide_scons(home, fresh / tools)

    write_folder(folder, fill, kept=_KEPT)


def _check(folder: Path) -> None:
    """Raise ConfigError unless a project may be written to `folder`, and no work is lost by it."""
    if folder.is_dir():
        if not any(folder.iterdir()):
            return
        why = "it is not empty, and no earlier export"
        if (folder / MARK).is_file():
            why = _yours(folder)
    elif folder.exists():
        why = "it is a file"
    else:
        return
    if why:
        raise ConfigError(f"{folder}: {why}; give the name of a new folder")


def _yours(folder: Path) -> str:
    """What an earlier export in `folder` would lose if it was replaced; empty: nothing."""
    try:
        files = dict(json.loads((folder / MARK).read_text(encoding="utf-8"))["files"])
    except (KeyError, TypeError, ValueError):
        return f"{MARK} in it does not list the files of an export"
    for path in _files(folder):
        if path != MARK and (path not in files or _sha(folder / path) != files[path]):
            how = "was changed since" if path in files else "is no part of"
            return f"{path} {how} the earlier export in it"
    return ""


def _files(folder: Path) -> list[str]:
    """All files below `folder` but those in PlatformIO's own folder, sorted; a link is a file."""
    found = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        folders[:] = [name for name in folders if here / name != Path(_KEPT)]
        links = [name for name in folders if Path(root, name).is_symlink()]
        found += [(here / name).as_posix() for name in (*files, *links)]
    return sorted(found)


def _sha(file: Path) -> str | None:
    """The SHA-256 of a file; None for a link, which no export has."""
    return None if file.is_symlink() else hashlib.sha256(file.read_bytes()).hexdigest()


def _needed(sources: Mapping[str, str]) -> dict[str, str]:
    """What a program that includes the model needs of `sources`: all but the example."""
    return {path: text for path, text in sources.items() if not path.startswith("example/")}


def _family(board: str) -> str | None:
    return boards.load(board).family


def _about(artifact: Artifact) -> dict[str, str]:
    """What templates say of the model."""
    title = " ".join(re.sub(r"[^\x20-\x7e]", " ", artifact.name).split())
    return {"title": title, "sha": str(artifact.sha256), "version": __version__}


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (firmware_folder() / _TEMPLATES / template).read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _config(home: Path, board: str, backend: Backend) -> str:
    """platformio.ini with `board` as the environment that is built where none is named."""
    text = (home / platformio.CONFIG).read_text(encoding="utf-8")
    text = re.sub(r"(?m)^default_envs = .*$", f"default_envs = {board}", text)
    if backend == tflm.NAME:
        text = re.sub(rf"(?m)^{microlite.PINNED} =", "lib_deps =", text)
    return text


def _zip(files: Mapping[str, str]) -> bytes:
    """An archive of `files`, sorted, all of the date that a ZipInfo has by itself."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in sorted(files.items()):
            entry = zipfile.ZipInfo(path)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
