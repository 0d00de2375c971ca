"""Plain tables (TOML, JSON) -> frozen dataclasses, strictly: an unknown, missing or mistyped key
is an error that names the file and the key."""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgecompress.errors import EdgeCompressError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

MAX_LEVELS = 50
"""Levels of tables and lists in a file; those we write have eight at most."""
TOO_DEEP = f"tables and lists lie deeper than {MAX_LEVELS} levels, which no file of ours does"

LARGEST = 2**63 - 1
"""The largest whole number, which a float can hold too."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def read_toml(cls: type[T], path: Path, *, error: type[EdgeCompressError]) -> T:
    """An instance of the dataclass `cls` from the TOML file `path`; see `build`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except RecursionError:
        raise error(f"{path}: {TOO_DEEP}") from None
    except (OSError, ValueError) as wrong:
        raise error(f"{path}: not a readable TOML file: {wrong}") from wrong
    return build(cls, table, where=str(path), error=error)


def build(
    cls: type[T],
    table: Any,
    *,
    where: str,
    error: type[EdgeCompressError],
    complete: bool = False,
) -> T:
    """An instance of the dataclass `cls` from `table`, nested dataclasses included.

    `where` (a file) opens every message; `error` is the class that is raised. An error of that
    class raised by the dataclass's own checks is passed on behind `where` and the key of its table
    (unless it begins with that). `complete`: defaults do not count, every key must be there.
    """
    if nested(table, MAX_LEVELS):
        raise error(f"{where}: {TOO_DEEP}")
    return _Reader(where, error, complete).table(cls, table, "")


def nested(value: Any, levels: int) -> bool:
    """Whether tables and lists in `value` lie deeper than `levels`; without recursion."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(each, (dict, list)) for each in layer)


@dataclass(frozen=True)
class _Reader:
    where: str
    error: type[EdgeCompressError]
    complete: bool

    def fail(self, message: str) -> EdgeCompressError:
        return self.error(f"{self.where}: {message}")

    def table(self, cls: type[T], table: Any, key: str) -> T:
        """The dataclass `cls` from `table`, which stands under `key` ("" for the file itself)."""
        if not isinstance(table, Mapping):
            raise self.fail(f"{key or 'the file'} = {_SHORT.repr(table)}: write it as a table")
        prefix, hints = f"{key}." if key else "", get_type_hints(cls)
        for name in table:
            if name not in hints:
                close = difflib.get_close_matches(name, hints, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                allowed = ", ".join(sorted(hints))
                raise self.fail(f"unknown key {prefix}{name}{hint}; allowed: {allowed}")
        for item in fields(cls):  # type: ignore[arg-type]
            required = item.default is MISSING and item.default_factory is MISSING
            if (required or self.complete) and item.name not in table:
                raise self.fail(f"missing key {prefix}{item.name}")
        values = {
            name: self.value(hints[name], value, prefix + name) for name, value in table.items()
        }
        try:
            return cls(**values)
        except self.error as own:
            named = re.match(rf"{re.escape(key)}\b", str(own)) is not None
            raise self.fail(f"{'' if named else prefix}{own}") from None

    def value(self, hint: Any, value: Any, key: str) -> Any:
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if value is None and type(None) in kinds:
            return None
        for kind in kinds:
            origin = get_origin(kind)
            if is_dataclass(kind) and (isinstance(value, Mapping) or _alone(kind, kinds)):
                return self.table(kind, value, key)  # type: ignore[arg-type]
            if origin is tuple and isinstance(value, (list, tuple)):
                item = get_args(kind)[0]
                return tuple(self.value(item, v, f"{key}[{i}]") for i, v in enumerate(value))
            if origin is Literal and any(_same(value, choice) for choice in get_args(kind)):
                return value
            if kind is Any:
                return value
            if isinstance(origin, type) and issubclass(origin, Mapping):
                if isinstance(value, Mapping):
                    item = get_args(kind)[1]
                    return {k: self.value(item, v, f"{key}.{k}") for k, v in value.items()}
            if kind is float:
                if type(value) in (int, float) and abs(value) <= sys.float_info.max:
                    return float(value)
            elif type(value) is kind and not (kind is int and abs(value) > LARGEST):
                return value
        names = " or ".join(_name(kind) for kind in kinds if kind is not type(None))
        raise self.fail(f"{key} = {_SHORT.repr(value)}: write {names}")


def _alone(kind: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether nothing but `kind`, or nothing at all, may stand there."""
    return set(kinds) <= {kind, type(None)}


def _same(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) and value == choice


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_name(get_args(kind)[0])}"
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return plain.get(kind, "a table")
