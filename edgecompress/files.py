"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path` (same suffix), then rename it to `path`.

    The folder is made. When `write` fails, an earlier `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    try:
        write(Path(temporary))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """`data` at `path`, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_whole(path, write)


def write_text(path: Path, text: str) -> None:
    """`text` (UTF-8) at `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_folder(path: Path, write: Callable[[Path], None], *, kept: str | None = None) -> None:
    """Let `write` fill a temporary folder beside `path`, then rename it to `path`.

    What is called `kept` in an earlier folder at `path` moves into the new one, which must not have
    it. When anything fails the earlier folder stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        fresh, old = Path(temporary) / "new", Path(temporary) / "old"
        fresh.mkdir()
        write(fresh)
        with contextlib.ExitStack() as undo:
            if path.is_dir():
                path.rename(old)
                undo.callback(old.rename, path)
            fresh.rename(path)
            undo.callback(path.rename, fresh)
            if kept is not None and (old / kept).exists():
                (old / kept).rename(path / kept)
            undo.pop_all()
