"""What an image takes: by the ELF's flags, by the map, and as the binutils count it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgecompress import deployment, footprint
from edgecompress.artifact import Artifact
from edgecompress.errors import ToolError
from edgecompress.footprint import Footprint, Piece
from edgecompress.tflite import Op, Program
from tests import small_firmware
from tests.conftest import need
from tests.tflite_builder import activation, constant, options
from tests.tflite_builder import build as tflite

MAP = """\
Discarded input sections

 .text.unused   0x00000000       0x20 objects/app/app.o

Linker script and memory map

LOAD objects/app/app.o
                0x00000000                        ec_flash_origin = 0x0

.text           0x00000000      0x100
 *(.text .text.*)
 .text.short    0x00000000       0x10 objects/app/app.o
 .text.a_name_that_is_longer_than_the_column
                0x00000010       0x20 /usr/lib/libc.a(lib a-memcpy.o)
                0x00000010                memcpy
 *fill*         0x00000030        0x2
 .text.gone     0x00000032        0x0 objects/app/app.o

.a_long_output_section
 .rodata.w_0    0x00000034       0x40 objects/generated/model.o
"""


def test_the_map_is_read_piece_by_piece() -> None:
    assert list(footprint.pieces(MAP)) == [
        Piece(".text", ".text.short", 0x10, "objects/app/app.o"),
        Piece(
            ".text",
            ".text.a_name_that_is_longer_than_the_column",
            0x20,
            "/usr/lib/libc.a(lib a-memcpy.o)",
        ),
        Piece(".a_long_output_section", ".rodata.w_0", 0x40, "objects/generated/model.o"),
    ]


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m55"])
def test_the_sums_are_those_of_size(board: str, tmp_path: Path) -> None:
    need("arm-gcc")
    files = small_firmware.sources(
        **{
            "ec_model_hook_t ec_model_hook": "static uint32_t kept[5] = {1, 2, 3, 4, 5};\n"
            "static uint8_t extra[64];\n\nec_model_hook_t ec_model_hook",
            "uint32_t ec_model_arena_used(void) {": "uint32_t ec_model_arena_used(void) {\n"
            "    kept[1] += extra[3]++;\n    extra[5] = (uint8_t)kept[2];\n"
            "    kept[0] += kept[1];\n    if (kept[0] == 0) return 0;",
        }
    )
    image = small_firmware.build(tmp_path, board, files)
    found, plain = image.footprint, small_firmware.build(tmp_path / "plain", board).footprint
    assert found is not None and plain is not None and image.empty is not None
    text, data, bss = _size(image.elf)
    assert data > 0
    assert found.flash == text + data
    assert found.ram + found.stack == data + bss
    assert (found.weights, found.arena, found.stack, found.data) == (100, 208, 4096, data)
    assert found.bss - plain.bss >= 60
    assert 300 < found.constants < 500
    assert 100 < found.kernels < 400
    assert found.runtime - image.empty.runtime < 32
    assert image.empty.weights == image.empty.arena == 0
    assert image.cost == (found.flash - image.empty.flash, found.ram - image.empty.ram)
    assert image.empty.runtime < 6 * 1024


def test_a_constant_operand_counts_as_weights(tmp_path: Path) -> None:
    need("arm-gcc")
    matrix = constant("matrix", np.arange(64).reshape(1, 8, 8), "int8", scales=(0.1,))
    tensors = (activation("x", 1, 2, 8), matrix, activation("y", 1, 2, 8))
    op = Op("BATCH_MATMUL", (0, 1), (2,), options("BATCH_MATMUL"))
    artifact = Artifact("product", tflite=tflite(Program(tensors, (op,), (0,), (2,))))
    found = deployment.build(artifact, board="qemu_m4", out=tmp_path).footprint
    assert found is not None and found.weights == 64


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    need("arm-gcc")
    places = (tmp_path / "here", tmp_path / "some where" / "else")
    first, second = (small_firmware.build(place, "qemu_m4") for place in places)
    assert first.elf.read_bytes() == second.elf.read_bytes()
    assert first.footprint == second.footprint


def _size(elf: Path) -> tuple[int, int, int]:
    command = ["arm-none-eabi-size", str(elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text, data, bss = done.stdout.splitlines()[1].split()[:3]
    return int(text), int(data), int(bss)


def test_a_program_of_this_computer_has_no_footprint(tmp_path: Path) -> None:
    need("cc")
    image = small_firmware.build(tmp_path, "host")
    assert image.footprint is image.empty is image.cost is None
    assert image.rows() == []
    assert image.table()["footprint"] is None


def test_the_table_has_every_part_and_the_sums() -> None:
    found = Footprint(1, 2, 4, 8, 16, 32, 64, 128)
    assert (found.flash, found.ram) == (31, 112)
    parts = {field.name for field in dataclasses.fields(Footprint)}
    assert {*footprint.FLASH, *footprint.RAM, "stack"} == parts


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    need("arm-gcc")
    other = tmp_path / "other.map"
    image = small_firmware.build(tmp_path, "qemu_m4")
    map_file = image.elf.with_name("firmware.map")
    other.write_text(map_file.read_text().replace(" 0x64 ", " 0x6400 "))
    with pytest.raises(ToolError, match="other.map: it is not the map of .*firmware.elf"):
        footprint.read(image.elf, other)
    other.write_text(map_file.read_text().replace("src/generated/", "ltrans/"))
    with pytest.raises(ToolError, match="other.map: no code of the model .* without link-time"):
        footprint.read(image.elf, other)
    with pytest.raises(ToolError, match="other.map: no ELF file: "):
        footprint.read(other, map_file)
