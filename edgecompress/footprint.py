"""What a firmware image takes of flash and RAM, and for what.

The totals come from the ELF's sections: by their flags (as `size` counts them: ALLOC, WRITE,
NOBITS), or by their addresses where the board says which are RAM, because the cores of real boards
reserve address space, run code from RAM and use RAM that the program has no part of. The parts come
from the linker's map: input sections, whose names carry the symbols, because the build gives every
function and every object a section of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgecompress.errors import ToolError

FLASH = ("weights", "constants", "kernels", "runtime", "data")
RAM = ("data", "copied", "arena", "bss")
"""The fields of a Footprint that lie in flash and in RAM, the stack apart."""

_MAP = "\nLinker script and memory map\n"
_OUTPUT = re.compile(r"^([._a-zA-Z]\S*)(?:\s|$)")
_INPUT = re.compile(r"^ ([._a-zA-Z]\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S.*)$")
_LOADED = (".text", ".data", ".bss", ".rodata", ".stack", ".noinit", ".flash.", ".iram0", ".dram0")
_RESERVED = re.compile(r"\.heap|\.stack.|\._user_heap_stack$")
"""Sections that only keep RAM free for heap and stack, often all that there is."""
_WEIGHTS = re.compile(r"^\.rodata\.w_|_model_data$")
_TFLM = re.compile(r"\blib[^/]*tensorflow[^/]*\.a\(", re.IGNORECASE)
"""An object of TFLite Micro: libtensorflow-microlite.a, or a library of PlatformIO's registry."""
_NAME_ALONE = re.compile(r"^ [._a-zA-Z]\S*$")


@dataclass(frozen=True)
class Footprint:
    """Bytes of one image, each counted once but those that lie in flash and in RAM.

    `weights` are the model's weights, `constants` its other constant data (biases, multipliers,
    parameters of its operators, names, tables), `kernels` its code; `runtime` is
    application, board, start-up and C library, and the padding between all of these. `data` is
    initialised RAM, which lies in flash too; `copied` is how much of the code and the constants
    above the core copies to RAM at its start; `arena` is the model's, `bss` the other RAM that is
    not in flash; `stack` is what a section .stack sets aside. Under TFLite Micro `weights` is the
    whole `.tflite`, which cannot be taken apart, and the library is there for the model alone: its
    code counts as `kernels`, its data as `constants`.
    """

    weights: int
    constants: int
    kernels: int
    runtime: int
    data: int
    arena: int
    bss: int
    stack: int
    copied: int = 0

    @property
    def flash(self) -> int:
        """Text and data, as `size` counts them."""
        return sum(getattr(self, part) for part in FLASH)

    @property
    def ram(self) -> int:
        """Data, what is copied, and bss, without the stack."""
        return sum(getattr(self, part) for part in RAM)


class Piece(NamedTuple):
    """An input section in the map: the output section it went to, its name, bytes, object file."""

    output: str
    name: str
    size: int
    file: str


class Section(NamedTuple):
    """A section that takes memory: text, data, bss or stack, its bytes, whether it lies in RAM."""

    kind: str
    size: int
    in_ram: bool


def read(elf: Path, map_file: Path, ram: Sequence[range] = ()) -> Footprint:
    """The footprint of `elf`, which was linked with the map `map_file`.

    `ram` are the addresses of the RAM that counts: what is loaded there lies in flash too, other
    sections that are not loaded take nothing. Where `ram` is empty the sections' flags decide.
    Object files of the model are those in a folder called generated and of TFLite Micro. Raises
    ToolError for a file that is no ELF, and for a map that does not belong to it or does not show
    the model's objects.
    """
    sections = _sections(elf, ram)
    totals: Counter[str] = Counter()
    for section in sections.values():
        totals[section.kind] += section.size
    copied = sum(one.size for one in sections.values() if one.kind == "text" and one.in_ram)
    parts: Counter[str] = Counter()
    for piece in pieces(map_file.read_text(encoding="utf-8", errors="replace")):
        if piece.output not in sections:
            continue
        kind = sections[piece.output].kind
        part = _part(kind, piece)
        parts[part] += piece.size
        if kind == "data" and part != "data":  # the core keeps constants among the data
            totals["data"] -= piece.size
            totals["text"] += piece.size
            copied += piece.size
    model = parts["weights"] + parts["constants"] + parts["kernels"]
    if not parts["kernels"]:
        raise ToolError(
            f"{map_file}: no code of the model stands in it by name; build without link-time"
            " optimisation"
        )
    runtime, bss = totals["text"] - model, totals["bss"] - parts["arena"]
    if runtime < parts["runtime"] or bss < parts["other"]:
        raise ToolError(f"{map_file}: it is not the map of {elf}: more bytes than the file has")
    return Footprint(
        weights=parts["weights"],
        constants=parts["constants"],
        kernels=parts["kernels"],
        runtime=runtime,
        data=totals["data"],
        arena=parts["arena"],
        bss=bss,
        stack=totals["stack"],
        copied=copied,
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
            name, size, file = found.groups()
            if int(size, 16):
                yield Piece(output, name, int(size, 16), file)
        elif found := _OUTPUT.match(line):
            output = found[1]


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


def _part(kind: str, piece: Piece) -> str:
    """The part of a Footprint that a piece in a section of `kind` belongs to."""
    if kind == "bss":
        return "arena" if piece.name.endswith(".ec_arena") else "other"
    if kind == "stack":
        return kind
    if Path(piece.file).parent.name != "generated" and not _TFLM.search(piece.file):
        return "runtime" if kind == "text" else kind
    if not piece.name.startswith(".rodata"):
        return "kernels" if kind == "text" else kind
    return "weights" if _WEIGHTS.search(piece.name) else "constants"
