"""Plain tables (TOML, JSON) -> frozen dataclasses, strictly: an unknown, missing or mistyped key
is an error that names the file and the key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgecompress.errors import EdgeCompressError

T = TypeVar("T")


def build(
    cls: type[T],
    table: Any,
    *,
    where: str,
    error: type[EdgeCompressError],
    prefix: str = "",
) -> T:
    """An instance of the dataclass `cls` from `table`, nested dataclasses included.

    `where` (a file) opens every message; `error` is the class that is raised. An error of that
    class raised by the dataclass's own checks is passed on behind `where`.
    """

    def fail(message: str) -> EdgeCompressError:
        return error(f"{where}: {message}")

    if not isinstance(table, Mapping):
        raise fail(f"{prefix.rstrip('.') or 'the file'} = {table!r}: write it as a table")
    hints = get_type_hints(cls)
    for key in table:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise fail(f"unknown key {prefix}{key}{hint}; allowed: {', '.join(sorted(hints))}")
    for item in fields(cls):  # type: ignore[arg-type]
        required = item.default is MISSING and item.default_factory is MISSING
        if required and item.name not in table:
            raise fail(f"missing key {prefix}{item.name}")
    values = {
        key: _value(hints[key], value, where=where, error=error, key=prefix + key)
        for key, value in table.items()
    }
    try:
        return cls(**values)
    except error as own:
        raise fail(str(own)) from None


def _value(hint: Any, value: Any, *, where: str, error: type[EdgeCompressError], key: str) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        origin = get_origin(kind)
        if is_dataclass(kind):
            return build(
                kind,  # type: ignore[arg-type]
                value,
                where=where,
                error=error,
                prefix=f"{key}.",
            )
        if origin is tuple and isinstance(value, (list, tuple)):
            item = get_args(kind)[0]
            return tuple(
                _value(item, entry, where=where, error=error, key=f"{key}[{i}]")
                for i, entry in enumerate(value)
            )
        if origin is Literal and value in get_args(kind):
            return value
        if kind is Any or (isinstance(origin, type) and issubclass(origin, Mapping)):
            if kind is Any or isinstance(value, Mapping):
                return value
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is kind:
            return value
    names = " or ".join(_name(kind) for kind in kinds if kind is not type(None))
    raise error(f"{where}: {key} = {value!r}: write {names}")


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_name(get_args(kind)[0])}"
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return plain.get(kind, "a table")
