"""Estimated Cortex-M4 cycles from how often each instruction ran.

A model, not a measurement: the timing table of the Cortex-M4 Technical Reference Manual (ARM
100166, section 3.3.1, and 7.2 for the floating-point unit) on memory without wait states. What
the table leaves open becomes a range: whether neighbouring loads pipeline, how long the pipeline
takes to refill after a taken branch (1 to 3 cycles), how early a division ends (2 to 12).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from edgecompress.errors import ToolError

NAME = "estimated cycles (model, zero wait states)"
REFILL = (1, 3)
"""Cycles to refill the pipeline after a taken branch, least and most."""


class Block(NamedTuple):
    """Straight-line code: `instructions` in number from address `start`.

    It ran `times` times, and control went on elsewhere than behind it `taken` times.
    """

    start: int
    instructions: int
    times: int
    taken: int


class Instruction(NamedTuple):
    """One line of a disassembly: `function` is the symbol it stands under."""

    address: int
    mnemonic: str
    operands: str
    function: str


class Cycles(NamedTuple):
    """A range of cycles, both ends included."""

    lo: int
    hi: int

    def plus(self, other: Cycles) -> Cycles:
        """Both ranges one after the other."""
        return Cycles(self.lo + other.lo, self.hi + other.hi)

    def times(self, count: int) -> Cycles:
        """The range `count` times."""
        return Cycles(self.lo * count, self.hi * count)


NONE = Cycles(0, 0)


@dataclass(frozen=True)
class Listing:
    """A disassembly, by address."""

    instructions: tuple[Instruction, ...]
    addresses: tuple[int, ...]

    def start(self, function: str) -> int | None:
        """The address of `function`, None where there is none of that name."""
        return next((each.address for each in self.instructions if each.function == function), None)

    def of(self, block: Block) -> Sequence[Instruction]:
        """The instructions of `block`; ToolError where the disassembly does not hold them."""
        first = bisect_left(self.addresses, block.start)
        found = self.instructions[first : first + block.instructions]
        if len(found) != block.instructions or found[0].address != block.start:
            raise ToolError(
                f"objdump: no {block.instructions} instructions at {block.start:#x}, where the"
                " emulator ran them; is this the image that ran?"
            )
        return found


_FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:")
_LINE = re.compile(r"\s*([0-9a-f]+):\s+([a-z]\S*)\s*(.*)")


def listing(text: str) -> Listing:
    """What `objdump -d --no-show-raw-insn` printed; data among the code is left out."""
    found = []
    function = ""
    for line in text.splitlines():
        if heading := _FUNCTION.fullmatch(line):
            function = heading[1]
        elif code := _LINE.match(line):
            operands = re.split(r"\s*[;@]", code[3])[0].strip()
            found.append(Instruction(int(code[1], 16), code[2], operands, function))
    found.sort()
    return Listing(tuple(found), tuple(each.address for each in found))


def estimate(blocks: Iterable[Block], listing: Listing) -> Cycles:
    """The cycles that the executions `blocks` take on a Cortex-M4."""
    total = NONE
    for block in blocks:
        once, previous = NONE, None
        for instruction in listing.of(block):
            once = once.plus(cost(instruction, previous))
            previous = instruction
        total = total.plus(once.times(block.times)).plus(Cycles(*REFILL).times(block.taken))
    return total


def by_function(blocks: Iterable[Block], listing: Listing) -> Mapping[str, int]:
    """Function -> instructions executed, the largest first."""
    counts: dict[str, int] = {}
    for block in blocks:
        for instruction in listing.of(block):
            counts[instruction.function] = counts.get(instruction.function, 0) + block.times
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def instructions(blocks: Iterable[Block]) -> int:
    """Instructions executed."""
    return sum(block.instructions * block.times for block in blocks)


def cost(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """Cycles of one execution behind `previous` in the same block (None: not known).

    The refill after a taken branch is not in it. What the table does not list takes one cycle, as
    all data processing and multiplication does.
    """
    return _rule(instruction.mnemonic)(instruction, previous)


Rule = Callable[[Instruction, "Instruction | None"], Cycles]
_CONDITION = "(eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_SINGLE = re.compile(rf"(ldr|str)(b|h|sb|sh)?t?{_CONDITION}")


def _fixed(lo: int, hi: int | None = None) -> Rule:
    cycles = Cycles(lo, lo if hi is None else hi)
    return lambda instruction, previous: cycles


@cache
def _rule(mnemonic: str) -> Rule:
    word = mnemonic.split(".")[0]
    return next((rule for pattern, rule in _TABLE if pattern.fullmatch(word)), _fixed(1))


def _load(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """2; 1 where it pipelines with the load or store before it."""
    return Cycles(1 if _is_single(previous) else 2, 2)


def _store(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """1 thanks to the write buffer; the address of two registers may take one more."""
    registers = re.search(r"\[\w+, [a-z]", instruction.operands)
    return Cycles(1, 2 if registers else 1)


def _several(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """1 and one for each word of the register list."""
    words = _words(instruction.operands)
    return Cycles(1 + words, 1 + words)


def _float(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """VLDR, VSTR: 2, or 3 for a double word."""
    cycles = 3 if instruction.operands.startswith("d") else 2
    return Cycles(cycles, cycles)


def _move(instruction: Instruction, previous: Instruction | None) -> Cycles:
    """VMOV: 1, or 2 where it moves two core registers."""
    cycles = 2 if len(re.findall(r"\br\d+|\b(?:ip|lr|fp|sl|sb)\b", instruction.operands)) > 1 else 1
    return Cycles(cycles, cycles)


def _is_single(instruction: Instruction | None) -> bool:
    if instruction is None:
        return False
    return _SINGLE.fullmatch(instruction.mnemonic.split(".")[0]) is not None


def _words(operands: str) -> int:
    """Words that a register list such as {r4-r7, lr} or {d8-d9} holds."""
    listed = re.search(r"\{(.*)\}", operands)
    count = 0
    for part in listed[1].split(",") if listed else ():
        ends = [int(number) for number in re.findall(r"\d+", part)] if "-" in part else [0, 0]
        count += (ends[1] - ends[0] + 1) * (2 if part.strip().startswith("d") else 1)
    return count


_TABLE: tuple[tuple[re.Pattern[str], Rule], ...] = tuple(
    (re.compile(pattern + _CONDITION), rule)
    for pattern, rule in (
        (r"ldr(b|h|sb|sh)?t?", _load),
        (r"str(b|h)?t?", _store),
        (r"ldrd|strd", _fixed(3)),
        (r"(ldm|stm|vldm|vstm)(ia|db|fd|ea)?|push|pop|vpush|vpop", _several),
        (r"(ldr|str)ex(b|h)?", _fixed(2)),
        (r"[su]div", _fixed(2, 12)),
        (r"it[te]{0,3}", _fixed(0, 1)),
        (r"tb[bh]", _fixed(2)),
        (r"mrs|msr|cps(ie|id)", _fixed(1, 2)),
        (r"vldr|vstr", _float),
        (r"vmov", _move),
        (r"vdiv|vsqrt", _fixed(14)),
        (r"v(ml[as]|nml[as]|fm[as]|fnm[as])", _fixed(3)),
    )
)
