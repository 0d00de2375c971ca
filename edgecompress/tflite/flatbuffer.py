"""A FlatBuffers reader that trusts nothing: every offset, length and index is checked.

Format: https://flatbuffers.dev/internals/ . Nothing is allocated for a length that the file
claims but does not hold, and a file whose tables point many times at the same bytes to make the
reader blow up is refused (`Buffer.charge`), so time and memory stay linear in the file's size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from edgecompress.errors import ModelFileError

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_SCALARS = {
    code: struct.Struct("<" + code) for code in ("?", "b", "B", "h", "H", "i", "I", "q", "Q", "f")
}
_TABLE_COST = 8
_SLACK = 4096
_READS = 4


def malformed(what: str) -> ModelFileError:
    """The error for a broken file: one line that says what is wrong and what to do."""
    return ModelFileError(f".tflite: {what}; the file is damaged, convert or copy it again")


class Buffer:
    """The bytes of a FlatBuffer file, and how much of them may still be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _READS * len(data) + _SLACK

    def charge(self, size: int, what: str) -> None:
        """Count `size` bytes as read; a healthy file has each byte read about once."""
        self._left -= size
        if self._left < 0:
            raise malformed(f"{what} and others share the same bytes over and over")

    def unpack(self, form: struct.Struct, position: int, what: str) -> Any:
        """The scalar of type `form` at `position`."""
        if position < 0 or position + form.size > len(self.data):
            raise malformed(f"{what} lies outside the file (offset {position})")
        return form.unpack_from(self.data, position)[0]

    def follow(self, position: int, what: str) -> int:
        """The position that the unsigned offset stored at `position` points to, 4-byte aligned."""
        target = position + int(self.unpack(_U32, position, what))
        if target % 4 or target == position or target >= len(self.data):
            raise malformed(f"{what} points to a wrong place (offset {target})")
        return target

    def span(self, position: int, size: int, what: str) -> tuple[int, int]:
        """Start and element count of the vector at `position` with elements of `size` bytes."""
        count = int(self.unpack(_U32, position, what))
        start = position + 4
        if start + count * size > len(self.data):
            raise malformed(f"{what} claims {count} elements, more than the file holds")
        self.charge(4 + count * size, what)
        return start, count

    def root(self, identifier: bytes) -> Table:
        """The root table, after the file identifier (4 bytes at offset 4) was checked."""
        if len(self.data) < 8 or self.data[4:8] != identifier:
            raise malformed(f"no {identifier.decode()} identifier at byte 4: not a .tflite file")
        return Table.at(self, self.follow(0, "the root"), "the root")


@dataclass(frozen=True)
class Table:
    """One table: its position, and where each of its fields lies (0 = absent)."""

    buffer: Buffer
    position: int
    size: int
    fields: tuple[int, ...]
    what: str

    @classmethod
    def at(cls, buffer: Buffer, position: int, what: str) -> Table:
        """The table at `position`; `what` names it in errors."""
        vtable = position - int(buffer.unpack(_I32, position, what))
        length = int(buffer.unpack(_U16, vtable, what))
        size = int(buffer.unpack(_U16, vtable + 2, what))
        if vtable % 2 or length % 2 or length < 4 or vtable + length > len(buffer.data):
            raise malformed(f"the vtable of {what} is broken (offset {vtable})")
        if size < 4 or position + size > len(buffer.data):
            raise malformed(f"{what} claims {size} bytes at offset {position}")
        buffer.charge(_TABLE_COST + size + length, what)
        fields = struct.unpack_from(f"<{(length - 4) // 2}H", buffer.data, vtable + 4)
        return cls(buffer, position, size, fields, what)

    def _position(self, field: int, size: int) -> int | None:
        offset = self.fields[field] if field < len(self.fields) else 0
        if offset == 0:
            return None
        if offset < 4 or offset + size > self.size:
            raise malformed(f"field {field} of {self.what} lies outside its table")
        return self.position + offset

    def scalar(self, field: int, code: str, default: Any) -> Any:
        """The scalar in `field` (struct code, `?` for bool), or `default` where it is absent."""
        form = _SCALARS[code]
        position = self._position(field, form.size)
        if position is None:
            return default
        return self.buffer.unpack(form, position, self.what)

    def integer(self, field: int, code: str, default: int = 0) -> int:
        """The integer in `field`, or `default` where it is absent."""
        return int(self.scalar(field, code, default))

    def _target(self, field: int, name: str) -> int | None:
        position = self._position(field, 4)
        return None if position is None else self.buffer.follow(position, name)

    def table(self, field: int, name: str) -> Table | None:
        """The table that `field` points to, None where it is absent."""
        target = self._target(field, name)
        return None if target is None else Table.at(self.buffer, target, name)

    def tables(self, field: int, name: str) -> list[Table]:
        """The tables of a vector of tables; empty where it is absent."""
        target = self._target(field, f"{name}s")
        if target is None:
            return []
        start, count = self.buffer.span(target, 4, f"{name}s")
        return [
            Table.at(
                self.buffer,
                self.buffer.follow(start + 4 * index, f"{name} {index}"),
                f"{name} {index}",
            )
            for index in range(count)
        ]

    def vector(self, field: int, code: str, name: str) -> tuple[Any, ...]:
        """The scalars of a vector (struct code); empty where it is absent."""
        target = self._target(field, name)
        if target is None:
            return ()
        start, count = self.buffer.span(target, _SCALARS[code].size, name)
        return struct.unpack_from(f"<{count}{code}", self.buffer.data, start)

    def bytes(self, field: int, name: str) -> bytes | None:
        """The bytes of a vector of bytes, None where it is absent."""
        target = self._target(field, name)
        if target is None:
            return None
        start, count = self.buffer.span(target, 1, name)
        return self.buffer.data[start : start + count]

    def text(self, field: int, name: str) -> str:
        """The UTF-8 string in `field`; empty where it is absent."""
        raw = self.bytes(field, name)
        if raw is None:
            return ""
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise malformed(f"{name} is not UTF-8") from error
