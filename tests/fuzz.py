"""Damaged and odd models by the thousand: `python -m tests.fuzz FIRST COUNT [FILE...]`.

Case number n is the same every time for the same files, so that a failure can be run again alone.
Runs under limits on memory and on the time of a case; prints what happened as JSON.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from edgecompress.backends import aot, tflm
from edgecompress.errors import EdgeCompressError, ModelFileError, UnsupportedError
from edgecompress.tflite import DTYPES, Op, Options, Program, Tensor, passes, read, write
from edgecompress.tflite.lifetimes import live_bytes
from edgecompress.tflite.operators import ENUMS, KINDS, OPTIONS, OPTIONS_OF
from tests.aot_graphs import graphs
from tests.aot_harness import draw
from tests.fuzz_seeds import seeds
from tests.strategies import nets
from tests.tflite_builder import build, conv_net, options

MEMORY = 1 << 30
"""Bytes of address space that the cases may take on top of what was there before."""
SECONDS = 20
"""How long one case may take."""
BACKENDS: dict[str, Any] = {"tflm": tflm, "aot": aot}
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 127, 128, 255, 256, 1000, 65535, 2**24, 2**31 - 1, 2**31)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"weights": "int4"},
    {"dtype": "int16"},
    {"weights": "float32", "dtype": "float32"},
    {"per_channel": False},
)


WRITABLE = tuple(
    kind
    for kind in KINDS
    if not kind.startswith("STABLEHLO_") and kind not in ("DILATE", "REDUCE_WINDOW")
)


class TooSlow(BaseException):
    """A case took longer than SECONDS."""


# --- damaged files ----------------------------------------------------------------------------


def flipped(random: Random, file: bytes, other: bytes) -> bytes:
    """A few bytes replaced, anywhere."""
    data = bytearray(file)
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def truncated(random: Random, file: bytes, other: bytes) -> bytes:
    """The start of the file."""
    return file[: random.randrange(len(file))]


def spliced(random: Random, file: bytes, other: bytes) -> bytes:
    """A stretch of another file put in, over what was there or between it."""
    start, size = random.randrange(len(other)), random.choice((1, 4, 16, 64, 1024))
    place = random.randrange(len(file)) & ~3
    return file[:place] + other[start : start + size] + file[place + random.choice((0, size)) :]


def reworded(random: Random, file: bytes, other: bytes) -> bytes:
    """Words of the structure (not of the constants) set to numbers at the edges of what fits."""
    data, words = bytearray(file), structure(file)
    for _ in range(random.randint(1, 3)):
        place = random.choice(words)
        old = int.from_bytes(data[place : place + 4], "little")
        number = random.choice((*NUMBERS, old + 1, old - 1, old + 4, old - 4, -1, -old))
        data[place : place + 4] = (number % 2**32).to_bytes(4, "little")
    return bytes(data)


def redirected(random: Random, file: bytes, other: bytes) -> bytes:
    """Offsets turned to something else in the file, forward or (a vtable's) backward."""
    data, words = bytearray(file), structure(file)
    for _ in range(random.randint(1, 3)):
        place, target = random.choice(words), random.choice(words)
        data[place : place + 4] = ((target - place) % 2**32).to_bytes(4, "little")
    return bytes(data)


def swapped(random: Random, file: bytes, other: bytes) -> bytes:
    """Two words of the structure in each other's place."""
    data, words = bytearray(file), structure(file)
    a, b = random.choice(words), random.choice(words)
    data[a : a + 4], data[b : b + 4] = data[b : b + 4], data[a : a + 4]
    return bytes(data)


def structure(file: bytes) -> list[int]:
    """Where the words are that no constant holds."""
    taken = set()
    for tensor in read(file).tensors:
        if tensor.data and len(tensor.data) > 64:
            start = file.find(tensor.data)
            taken.update(range(start // 4, (start + len(tensor.data)) // 4))
    return [4 * word for word in range(len(file) // 4) if word not in taken]


# --- odd programs -----------------------------------------------------------------------------


def odd(random: Random, file: bytes, other: bytes) -> bytes:
    """A file whose structure is sound and whose tensors or operators are not what they were."""
    program = read(file)
    for _ in range(random.randint(1, 3)):
        if random.random() < 0.5:
            place = random.randrange(len(program.tensors))
            changed = _odd_tensor(random, program.tensors[place])
            tensors = (*program.tensors[:place], changed, *program.tensors[place + 1 :])
            program = program.edit(tensors=tensors)
        elif program.ops:
            place = random.randrange(len(program.ops))
            op = _odd_op(random, program.ops[place], len(program.tensors))
            program = program.edit(ops=(*program.ops[:place], op, *program.ops[place + 1 :]))
    return write(program)


def _odd_tensor(random: Random, tensor: Tensor) -> Tensor:
    """Another shape, type, quantisation or kind of tensor; a constant keeps its size in bytes."""
    shape = list(tensor.shape)
    change = random.randrange(8)
    if change == 0:
        shape.insert(random.randint(0, len(shape)), random.choice((0, 1, 1, 2)))
    elif change == 1 and shape:
        shape.pop(random.randrange(len(shape)))
    elif change == 2 and shape:
        shape[random.randrange(len(shape))] = random.choice(NUMBERS[:-1])
    elif change == 3:
        random.shuffle(shape)
    elif change == 4:
        return replace(tensor, dtype=random.choice(list(DTYPES)))
    elif change == 5:
        count = random.choice((0, 1, len(tensor.scales), *shape))
        scales = tuple(random.choice((1e-38, 0.003, 0.5, 1.0, 3e38)) for _ in range(count % 999))
        zeros = tuple(random.choice((0, 1, -128, 127, 2**31 - 1, -(2**31))) for _ in scales)
        return replace(tensor, scales=scales, zero_points=zeros, axis=random.randint(0, 3))
    elif change == 6:
        return replace(tensor, variable=not tensor.variable)
    elif tensor.data is None:
        return replace(tensor, data=random.randbytes(min(tensor.nbytes, 4096)))
    else:
        return replace(tensor, data=random.randbytes(len(tensor.data)))
    return replace(tensor, shape=tuple(shape))


def _odd_op(random: Random, op: Op, tensors: int) -> Op:
    """Another kind, other inputs, or options at their edges."""
    change = random.randrange(3)
    if change == 0:
        kind = random.choice(WRITABLE)
        return replace(op, kind=kind, options=options(kind), custom="Odd" * (kind == "CUSTOM"))
    if change == 1:
        inputs = list(op.inputs) or [0]
        inputs[random.randrange(len(inputs))] = random.randrange(-1, tensors)
        return replace(op, inputs=tuple(inputs))
    fields = [field for field in OPTIONS.get(OPTIONS_OF[op.kind] or "", ()) if field is not None]
    if not fields:
        return replace(op, version=random.randint(1, 99))
    field, changed = random.choice(fields), dict(op.options)
    if field.type in ENUMS:
        changed[field.name] = random.choice(ENUMS[field.type])
    elif field.type == "i32":
        changed[field.name] = random.choice((*NUMBERS[:-1], -1, -2, -(2**31)))
    elif field.type == "f32":
        changed[field.name] = random.choice((0.0, -1.0, 1e-38, 0.5, 3e38))
    elif field.type == "bool":
        changed[field.name] = random.random() < 0.5
    return replace(op, options=Options(changed))


MUTATIONS: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    *(flipped, truncated, spliced, reworded, redirected, swapped),
    *(odd,) * 6,
)


def mutated(files: list[bytes], number: int) -> bytes:
    """Case `number` of the files."""
    random = Random(number)
    file, other = random.choice(files), random.choice(files)
    return random.choice(MUTATIONS)(random, file, other)


# --- what must hold ---------------------------------------------------------------------------


def check(data: bytes) -> list[str]:
    """What became of `data`: the steps that it passed. Raises whatever must not happen."""
    try:
        program = read(data)
    except (ModelFileError, UnsupportedError) as error:
        _one_line(str(error))
        return ["refused"]
    passed = ["read"]
    assert program.macs >= 0 <= program.weights_bytes <= len(data)
    assert all(size >= 0 for size in live_bytes(program))
    for name, edit in (("written", Program.edit), ("lossless", passes.lossless)):
        try:
            changed = edit(program)
            file = write(changed)
        except UnsupportedError as error:
            _one_line(str(error))
        else:
            assert read(file).edit() == changed.edit(), name
            passed.append(name)
    for name, backend in BACKENDS.items():
        reasons = backend.supports(program)
        for reason in reasons:
            _one_line(reason)
        try:
            backend.generate(program, name="fuzz")
            assert not reasons, f"{name} generates what it does not support: {reasons}"
            passed.append(name)
        except EdgeCompressError as error:
            _one_line(str(error))
            assert reasons, f"{name} supports what it does not generate: {error}"
    return passed


def _one_line(message: str) -> None:
    assert message and "\n" not in message, message


def sources(paths: list[str]) -> list[bytes]:
    """The models that are damaged: those in `paths`, or small ones of many kinds."""
    if paths:
        return [Path(path).read_bytes() for path in paths]
    programs = (*draw(nets(), 20), *seeds(), *map(graphs, range(30)))
    made = [program.need_file("fuzz") for program in programs]
    return [*(build(conv_net(**variant)) for variant in VARIANTS), *made]


def main(first: int, count: int, paths: list[str]) -> None:
    """Run the cases and print {"counts": {...}, "failures": [...]}."""
    files = sources(paths)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_slow)
    counts: Counter[str] = Counter()
    failures = []
    for number in range(first, first + count):
        signal.alarm(SECONDS)
        try:
            counts.update(check(mutated(files, number)))
        except (Exception, TooSlow):
            failures.append(f"case {number}: {traceback.format_exc(limit=-6)}")
        signal.alarm(0)
    json.dump({"counts": counts, "failures": failures}, sys.stdout)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
