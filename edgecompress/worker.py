"""The worker process of `edgecompress.runtimes`: runs one model under one runtime, bits to bits.

Started by path (`python worker.py FOLDER`), so that it imports neither edgecompress nor
TensorFlow. The folder holds `job.json` (see `main`), `model.tflite` and, for each input, an
`x<place>.npy` with the rows in its own type; the worker writes a `y<place>.npy` for each output and
a `t<index>.npy` for each tensor asked for, but for one that the runtime lets a later operator
overwrite.
What the runtime says goes to stderr; the arena of TFLite Micro is among it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Arrays = Any
Invoke = Callable[[list[Arrays]], list[Arrays]]
"""One batch of each input in, each output out (views that the next call overwrites)."""
Peek = Callable[[int], Arrays]
"""The value of a tensor after the last call, a view."""
Keep = Callable[[list[int], set[int]], list[int]]
"""Which of some tensors keep their values; see `intact`."""
Engine = tuple[Invoke, Peek, Keep]

RESOLVERS = {"exact": "BUILTIN_REF", "fast": "BUILTIN"}


def lite(job: dict[str, Any], model: bytes) -> Engine:
    """TFLite's C++ interpreter, from tflite_runtime or ai_edge_litert."""
    from importlib import import_module

    api = import_module(f"{job['module']}.interpreter")
    interpreter = api.Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=api.OpResolverType[RESOLVERS[job["kernels"]]],
        experimental_preserve_all_tensors=bool(job["tensors"]),
    )
    interpreter.allocate_tensors()
    sources = [details["index"] for details in interpreter.get_input_details()]
    targets = [details["index"] for details in interpreter.get_output_details()]

    def invoke(batches: list[Arrays]) -> list[Arrays]:
        for source, batch in zip(sources, batches, strict=True):
            interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return [interpreter.get_tensor(target) for target in targets]

    def peek(index: int) -> Arrays:
        return interpreter.tensor(index)()

    return invoke, peek, lambda wanted, copies: intact(peek, wanted, copies)


def micro(job: dict[str, Any], model: bytes) -> Engine:
    """TFLite Micro's interpreter; reports its arena on stderr after the first inference."""
    from tflite_micro import runtime

    config, keep = runtime.InterpreterConfig, bool(job["tensors"])
    interpreter = runtime.Interpreter.from_bytes(
        model,
        arena_size=job["arena"],
        intrepreter_config=config.kPreserveAllTensors if keep else config.kAllocationRecording,
    )
    reported = keep

    def invoke(batches: list[Arrays]) -> list[Arrays]:
        nonlocal reported
        for place, batch in enumerate(batches):
            interpreter.set_input(batch, place)
        interpreter.invoke()
        if not reported:
            interpreter.print_allocations()
            reported = True
        return [interpreter.get_output(place) for place in range(job["outputs"])]

    def peek(index: int) -> Arrays:
        return interpreter.GetTensor(index, 0)["tensor_data"]

    return invoke, peek, lambda wanted, copies: wanted


ENGINES = {"tflite_runtime": lite, "ai_edge_litert": lite, "tflite_micro": micro}


def batches(rows: Arrays, size: int) -> Iterator[Arrays]:
    """`rows` in batches of exactly `size`; the last is filled up with its own last row."""
    import numpy as np

    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        missing = size - len(batch)
        yield np.concatenate([batch, *[batch[-1:]] * missing]) if missing else batch


def intact(peek: Peek, wanted: list[int], copies: set[int]) -> list[int]:
    """Those of `wanted` (in execution order) that no later one shares its memory with.

    One of `copies` may: it holds the same bytes under another shape.

    tflite_runtime 2.14 computes ADD in place even where it was told to preserve all tensors.
    """

    def span(index: int) -> tuple[int, int]:
        view = peek(index)
        start: int = view.__array_interface__["data"][0]
        return start, start + view.nbytes

    spans = {index: span(index) for index in wanted}

    def overwrites(late: int, early: int) -> bool:
        (start, end), (low, high) = spans[late], spans[early]
        return late not in copies and start < high and low < end

    return [
        early
        for place, early in enumerate(wanted)
        if not any(overwrites(late, early) for late in wanted[place + 1 :])
    ]


def execute(folder: Path, job: dict[str, Any]) -> None:
    """Run the job in `folder` and write its results there."""
    import numpy as np

    model = (folder / "model.tflite").read_bytes()
    rows = [np.load(folder / f"x{place}.npy", allow_pickle=False) for place in range(job["inputs"])]
    wanted, copies = job["tensors"], set(job["copies"])
    invoke, peek, lasting = ENGINES[job["module"]](job, model)
    outputs: list[list[Arrays]] = []
    kept: dict[int, list[Arrays]] = {}
    for given in zip(*(batches(each, job["batch"]) for each in rows), strict=True):
        outputs.append([np.array(output) for output in invoke(list(given))])
        kept = kept or {index: [] for index in lasting(wanted, copies)}
        for index, values in kept.items():
            values.append(np.array(peek(index)))
    for place, every in enumerate(zip(*outputs, strict=True)):
        np.save(folder / f"y{place}.npy", np.stack(every))
    for index, values in kept.items():
        np.save(folder / f"t{index}.npy", np.stack(values))


def end_with_parent() -> None:
    """Leave as soon as stdin closes: no worker outlives the process that started it."""
    os.read(0, 1)
    os._exit(1)


def limit_memory(size: int) -> None:
    """Give this process `size` bytes of address space, or fewer where it already has a limit.

    On Linux only: other systems have no such limit, or none that holds.
    """
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Entry: job.json holds module, kernels, tensors and copies (indexes), inputs and outputs
    (how many), batch (rows), arena and memory (bytes, the latter of address space)."""
    sys.path.pop(0)  # this file's folder: its modules are not meant to be found by name
    folder = Path(sys.argv[1])
    threading.Thread(target=end_with_parent, daemon=True).start()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    limit_memory(job["memory"])
    execute(folder, job)


if __name__ == "__main__":
    main()
