"""Functions in Python files of the user's own: called, with their errors as one line each."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecompress.errors import ConfigError

_DAMAGED = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
"""What the readers of archives raise on truncated or damaged ones."""

# What a user's code may raise; each becomes one line that names the file.
_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError,
    NameError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, *_DAMAGED,
)  # fmt: skip


def split(where: str) -> tuple[Path, str] | None:
    """The file and the function of "file.py:function"; None where `where` is nothing like it."""
    file, colon, name = where.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else None


def function(where: str, *, of: str) -> Callable[..., Any]:
    """The function "file.py:function", whose errors are ConfigErrors that name file and line.

    `of` says who asks for it (--data). The file is run once however many of its functions are
    asked for. Raises ConfigError where there is no such file or function.
    """
    parts = split(where)
    if parts is None or not parts[1].isidentifier():
        raise ConfigError(f"{of} {where}: give a file and a function of it, my_file.py:function")
    file, name = parts
    if not file.is_file():
        raise ConfigError(f"{of} {where}: there is no file {file}")
    module = _module(file.resolve())
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"{file}: there is no function {name}, which {of} asks for")

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with one_line(file.resolve()):
            return found(*args, **kwargs)

    return guarded


@contextmanager
def one_line(file: Path) -> Iterator[None]:
    """Errors of the code in `file` as a ConfigError of one line that names it."""
    try:
        yield
    except _ERRORS as error:
        raise ConfigError(f"{file}:{line_of(error, file)} {explain(error, file)}") from error


def line_of(error: BaseException, file: Path) -> str:
    """The innermost line of `file` that the error went through, as "12:", or nothing."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{error.lineno}:"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{lines[-1]}:" if lines else ""


def explain(error: BaseException, file: Path) -> str:
    """The kind of error and its text on one line, with a hint where there is one."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if (file.parent / f"{error.name}.py").exists():
            return f"{text}; import the file beside it with `from . import {error.name}`"
    if isinstance(error, _DAMAGED):
        text += "; a file that it reads is damaged, copy or pull it again"
    return f"{type(error).__name__}: {text}"


def _module(file: Path) -> ModuleType:
    """The file as a module of a package of its own, so that it may import what lies beside it."""
    package = f"_edgecompress_file_{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"
    name = f"{package}.{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    parent = ModuleType(package)
    parent.__path__ = [str(file.parent)]
    sys.modules[package] = parent
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # it is a .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with one_line(file):
            spec.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name], sys.modules[package]
        raise
    return module
