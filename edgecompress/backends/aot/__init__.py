"""Ahead-of-time C: a Program becomes plain C11 without an interpreter, bit-exact with TFLM.

Every operator becomes a call of a kernel of firmware/kernels with constant parameters; every
activation has its place in one static arena. Nothing is allocated, interpreted or copied that does
not need to be.
"""

from __future__ import annotations

import re
from functools import cache

from edgecompress.backends import CONTRACT, cgen, contract, firmware_folder
from edgecompress.backends.aot.emit import model_c, readers, served
from edgecompress.backends.aot.operators import OPERATORS
from edgecompress.backends.aot.schedule import Schedule, reasons, schedule
from edgecompress.tflite import Program
from edgecompress.vocabulary import Core, Optimize

__all__ = [
    "FILES",
    "NAME",
    "OPERATORS",
    "Schedule",
    "generate",
    "owners",
    "places",
    "schedule",
    "supports",
]

NAME = "aot"
FILES = ("ec_*.c", "ec_*.h", "example/main.c", "model.c")
"""What `generate` gives, as patterns, sorted."""
_INCLUDE = re.compile(r'^#include "(ec_\w+)\.h"', re.M)


def supports(program: Program) -> list[str]:
    """Why this model cannot become C: one line per operator or tensor, none if it can.

    Each names the operator, the layer it comes from and its shapes, and what is supported.
    """
    return reasons(program)


def generate(
    program: Program,
    *,
    name: str,
    core: Core = "dsp",
    optimize: Optimize = "balanced",
    planned: Schedule | None = None,
) -> dict[str, str]:
    """The C sources of a model, by path: model.c, ec_model.h, the kernels, example/main.c.

    `name` is the model's name, `core` and `optimize` are as in `schedule`; `planned` is the
    schedule, where it is made already. They need a C11
    compiler, libc headers, and libm for float operators. Raises UnsupportedError for what
    `supports` lists, ConfigError for a name without an ASCII letter or digit, StageOrderError for
    a program that was edited and not written.
    """
    cgen.identifier(name)
    program.need_file("generate")
    planned = schedule(program, core=core, optimize=optimize) if planned is None else planned
    files = {
        "model.c": model_c(planned, name=name, sha=str(program.sha), backend=NAME),
        CONTRACT: contract(),
        "example/main.c": (firmware_folder() / "example" / "main.c").read_text(encoding="utf-8"),
    }
    for family in {family for step in planned.steps for family in step.call.families}:
        _add_kernel(files, family)
    return dict(sorted(files.items()))


def places(program: Program, planned: Schedule) -> tuple[int, ...]:
    """For each operator of the schedule its place in `program`, of which it was made: operators
    that became part of others leave gaps."""
    known = {op.outputs: place for place, op in enumerate(program.ops)}
    return tuple(known[op.outputs] for op in planned.ops)


def owners(program: Program, planned: Schedule) -> dict[str, tuple[int, ...]]:
    """Constants of model.c, kernels' functions and their source files (without .c) -> the operators
    that each is there for, by their places in `program`.

    A function that operators call is there for these, all else in its file for every operator
    whose calls need the file.
    """
    found = readers(planned)
    callers: dict[tuple[str, str], set[int]] = {}
    direct: dict[str, set[int]] = {}
    for step, operators in zip(planned.steps, served(planned), strict=True):
        call = step.call
        callers.setdefault((call.family, call.function), set()).update(operators)
        direct.setdefault(call.family, set()).update(operators)
        for stem in {stem for family in call.families for stem in _stems(family)}:
            found.setdefault(stem, set()).update(operators)
    for (family, function), calling in callers.items():
        found[function] = calling | found[family] - direct[family]
    place = places(program, planned)
    return {
        name: tuple(sorted(place[number] for number in numbers))
        for name, numbers in sorted(found.items())
    }


@cache
def _stems(family: str) -> frozenset[str]:
    """The source files of a kernel family, and those that they include, without their endings."""
    files: dict[str, str] = {}
    _add_kernel(files, family)
    return frozenset(file.rpartition(".")[0] for file in files)


def _add_kernel(files: dict[str, str], stem: str) -> None:
    """The files of a kernel family, and of those that they include."""
    folder = firmware_folder() / "kernels"
    for path in (folder / f"{stem}.h", folder / f"{stem}.c"):
        if path.name in files or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        files[path.name] = text
        for included in _INCLUDE.findall(text):
            _add_kernel(files, included)
