"""Exact instruction counts under QEMU, by our plugin (firmware/emulator/counts.c)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edgecompress.backends import firmware_folder
from edgecompress.errors import ToolError
from edgecompress.measuring.cycles import Block, Listing, listing

FUNCTION = "ec_model_invoke"
"""What is counted: from its first instruction to its return."""
HOOK = "ec_profile_hook"
"""What is left out of it: the application's hook, called after each operator."""

_FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared")
_SECONDS = 120
_LINES = 20
_BLOCK = re.compile(r"([0-9a-f]+) (\d+) (\d+) (\d+)")
_PART = re.compile(r"part (\d+) (\d+)")

Part = tuple[Block, ...]
Calls = tuple[tuple[Part, ...], ...]
"""What ran in each call of the function, part by part."""


def obstacle(qemu: str) -> str | None:
    """Why instructions cannot be counted one by one here, None if they can."""
    if _compiler() is None:
        return "there is no host C compiler (cc)"
    if "-plugin" not in _help(qemu):
        return f"this {qemu} was built without plugins"
    return None


def option(folder: Path, elf: Path, code: Listing, *, qemu: str, calls: int) -> list[str]:
    """The arguments that make `qemu` count the first `calls` calls of FUNCTION of `elf`.

    The plugin is compiled into `folder`, where `counts` finds what it wrote. `code` is the
    disassembly of `elf`. Raises ToolError where the compiler fails, or the image has no FUNCTION.
    """
    starts = {name: code.start(name) for name in (FUNCTION, HOOK)}
    if starts[FUNCTION] is None:
        raise ToolError(f"{elf}: it has no function {FUNCTION}; was it built by edgecompress?")
    version = re.search(r"version (\d+)", _help(qemu))
    interface = 2 if version and int(version[1]) >= 9 else 1
    plugin = folder / "counts.so"
    source = firmware_folder() / "emulator" / "counts.c"
    run([str(_compiler()), *_FLAGS, f"-DEC_PLUGIN_API={interface}", str(source), "-o", str(plugin)])
    given = {
        "file": plugin,
        "out": folder / "counts.txt",
        "function": starts[FUNCTION],
        "calls": calls,
        **({} if starts[HOOK] is None else {"hook": starts[HOOK]}),
    }
    text = ",".join(f"{key}={str(value).replace(',', ',,')}" for key, value in given.items())
    return ["-plugin", text]


def counts(folder: Path) -> Calls:
    """What the plugin wrote into `folder`; ToolError where it was cut short."""
    file = folder / "counts.txt"
    return parse(file.read_text(encoding="ascii") if file.is_file() else "")


def parse(text: str) -> Calls:
    """The plugin's file (see counts.c); ToolError where it is damaged or cut short."""
    calls: list[list[list[Block]]] = []
    lines = text.splitlines()
    if not lines or lines.pop() != "done":
        raise ToolError("counting plugin: its file is cut short; the emulator was killed")
    for line in lines:
        if part := _PART.fullmatch(line):
            call, number = int(part[1]), int(part[2])
            if number == 0:
                calls.append([])
            if call != len(calls) - 1 or number != len(calls[-1]):
                raise ToolError(f"counting plugin: {line!r} out of order")
            calls[-1].append([])
        elif (block := _BLOCK.fullmatch(line)) and calls:
            calls[-1][-1].append(Block(int(block[1], 16), *map(int, block.groups()[1:])))
        else:
            raise ToolError(f"counting plugin: it wrote {line!r}; this version does not know that")
    return tuple(tuple(tuple(sorted(part)) for part in call) for call in calls)


def disassembly(elf: Path, *, objdump: str) -> Listing:
    """The code of `elf`; ToolError where `objdump` fails."""
    return listing(run([objdump, "-d", "--no-show-raw-insn", str(elf)]))


def run(command: Sequence[str]) -> str:
    """What `command` prints; ToolError with its exit status and last lines where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except OSError as error:
        why = error.strerror or error
        raise ToolError(f"{command[0]}: {why}; edgecompress doctor says how to get it") from None
    except subprocess.TimeoutExpired:
        raise ToolError(f"{' '.join(command)}: not done after {_SECONDS} seconds") from None
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-_LINES:]) or "it said nothing"
        raise ToolError(f"{' '.join(command)}: exit status {done.returncode}: {said}")
    return done.stdout


def _compiler() -> str | None:
    return shutil.which("cc")


@cache
def _help(qemu: str) -> str:
    return run([qemu, "-help"])
