"""The worker processes: bits, arena, and every way in which a worker can end badly.

models/residual_int8.tflite: 6x6x2 -> Conv2D(4, relu) c1 -> Conv2D(4, same) c2 -> Add with c1 ->
Flatten -> Dense(3, softmax) out, random weights, int8, made by `edgecompress.quantization`.
models/dense_batch2_float32.tflite: Dense(3) on (2, 4), a fixed batch of 2.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.errors import ConfigError, ModelFileError, ToolError, UnsupportedError
from edgecompress.tflite import Op, Program
from tests.tflite_builder import activation, build, options

MODELS = Path(__file__).with_name("models")
RESIDUAL = (MODELS / "residual_int8.tflite").read_bytes()
BATCH2 = (MODELS / "dense_batch2_float32.tflite").read_bytes()
ROWS = np.random.default_rng(0).standard_normal((5, 6, 6, 2)).astype(np.float32)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a script in the worker's place."""

    def replace(source: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(source)
        monkeypatch.setattr(runtimes, "_WORKER", script)

    return replace


def folder_of(job: runtimes.Job) -> Path:
    return job._folder


@pytest.fixture(scope="module")
def outcomes() -> dict[str, runtimes.Outcome]:
    jobs = {name: runtimes.submit(RESIDUAL, ROWS, runtime=name) for name in runtimes.RUNTIMES}
    return {name: job.result() for name, job in jobs.items()}


def test_raw_outputs_and_values(outcomes: dict[str, runtimes.Outcome]) -> None:
    for outcome in outcomes.values():
        assert outcome.raw.shape == (5, 3) and outcome.raw.dtype == np.int8
        assert outcome.values.dtype == np.float32
        # The softmax output of a converted model has the scale 1/256 and the zero point -128.
        assert np.array_equal(outcome.values, (outcome.raw.astype(np.float32) + 128) / 256)
        assert np.abs(outcome.values.sum(axis=1) - 1).max() < 0.02


def test_rows_are_not_mixed_up(outcomes: dict[str, runtimes.Outcome]) -> None:
    alone = runtimes.run(RESIDUAL, ROWS[3:4], runtime="tflm")
    assert np.array_equal(alone.raw[0], outcomes["tflm"].raw[3])
    assert len({row.tobytes() for row in outcomes["tflm"].raw}) == 5


def test_reference_has_the_bits_of_tflm(outcomes: dict[str, runtimes.Outcome]) -> None:
    if outcomes["tflite"].runtime == "tflite-runtime":
        assert np.array_equal(outcomes["tflite"].raw, outcomes["tflm"].raw)
    apart = np.abs(outcomes["litert"].raw.astype(int) - outcomes["tflm"].raw)
    assert apart.max() <= 2  # LiteRT rounds once where TFLM rounds twice


def test_label_names_runtime_version_and_kernels(outcomes: dict[str, runtimes.Outcome]) -> None:
    label = outcomes["tflm"].label
    assert label.startswith("tflite-micro 0.") and label.endswith("(reference kernels)")
    fast = runtimes.run(RESIDUAL, ROWS[:1], runtime="litert", kernels="fast")
    assert fast.label.endswith("(default kernels)")


def test_the_arena_comes_with_the_outputs(outcomes: dict[str, runtimes.Outcome]) -> None:
    # Two tensors of 4x4x4 live at once, plus the interpreter's structures.
    assert outcomes["tflm"].arena == runtimes.arena(RESIDUAL)
    assert 128 < runtimes.arena(RESIDUAL) < 16_384
    assert outcomes["tflite"].arena is None


def test_litert_takes_the_place_of_tflite_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    find = runtimes.util.find_spec
    monkeypatch.setattr(
        runtimes.util, "find_spec", lambda name: None if name == "tflite_runtime" else find(name)
    )
    assert runtimes.run(RESIDUAL, ROWS[:1]).runtime == "ai-edge-litert"


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match="runtime tflm: tflite-micro is not installed for Python"):
        runtimes.submit(RESIDUAL, ROWS, runtime="tflm")


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_kept_tensors(runtime: runtimes.Runtime) -> None:
    outcome = runtimes.run(RESIDUAL, ROWS, runtime=runtime, tensors=True)
    program = outcome.program
    assert list(outcome.tensors) == [index for op in program.ops for index in op.outputs]
    for index, values in outcome.tensors.items():
        assert values.shape == (5, *program.tensors[index].shape[1:])
    assert np.array_equal(outcome.tensors[program.outputs[0]], outcome.raw)
    # What ADD reads is still there: c1 is a ReLU output, so nothing lies below its zero point.
    c1 = program.ops[0].outputs[0]
    assert (program.tensors[c1].dequantize(outcome.tensors[c1]) >= 0).all()
    assert len(np.unique(outcome.tensors[c1])) > 10


def test_tensors_overwritten_in_place_are_left_out() -> None:
    kept = runtimes.run(RESIDUAL, ROWS, runtime="tflite", tensors=True)
    true = runtimes.run(RESIDUAL, ROWS, runtime="tflm", tensors=True)
    add = next(op for op in kept.program.ops if op.kind == "ADD")
    assert add.outputs[0] in kept.tensors  # though RESHAPE shares its memory
    if kept.runtime == "tflite-runtime":
        for index, values in kept.tensors.items():
            assert np.array_equal(values, true.tensors[index])


@pytest.mark.parametrize("runtime", ["tflite", "tflm"])
def test_a_fixed_batch_is_filled_up(runtime: runtimes.Runtime) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    odd = runtimes.run(BATCH2, rows, runtime=runtime)
    even = runtimes.run(BATCH2, rows[1:], runtime=runtime)
    assert odd.raw.shape == (3, 3)
    assert np.allclose(odd.raw[1:], even.raw, rtol=1e-5)
    # An affine map of equally spaced rows: equally spaced outputs.
    assert np.allclose(odd.raw[1] - odd.raw[0], odd.raw[2] - odd.raw[1], atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 6, 6), np.float32), r"rows of \[6, 6\] float32: .* takes \(N, 6, 6, 2\)"),
        (np.zeros((2, 6, 2, 6), np.float32), r"rows of \[6, 2, 6\]"),
        (np.zeros((2, 6, 6, 2), bool), "bool"),
        (np.float32(1), "rows of"),
        (ROWS[:0], "no rows to run the model on"),
        (np.where(ROWS > 1, np.nan, ROWS), "NaN or infinite"),
        (np.where(ROWS > 1, np.inf, ROWS), "NaN or infinite"),
    ],
)
def test_rows_that_do_not_fit(rows: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runtimes.submit(RESIDUAL, rows)


def test_unknown_options() -> None:
    with pytest.raises(ConfigError, match="runtime 'xnn'.*tflite, litert, tflm"):
        runtimes.submit(RESIDUAL, ROWS, runtime="xnn")
    with pytest.raises(ConfigError, match="kernels='fast': not under tflm"):
        runtimes.submit(RESIDUAL, ROWS, runtime="tflm", kernels="fast")
    with pytest.raises(ConfigError, match="nor with tensors kept"):
        runtimes.submit(RESIDUAL, ROWS, kernels="fast", tensors=True)


def test_a_damaged_model_never_reaches_a_worker() -> None:
    with pytest.raises(ModelFileError, match="TFL3"):
        runtimes.submit(b"x" * 100, ROWS)


def test_a_model_with_huge_activations_never_reaches_a_worker() -> None:
    program = runtimes.read(RESIDUAL)
    source = program.inputs[0]
    huge = dataclasses.replace(program.tensors[source], shape=(1, 1 << 14, 1 << 14, 1))
    tensors = (*program.tensors[:source], huge, *program.tensors[source + 1 :])
    model = build(dataclasses.replace(program.edit(), tensors=tensors))
    for run in (lambda: runtimes.submit(model, ROWS), lambda: runtimes.arena(model)):
        with pytest.raises(UnsupportedError, match="declares 256 MiB of activations, more than"):
            run()


def test_a_worker_has_a_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_HEADROOM", -(32 << 20))
    with pytest.raises(ToolError, match="the worker ended with"):
        runtimes.run(RESIDUAL, ROWS[:1], runtime="litert")


def test_a_crash_names_the_signal_and_the_last_lines(worker) -> None:
    worker("import os, sys; sys.stderr.write('about to die\\n'); sys.stderr.flush(); os.abort()")
    with pytest.raises(ToolError, match="ended with signal SIGABRT; it said: .*about to die"):
        runtimes.run(RESIDUAL, ROWS)


def test_a_failure_names_the_status_and_the_last_lines(worker) -> None:
    worker("raise RuntimeError('Failed to resize buffer')")
    with pytest.raises(ToolError, match=r"exit status 1; it said: .*Failed to resize buffer$"):
        runtimes.run(RESIDUAL, ROWS)


def test_a_missing_operator_names_its_layer(worker) -> None:
    worker("raise SystemExit(\"Didn't find op for builtin opcode 'ADD' version '2'\")")
    with pytest.raises(UnsupportedError, match=r"it has no operator ADD \(layer add\)"):
        runtimes.run(RESIDUAL, ROWS)


def test_a_timeout_ends_the_worker_and_its_files(worker) -> None:
    worker("import time; time.sleep(600)")
    job = runtimes.submit(RESIDUAL, ROWS, timeout=0.2)
    folder, process = folder_of(job), job._process
    with pytest.raises(ToolError, match=r"no result after 0\.2 s on 5 rows"):
        job.result()
    assert process.poll() is not None and not folder.exists()


def test_an_interrupt_ends_the_worker_and_its_files(
    worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker("import time; time.sleep(600)")
    job = runtimes.submit(RESIDUAL, ROWS)
    folder, process = folder_of(job), job._process
    wait = process.wait

    def interrupted(timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait()

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.result()
    assert process.poll() is not None and not folder.exists()


def test_dropping_or_cancelling_a_job_ends_it(worker) -> None:
    worker("import time; time.sleep(600)")
    jobs = [runtimes.submit(RESIDUAL, ROWS) for _ in range(3)]
    folders = [folder_of(job) for job in jobs]
    jobs.pop()
    jobs[0].cancel()
    jobs[0].cancel()
    assert [folder.exists() for folder in folders] == [False, True, False]
    runtimes.cancel_all()
    assert not folders[1].exists()


def test_results_leave_no_files() -> None:
    job = runtimes.submit(RESIDUAL, ROWS[:1], runtime="litert")
    folder = folder_of(job)
    job.result()
    assert not folder.exists()


def test_a_worker_ends_with_its_parent() -> None:
    job = runtimes.submit(RESIDUAL, np.repeat(ROWS, 20_000, axis=0), runtime="tflm")
    assert job._process.stdin is not None
    job._process.stdin.close()
    assert job._process.wait(60) == 1
    job._process.stdin = None
    job.cancel()


def test_the_environment_is_scrubbed(worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    worker("import os, sys; sys.exit('found' if 'TF_USE_LEGACY_KERAS' in os.environ else 'clean')")
    with pytest.raises(ToolError, match="clean"):
        runtimes.run(RESIDUAL, ROWS)
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"


def test_submit_returns_before_the_worker_is_done(worker) -> None:
    worker("import time; time.sleep(600)")
    start = time.monotonic()
    job = runtimes.submit(RESIDUAL, ROWS)
    assert job._process.poll() is None and time.monotonic() - start < 300
    job.cancel()


def several() -> bytes:
    """ADD and SUB of two int8 inputs: two outputs."""
    sides = [activation(name, 1, 4) for name in ("a", "b")]
    results = [activation(name, 1, 4) for name in ("sum", "difference")]
    ops = tuple(
        Op(kind, (0, 1), (place,), options(kind)) for kind, place in (("ADD", 2), ("SUB", 3))
    )
    return build(Program((*sides, *results), ops, (0, 1), (2, 3)))


@pytest.mark.parametrize("runtime", list(runtimes.RUNTIMES))
def test_several_inputs_and_outputs(runtime: runtimes.Runtime) -> None:
    scale = runtimes.read(several()).tensors[0].scales[0]
    left = np.arange(8, dtype=np.float32).reshape(2, 4) * scale
    found = runtimes.run(several(), (left, left[::-1] * 2), runtime=runtime)
    total, difference = found.outputs
    assert np.array_equal(total, [[8, 11, 14, 17], [4, 7, 10, 13]])
    assert np.array_equal(difference, [[-8, -9, -10, -11], [4, 3, 2, 1]])


def test_rows_that_do_not_fit_several_inputs() -> None:
    rows = np.zeros((2, 4), np.float32)
    with pytest.raises(UnsupportedError, match="2 inputs and 2 outputs; models with one of each"):
        runtimes.submit(several(), rows)
    with pytest.raises(ConfigError, match="rows for 3 inputs: the model has 2"):
        runtimes.submit(several(), (rows, rows, rows))
    with pytest.raises(ConfigError, match=r"\[1, 2\] rows: give as many for each input"):
        runtimes.submit(several(), (rows, rows[:1]))
