"""What an image takes: by the ELF's flags, by the map, and as the binutils count it."""

from __future__ import annotations

import dataclasses
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgecompress import boards
from edgecompress.artifact import Artifact
from edgecompress.building import deployment, footprint
from edgecompress.building.footprint import Piece
from edgecompress.errors import ToolError
from edgecompress.report.image import PADDING
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

/DISCARD/
 .text.thrown   0x00000000        0x8 objects/app/app.o
"""


def test_the_map_is_read_piece_by_piece() -> None:
    assert list(footprint.pieces(MAP)) == [
        Piece(".text", ".text.short", 0, 0x10, "objects/app/app.o"),
        Piece(
            ".text",
            ".text.a_name_that_is_longer_than_the_column",
            0x10,
            0x20,
            "/usr/lib/libc.a(lib a-memcpy.o)",
        ),
        Piece(".a_long_output_section", ".rodata.w_0", 0x34, 0x40, "objects/generated/model.o"),
        Piece("/DISCARD/", ".text.thrown", 0, 8, "objects/app/app.o"),
    ]


@pytest.mark.parametrize(
    ("library", "told"),
    [
        ("/usr/lib/gcc/arm-none-eabi/12.2.1/thumb/libgcc.a", "arm-none-eabi-gcc 12.2.1"),
        (
            "packages/toolchain/lib/gcc/xtensa-esp32s3-elf/8.4.0/libgcc.a",
            "xtensa-esp32s3-elf-gcc 8.4.0",
        ),
        ("/usr/lib/libc.a", None),
    ],
)
def test_the_compiler_is_that_of_its_library(
    library: str, told: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.map").write_text(f"{MAP}LOAD {library}\n")
    assert footprint.compiler(tmp_path / "a.map") == told


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55"])
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
    flash, ram, empty = found.flash, found.ram, image.empty
    assert data > 0
    assert flash.total == text + data
    assert ram.total + ram.stack == data + bss
    assert (flash.weights, ram.arena, ram.stack, flash.data) == (100, 208, 4096, data)
    assert ram.bss - plain.ram.bss >= 60 and ram.copied == 0
    assert 300 < flash.constants < 500
    assert 100 < flash.kernels < 400
    for part in ("runtime", "application", "libc"):
        assert abs(getattr(flash, part) - getattr(empty.flash, part)) < 32
    assert 1500 < flash.application < 4000 and 100 < flash.runtime < 1500 and 100 < flash.libc
    assert empty.flash.weights == empty.ram.arena == 0
    cost = image.cost
    assert cost is not None and cost.built_for == board
    assert cost.flash == flash.total - empty.flash.total
    assert cost.ram == ram.total - empty.ram.total
    assert found.flash_limit == image.board.flash_bytes
    assert found.ram_limit == image.board.ram_bytes
    assert (found.over, image.too_large) == ((0, 0), "")


def test_every_symbol_has_a_name_a_file_and_a_part(tmp_path: Path) -> None:
    need("arm-gcc")
    found = small_firmware.build(tmp_path, "qemu_m4").footprint
    assert found is not None
    rows = {(one.name, one.file): one for one in found.symbols}
    assert len(found.symbols) == len({(one.name, one.file, one.part) for one in found.symbols})
    expected = {
        ("ec_arena", "generated/model.o"): "arena",
        ("ec_model_invoke", "generated/model.o"): "kernels",
        ("ec_app_main", "app/app.o"): "application",
        ("mps_vectors", "mps/start.o"): "runtime",
        ("ec_board_init", "mps/board.o"): "runtime",
        ("memcpy", "libc_nano.a(lib_a-memcpy.o)"): "libc",
        (".stack", ""): "stack",
    }
    assert {key: rows[key].part for key in expected} == expected
    assert rows["ec_arena", "generated/model.o"].ram == found.ram.arena == 208
    assert {one.part for one in found.symbols if one.name == PADDING} <= {"runtime", "data"}
    assert not [one for one in found.symbols if one.file.startswith("/")]
    # As the binutils list them, where they list them with a size.
    listed = _listed(tmp_path / "qemu_m4-aot" / "firmware.elf")
    told = {one.name: one.flash + one.ram for one in found.symbols}
    several = Counter(one.name for one in found.symbols)
    same = {name for name in listed if several[name] == 1}
    assert len(same) > 40
    for name in same:
        assert listed[name] <= told[name] < listed[name] + 16, name


def test_a_constant_operand_counts_as_weights(tmp_path: Path) -> None:
    need("arm-gcc")
    matrix = constant("matrix", np.arange(64).reshape(1, 8, 8), "int8", scales=(0.1,))
    tensors = (activation("x", 1, 2, 8), matrix, activation("y", 1, 2, 8))
    op = Op("BATCH_MATMUL", (0, 1), (2,), options("BATCH_MATMUL"))
    artifact = Artifact("product", tflite=tflite(Program(tensors, (op,), (0,), (2,))))
    found = deployment.build(artifact, board="qemu_m4", out=tmp_path).footprint
    assert found is not None and found.flash.weights == 64


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    need("arm-gcc")
    places = (tmp_path / "here", tmp_path / "some where" / "else")
    first, second = (small_firmware.build(place, "qemu_m4") for place in places)
    assert first.elf.read_bytes() == second.elf.read_bytes()
    assert first.footprint == second.footprint is not None


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
    board = boards.load(name)
    found = footprint.read(elf, elf.with_suffix(".map"), board)
    flash, ram = found.flash, found.ram
    sizes = _sections(elf)
    assert flash.total == sum(sizes[section] for section in LOADED[name].split())
    assert ram.total == sum(sizes[section] for section in TAKEN[name].split())
    assert (flash.weights, flash.constants, ram.arena) == (100, 20, 200)
    assert 0 < flash.kernels < 100
    assert ram.stack == {"nano33": 2048}.get(name, 0)
    assert (found.flash_limit, found.ram_limit) == (board.flash_bytes, board.ram_bytes)
    if name == "teensy41":  # constants of the application, which lie among its data, are data
        assert 36 + 14 <= ram.data < 36 + 14 + 8
        assert ram.copied == sizes[".text.itcm"] + 120
        weights = next(one for one in found.symbols if one.part == "weights")
        assert (weights.flash, weights.ram) == (100, 100)
    else:
        assert 36 <= ram.data <= 40 and ram.copied == 0
        assert flash.application >= 14  # the table
    if name == "esp32s3":
        assert ram.bss >= 0x300 + 300 + 1000
        (gap,) = (one for one in found.symbols if one.name == ".dram0.dummy")
        assert (gap.ram, gap.part, gap.file) == (0x300, "data", "")


def test_a_larger_arena_costs_a_real_board_its_bytes(tmp_path: Path) -> None:
    need("arm-gcc")
    ram = []
    for bytes_ in (200, 100_200):
        model = SOURCES["generated/model.c"].replace("ec_arena[200]", f"ec_arena[{bytes_}]")
        sources = {**SOURCES, "generated/model.c": model}
        elf = _linked(tmp_path / str(bytes_), f"MEMORY {{{CORES['nano33']}", sources)
        board = boards.load("nano33")
        ram.append(footprint.read(elf, elf.with_suffix(".map"), board).ram.total)
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


def _listed(elf: Path) -> dict[str, int]:
    command = ["arm-none-eabi-nm", "--print-size", str(elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[3]: int(row[1], 16) for row in rows if len(row) == 4 and int(row[1], 16)}


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


def test_the_table_has_every_part_and_the_sums(tmp_path: Path) -> None:
    need("arm-gcc")
    image = small_firmware.build(tmp_path, "qemu_m4")
    assert image.footprint is not None and image.cost is not None
    table = image.table()["footprint"]
    flash, ram = image.footprint.flash, image.footprint.ram
    sums = {"flash": flash.total, "ram": ram.total}
    assert table == {**dataclasses.asdict(flash), **dataclasses.asdict(ram), **sums}
    rows = {row[:2]: row[2] for row in image.rows()}
    assert rows["flash", "all"] == f"{flash.total:,}"
    assert rows["RAM", "stack"] == "4,096"
    assert rows["flash", "cost of the model"] == f"{image.cost.flash:,}"


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("src/app/link.o", "application"),
        ("libs/app/libapp.a(link.o)", "runtime"),
        ("/usr/lib/arm/libgcc.a(_udivmoddi4.o)", "libc"),
        ("/usr/lib/libstdc++_nano.a(new_op.o)", "libc"),
        ("/usr/lib/libnosys.a(sbrk.o)", "libc"),
        ("libFrameworkArduino.a(main.cpp.o)", "runtime"),
        ("libcamera.a(x.o)", "runtime"),
        ("src/mps/start.o", "runtime"),
        ("src/generated/model.c.o", "kernels"),
    ],
)
def test_the_part_is_that_of_the_object_file(file: str, part: str) -> None:
    assert footprint._part("text", Piece(".text", ".text.f", 0, 4, file)) == part


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (".text.unlikely.ec_pool_walk", "ec_pool_walk"),
        (".text.startup.main", "main"),
        (".ARM.exidx.text.f", "f"),
        (".ARM.extab.text.f", "f"),
        (".literal.f", "f"),
        (".data.rel.ro.local.table", "table"),
        (".bss.ec_arena", "ec_arena"),
        (".rodata.w_3", "w_3"),
        (".rodata.str1.4", ".rodata.str1.4"),
        (".text", "second"),
        (".vectors", "first"),
    ],
)
def test_a_symbol_is_named_by_its_section_or_by_the_elf(section: str, name: str) -> None:
    names = [(0x10, "first"), (0x20, "second"), (0x24, "third")]
    address = {".vectors": 0x10, ".text": 0x18}.get(section, 0x100)
    assert footprint._name(Piece(".text", section, address, 0x10, "a.o"), names) == name


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    need("arm-gcc")
    other = tmp_path / "other.map"
    image = small_firmware.build(tmp_path, "qemu_m4")
    map_file = image.elf.with_name("firmware.map")
    other.write_text(map_file.read_text().replace(" 0x64 ", " 0x6400 "))
    with pytest.raises(ToolError, match="other.map: it is not the map of .*firmware.elf"):
        footprint.read(image.elf, other, image.board)
    other.write_text(map_file.read_text().replace("src/generated/", "ltrans/"))
    with pytest.raises(ToolError, match="other.map: no code of the model .* without link-time"):
        footprint.read(image.elf, other, image.board)
    with pytest.raises(ToolError, match="other.map: no ELF file: "):
        footprint.read(other, map_file, image.board)
