"""What the bytes of a firmware image are for, as a report carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from edgecompress.report.checks import ReportError, at_least

Part: TypeAlias = Literal[
    "weights", "constants", "kernels", "runtime", "application", "libc", "data", "arena", "stack"
]
"""What a symbol is there for. `data` are variables, initialised or not, but for the arena."""
RAM_ALONE: tuple[Part, ...] = ("data", "arena", "stack")
"""The parts that RAM is for; what is in RAM of any other was copied there from flash."""


PADDING = "(padding)"
"""The symbol that stands for what the linker puts between the others."""


@dataclass(frozen=True)
class FlashParts:
    """Bytes of flash; each byte counts once, and their sum is text + data of `size`.

    The model's are `weights`, other `constants` (biases, multipliers, parameters of its operators,
    names, tables) and `kernels` (its code). `application` is the code that talks to the host,
    `libc` what the compiler's own libraries gave, `runtime` the rest: board, start-up, the
    framework of a real board, and the padding between all of these. `data` is the initial values
    of RAM.
    """

    weights: int
    constants: int
    kernels: int
    runtime: int
    application: int
    libc: int
    data: int

    def __post_init__(self) -> None:
        at_least(0, **{item.name: getattr(self, item.name) for item in fields(self)})

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True)
class RamParts:
    """Bytes of RAM; their sum without the stack is data + bss of `size` without the stack.

    `arena` is the model's, `stack` what is set aside for the stack, `data` initialised variables,
    `copied` code and constants that the core copies to RAM at its start, `bss` other variables.
    """

    arena: int
    stack: int
    data: int
    copied: int
    bss: int

    def __post_init__(self) -> None:
        at_least(0, **{item.name: getattr(self, item.name) for item in fields(self)})

    @property
    def total(self) -> int:
        """All of it but the stack."""
        return self.arena + self.data + self.copied + self.bss


@dataclass(frozen=True)
class SymbolRow:
    """A symbol (a function, a constant, a variable): `flash` and `ram` bytes, the object `file`
    it comes from with its folder or archive ("" for what the linker adds, such as PADDING between
    symbols), its `part`, and the `operators` that it is there for, by their place in the report
    (none: the model as a whole, or no model)."""

    name: str
    file: str
    part: Part
    flash: int
    ram: int
    operators: tuple[int, ...]

    def __post_init__(self) -> None:
        at_least(0, flash=self.flash, ram=self.ram)


@dataclass(frozen=True)
class Attribution:
    """An image taken apart: its parts, its symbols (their sums are those of the parts), and what
    the board has. `flash_limit` and `ram_limit` (stack included) are None where the board does not
    say. An image that is too large was linked all the same, to see what is in it."""

    flash: FlashParts
    ram: RamParts
    symbols: tuple[SymbolRow, ...]
    flash_limit: int | None
    ram_limit: int | None

    def __post_init__(self) -> None:
        at_least(1, flash_limit=self.flash_limit, ram_limit=self.ram_limit)
        self._check(
            "flash", {item.name: getattr(self.flash, item.name) for item in fields(FlashParts)}
        )
        ram = self.ram
        in_ram = {"arena": ram.arena, "stack": ram.stack, "data": ram.data + ram.bss}
        self._check("ram", {**in_ram, "copied": ram.copied})

    def _check(self, memory: Literal["flash", "ram"], parts: Mapping[str, int]) -> None:
        """ReportError unless the symbols' bytes of `memory` are those of the `parts`."""
        found = dict.fromkeys(parts, 0)
        for symbol in self.symbols:
            size = symbol.flash if memory == "flash" else symbol.ram
            part: str = symbol.part
            if memory == "ram" and symbol.part not in RAM_ALONE:
                part = "copied"
            if size:
                found[part] = found.get(part, 0) + size
        for part, size in found.items():
            if size != parts.get(part, 0):
                raise ReportError(
                    f"symbols: {size} bytes of {memory} for {part}, its parts say"
                    f" {parts.get(part, 0)}"
                )

    @property
    def over(self) -> tuple[int, int]:
        """Bytes of flash and of RAM that must go before the image fits the board; 0, 0: it fits."""
        flash = self.flash.total - (self.flash_limit or self.flash.total)
        ram = self.ram.total + self.ram.stack
        return max(flash, 0), max(ram - (self.ram_limit or ram), 0)

    def largest(
        self, layers: Sequence[str], *, ram: bool, count: int
    ) -> tuple[tuple[str, int], ...]:
        """The `count` largest contributions to flash, or to RAM, in words, with their bytes.

        What is there for one operator alone is summed up by part and layer; `layers` are the
        operators' names, by place. The padding is left out.
        """
        sums: dict[str, int] = {}
        for symbol in self.symbols:
            name = symbol.name
            if name == PADDING:
                continue
            if symbol.part in ("arena", "stack"):
                name = f"the {symbol.part}"
            elif len(symbol.operators) == 1 and symbol.operators[0] < len(layers):
                name = f"{symbol.part} of {layers[symbol.operators[0]]}"
            sums[name] = sums.get(name, 0) + (symbol.ram if ram else symbol.flash)
        found = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        return tuple((name, size) for name, size in found[:count] if size)

    def operators(self, count: int) -> tuple[OperatorBytes, ...]:
        """What each of `count` operators takes of flash, by place.

        A symbol that several operators need is shared out evenly, the odd bytes to the first.
        """
        sums = [dict.fromkeys(("weights", "constants", "kernels"), 0) for _ in range(count)]
        for symbol in self.symbols:
            for operator, share in zip(symbol.operators, _shares(symbol), strict=True):
                if symbol.part in sums[operator]:
                    sums[operator][symbol.part] += share
        return tuple(OperatorBytes(**one) for one in sums)


@dataclass(frozen=True)
class OperatorBytes:
    """Bytes of flash that are there for one operator: weights, other constants, its share of the
    kernels' code."""

    weights: int
    constants: int
    kernels: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.constants + self.kernels


def _shares(symbol: SymbolRow) -> Sequence[int]:
    """The bytes of flash of `symbol` for each of its operators."""
    count = len(symbol.operators)
    return [(symbol.flash + count - 1 - i) // count for i in range(count)]
