"""Ahead-of-time C: a Program becomes plain C11 without an interpreter, bit-exact with TFLM.

Every operator becomes a call of a kernel of firmware/kernels with constant parameters; every
activation has its place in one static arena. Nothing is allocated, interpreted or copied that does
not need to be.
"""

from __future__ import annotations

import re

from edgecompress.backends import CONTRACT, cgen, contract, firmware_folder
from edgecompress.backends.aot.emit import model_c
from edgecompress.backends.aot.operators import OPERATORS
from edgecompress.backends.aot.schedule import Schedule, reasons, schedule
from edgecompress.tflite import Program
from edgecompress.vocabulary import Core, Optimize

__all__ = ["FILES", "NAME", "OPERATORS", "Schedule", "generate", "schedule", "supports"]

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
