"""What a firmware image takes of flash and RAM, and for what, to the symbol.

The totals come from the ELF's sections: by their flags (as `size` counts them: ALLOC, WRITE,
NOBITS), or by their addresses where the board says which are RAM, because the cores of real boards
reserve address space, run code from RAM and use RAM that the program has no part of. What is in a
section comes from the linker's map: input sections, whose names carry the symbols, because the
build gives every function and every object a section of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edgecompress.boards import Board
from edgecompress.errors import ToolError
from edgecompress.report.image import (
    PADDING,
    RAM_ALONE,
    Attribution,
    FlashParts,
    Part,
    RamParts,
    SymbolRow,
)

_MAP = "\nLinker script and memory map\n"
_OUTPUT = re.compile(r"^([._a-zA-Z/]\S*)(?:\s|$)")
_INPUT = re.compile(r"^ ([._a-zA-Z]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$")
_LOADED = (".text", ".data", ".bss", ".rodata", ".stack", ".noinit", ".flash.", ".iram0", ".dram0")
_RESERVED = re.compile(r"\.heap|\.stack.|\._user_heap_stack$")
"""Sections that only keep RAM free for heap and stack, often all that there is."""
_WEIGHTS = re.compile(r"^\.rodata\.w_|_model_data$")
_TFLM = re.compile(r"\blib[^/]*tensorflow[^/]*\.a\(", re.IGNORECASE)
"""An object of TFLite Micro: libtensorflow-microlite.a, or a library of PlatformIO's registry."""
_LIBC = re.compile(r"(^|/)lib(c|g|m|gcc|nosys|rdimon|stdc\+\+|supc\+\+)(_nano)?\.a\(")
"""An object of the compiler's own libraries."""
_COMPILER = re.compile(r"/gcc/([\w-]+)/(\d[\w.]*)/")
_NAME_ALONE = re.compile(r"^ [._a-zA-Z]\S*$")
_OWN_SECTION = re.compile(
    r"^(?:\.ARM\.ex(?:idx|tab))?\.(?:text|literal|rodata|data|bss)(?:\.(?:unlikely|hot|startup|exit|rel|ro|local))*"
    r"\.(?!str\d|cst\d)(.+)$"
)
"""The name of a section that one symbol has for itself."""


_OWNED = ("weights", "constants", "kernels")
_REST: Mapping[str, Part] = {"text": "runtime", "data": "data", "bss": "data", "stack": "stack"}
"""What the rest of a section counts as, by its kind."""


class Piece(NamedTuple):
    """An input section in the map: the output section it went to, its name, address, bytes, object
    file."""

    output: str
    name: str
    address: int
    size: int
    file: str


class Section(NamedTuple):
    """A section that takes memory: text, data, bss or stack, its bytes, whether it lies in RAM."""

    kind: str
    size: int
    in_ram: bool


def read(
    elf: Path, map_file: Path, board: Board, owners: Mapping[str, tuple[int, ...]] | None = None
) -> Attribution:
    """What `elf`, which was linked for `board` with the map `map_file`, takes.

    Where the board says which addresses are RAM, what is loaded there lies in flash too, and other
    sections that are not loaded take nothing; else the sections' flags decide. Object files of the
    model are those in a folder called generated and of TFLite Micro, whose code counts as kernels.
    `owners` says which operators the model's constants, functions and source files (without
    ending) are there for. Raises ToolError for a file that is no ELF, and for a map that does not
    belong to it or does not show the model's objects.
    """
    found = _sections(elf, board.ram)
    names = _names(elf)
    left = {name: section.size for name, section in found.items()}
    rows: dict[tuple[str, str, Part, tuple[int, ...]], Counter[str]] = {}

    def add(symbol: tuple[str, str, Part, tuple[int, ...]], section: Section, size: int) -> None:
        row = rows.setdefault(symbol, Counter())
        row["flash"] += size * (section.kind in ("text", "data"))
        row["ram"] += size * (section.kind != "text" or section.in_ram)

    for piece in pieces(map_file.read_text(encoding="utf-8", errors="replace")):
        section = found.get(piece.output)
        if section is None:
            continue
        left[piece.output] -= piece.size
        name, part = _name(piece, names), _part(section.kind, piece)
        operators: tuple[int, ...] = ()
        if owners and part in _OWNED and _is_model(piece):
            stem = PurePosixPath(piece.file).name.split(".")[0]
            operators = owners.get(name.split(".")[0], owners.get(stem, ()))
        add((name, _file(piece), part, operators), section, piece.size)
    for output, size in left.items():
        section = found[output]
        if size < 0:
            raise ToolError(f"{map_file}: it is not the map of {elf}: more bytes than the file has")
        if size:
            name = PADDING if size < section.size else output
            add((name, "", _REST[section.kind], ()), section, size)
    symbols = [
        SymbolRow(name, file, part, row["flash"], row["ram"], operators)
        for (name, file, part, operators), row in rows.items()
    ]
    if not any(one.part == "kernels" for one in symbols):
        raise ToolError(
            f"{map_file}: no code of the model stands in it by name; build without link-time"
            " optimisation"
        )
    return _attributed(symbols, board)


def _attributed(symbols: Sequence[SymbolRow], board: Board) -> Attribution:
    """The parts that are the sums of `symbols`, and these by their size."""
    flash, ram = Counter[str](), Counter[str]()
    for one in symbols:
        flash[one.part] += one.flash
        ram[one.part] += one.ram
    return Attribution(
        flash=FlashParts(**{part.name: flash[part.name] for part in fields(FlashParts)}),
        ram=RamParts(
            arena=ram["arena"],
            stack=ram["stack"],
            data=flash["data"],
            copied=sum(size for part, size in ram.items() if part not in RAM_ALONE),
            bss=ram["data"] - flash["data"],
        ),
        symbols=tuple(
            sorted(symbols, key=lambda one: (-one.flash, -one.ram, one.name, one.file, one.part))
        ),
        flash_limit=board.flash_bytes,
        ram_limit=board.ram_bytes,
    )


def pieces(text: str) -> Iterator[Piece]:
    """The input sections in the text of a map of GNU ld, those of size 0 left out."""
    output = pending = ""
    for line in text.partition(_MAP)[2].splitlines():
        if _NAME_ALONE.match(line):
            pending = line
            continue
        line, pending = pending + line, ""
        if found := _INPUT.match(line):
            name, address, size, file = found.groups()
            if int(size, 16):
                yield Piece(output, name, int(address, 16), int(size, 16), file)
        elif found := _OUTPUT.match(line):
            output = found[1]


def compiler(map_file: Path) -> str | None:
    """The GNU compiler whose library is in a map, as `arm-none-eabi-gcc 12.2.1`; None: none is."""
    found = _COMPILER.search(map_file.read_text(encoding="utf-8", errors="replace"))
    return f"{found[1]}-gcc {found[2]}" if found else None


def sections(map_file: Path) -> Counter[str]:
    """Bytes of each output section in a map, as far as they come from input sections."""
    found: Counter[str] = Counter()
    for piece in pieces(map_file.read_text(encoding="utf-8", errors="replace")):
        if piece.output.startswith(_LOADED):
            found[piece.output] += piece.size
    return found


def _sections(elf: Path, ram: Sequence[range]) -> dict[str, Section]:
    """The sections that take memory of the device, by name."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    found = {}
    try:
        with elf.open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                name, flags = str(section.name), section["sh_flags"]
                if not flags & SH_FLAGS.SHF_ALLOC:
                    continue
                loaded = section["sh_type"] != "SHT_NOBITS"
                inside = any(section["sh_addr"] in one for one in ram)
                if ram and not loaded and (not inside or _RESERVED.match(name)):
                    continue
                fixed = not flags & SH_FLAGS.SHF_WRITE or flags & SH_FLAGS.SHF_EXECINSTR
                if (ram and not inside) or (fixed and (loaded or not ram)):
                    kind = "text"
                elif loaded:
                    kind = "data"
                else:
                    kind = "stack" if name == ".stack" else "bss"
                found[name] = Section(kind, int(section["sh_size"]), inside)
    except ELFError as error:
        raise ToolError(f"{elf}: no ELF file: {error}") from None
    return found


def _names(elf: Path) -> list[tuple[int, str]]:
    """Address and name of the functions, objects and labels in an ELF, sorted."""
    from elftools.elf.elffile import ELFFile

    kinds = {"STT_FUNC", "STT_OBJECT", "STT_NOTYPE"}
    with elf.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        listed = [] if table is None else list(table.iter_symbols())
    return sorted(
        (one["st_value"] & (~1 if one["st_info"]["type"] == "STT_FUNC" else ~0), str(one.name))
        for one in listed
        if one["st_info"]["type"] in kinds
        and isinstance(one["st_shndx"], int)
        and one.name
        and not one.name.startswith("$")
    )


def _name(piece: Piece, names: Sequence[tuple[int, str]]) -> str:
    """The symbol that a piece holds: by its section's name, else the first within it."""
    if found := _OWN_SECTION.match(piece.name):
        return found[1]
    place = bisect_left(names, (piece.address, ""))
    if place < len(names) and names[place][0] < piece.address + piece.size:
        return names[place][1]
    return piece.name


def _file(piece: Piece) -> str:
    """The object file with its folder, or the archive with its member: no path of this machine."""
    path = PurePosixPath(piece.file)
    return path.name if ".a(" in path.name else "/".join(path.parts[-2:])


def _is_model(piece: Piece) -> bool:
    return PurePosixPath(piece.file).parent.name == "generated" or bool(_TFLM.search(piece.file))


def _part(kind: str, piece: Piece) -> Part:
    """What a piece in a section of `kind` is there for."""
    if kind == "stack":
        return "stack"
    if kind == "bss":
        return "arena" if piece.name.endswith(".ec_arena") else "data"
    constant = piece.name.startswith(".rodata")
    if kind == "data" and not (constant and _is_model(piece)):
        return "data"
    if _is_model(piece):
        if constant:
            return "weights" if _WEIGHTS.search(piece.name) else "constants"
        return "kernels"
    path = PurePosixPath(piece.file)
    if path.parent.name == "app" and ".a(" not in path.name:
        return "application"
    return "libc" if _LIBC.search(piece.file) else "runtime"
