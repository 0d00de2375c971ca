"""The Cortex-M4 cycle model, on small code whose cycles were counted by hand."""

from __future__ import annotations

import pytest

from edgecompress.backends import firmware_folder
from edgecompress.errors import ToolError
from edgecompress.measuring import counting, cycles
from edgecompress.measuring.cycles import Block, Cycles
from tests.conftest import need

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")

LISTING = """
firmware.elf:     file format elf32-littlearm


Disassembly of section .text:

00008000 <ec_model_invoke>:
    8000:\tpush\t{r4, r5, lr}
    8002:\tmov\tr4, r0
    8004:\tbl\t8010 <dot>
    8008:\tstr\tr0, [r4, #4]
    800a:\tpop\t{r4, r5, pc}
    800c:\t.word\t0x20000000

00008010 <dot>:
    8010:\tmovs\tr0, #0
    8012:\tldr.w\tr3, [r1], #4
    8016:\tldr.w\tip, [r2], #4
    801a:\tsmlad\tr0, r3, ip, r0
    801e:\tsubs\tr5, #1
    8020:\tbne.n\t8012 <dot+0x2>
    8022:\tbx\tlr
"""
RAN = (
    Block(0x8000, 3, 1, 1),  # push, mov, bl
    Block(0x8010, 6, 1, 1),  # the first round of the loop, entered from above
    Block(0x8012, 5, 7, 6),  # seven more; the last one falls through
    Block(0x8022, 1, 1, 1),  # bx lr
    Block(0x8008, 2, 1, 1),  # str, pop
)
CODE = cycles.listing(LISTING)


@pytest.mark.parametrize(
    ("text", "behind", "lo", "hi"),
    [
        ("add.w r0, r1, r2", "", 1, 1),
        ("movw r0, #1000", "", 1, 1),
        ("mul.w r0, r1, r2", "", 1, 1),
        ("smlal r0, r1, r2, r3", "", 1, 1),
        ("smlad r0, r1, r2, r3", "ldr r1, [r2, #0]", 1, 1),
        ("ssat r0, #8, r1", "", 1, 1),
        ("sdiv r0, r1, r2", "", 2, 12),
        ("udiv r0, r1, r2", "", 2, 12),
        ("ldr r0, [r1, #0]", "", 2, 2),
        ("ldr r0, [r1, #0]", "add r1, r1", 2, 2),
        ("ldr r0, [r1, #0]", "ldrsb.w r2, [r3, #1]", 1, 2),
        ("ldrb.w r0, [r1, r2]", "str r4, [r3, #0]", 1, 2),
        ("ldrsheq r0, [r1, r2]", "strh r4, [r3, #0]", 1, 2),
        ("ldr r0, [r1, #0]", "ldrd r2, r3, [r4]", 2, 2),
        ("str r0, [r1, #4]", "", 1, 1),
        ("strb.w r0, [r1], #1", "", 1, 1),
        ("str r0, [r1, r2]", "", 1, 2),
        ("ldrd r0, r1, [r2]", "", 3, 3),
        ("strd r0, r1, [r2]", "", 3, 3),
        ("ldmia.w r0!, {r4, r5, r6, r7}", "", 5, 5),
        ("stmdb sp!, {r4, lr}", "", 3, 3),
        ("push {r3, r4, r5, lr}", "", 5, 5),
        ("pop {r3, pc}", "", 3, 3),
        ("ldmfd sp!, {r4-r7}", "", 5, 5),
        ("vpush {d8-d9}", "", 5, 5),
        ("vldmia r0!, {s0-s3}", "", 5, 5),
        ("vldr s0, [r1]", "", 2, 2),
        ("vldr d0, [r1]", "", 3, 3),
        ("vadd.f32 s0, s1, s2", "", 1, 1),
        ("vmla.f32 s0, s1, s2", "", 3, 3),
        ("vfma.f32 s0, s1, s2", "", 3, 3),
        ("vdiv.f32 s0, s1, s2", "", 14, 14),
        ("vsqrt.f32 s0, s1", "", 14, 14),
        ("vmov r0, s0", "", 1, 1),
        ("vmov r0, r1, d0", "", 2, 2),
        ("vmov.f32 s0, #112", "", 1, 1),
        ("b.n 8000", "", 1, 1),
        ("bl 8000", "", 1, 1),
        ("bxne lr", "", 1, 1),
        ("bic.w r0, r1, #3", "", 1, 1),
        ("cbz r0, 8000", "", 1, 1),
        ("tbb [pc, r0]", "", 2, 2),
        ("it eq", "", 0, 1),
        ("ittee ne", "", 0, 1),
        ("mrs r0, PRIMASK", "", 1, 2),
        ("strex r0, r1, [r2]", "", 2, 2),
    ],
)
def test_one_instruction_as_the_manual_lists_it(text: str, behind: str, lo: int, hi: int) -> None:
    def made(line: str) -> cycles.Instruction:
        mnemonic, _, operands = line.partition(" ")
        return cycles.Instruction(0, mnemonic, operands, "f")

    previous = made(behind) if behind else None
    assert cycles.cost(made(text), previous) == Cycles(lo, hi)


def test_a_listing_is_code_alone() -> None:
    assert [one.address for one in CODE.instructions][:6] == [
        *(0x8000, 0x8002, 0x8004, 0x8008, 0x800A, 0x8010)
    ]
    assert CODE.start("dot") == 0x8010
    assert CODE.start("nothing") is None
    commented = cycles.listing("00000000 <f>:\n   0:\tldr\tr0, [pc, #8]\t; (c <f+0xc>)\n")
    assert commented.instructions[0].operands == "r0, [pc, #8]"


def test_a_loop_is_counted_and_estimated_as_by_hand() -> None:
    # 3 + 6 + 7 * 5 + 1 + 2 instructions.
    assert cycles.instructions(RAN) == 47
    assert cycles.by_function(RAN, CODE) == {"dot": 42, "ec_model_invoke": 5}
    # push 4, mov 1, bl 1; movs 1 and 8 rounds of ldr 2 + ldr 1..2 + smlad 1 + subs 1 + bne 1,
    # bx 1; str 1, pop 4; 10 taken branches of 1..3 each.
    straight = 4 + 1 + 1 + 1 + 1 + 1 + 4
    assert cycles.estimate(RAN, CODE) == Cycles(
        straight + 8 * 6 + 10 * 1,
        straight + 8 * 7 + 10 * 3,
    )


@pytest.mark.parametrize("block", [Block(0x8001, 1, 1, 0), Block(0x8022, 2, 1, 0)])
def test_code_that_is_not_listed_is_an_error(block: Block) -> None:
    with pytest.raises(ToolError, match=f"objdump: no . instructions at {block.start:#x}"):
        cycles.estimate([block], CODE)


def test_the_plugin_s_file_is_read_by_call_and_part() -> None:
    text = "part 0 0\n8010 2 3 1\n8000 1 1 0\npart 0 1\npart 1 0\n8000 1 1 0\ndone\n"
    first, second = counting.parse(text)
    assert first == ((Block(0x8000, 1, 1, 0), Block(0x8010, 2, 3, 1)), ())
    assert second == ((Block(0x8000, 1, 1, 0),),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cut short"),
        ("part 0 0\n8000 1 1 0\n", "cut short"),
        ("8000 1 1 0\ndone\n", "it wrote '8000 1 1 0'"),
        ("part 0 0\n8000 1 1\ndone\n", "it wrote '8000 1 1'"),
        ("part 0 1\ndone\n", "out of order"),
        ("part 1 0\ndone\n", "out of order"),
        ("part 0 0\npart 0 2\ndone\n", "out of order"),
    ],
)
def test_a_damaged_file_of_the_plugin_is_an_error(text: str, why: str) -> None:
    with pytest.raises(ToolError, match=f"counting plugin: .*{why}"):
        counting.parse(text)


def test_the_plugin_compiles_without_a_warning() -> None:
    need("cc")
    source = firmware_folder() / "emulator" / "counts.c"
    counting.run(["cc", "-std=c11", "-fsyntax-only", *WARNINGS, str(source)])
