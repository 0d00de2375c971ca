"""Differential tests of the ahead-of-time backend: many small programs, few compiles, one oracle.

`check` generates C for every case, compiles all of it together (host: with the address and
undefined-behaviour sanitizers; or an emulated board), runs it, runs the same files under TFLite
Micro in a process of its own, and asserts that every output has the same bits.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from unittest.mock import patch

import hypothesis
import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from edgecompress import memory
from edgecompress.backends import aot, firmware_folder
from edgecompress.backends.aot.calls import Choice, Lowered
from edgecompress.backends.aot.choose import Chosen, choose
from edgecompress.tflite import DTYPES, Program, Tensor
from edgecompress.vocabulary import Optimize

Array = npt.NDArray[Any]
T = TypeVar("T")

SCHEDULE = importlib.import_module("edgecompress.backends.aot.schedule")
"""The module, whose place in its package the function of that name has taken."""
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")
HOST = (
    "cc",
    "-std=c11",
    "-O1",
    "-g",
    "-ffp-contract=off",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
_RENAMED = re.compile(
    r"\b(ec_arena|ready|[cpw]_\w+"
    r"|ec_model_(?:info|init|input|invoke|output|hook|arena_used))\b(?!\.h)"
)
_PLAN = memory.plan
_BATCH = 100
_GUARD = 64
_READY = "    ready = 1;\n"


class Case(NamedTuple):
    """A program (with its file) and the rows to run it on: one array per input and row."""

    program: Program
    rows: list[list[Array]]


def draw(strategy: SearchStrategy[T], count: int, *, seed: int = 0) -> list[T]:
    """`count` values of a hypothesis strategy, the same ones every time."""
    found: list[T] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        phases=(Phase.generate,),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found[:count]


def random_input(tensor: Tensor, random: np.random.Generator) -> Array:
    """Values of the tensor's own type: mostly random, sometimes all at the lowest or highest."""
    kind = np.dtype(DTYPES[tensor.dtype].numpy)
    if kind.kind == "f":
        return (random.standard_normal(tensor.shape) * 3).astype(kind)
    if kind.kind == "b":
        return random.integers(0, 2, tensor.shape).astype(kind)
    low, high = (-(1 << 20), 1 << 20) if kind.itemsize > 2 else _limits(kind)
    extreme = random.integers(0, 8)
    if extreme < 2:
        return np.full(tensor.shape, (low, high)[extreme], kind)
    return random.integers(low, high + 1, tensor.shape).astype(kind)


def _limits(kind: np.dtype[Any]) -> tuple[int, int]:
    found = np.iinfo(kind)
    return int(found.min), int(found.max)


def case(program: Program, *, rows: int = 2, seed: int = 0) -> Case:
    """`program` with `rows` random rows."""
    random = np.random.default_rng(seed)
    inputs = [program.tensors[index] for index in program.inputs]
    return Case(program, [[random_input(t, random) for t in inputs] for _ in range(rows)])


def check(
    cases: Sequence[Case],
    *,
    close: Callable[[Array, Array], bool] | None = None,
    run: Callable[[Sequence[Case]], list[list[list[Array]]]] | None = None,
) -> None:
    """Assert that the C of every case gives TFLM's bits on every row.

    `close` takes the place of equality for float outputs, where a tolerance is justified. `run`
    takes the place of the host (see `run_host`).
    """
    expected = reference(cases)
    wrong = []
    for number, (one, want, got) in enumerate(
        zip(cases, expected, (run or run_host)(cases), strict=True)
    ):
        for row, (left, right) in enumerate(zip(want, got, strict=True)):
            for output, (a, b) in enumerate(zip(left, right, strict=True)):
                same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
                if not same and not (close and a.dtype.kind == "f" and close(a, b)):
                    wrong.append(_difference(number, one, row, output, a, b))
                    break
    assert not wrong, f"{len(wrong)} of {len(cases)} cases differ:\n" + "\n".join(wrong[:5])


def _difference(number: int, one: Case, row: int, output: int, want: Array, got: Array) -> str:
    places = np.argwhere(want != got)[:4]
    shown = ", ".join(f"{tuple(map(int, p))}: {want[tuple(p)]} != {got[tuple(p)]}" for p in places)
    op = one.program.ops[0]
    tensors = [
        f"{t.dtype}{list(t.shape)} scale {t.scales[:2]} zero {t.zero_points[:1]}"
        for t in (*one.program.args(op), *one.program.results(op))
        if t is not None
    ]
    return (
        f"case {number} {op.kind} {dict(op.options)} {tensors} row {row} output {output}:"
        f" TFLM != C at {shown} ({int((want != got).sum())} of {want.size})"
    )


# --- the C side -------------------------------------------------------------------------------


def run_host(
    cases: Sequence[Case], *, guarded: bool = False, flags: tuple[str, ...] = ()
) -> list[list[list[Array]]]:
    """The outputs of every case, row and output, computed by the generated C on this machine.

    `guarded`: every buffer lies alone in the arena, and the address sanitizer faults any access to
    a byte of the arena that belongs to none. `flags` go to the compiler with the kernels:
    -DEC_WITH_DSP gives them the form for cores with the DSP extension, -DEC_WITH_THUMB1 the
    arithmetic for those with products of 32 bits alone.
    """
    found: list[list[list[Array]]] = []
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        with tempfile.TemporaryDirectory() as folder:
            sources = write_sources(Path(folder), batch, guarded=guarded)
            program = Path(folder) / "cases"
            names = [path.name for path in sources if path.name != "cases.c"]
            objects = [_kernel_object(name, flags) for name in names]
            compile_c(
                [*HOST, *WARNINGS, "-O0", "-I", folder, "-I", str(firmware_folder() / "kernels")]
                + ["-o", str(program), str(Path(folder) / "cases.c"), *map(str, objects), "-lm"]
            )
            env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
            done = subprocess.run([program], capture_output=True, timeout=600, env=env)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
        found += parse(done.stdout.decode(), batch)
    return found


def run_guarded(cases: Sequence[Case]) -> list[list[list[Array]]]:
    """`run_host` with guards around every buffer."""
    return run_host(cases, guarded=True)


def apart(
    buffers: Sequence[memory.Buffer], overlaps: Sequence[memory.Overlap] = (), *, effort: int = 1
) -> memory.Plan:
    """A plan in which no two buffers share a byte, with _GUARD bytes or more around each."""
    offsets, end = [], _GUARD
    for buffer in buffers:
        offsets.append(end)
        end = -(-(end + buffer.size) // _GUARD) * _GUARD + _GUARD
    peaks = _PLAN(buffers, overlaps, effort=0).peaks
    return memory.Plan(tuple(offsets), end, 0, ("apart",) * len(overlaps), peaks)


def prefer(*families: str) -> Callable[..., list[Chosen]]:
    """A chooser (for `schedule.choose`) of the kernels of `families`, wherever they apply; those
    with packed weights need "ec_unpack" beside theirs."""

    def chosen(
        lowered: Sequence[Lowered], *, optimize: Optimize, arena: Callable[[Any], int]
    ) -> list[Chosen]:
        return choose([_kept(part, families) for part in lowered], optimize="speed", arena=arena)

    return chosen


def _kept(part: Lowered, families: Sequence[str]) -> Lowered:
    if not isinstance(part, Choice):
        return part
    kept = tuple(call for call in part.alternatives if {*call.families} <= {*families})
    return Choice(kept or part.alternatives)


def at_limit(direction: Literal["forward", "backward"], *, closer: int = 0) -> Callable[..., Any]:
    """A plan (for `memory.plan`) with one output over its input as far as the operator allows.

    The first overlap that allows `direction` is taken, `closer` bytes beyond what it allows; all
    other buffers lie apart.
    """

    def plan(
        buffers: Sequence[memory.Buffer],
        overlaps: Sequence[memory.Overlap] = (),
        *,
        effort: int = 1,
    ) -> memory.Plan:
        found = [place for place, one in enumerate(overlaps) if _lead(one, direction) is not None]
        if not found:
            return apart(buffers, overlaps)
        chosen = overlaps[found[0]]
        source, target = buffers[chosen.source], buffers[chosen.target]
        lead = _lead(chosen, direction)
        assert lead is not None
        lead -= closer
        if direction == "backward":
            lead = target.size - lead - source.size
        base = max(-lead, 0)
        pair = {chosen.source: base + lead, chosen.target: base}
        end = max(offset + buffers[place].size for place, offset in pair.items())
        rest = [buffer for place, buffer in enumerate(buffers) if place not in pair]
        others = apart(rest)
        start = -(-end // _GUARD) * _GUARD
        left = iter(others.offsets)
        offsets = [pair[i] if i in pair else start + next(left) for i in range(len(buffers))]
        directions = [direction if i == found[0] else "apart" for i in range(len(overlaps))]
        peaks = _PLAN(buffers, overlaps, effort=0).peaks
        return memory.Plan(tuple(offsets), start + others.bytes, 0, tuple(directions), peaks)

    return plan


def _lead(overlap: memory.Overlap, direction: str) -> int | None:
    return overlap.forward if direction == "forward" else overlap.backward


def _guarded_model(program: Program, name: str) -> dict[str, str]:
    """The files of a model whose init forbids every access to the arena outside its buffers."""
    with patch.object(memory, "plan", apart):
        planned = aot.schedule(program)
    files = aot.generate(program, name=name, planned=planned)
    pairs = zip(planned.plan.offsets, planned.buffers, strict=True)
    allowed = "".join(
        f"    ASAN_UNPOISON_MEMORY_REGION(ec_arena + {offset}, {buffer.size});\n"
        for offset, buffer in pairs
    )
    guards = f"    ASAN_POISON_MEMORY_REGION(ec_arena, sizeof(ec_arena));\n{allowed}"
    text = files["model.c"]
    assert text.count(_READY) == 1
    files["model.c"] = "#include <sanitizer/asan_interface.h>\n" + text.replace(
        _READY, guards + _READY
    )
    return files


def write_sources(folder: Path, cases: Sequence[Case], *, guarded: bool = False) -> list[Path]:
    """cases.c (all models and their rows) and the kernels they need, written to `folder`."""
    models: list[str] = []
    kernels: dict[str, str] = {}
    includes: dict[str, None] = {}
    for number, one in enumerate(cases):
        made = _guarded_model if guarded else aot.generate
        files = made(one.program, name=f"case{number}")
        for path, text in files.items():
            if path.startswith("ec_"):
                kernels[path] = text
        text = files["model.c"]
        includes.update(dict.fromkeys(re.findall(r"^#include .*$", text, re.M)))
        text = re.sub(r"^#include .*$", "", text, flags=re.M)
        models.append(_RENAMED.sub(rf"m{number}_\1", text) + _rows(number, one))
    body = _DRIVER.replace("@count@", str(len(cases))).replace(
        "@models@", "".join(f"    {{{_entry(n, len(c.rows))}}},\n" for n, c in enumerate(cases))
    )
    hooks = "".join(
        f"extern const ec_model_info_t m{n}_ec_model_info;\n"
        f"extern ec_model_hook_t m{n}_ec_model_hook;\n"
        for n in range(len(cases))
    )
    prototypes = "".join(_prototypes(n) for n in range(len(cases)))
    text = "\n".join([*includes, hooks, prototypes, *models, body])
    paths = []
    for name, content in {**kernels, "cases.c": text}.items():
        (folder / name).write_text(content)
        if name.endswith(".c"):
            paths.append(folder / name)
    return paths


def _prototypes(number: int) -> str:
    header = (firmware_folder() / "include" / "ec_model.h").read_text()
    lines = re.findall(r"^\w[\w ]*\*?\bec_model_\w+\([^)]*\);", header, re.M)
    return _RENAMED.sub(rf"m{number}_\1", "\n".join(lines)) + "\n"


def _rows(number: int, one: Case) -> str:
    data = b"".join(array.tobytes() for row in one.rows for array in row)
    values = ",".join(map(str, data)) or "0"
    return f"\nstatic const uint8_t m{number}_rows[{max(len(data), 1)}] = {{{values}}};\n"


def _entry(number: int, rows: int) -> str:
    names = ("ec_model_info", "ec_model_init", "ec_model_input", "ec_model_invoke")
    parts = [f"m{number}_{name}" for name in (*names, "ec_model_output", "rows")]
    return ", ".join([f"&{parts[0]}", *parts[1:], str(rows)])


_DRIVER = r"""
#include <stdio.h>
#ifndef EC_TEST_WRITE
#define EC_TEST_WRITE(text, n) fwrite(text, 1, n, stdout)
#define EC_TEST_MAIN int main(void)
#define EC_TEST_EXIT(code) return code
#endif

typedef struct {
    const ec_model_info_t *info;
    ec_model_status_t (*init)(void);
    void *(*input)(uint32_t index);
    ec_model_status_t (*invoke)(void);
    const void *(*output)(uint32_t index);
    const uint8_t *rows;
    int count;
} test_model_t;

static const test_model_t test_models[@count@] = {
@models@};

static void test_hex(const uint8_t *bytes, uint32_t n) {
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < n; i++) {
        char text[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        EC_TEST_WRITE(text, 2);
    }
    EC_TEST_WRITE("\n", 1);
}

EC_TEST_MAIN {
    for (int m = 0; m < @count@; m++) {
        const test_model_t *model = &test_models[m];
        const uint8_t *row = model->rows;
        if (model->invoke() != EC_MODEL_ERR_STATE) EC_TEST_EXIT(2);
        if (model->init() != EC_MODEL_OK) EC_TEST_EXIT(3);
        for (int i = 0; i < model->count; i++) {
            for (uint32_t k = 0; k < model->info->input_count; k++) {
                memcpy(model->input(k), row, model->info->inputs[k].bytes);
                row += model->info->inputs[k].bytes;
            }
            if (model->invoke() != EC_MODEL_OK) EC_TEST_EXIT(4);
            for (uint32_t k = 0; k < model->info->output_count; k++) {
                test_hex((const uint8_t *)model->output(k), model->info->outputs[k].bytes);
            }
        }
    }
    EC_TEST_EXIT(0);
}
"""


def parse(text: str, cases: Sequence[Case]) -> list[list[list[Array]]]:
    """The arrays behind the lines of hex digits that the driver wrote."""
    lines = iter(text.splitlines())
    return [
        [
            [
                np.frombuffer(bytes.fromhex(next(lines)), DTYPES[tensor.dtype].numpy).reshape(
                    tensor.shape
                )
                for tensor in (one.program.tensors[i] for i in one.program.outputs)
            ]
            for _ in one.rows
        ]
        for one in cases
    ]


def compile_c(command: Sequence[str]) -> None:
    """Run a compiler; its complaints fail the test."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command[:12])} ...\n{done.stderr[:6000]}"


def _kernel_object(name: str, flags: tuple[str, ...]) -> Path:
    """The object file of a kernel with sanitizers; compiled once per content."""
    folder = firmware_folder() / "kernels"
    content = b"".join(p.read_bytes() for p in sorted(folder.glob("*.h")))
    content += (folder / name).read_bytes()
    return _compiled(name, hashlib.sha256(content).hexdigest(), flags)


@cache
def _compiled(name: str, digest: str, flags: tuple[str, ...]) -> Path:
    folder = firmware_folder() / "kernels"
    form = "".join(flags).replace("-D", "-")
    target = Path(_objects().name) / f"{name}-{digest[:16]}{form}.o"
    command = [*HOST, *WARNINGS, *flags, "-c", "-I", str(folder), "-o", str(target)]
    compile_c([*command, str(folder / name)])
    return target


@cache
def _objects() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgecompress-objects-")


# --- the oracle -------------------------------------------------------------------------------

_WORKER = """
import pathlib, sys
import numpy as np
from tflite_micro import runtime
folder = pathlib.Path(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    data = (folder / f"{number}.tflite").read_bytes()
    rows = np.load(folder / f"{number}.in.npz")
    model = runtime.Interpreter.from_bytes(data, arena_size=int(rows["arena"]))
    found = {}
    for row in range(int(rows["rows"])):
        for i in range(int(rows["inputs"])):
            model.set_input(rows[f"x{row}_{i}"], i)
        model.invoke()
        for i in range(int(rows["outputs"])):
            found[f"y{row}_{i}"] = model.get_output(i)
    np.savez(folder / f"{number}.out.npz", **found)
"""


def reference(cases: Sequence[Case]) -> list[list[list[Array]]]:
    """The outputs of every case, row and output under the TFLite Micro interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, one in enumerate(cases):
            (folder / f"{number}.tflite").write_bytes(one.program.need_file("reference"))
            need = 4 * sum(t.nbytes for t in one.program.tensors) + (1 << 18)
            np.savez(
                folder / f"{number}.in.npz",
                arena=need,
                rows=len(one.rows),
                inputs=len(one.program.inputs),
                outputs=len(one.program.outputs),
                **{f"x{r}_{i}": x for r, row in enumerate(one.rows) for i, x in enumerate(row)},
            )
        half = (len(cases) + 1) // 2
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda part: _oracle(folder, *part), ((0, half), (half, len(cases)))))
        return [_outputs(folder / f"{number}.out.npz", one) for number, one in enumerate(cases)]


def _oracle(folder: Path, first: int, end: int) -> None:
    if first == end:
        return
    command = [sys.executable, "-c", _WORKER, str(folder), str(first), str(end)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        failed = next(n for n in range(first, end) if not (folder / f"{n}.out.npz").exists())
        raise AssertionError(f"case {failed}: TFLM failed: {done.stderr[-2000:]}")


def _outputs(path: Path, one: Case) -> list[list[Array]]:
    tensors = [one.program.tensors[i] for i in one.program.outputs]
    with np.load(path) as found:
        return [
            [found[f"y{row}_{i}"].reshape(t.shape) for i, t in enumerate(tensors)]
            for row in range(len(one.rows))
        ]
