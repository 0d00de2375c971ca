"""What a firmware image takes of flash and RAM, and for what.

The totals come from the ELF's sections by their flags (as `size` counts them: ALLOC, WRITE,
NOBITS), the parts from the linker's map: input sections, whose names carry the symbols, because the
build gives every function and every object a section of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgecompress.errors import ToolError

FLASH = ("weights", "constants", "kernels", "runtime", "data")
RAM = ("data", "arena", "bss")
"""The fields of a Footprint that lie in flash and in RAM, the stack apart."""

_MAP = "\nLinker script and memory map\n"
_OUTPUT = re.compile(r"^([._a-zA-Z]\S*)(?:\s|$)")
_INPUT = re.compile(r"^ ([._a-zA-Z]\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S.*)$")
_LOADED = (".text", ".data", ".bss", ".rodata", ".stack", ".noinit")
_WEIGHTS = re.compile(r"^\.rodata\.w_|_model_data$")
_TFLM = re.compile(r"\blib[^/]*tensorflow[^/]*\.a\(", re.IGNORECASE)
"""An object of TFLite Micro: libtensorflow-microlite.a, or a library of PlatformIO's registry."""
_NAME_ALONE = re.compile(r"^ [._a-zA-Z]\S*$")


@dataclass(frozen=True)
class Footprint:
    """Bytes of one image, each counted once but `data`, which lies in flash and in RAM.

    `weights` are the model's weights, `constants` its other constant data (biases, multipliers,
    parameters of its operators, names, tables), `kernels` its code; `runtime` is
    application, board, start-up and C library, and the padding between all of these. `data` is
    initialised RAM; `arena` the model's, `bss` the other zeroed RAM; `stack` what is set aside.
    Under TFLite Micro `weights` is the whole `.tflite`, which cannot be taken apart, and the
    library is there for the model alone: its code counts as `kernels`, its data as `constants`.
    """

    weights: int
    constants: int
    kernels: int
    runtime: int
    data: int
    arena: int
    bss: int
    stack: int

    @property
    def flash(self) -> int:
        """Text and data, as `size` counts them."""
        return sum(getattr(self, part) for part in FLASH)

    @property
    def ram(self) -> int:
        """Data and bss, as `size` counts them, without the stack."""
        return sum(getattr(self, part) for part in RAM)


class Piece(NamedTuple):
    """An input section in the map: the output section it went to, its name, bytes, object file."""

    output: str
    name: str
    size: int
    file: str


def read(elf: Path, map_file: Path) -> Footprint:
    """The footprint of `elf`, which was linked with the map `map_file`.

    Object files of the model are those in a folder called generated and of TFLite Micro. Raises
    ToolError for a file that is no ELF, and for a map that does not belong to it or does not show
    the model's objects.
    """
    sections = _sections(elf)
    totals: Counter[str] = Counter()
    for kind, size in sections.values():
        totals[kind] += size
    parts: Counter[str] = Counter()
    for piece in pieces(map_file.read_text(encoding="utf-8", errors="replace")):
        if piece.output in sections:
            parts[_part(sections[piece.output][0], piece)] += piece.size
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


def _sections(elf: Path) -> dict[str, tuple[str, int]]:
    """(text, data, bss or stack, bytes) of each section that takes memory of the device."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    found = {}
    try:
        with elf.open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                flags = section["sh_flags"]
                if not flags & SH_FLAGS.SHF_ALLOC:
                    continue
                if not flags & SH_FLAGS.SHF_WRITE or flags & SH_FLAGS.SHF_EXECINSTR:
                    kind = "text"
                elif section["sh_type"] != "SHT_NOBITS":
                    kind = "data"
                else:
                    kind = "stack" if section.name == ".stack" else "bss"
                found[str(section.name)] = kind, int(section["sh_size"])
    except ELFError as error:
        raise ToolError(f"{elf}: no ELF file: {error}") from None
    return found


def _part(kind: str, piece: Piece) -> str:
    """The part of a Footprint that a piece in a section of `kind` belongs to."""
    if kind == "bss":
        return "arena" if piece.name.endswith(".ec_arena") else "other"
    if kind != "text":
        return kind
    if Path(piece.file).parent.name != "generated" and not _TFLM.search(piece.file):
        return "runtime"
    if not piece.name.startswith(".rodata"):
        return "kernels"
    return "weights" if _WEIGHTS.search(piece.name) else "constants"
