"""Runs the cases of the differential harness on an emulated board, output over semihosting."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgecompress import boards
from edgecompress.backends import firmware_folder
from tests.aot_harness import WARNINGS, Case, compile_c, parse, write_sources
from tests.conftest import need

_BATCH = 40
_SUPPORT = r"""
#include <stdint.h>
#include "ec_board.h"
#include "mps.h"
const mps_t mps = {0};
void mps_tick_wrapped(void) {}
static void ec_test_write(const char *text, uint32_t n) {
    static char line[512];
    static uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        line[used++] = text[i];
        if (used == sizeof(line) - 1 || text[i] == '\n') {
            line[used] = 0;
            register uint32_t operation __asm("r0") = 4u; /* SYS_WRITE0 */
            register const char *argument __asm("r1") = line;
            __asm volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
            used = 0;
        }
    }
}
#define EC_TEST_WRITE(text, n) ec_test_write(text, n)
#define EC_TEST_MAIN void ec_app_main(void)
#define EC_TEST_EXIT(code) mps_exit(code)
"""


def run_on(board: str) -> Callable[[Sequence[Case]], list[list[list[Any]]]]:
    """A stand-in for `run_host`: the C compiled for `board` with -O2 and run under QEMU."""
    need("arm-gcc")
    need("qemu")
    known = boards.load(board)

    def run(cases: Sequence[Case]) -> list[list[list[Any]]]:
        found: list[list[list[Any]]] = []
        for start in range(0, len(cases), _BATCH):
            found += _run(known, cases[start : start + _BATCH])
        return found

    return run


def _run(board: boards.Board, cases: Sequence[Case]) -> list[list[list[Any]]]:
    root = firmware_folder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = write_sources(folder, cases)
        text = (folder / "cases.c").read_text()
        (folder / "cases.c").write_text(_SUPPORT + text)
        elf = folder / "cases.elf"
        origins = ("flash_origin", "flash_bytes", "ram_origin", "ram_bytes", "stack_bytes")
        compile_c(
            [board.compiler, *board.flags.split(), "-std=c11", "-O2", *WARNINGS]
            + ["-ffunction-sections", "-Wl,--gc-sections", "-nostartfiles", "--specs=nano.specs"]
            + [f"-I{root / part}" for part in ("include", "kernels", "mps")]
            + [f"-Wl,--defsym=ec_{key}={getattr(board, key)}" for key in origins]
            + ["-T", str(root / "mps" / "link.ld"), str(root / "mps" / "start.c")]
            + [*map(str, sources), "-lm", "-o", str(elf)]
        )
        done = subprocess.run(
            ["qemu-system-arm", "-M", str(board.machine), "-nographic", "-monitor", "none"]
            + ["-serial", "null", "-semihosting-config", "enable=on,target=native"]
            + ["-kernel", str(elf)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    return parse(done.stderr + done.stdout, cases)
