"""What an image takes: by the ELF's flags, by the map, and as the binutils count it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgecompress import boards, deployment, footprint
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


SOURCES = {
    "generated/model.c": """\
        static const signed char w_0[100] = {1};
        static const int bias[5] = {1};
        static unsigned char ec_arena[200];
        int ec_run(int i) { return ec_arena[i] += w_0[i] + bias[i]; }
    """,
    "app/app.c": """\
        int ec_run(int i);
        static const short table[7] = {1};
        static int counts[9] = {1};
        static char line[300];
        static char dma[1000];
        void reset(void) { counts[1] = ec_run(line[2]++) + table[counts[3]] + dma[counts[2]]++; }
        __attribute__((section(".init_array"), used)) static void (*start)(void) = reset;
    """,
}
CORES = {
    "nano33": """
        FLASH : ORIGIN = 0x10200, LENGTH = 0xefe00
        RAM : ORIGIN = 0x20000200, LENGTH = 0x3fe00
        OTHER : ORIGIN = 0x30000000, LENGTH = 0x10000
      }
      SECTIONS {
        .text : { *(.text*) *(.rodata*) } > FLASH
        .data : { *(.data*) *(.init_array) . = ALIGN(8); } > RAM AT > FLASH
        .crash (NOLOAD) : { . += 0x100; } > RAM
        .other (NOLOAD) : { *(.bss.dma) . = ORIGIN(OTHER) + 0x8000; } > OTHER
        .bss : { *(.bss*) . = ALIGN(8); } > RAM
        .heap (NOLOAD) : { *(.heap*) . = ORIGIN(RAM) + LENGTH(RAM) - 2048; } > RAM
        .stack (NOLOAD) : { *(.stack*) . = ORIGIN(RAM) + LENGTH(RAM); } > RAM
      }""",
    "nucleo_h743zi": """
        FLASH : ORIGIN = 0x8000000, LENGTH = 2M
        RAM : ORIGIN = 0x24000000, LENGTH = 512K
      }
      SECTIONS {
        .text : { *(.text*) } > FLASH
        .rodata : { *(.rodata*) } > FLASH
        .init_array : { *(.init_array) } > FLASH
        .data : { *(.data*) . = ALIGN(4); } > RAM AT > FLASH
        .bss : { *(.bss*) . = ALIGN(4); } > RAM
        ._user_heap_stack : { . = . + 0x200; . = . + 0x400; } > RAM
      }""",
    "esp32s3": """
        IRAM : ORIGIN = 0x40374000, LENGTH = 352K
        DRAM : ORIGIN = 0x3fc88000, LENGTH = 338K
        IROM : ORIGIN = 0x42000020, LENGTH = 8M
        DROM : ORIGIN = 0x3c000020, LENGTH = 32M
        PSRAM : ORIGIN = 0x3c000020, LENGTH = 32M
      }
      SECTIONS {
        .iram0.text : { *(.text.reset) . = 0x4300; } > IRAM
        .dram0.dummy (NOLOAD) : { . = SIZEOF(.iram0.text) - 0x4000; } > DRAM
        .dram0.data : { *(.data*) } > DRAM
        .dram0.bss (NOLOAD) : { *(.bss*) } > DRAM
        .flash.text : { *(.text*) } > IROM
        .flash_rodata_dummy (NOLOAD) : { . = 0x40000; } > DROM
        .flash.rodata : { *(.rodata*) *(.init_array) } > DROM
        .ext_ram.dummy (NOLOAD) : { . = 0x5ffe0; } > PSRAM
      }""",
    "teensy41": """
        ITCM : ORIGIN = 0, LENGTH = 512K
        DTCM : ORIGIN = 0x20000000, LENGTH = 512K
        RAM : ORIGIN = 0x20200000, LENGTH = 512K
        FLASH : ORIGIN = 0x60000000, LENGTH = 7936K
      }
      SECTIONS {
        .text.headers : { . = ORIGIN(FLASH) + 0x1000; *(.init_array) } > FLASH
        .text.itcm : { . = . + 32; *(.text*) . = ALIGN(16); } > ITCM AT > FLASH
        .data : { *(.rodata*) *(.data*) } > DTCM AT > FLASH
        .bss.dma (NOLOAD) : { *(.bss.dma) . = ALIGN(32); } > RAM
        .bss : { *(.bss*) . = ALIGN(32); } > DTCM
      }""",
}
"""What the linker scripts of real boards' cores do with memory, the rest left out."""
LOADED = {
    "nano33": ".text .data",
    "nucleo_h743zi": ".text .rodata .init_array .data",
    "esp32s3": ".iram0.text .dram0.data .flash.text .flash.rodata",
    "teensy41": ".text.headers .text.itcm .data",
}
TAKEN = {
    "nano33": ".data .crash .bss",
    "nucleo_h743zi": ".data .bss",
    "esp32s3": ".dram0.dummy .dram0.data .dram0.bss",
    "teensy41": ".text.itcm .data .bss",
}
"""The sections that lie in flash and in the RAM that the board's memory speaks of."""


@pytest.mark.parametrize("name", CORES)
def test_a_real_board_is_counted_by_address(name: str, tmp_path: Path) -> None:
    need("arm-gcc")
    elf = _linked(tmp_path, f"MEMORY {{{CORES[name]}", SOURCES)
    found = footprint.read(elf, elf.with_suffix(".map"), boards.load(name).ram)
    sizes = _sections(elf)
    assert found.flash == sum(sizes[section] for section in LOADED[name].split())
    assert found.ram == sum(sizes[section] for section in TAKEN[name].split())
    assert (found.weights, found.constants, found.arena) == (100, 20, 200)
    assert 0 < found.kernels < 100
    assert found.stack == {"nano33": 2048}.get(name, 0)
    if name == "teensy41":  # constants of the application, which lie among its data, are data
        assert 36 + 14 <= found.data < 36 + 14 + 8
        assert found.copied == sizes[".text.itcm"] + 120
    else:
        assert 36 <= found.data <= 40 and found.copied == 0
    if name == "esp32s3":
        assert found.bss >= 0x300 + 300 + 1000


def test_a_larger_arena_costs_a_real_board_its_bytes(tmp_path: Path) -> None:
    need("arm-gcc")
    ram = []
    for bytes_ in (200, 100_200):
        model = SOURCES["generated/model.c"].replace("ec_arena[200]", f"ec_arena[{bytes_}]")
        sources = {**SOURCES, "generated/model.c": model}
        elf = _linked(tmp_path / str(bytes_), f"MEMORY {{{CORES['nano33']}", sources)
        board = boards.load("nano33")
        ram.append(footprint.read(elf, elf.with_suffix(".map"), board.ram).ram)
    assert ram[1] - ram[0] == 100_000


def _linked(folder: Path, script: str, sources: dict[str, str]) -> Path:
    """An ELF of the sources, linked by the script, and its map beside it."""
    objects = []
    for name, text in sources.items():
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        objects.append(str(file.with_suffix(".o")))
        flags = ("-mcpu=cortex-m4", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections")
        command = ["arm-none-eabi-gcc", *flags, "-c", str(file), "-o", objects[-1]]
        subprocess.run(command, check=True)
    (folder / "script.ld").write_text(script)
    command = ["arm-none-eabi-ld", "-e", "reset", "-T", "script.ld", "-Map", "a.map", *objects]
    subprocess.run([*command, "-o", "a.elf"], cwd=folder, check=True)
    return folder / "a.elf"


def _sections(elf: Path) -> dict[str, int]:
    command = ["arm-none-eabi-size", "-A", str(elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(".")]
    return {name: int(size) for name, size, *_ in rows}


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
