"""The reader against the public schema's own, `supports` against the TFLM interpreter itself."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecompress.backends import tflm
from edgecompress.tflite import DTYPES, Op, Program, Tensor, read
from edgecompress.tflite.operators import ENUMS, KINDS, OPTION_NAMES, OPTIONS
from tests.conftest import absent
from tests.tflite_builder import activation, build, camel, constant, conv_net, options

MODELS = (
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
)
TYPES = list(DTYPES)


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


@pytest.mark.parametrize("name", MODELS)
def test_the_reader_agrees_with_the_public_schema(data_dir: Path, name: str) -> None:
    file = (data_dir / "models" / "original" / name).read_bytes()
    program = read(file)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file, 0))
    graph = model.subgraphs[0]
    assert list(program.inputs) == list(graph.inputs)
    assert list(program.outputs) == list(graph.outputs)
    assert len(program.tensors) == len(graph.tensors)
    for ours, theirs in zip(program.tensors, graph.tensors, strict=True):
        data = model.buffers[theirs.buffer].data
        assert ours.name == theirs.name.decode()
        assert list(ours.shape) == list(theirs.shape)
        assert ours.dtype == TYPES[theirs.type]
        assert ours.data == (None if data is None or not len(data) else bytes(data))
        assert list(ours.signature) == _list(theirs.shapeSignature)
        quantization = theirs.quantization
        assert list(ours.scales) == _list(quantization.scale)
        if ours.scales:
            assert list(ours.zero_points) == list(quantization.zeroPoint)
            assert ours.axis == quantization.quantizedDimension
    assert len(program.ops) == len(graph.operators)
    for op, operator in zip(program.ops, graph.operators, strict=True):
        code = model.operatorCodes[operator.opcodeIndex]
        assert op.kind == KINDS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        assert op.version == code.version
        assert list(op.inputs) == list(operator.inputs)
        assert list(op.outputs) == list(operator.outputs)
        _check_options(op, operator)


def _check_options(op: Op, operator: Any) -> None:
    table = OPTION_NAMES[operator.builtinOptionsType]
    for field in OPTIONS.get(table, ()):
        if field is None:
            continue
        theirs = getattr(operator.builtinOptions, camel(field.name))
        if field.type in ENUMS:
            assert op.options[field.name] == ENUMS[field.type][theirs]
        elif field.type.startswith("["):
            assert op.options[field.name] == tuple(_list(theirs))
        else:
            assert op.options[field.name] == theirs


@pytest.mark.parametrize(
    ("name", "macs", "weights", "last"),
    [
        ("kws_ref_model.tflite", 2_656_768, 22_016, "dense"),
        ("pretrainedResnet_quant.tflite", 12_501_632, 77_360, "dense"),
        ("pretrainedResnet.tflite", 12_501_632, 4 * 77_360, "dense"),
    ],
)
def test_known_sizes(data_dir: Path, name: str, macs: int, weights: int, last: str) -> None:
    program = read((data_dir / "models" / "original" / name).read_bytes())
    assert (program.macs, program.weights_bytes) == (macs, weights)
    assert program.layer_of(program.ops[0]) == "conv2d"
    assert program.layer_of(program.ops[-1]) == last


RUNNER = """
import os, pickle, sys
import numpy as np
from tflite_micro import runtime

def runs(model, inputs):
    try:
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=400_000)
        for index, (shape, dtype) in enumerate(inputs):
            interpreter.set_input(np.ones(shape, dtype), index)
        interpreter.invoke()
        interpreter.get_output(0)
    except Exception:
        return False
    return True

for model, inputs in pickle.load(sys.stdin.buffer):
    child = os.fork()
    if child == 0:
        os._exit(0 if runs(model, inputs) else 1)
    print(int(os.waitpid(child, 0)[1] == 0), flush=True)
"""


def interpreter_runs(programs: list[Program]) -> list[bool]:
    """Whether the TFLM interpreter runs each program; each has a process of its own."""
    if importlib.util.find_spec("tflite_micro") is None:
        absent(
            "tflm", "the tflite-micro package is not installed (it has no wheel for this Python)"
        )
    jobs = [
        (
            program.file or build(program),
            [
                (program.tensors[i].shape, DTYPES[program.tensors[i].dtype].numpy)
                for i in program.inputs
            ],
        )
        for program in programs
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=pickle.dumps(jobs), capture_output=True, check=True
    )
    answers = [line == "1" for line in done.stdout.decode().split()]
    assert len(answers) == len(programs)
    return answers


def test_supports_agrees_with_the_interpreter_on_the_reference_models(data_dir: Path) -> None:
    programs = [read((data_dir / "models" / "original" / name).read_bytes()) for name in MODELS]
    claimed = [not tflm.supports(program) for program in programs]
    assert claimed == [True, False, True, True]
    assert claimed == interpreter_runs(programs)


UNARY = (
    "ABS CEIL COS ELU EXP FLOOR HARD_SWISH LOG LOGICAL_NOT LOG_SOFTMAX NEG RELU RELU6 ROUND RSQRT"
    " SIN SQRT SQUARE TANH ZEROS_LIKE L2_NORMALIZATION RESHAPE"
).split()
BINARY = (
    "ADD ADD_N DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM MUL SQUARED_DIFFERENCE SUB BATCH_MATMUL"
).split()
COMPARISONS = "EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR NOT_EQUAL".split()
REDUCTIONS = "MEAN SUM REDUCE_ALL REDUCE_MAX REDUCE_MIN".split()
TYPES_TRIED = ("float32", "int8", "int16", "uint8", "int32", "int64", "bool")
FIXED_OUTPUTS = {
    ("TANH", "int8"): 1 / 128,
    ("TANH", "int16"): 1 / 32768,
    ("LOG_SOFTMAX", "int8"): 16 / 256,
    ("L2_NORMALIZATION", "int8"): 1 / 128,
}


def _single(kind: str, dtype: str) -> Program:
    shape = (1, 4, 4)
    made: tuple[int, ...] = (1, 4) if kind in REDUCTIONS else shape
    output = activation(
        "m/layer/Op",
        *made,
        dtype="bool" if kind in COMPARISONS else dtype,
        scale=FIXED_OUTPUTS.get((kind, dtype), 0.05),
    )
    if (kind, dtype) == ("LOG_SOFTMAX", "int8"):
        output = Tensor(output.name, made, dtype, output.scales, (127,))
    inputs = [activation("x", *shape, dtype=dtype)]
    if kind in REDUCTIONS:
        inputs.append(constant("axis", [1], "int32"))
    elif kind not in UNARY:
        inputs.append(activation("y", *shape, dtype=dtype))
    count = len(inputs)
    graph_inputs = tuple(i for i, tensor in enumerate(inputs) if tensor.data is None)
    op = Op(kind, tuple(range(count)), (count,), options(kind))
    return Program((*inputs, output), (op,), graph_inputs, (count,))


def _converting(kind: str, source: str, target: str) -> Program:
    tensors = (activation("x", 1, 4, dtype=source), activation("y", 1, 4, dtype=target))
    return Program(tensors, (Op(kind, (0,), (1,), options(kind)),), (0,), (1,))


def _computed_paddings(kind: str) -> Program:
    tensors = (activation("x", 2, 2), Tensor("p", (2, 2), "int32"), activation("y", 4, 4))
    return Program(tensors, (Op(kind, (0, 1), (2,), options(kind)),), (0, 1), (2,))


def test_supports_agrees_with_the_interpreter_operator_by_operator() -> None:
    kinds = (*UNARY, *BINARY, *COMPARISONS, *REDUCTIONS)
    cases: dict[tuple[str, ...], Program] = {
        (kind, dtype): _single(kind, dtype) for kind in kinds for dtype in TYPES_TRIED
    }
    cases |= {
        (kind, source, target): _converting(kind, source, target)
        for kind in ("QUANTIZE", "DEQUANTIZE", "CAST")
        for source in TYPES_TRIED
        for target in TYPES_TRIED
    }
    cases |= {
        ("net", dtype, weights): conv_net(dtype=dtype, weights=weights)
        for dtype in ("float32", "int8", "int16")
        for weights in ("float32", "int8", "int4")
    }
    cases |= {(kind, "paddings"): _computed_paddings(kind) for kind in ("PAD", "MIRROR_PAD")}
    answers = interpreter_runs(list(cases.values()))
    wrong = {
        case: tflm.supports(program)
        for (case, program), runs in zip(cases.items(), answers, strict=True)
        if runs == bool(tflm.supports(program))
    }
    assert wrong == {}
    assert 100 < sum(answers) < len(answers) - 100
