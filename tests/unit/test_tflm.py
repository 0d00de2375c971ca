"""The TFLM backend and the C formatting it stands on."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.backends import cgen, describe, tflm
from edgecompress.errors import ConfigError, StageOrderError, UnsupportedError
from edgecompress.tflite import Op, Options, Program, Tensor, read
from tests.conftest import need
from tests.tflite_builder import activation, build, constant, conv_net, options

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "firmware" / "include"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Wpedantic"]
NET = read(build(conv_net()))

STUB = ROOT / "tests" / "tflm_stub"
BASE = "tensorflow/lite/micro"
RESOLVER_METHODS = re.findall(
    r"TfLiteStatus Add(\w+)\(", (STUB / BASE / "micro_mutable_op_resolver.h").read_text()
)
"""The Add methods of the library's micro_mutable_op_resolver.h."""


def compile_and_run(folder: Path, *sources: str, flags: tuple[str, ...] = ()) -> bytes:
    """Compile C++ and C `sources` of `folder` with every warning an error, link, run."""
    objects = []
    for source in sources:
        driver = ["cc", "-std=c11"] if source.endswith(".c") else ["c++", "-std=c++17"]
        objects.append(f"{source}.o")
        command = [*driver, *WARNINGS, *flags, "-I."]
        subprocess.run([*command, "-c", source, "-o", objects[-1]], cwd=folder, check=True)
    subprocess.run(["c++", *objects, "-o", "program"], cwd=folder, check=True)
    return subprocess.run([folder / "program"], check=True, capture_output=True).stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_the_array_is_the_model_byte_for_byte(tmp_path: Path) -> None:
    need("cc")
    files = tflm.generate(NET, name="kws", arena=2048)
    main = """
        #include <cstdint>
        #include <cstdio>
        #include "model_data.h"
        int main() {
            if (reinterpret_cast<std::uintptr_t>(kws_model_data) % 16 != 0) return 1;
            return std::fwrite(kws_model_data, 1, kws_model_data_len, stdout) == 0;
        }
    """
    write(tmp_path, {**files, "main.cc": main})
    assert compile_and_run(tmp_path, "model_data.cc", "main.cc") == NET.file
    sha = hashlib.sha256(NET.file or b"").hexdigest()
    made = [text for path, text in files.items() if path != "ec_model.h"]
    assert all(f"/* sha256: {sha} */" in text for text in made)


MAIN_C = r"""
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "ec_model.h"

static void hook(uint32_t op) { printf("%s ", ec_model_info.op_kinds[op]); }

int main(void) {
    const ec_tensor_info_t *in = &ec_model_info.inputs[0];
    printf("%d %d %d\n", (int)ec_model_invoke(), ec_model_input(0) == NULL,
           ec_model_output(0) == NULL);
    printf("%d\n", (int)ec_model_init());
    printf("%d\n", (int)ec_model_init());
    printf("%s %s %s %" PRIu32 " %" PRIu32 "\n", ec_model_info.name, ec_model_info.backend,
           ec_model_info.sha256, ec_model_info.arena_bytes, ec_model_info.model_bytes);
    printf("%" PRIu32 " %" PRIu32 " %d %" PRIu32 " %.9g %" PRId32 " %" PRIu32 " %" PRId32 "\n",
           ec_model_info.input_count, ec_model_info.output_count, (int)in->dtype, in->bytes,
           (double)in->scale, in->zero_point, in->rank, in->shape[3]);
    if (ec_model_input(0) == NULL) return 0;
    memset(ec_model_input(0), 41, in->bytes);
    printf("%d ", (int)ec_model_invoke());
    printf("%d %d %" PRIu32 "\n", *(const signed char *)ec_model_output(0),
           ec_model_input(1) == NULL, ec_model_arena_used());
    ec_model_hook = hook;
    (void)ec_model_invoke();
    ec_model_hook = NULL;
    (void)ec_model_invoke();
    ec_model_hook = hook;
    printf("%d of %" PRIu32 "\n", (int)ec_model_invoke(), ec_model_info.op_count);
    printf("%s|\n", in->name);
    return 0;
}
"""


def stub(namespaces: tuple[str, ...] = ("tflite",), version: int = 3) -> tuple[str, ...]:
    """Flags to compile with the interface stub of the library, its classes in `namespaces`."""
    opened = " ".join(f"namespace {name} {{" for name in namespaces)
    closed = "}" * len(namespaces)
    names = (f"-DSTUB_OPEN={opened}", f"-DSTUB_CLOSE={closed}", f"-DSTUB_VERSION={version}")
    return (*names, "-DTF_LITE_STATIC_MEMORY", f"-I{STUB}")


def run_glue(folder: Path, program: Program, flags: tuple[str, ...], **generate: Any) -> list[str]:
    write(folder, {**tflm.generate(program, name="my kws", **generate), "main.c": MAIN_C})
    interpreter = str(STUB / BASE / "micro_interpreter.cc")
    shutil.copyfile(interpreter, folder / "micro_interpreter.cc")
    sources = ("model.cc", "model_ops.cc", "model_data.cc", "micro_interpreter.cc", "main.c")
    return compile_and_run(folder, *sources, flags=flags).decode().splitlines()


@pytest.mark.parametrize("namespaces", [("tflite",), ("tflite", "micro")])
def test_the_glue_keeps_the_contract_of_ec_model(
    tmp_path: Path, namespaces: tuple[str, ...]
) -> None:
    need("cc")
    name = 'in "quoted" \\ */ /* ??/ ü\n'
    renamed = dataclasses.replace(NET.tensors[0], name=name)
    layer = dataclasses.replace(NET.tensors[3], name="m/*/ error /*\\/Relu")
    tensors = (renamed, *NET.tensors[1:3], layer, *NET.tensors[4:])
    program = read(build(NET.edit(tensors=tensors)))
    output = run_glue(tmp_path, program, stub(namespaces), arena=2048)
    scale = np.float32(0.05)
    assert output == [
        "-5 1 1",
        "0",
        "0",
        f"my kws tflm {program.sha} 2048 {len(program.file or b'')}",
        f"1 1 1 72 {scale:.9g} 0 4 2",
        "0 42 1 200",
        f"{' '.join(op.title for op in NET.ops * 2)} 0 of {len(NET.ops)}",
        *f"{name}|".splitlines(),
    ]


def test_the_glue_reports_what_went_wrong(tmp_path: Path) -> None:
    need("cc")
    assert run_glue(tmp_path, NET, stub(version=2), arena=2048)[1] == "-1"
    assert run_glue(tmp_path, NET, stub(), arena=16)[1] == "-3"
    flags = (*stub(), "-DEC_MODEL_ARENA_BYTES=512")
    assert run_glue(tmp_path, NET, flags)[3].split()[-2] == "512"
    other = dataclasses.replace(NET.tensors[0], shape=(1, 6, 6, 1))
    program = read(build(NET.edit(tensors=(other, *NET.tensors[1:]))))
    assert run_glue(tmp_path, program, stub(), arena=2048)[1] == "-4"


def test_an_arena_that_was_not_measured_must_be_given_to_the_build(tmp_path: Path) -> None:
    need("cc")
    write(tmp_path, tflm.generate(NET, name="kws"))
    command = ["c++", "-std=c++17", "-fsyntax-only", *stub(), "-I.", "model.cc"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "the arena size of this model was not measured" in done.stderr


def test_the_glue_needs_no_library_of_cpp(tmp_path: Path) -> None:
    need("cc")
    write(tmp_path, tflm.generate(NET, name="kws", arena=2048))
    sources = sorted(file.name for file in tmp_path.glob("*.cc"))
    command = ["c++", "-std=c++11", "-nostdinc++", "-fsyntax-only", *stub(), "-I.", *sources]
    subprocess.run(command, cwd=tmp_path, check=True)


@pytest.mark.parametrize(("driver", "standard"), [("cc", "c11"), ("c++", "c++17")])
def test_the_interface_compiles_in_both_languages(
    tmp_path: Path, driver: str, standard: str
) -> None:
    need("cc")
    suffix = "c" if driver == "cc" else "cc"
    write(tmp_path, {f"only.{suffix}": '#include "ec_model.h"\n'})
    command = [driver, f"-std={standard}", *WARNINGS, f"-I{INCLUDE}", "-fsyntax-only"]
    subprocess.run([*command, f"only.{suffix}"], cwd=tmp_path, check=True)


def test_the_interface_knows_every_element_type() -> None:
    header = (INCLUDE / "ec_model.h").read_text()
    assert set(re.findall(r"^    (EC_(?!MODEL)\w+) = ", header, re.M)) == set(describe.IO.values())


def test_exactly_the_needed_operators_are_registered() -> None:
    used = ["CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "RESHAPE", "SOFTMAX"]
    methods = ["AddConv2D", "AddFullyConnected", "AddMaxPool2D", "AddReshape", "AddSoftmax"]
    assert tflm.operators(NET) == tuple(zip(used, methods, strict=True))
    files = tflm.generate(NET, name="kws", arena=2048)
    assert re.findall(r"resolver\.(\w+)\(\)", files["model_ops.cc"]) == methods
    assert "MicroMutableOpResolver<5>" in files["model_ops.h"]
    twice = NET.edit(ops=(*NET.ops[:-1], dataclasses.replace(NET.ops[-1], version=9)))
    assert tflm.operators(twice) == tflm.operators(NET)


def test_every_method_exists_in_the_library() -> None:
    known = {f"Add{method}" for method in RESOLVER_METHODS}
    used = {kernel.method for kernel in tflm.BUILTINS.values()} | set(tflm.CUSTOMS.values())
    stateful = {"AddAssignVariable", "AddCallOnce", "AddIf", "AddReadVariable", "AddVarHandle"}
    assert used == known - stateful - {"AddWhile"}


def test_the_text_is_the_same_in_another_process() -> None:
    script = (
        "import hashlib; from edgecompress.backends import tflm\n"
        "from edgecompress.tflite import read; import sys\n"
        "files = tflm.generate(read(sys.stdin.buffer.read()), name='kws', arena=2048)\n"
        "print(hashlib.sha256(repr(files).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", script]
    other = subprocess.run(run, input=NET.file, env=environment, check=True, capture_output=True)
    here = repr(tflm.generate(NET, name="kws", arena=2048)).encode()
    assert other.stdout.decode().strip() == hashlib.sha256(here).hexdigest()


def _with_op(kind: str, *, dtype: str = "int8", inputs: int = 1, **changes: Any) -> Program:
    """One operator between activations named as a Keras layer names them."""
    names = [*(f"in{i}" for i in range(inputs)), "m/odd_layer/Op"]
    tensors = tuple(activation(name, 1, 4, dtype=dtype) for name in names)
    op = Op(kind, tuple(range(inputs)), (inputs,), **changes)
    return Program(tensors, (op,), tuple(range(inputs)), (inputs,))


def _convert(source: Tensor, target: Tensor, kind: str) -> Program:
    inputs = () if source.data is not None else (0,)
    extra = (activation("x", 1, 4, dtype="int16"),)
    return Program((source, target, *extra), (Op(kind, (0,), (1,)),), inputs or (2,), (1,))


def _computed_paddings() -> Program:
    tensors = (
        activation("x", 1, 4),
        Tensor("paddings", (2, 2), "int32"),
        activation("m/pad/Pad", 1, 6),
    )
    return Program(tensors, (Op("PAD", (0, 1), (2,), options("PAD")),), (0, 1), (2,))


def _with_bias(dtype: str) -> Program:
    tensors = list(NET.tensors)
    tensors[2] = constant("m/conv/b", [0, 0, 0, 0], dtype, scales=(1.0,) * 4)
    return NET.edit(tensors=tuple(tensors))


F16 = constant("m/conv/k", [1.0], "float16")
UNSUPPORTED: list[tuple[Program, str]] = [
    (_with_op("GELU"), r"GELU from layer 'odd_layer' \(int8\[1,4\] -> int8\[1,4\]\): TFLM has no"),
    (_with_op("STABLEHLO_ADD"), "STABLEHLO_ADD from layer 'odd_layer' .* no such operator"),
    (_with_op("CUSTOM", custom="FlexErf"), "FlexErf from layer 'odd_layer' .* no such custom"),
    (_with_op("CUSTOM", custom="a\nb"), r"^'a\\nb' from layer 'odd_layer'"),
    (_with_op("WHILE"), "WHILE from .* control flow and variables"),
    (_with_op("VAR_HANDLE"), "VAR_HANDLE from .* control flow and variables"),
    (_with_op("ELU", dtype="int16"), "ELU from .*: TFLM takes float32, int8 here, not int16"),
    (_with_op("ADD", dtype="uint8", inputs=2), "ADD from .* here, not uint8"),
    (_with_op("BATCH_MATMUL", dtype="uint8", inputs=2), "does not combine uint8 with uint8"),
    (
        conv_net(dtype="float32", weights="int8"),
        r"CONV_2D from layer 'conv' \(float32\[1,6,6,2\], int8\[4,3,3,2\], float32\[4\] -> "
        r"float32\[1,6,6,4\]\): float32 activations with int8 weights \(dynamic range\)",
    ),
    (conv_net(dtype="float32", weights="int8"), "FULLY_CONNECTED from layer 'fc' .*dynamic range"),
    (conv_net(dtype="int16", weights="int4"), "no kernel for int16 activations with int4 weights"),
    (_with_bias("int64"), "CONV_2D from layer 'conv' .*the bias is int64, not int32"),
    (_convert(F16, Tensor("y", (1,), "float32"), "DEQUANTIZE"), "float16 weights do not run"),
    (
        _convert(
            activation("x", 4, dtype="float32"), activation("y", 4, dtype="uint8"), "QUANTIZE"
        ),
        "QUANTIZE from layer 'y' .* does not combine float32 with uint8",
    ),
    (_computed_paddings(), "PAD from layer 'pad' .*: its input 1 is computed at run time"),
    (dataclasses.replace(NET, subgraphs=2), "the model has 2 subgraphs"),
    (NET.edit(inputs=()), "the model has no inputs"),
    (NET.edit(ops=()), "the model has no operators"),
    (NET.edit(inputs=(0, 1), tensors=(NET.tensors[0], F16, *NET.tensors[2:])), "input 'm/conv/k'"),
]


@pytest.mark.parametrize(("program", "reason"), UNSUPPORTED)
def test_the_reason_names_operator_layer_and_shapes(program: Program, reason: str) -> None:
    reasons = tflm.supports(program)
    assert any(re.search(reason, found) for found in reasons), reasons
    with pytest.raises(UnsupportedError, match="^kws: "):
        tflm.generate(program, name="kws")


@pytest.mark.parametrize(
    "program",
    [
        NET,
        conv_net(weights="int4"),
        conv_net(dtype="int16"),
        conv_net(dtype="float32", weights="float32"),
        _with_op("CUSTOM", custom="SignalRfft"),
        _with_op("RESHAPE", dtype="bool"),
        _convert(activation("x", 4), activation("y", 4, dtype="uint8"), "QUANTIZE"),
        _with_op("BATCH_MATMUL", dtype="int16", inputs=2, options=Options({"adj_x": False})),
    ],
)
def test_what_runs_is_supported(program: Program) -> None:
    assert tflm.supports(program) == []


def test_generate_needs_a_file_a_name_and_a_sane_arena() -> None:
    with pytest.raises(StageOrderError, match="generate: the program was edited"):
        tflm.generate(NET.edit(), name="kws")
    for arena in (0, -16):
        with pytest.raises(ConfigError, match=f"arena: {arena} bytes"):
            tflm.generate(NET, name="kws", arena=arena)
    with pytest.raises(ConfigError, match="no ASCII letter or digit"):
        tflm.generate(NET, name="-")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kws", "kws"),
        ("my-model 2", "my_model_2"),
        ("2nd", "m2nd"),
        ("int", "int_"),
        ("class", "class_"),
        ("_x__y_", "x_y"),
        ("modèle", "mod_le"),
    ],
)
def test_identifiers(name: str, expected: str) -> None:
    assert cgen.identifier(name) == expected


@settings(deadline=None)
@given(st.text(max_size=20))
def test_identifiers_are_always_legal(name: str) -> None:
    try:
        word = cgen.identifier(name)
    except ConfigError:
        assert not re.search("[A-Za-z0-9]", name)
    else:
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]*", word) and "__" not in word


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.text('*/?\\"\na', max_size=20)))
def test_comments_and_strings_cannot_be_left(text: str) -> None:
    comment = cgen.comment(text)
    assert comment.isascii() and comment.isprintable()
    assert comment[2:-2].count("*/") == comment[2:-2].count("/*") == 0
    literal = cgen.string(text)
    assert literal.isascii() and literal.isprintable() and "??" not in literal
    assert ast.literal_eval(f"b{literal}".replace("\\?", "?")).decode() == text


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_literals_read_back_the_same(value: float) -> None:
    literal = cgen.float32(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[-+]\d+)?f", literal)
    assert "." in literal or "e" in literal
    assert np.float32(literal[:-1]) == np.float32(value)


def test_byte_arrays_are_16_to_a_line() -> None:
    text = cgen.byte_array("const unsigned char x[18]", bytes(range(18)))
    assert text == (
        "const unsigned char x[18] = {\n"
        "    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,"
        " 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,\n"
        "    0x10, 0x11,\n};\n"
    )
