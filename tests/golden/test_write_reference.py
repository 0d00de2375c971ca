"""The writer and the lossless passes on the reference models: sizes, and bits in every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.tflite import Program, passes, read, write
from tests.conftest import absent

SIZES = [
    ("kws_ref_model.tflite", 53_936, 38_816, 33_296),
    ("kws_ref_model_float32.tflite", 43_392, 42_096, 36_560),
    ("pretrainedResnet.tflite", 318_144, 317_088, 313_936),
    ("pretrainedResnet_quant.tflite", 98_496, 89_744, 86_592),
]


def _model(data_dir: Path, name: str) -> Program:
    return read((data_dir / "models" / "original" / name).read_bytes())


@pytest.mark.parametrize(("name", "before", "written", "lossless"), SIZES)
def test_what_writing_and_the_passes_save(
    data_dir: Path, name: str, before: int, written: int, lossless: int
) -> None:
    program = _model(data_dir, name)
    small = passes.lossless(program)
    assert read(write(program)).edit() == program.edit()
    assert read(write(small)).edit() == small
    sizes = (len(program.need_file("test")), len(write(program)), len(write(small)))
    assert sizes == (before, written, lossless)
    assert [small.layer_of(op) for op in small.ops] == [program.layer_of(op) for op in program.ops]
    assert (small.macs, small.weights_bytes) == (program.macs, program.weights_bytes)


@pytest.mark.parametrize("name", ["kws_ref_model.tflite", "pretrainedResnet_quant.tflite"])
@pytest.mark.parametrize("runtime", ["tflm", "tflite", "litert"])
def test_every_runtime_computes_the_same(
    data_dir: Path, name: str, runtime: runtimes.Runtime
) -> None:
    if not runtimes.available(runtime):
        absent(runtime, f"runtime {runtime} is not installed")
    program = _model(data_dir, name)
    source = program.tensors[program.inputs[0]]
    stored = np.random.default_rng(0).integers(-128, 128, (3, *source.shape[1:]))
    rows = source.dequantize(stored)
    files = (program.need_file("test"), write(program), write(passes.lossless(program)))
    jobs = [runtimes.submit(file, rows, runtime=runtime) for file in files]
    expected, *found = (job.result() for job in jobs)
    assert len(np.unique(expected.raw)) > 2
    for outcome in found:
        np.testing.assert_array_equal(outcome.raw, expected.raw)
