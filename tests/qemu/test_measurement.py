"""Measurement on emulated boards and on this computer: exact, repeatable, of the right model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecompress import runtimes
from edgecompress.artifact import Artifact
from edgecompress.backends import aot, contract
from edgecompress.building import deployment, firmware
from edgecompress.building.firmware import Image
from edgecompress.errors import (
    ConfigError,
    DeviceError,
    MeasurementError,
    StageOrderError,
    ToolError,
)
from edgecompress.measuring import counting, cycles, device, emulator, measurement
from edgecompress.measuring.cycles import Cycles
from edgecompress.measuring.results import Run
from edgecompress.report import Report
from edgecompress.tflite import Op, Options, Program, Tensor, read
from tests.conftest import need
from tests.reports import changed, operator
from tests.tflite_builder import activation, options
from tests.tflite_builder import build as tflite

INPUT = Tensor("input", (1, 8, 8, 4), "int8", (0.1,), (3,))


def _model() -> bytes:
    """CONV_2D, MAX_POOL_2D, RESHAPE, FULLY_CONNECTED with random weights."""
    random = np.random.default_rng(5)

    def weights(name: str, *shape: int) -> Tensor:
        data = random.integers(-127, 128, shape).astype("i1")
        scales = tuple(random.uniform(0.002, 0.01, shape[0]).tolist())
        return Tensor(name, shape, "int8", scales, (0,) * shape[0], 0, data.tobytes())

    def bias(name: str, of: Tensor) -> Tensor:
        data = random.integers(-2000, 2000, of.shape[:1]).astype("<i4")
        return Tensor(name, of.shape[:1], "int32", data=data.tobytes())

    conv, dense = weights("conv/w", 6, 3, 3, 4), weights("dense/w", 5, 96)
    walk = {"padding": "SAME", "stride_w": 2, "stride_h": 2}
    pool = Options(
        {"fused_activation_function": "NONE", "filter_width": 2, "filter_height": 2, **walk}
    )
    dense_walk = {"stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1}
    convolve = Options({"padding": "SAME", "fused_activation_function": "RELU", **dense_walk})
    scale, zero = (0.08,), (-128,)
    tensors = (
        INPUT,
        conv,
        bias("conv/b", conv),
        Tensor("conv/out", (1, 8, 8, 6), "int8", scale, zero),
        Tensor("pool/out", (1, 4, 4, 6), "int8", scale, zero),
        Tensor("shape", (2,), "int32", data=np.array([1, 96], "<i4").tobytes()),
        Tensor("flat/out", (1, 96), "int8", scale, zero),
        dense,
        bias("dense/b", dense),
        Tensor("dense/out", (1, 5), "int8", (0.2,), (4,)),
    )
    ops = (
        Op("CONV_2D", (0, 1, 2), (3,), convolve),
        Op("MAX_POOL_2D", (3,), (4,), pool),
        Op("RESHAPE", (4, 5), (6,), Options({"new_shape": (1, 96)})),
        Op("FULLY_CONNECTED", (6, 7, 8), (9,)),
    )
    return bytes(tflite(Program(tensors, ops, (0,), (9,))))


MODEL = _model()
KINDS = ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"]
MACS = [8 * 8 * 6 * 3 * 3 * 4, 0, 0, 5 * 96]
ROWS = INPUT.dequantize(np.random.default_rng(1).integers(-128, 128, (4, 8, 8, 4)))


def built(board: str, folder: Path) -> Image:
    """The model for `board`."""
    sources = aot.generate(read(MODEL), name="small")
    return firmware.build(
        sources, board=board, backend="aot", out=folder, name="small", tflite=MODEL
    )


@pytest.fixture(scope="module")
def m4(tmp_path_factory: pytest.TempPathFactory) -> Image:
    need("arm-gcc")
    need("qemu")
    return built("qemu_m4", tmp_path_factory.mktemp("m4"))


@pytest.fixture(scope="module")
def run(m4: Image) -> Run:
    need("cc")
    return measurement.measure(m4, inputs=ROWS, runs=3)


def test_counts_are_exact_and_repeat(m4: Image, run: Run) -> None:
    again = measurement.measure(m4, inputs=ROWS[:1], runs=1)
    assert run.source == "counting plugin of QEMU, exact"
    assert run.unit == "instructions"
    assert len(set(run.runs)) == 1
    assert len(run.runs) == 3
    assert run.spread == 0
    assert again.runs == run.runs[:1]
    assert again.ops == run.ops
    assert again.functions == run.functions
    assert again.cycles == run.cycles


def test_operators_and_functions_add_up_to_the_run(run: Run) -> None:
    assert [op.kind for op in run.ops] == KINDS
    assert [op.macs for op in run.ops] == MACS
    # Outside of the operators: the return, less what an operator without code costs its hook.
    assert abs(run.rest) <= 4
    assert sum(op.amount for op in run.ops) + run.rest == run.per_inference
    assert sum(amount for _, amount in run.functions) == run.per_inference
    by_name = dict(run.functions)
    assert 5 <= by_name["ec_model_invoke"] < 100
    assert "ec_profile_hook" not in by_name
    assert run.ops[2].amount < 5
    assert 1 < run.ops[0].amount / MACS[0] < 10
    assert sum(run.layers.values()) == sum(op.amount for op in run.ops)


def test_cycles_are_a_range_above_half_the_instructions(run: Run) -> None:
    assert run.cycles is not None
    assert run.per_inference < run.cycles.lo < run.cycles.hi < 3 * run.per_inference
    parts = [op.cycles or Cycles(0, 0) for op in run.ops]
    assert abs(sum(part.lo for part in parts) - run.cycles.lo) < 100
    assert abs(sum(part.hi for part in parts) - run.cycles.hi) < 200


def test_outputs_have_the_bits_of_tflm(run: Run) -> None:
    if not runtimes.available("tflm"):
        pytest.skip("tflite-micro is not installed")
    (outputs,), (values,) = run.outputs, run.values
    assert outputs.shape == (4, 5)
    assert len(np.unique(outputs)) > 5
    assert run.bits is not None
    assert (run.bits.exact, run.bits.elements) == (20, 20)
    expected = runtimes.run(MODEL, ROWS, runtime="tflm")
    assert np.array_equal(outputs, expected.raw.reshape(4, 5))
    assert np.array_equal(values, expected.values.reshape(4, 5))


def test_memory_and_texts(m4: Image, run: Run) -> None:
    assert m4.footprint is not None
    assert (run.flash, run.ram) == (m4.footprint.flash.total, m4.footprint.ram.total)
    assert run.arena == m4.footprint.ram.arena
    assert run.stack is not None and 100 < run.stack < 4096
    text = "\n".join(run.lines())
    assert f"{run.per_inference:,} instructions per inference (counting plugin" in text
    assert "estimated cycles (model, zero wait states)" in text
    assert "20 of 20 equal" in text
    assert f"by function: {run.functions[0][0]} {run.functions[0][1]:,} (" in text
    assert "latency" not in text
    rows = run.rows()
    assert [len(row) for row in rows] == [len(run.headings)] * 4
    assert rows[0][3:6] == ("13,824", f"{run.ops[0].amount:,}", f"{run.ops[0].per_mac:.2f}")


def test_ticks_stand_in_where_nothing_can_be_counted(
    m4: Image, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(
        counting.shutil, "which", lambda name: None if name == "cc" else which(name)
    )
    ticked = measurement.measure(m4, inputs=ROWS[:1], runs=2)
    assert ticked.source == "the board's tick counter, in steps of 40 instructions"
    assert abs(ticked.per_inference - run.per_inference) <= 80
    assert [op.kind for op in ticked.ops] == KINDS
    assert ticked.cycles is None
    assert ticked.functions == ()
    assert any("no host C compiler" in line for line in ticked.lines())


def test_the_rows_drawn_reach_every_corner(m4: Image) -> None:
    found = measurement.measure(m4, runs=1, profile=False)
    assert found.outputs[0].shape == (16, 5)
    assert found.bits is None or (found.bits.exact, found.bits.elements) == (80, 80)
    drawn = measurement._drawn(INPUT, np.random.default_rng(0))
    stored = INPUT.quantize(drawn)
    assert [np.unique(row).tolist() for row in stored[14:]] == [[-128], [127]]
    assert len({row.tobytes() for row in stored}) == 16
    assert stored[:14].min() == -128 and stored[:14].max() == 127
    again = measurement.measure(m4, inputs=drawn[:1], runs=1, profile=False)
    assert again.runs == found.runs


@pytest.mark.parametrize("board", ["qemu_m4", "host"])
def test_several_inputs_and_outputs_and_floats(board: str, tmp_path: Path) -> None:
    need("cc")
    if board != "host":
        need("arm-gcc")
        need("qemu")
    sides = [activation(name, 1, 4) for name in ("a", "b")]
    results = [activation(name, 1, 4) for name in ("sum", "product")]
    tensors = (*sides, *results, activation("real", 1, 4, dtype="float32"))
    ops = (
        Op("ADD", (0, 1), (2,), options("ADD")),
        Op("MUL", (0, 1), (3,), options("MUL")),
        Op("DEQUANTIZE", (3,), (4,)),
    )
    artifact = Artifact("several", tflite=tflite(Program(tensors, ops, (0, 1), (2, 4))))
    image = deployment.build(artifact, board=board, out=tmp_path)
    found = measurement.measure(image, runs=1)
    assert [output.shape for output in found.outputs] == [(16, 4), (16, 4)]
    assert [output.dtype for output in found.outputs] == [np.int8, np.float32]
    assert [op.kind for op in found.ops] == ["ADD", "MUL", "DEQUANTIZE"]
    if runtimes.available("tflm"):
        assert found.bits is not None and found.bits.exact == found.bits.elements == 64
        assert found.notes[-1] == ("float outputs against the TFLM interpreter: 64 of 64 equal")
    rows = np.array([[4, 3, 2, 1]], np.float32)
    pair = measurement.measure(image, inputs=(rows, -rows), runs=1)
    assert np.array_equal(pair.values[0], [[0, 0, 0, 0]])
    for inputs, why in (
        ((rows,), "rows for 1 inputs: the model has 2"),
        ((rows, np.repeat(rows, 2, axis=0)), "2 rows of .*, and as many for each input"),
    ):
        with pytest.raises(ConfigError, match=why):
            measurement.measure(image, inputs=inputs)


def test_float_outputs_are_told_by_their_distance() -> None:
    want = (np.array([1, np.nan, np.inf, 2], np.float32),)
    got = (np.array([1, np.nan, np.inf, 2.5], np.float32),)
    told = "float outputs against the TFLM interpreter: 3 of 4 equal, the others at most 0.5 away"
    assert measurement._compared(got, want) == (None, (told,))


@pytest.mark.parametrize("board", ["qemu_m3", "qemu_m55", "host"])
def test_other_boards(board: str, tmp_path: Path) -> None:
    need("cc")
    if board != "host":
        need("arm-gcc")
        need("qemu")
    found = measurement.measure(built(board, tmp_path), inputs=ROWS[:2], runs=2)
    assert found.unit == ("nanoseconds" if board == "host" else "instructions")
    assert found.cycles is None
    assert [op.kind for op in found.ops] == KINDS
    assert found.bits is None or found.bits.exact == found.bits.elements == 10
    if board != "host":
        assert found.spread == 0
        assert abs(found.rest) <= 4


SNIPPET = """
#include <stddef.h>

#include "ec_model.h"

static uint8_t ec_arena[4];
static const char *const kinds[] = {"CUSTOM"};
static const ec_tensor_info_t tensor = {.name = "t", .dtype = EC_UINT8, .bytes = 4};
const ec_model_info_t ec_model_info = {
    .name = "snippet",
    .sha256 = "none",
    .backend = "aot",
    .arena_bytes = sizeof(ec_arena),
    .input_count = 1,
    .output_count = 1,
    .inputs = &tensor,
    .outputs = &tensor,
    .op_count = 1,
    .op_kinds = kinds,
};
ec_model_hook_t ec_model_hook = NULL;
ec_model_status_t ec_model_init(void) { return EC_MODEL_OK; }
void *ec_model_input(uint32_t index) { return index == 0 ? ec_arena : NULL; }
const void *ec_model_output(uint32_t index) { return index == 0 ? ec_arena : NULL; }
uint32_t ec_model_arena_used(void) { return sizeof(ec_arena); }

/* A loop of 100 rounds; straight code in which a 4-byte instruction crosses the end of a page of
 * 1024 bytes; the hook where there is one; a return. */
__attribute__((naked, aligned(1024))) ec_model_status_t ec_model_invoke(void) {
    __asm volatile(
        "push {r4, lr}\\n"
        "movs r4, #100\\n"
        "1: subs r4, #1\\n"
        "bne 1b\\n"
        ".rept 507\\n nop\\n .endr\\n"
        "add.w r4, r4, #1\\n"
        "ldr r3, =ec_model_hook\\n"
        "ldr r3, [r3]\\n"
        "cbz r3, 2f\\n"
        "movs r0, #0\\n"
        "blx r3\\n"
        "2: movs r0, #0\\n"
        "pop {r4, pc}\\n"
        ".ltorg\\n");
}
"""


def test_counts_of_assembly_are_those_by_hand(tmp_path: Path) -> None:
    need("arm-gcc")
    need("qemu")
    need("cc")
    sources = {"model.c": SNIPPET, "ec_model.h": contract()}
    image = firmware.build(sources, board="qemu_m4", backend="aot", out=tmp_path, name="snippet")
    code = counting.disassembly(image.elf, objdump="arm-none-eabi-objdump")
    options = counting.option(tmp_path, image.elf, code, qemu=emulator.QEMU, calls=2)
    with emulator.start(
        emulator.command(image.board, image.elf, options), board="qemu_m4", timeout=60
    ) as child:
        who = {"board": "qemu_m4", "backend": "aot", "sha": "none"}
        device.measure(child, **who, rows=[(b"1234",)], runs=1, profile=True)
        child.finish()
    (plain,), (first, rest) = counting.counts(tmp_path)
    before, after = 2 + 2 * 100 + 507 + 1 + 2 + 1, 2
    assert sum(map(cycles.instructions, (plain,))) == before + after
    assert (cycles.instructions(first), cycles.instructions(rest)) == (before, after)
    # Taken: 99 times the loop, the jump over the call of the hook where there is none, the return.
    assert [sum(block.taken for block in part) for part in (plain, first, rest)] == [101, 99, 1]
    # push 3, pop 3, two loads 2 + 1..2, all others 1, 1..3 more a taken branch.
    ones = before + after - 4
    assert cycles.estimate(plain, code) == (ones + 3 + 3 + 3 + 101, ones + 3 + 3 + 4 + 3 * 101)


def test_another_model_is_refused(m4: Image) -> None:
    other = dataclasses.replace(m4, tflite=MODEL + b"\0")
    with pytest.raises(MeasurementError, match="qemu_m4: .* says model SHA-256 .*, expected is"):
        measurement.measure(other, inputs=ROWS[:1])
    clock = dataclasses.replace(m4, board=dataclasses.replace(m4.board, scale="41"))
    with pytest.raises(MeasurementError, match="counts ticks of 40 instructions .* says 41 inst"):
        measurement.measure(clock, inputs=ROWS[:1])
    renamed = dataclasses.replace(m4, backend="tflm")
    with pytest.raises(MeasurementError, match="says backend aot, expected is tflm"):
        measurement.measure(renamed, inputs=ROWS[:1])


def test_what_is_no_image_of_ours_is_an_error(m4: Image, tmp_path: Path) -> None:
    broken = dataclasses.replace(m4, elf=tmp_path / "none.elf")
    with pytest.raises(ToolError, match="objdump .*none.elf: exit status 1"):
        measurement.measure(broken, inputs=ROWS[:1])
    wrong = dataclasses.replace(m4, board=dataclasses.replace(m4.board, machine="no-such"))
    with pytest.raises(
        DeviceError, match="qemu_m4: it ended in the middle with status 1: .*unsupported machine"
    ):
        measurement.measure(wrong, inputs=ROWS[:1])


def test_what_cannot_be_measured_is_refused(m4: Image) -> None:
    with pytest.raises(ConfigError, match="runs = 0: measure at least 1"):
        measurement.measure(m4, runs=0)
    with pytest.raises(StageOrderError, match="small comes without the .tflite to judge it by"):
        measurement.measure(dataclasses.replace(m4, tflite=None))
    for rows in (ROWS[:, :7], ROWS[:0], 1.0):
        with pytest.raises(ConfigError, match=r"rows of .*: the model takes at least 1, each of"):
            measurement.measure(m4, inputs=rows)


def test_without_an_oracle_the_outputs_are_not_compared(
    m4: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "available", lambda runtime: False)
    found = measurement.measure(m4, runs=1, profile=False)
    assert found.bits is None
    assert found.ops == ()
    assert found.row().outputs is None
    assert found.lines()[-1].startswith("outputs not compared: tflite-micro is not installed")


def test_the_result_goes_into_the_run_directory(run: Run, tmp_path: Path) -> None:
    operators = tuple(operator(name, name) for name in KINDS)
    report = changed(sha256=run.sha, operators=operators, boards=(), budget=(), memory=None)
    report.save(tmp_path)
    measurement.save(run, tmp_path)
    measurement.save(run, tmp_path)
    assert Report.read(tmp_path).boards == (run.row(),)
    assert run.image is not None and run.cost is not None
    assert [cost.amount for cost in run.profile] == [op.amount for op in run.ops]
    assert [cost.kernel for cost in run.profile] == [op.kernel for op in run.ops]
    text = (tmp_path / "report.md").read_text()
    assert f"| qemu_m4 | aot | {run.flash:,} | {run.ram:,} |" in text
    assert f"{run.per_inference:,} instructions" in text
    table = json.loads((tmp_path / "qemu_m4-aot" / "measurement.json").read_text())
    assert table["timing"]["per_inference"] == run.per_inference
    assert table["outputs"] == {"exact": 20, "off_by_one": 0, "mismatch": 0}
    assert table["cost"] == dataclasses.asdict(run.cost)
    assert not {"image", "profile", "note"} & set(table)
    assert sum(op["amount"] for op in table["ops"]) + table["rest"] == run.per_inference
    dataclasses.replace(report, sha256="cd" * 32).save(tmp_path)
    with pytest.raises(MeasurementError, match="report.json: it is of another model"):
        measurement.save(run, tmp_path)
