"""Schedule -> the text of model.c: constants, one arena, and a call per operator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from string import Template
from typing import Any

import numpy as np

from edgecompress.backends import cgen, describe
from edgecompress.backends.aot.calls import Array, Call, Struct, Value
from edgecompress.backends.aot.schedule import Schedule, Step, reversed_call
from edgecompress.tflite import DTYPES, Op

_C_TYPES = {
    "float32": "float",
    "int8": "int8_t",
    "int4": "uint8_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
}
_PER_LINE = 16
_INT64_MIN = -(2**63)


class _Constants:
    """Constants, each written once: `w_*` weights, `p_*` parameters of a call, `c_*` others."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names: list[str] = []
        self._known: dict[tuple[str, bytes], str] = {}

    def array(self, array: Array, *, weights: bool) -> str:
        """The name of the constant that holds `array`."""
        values = np.asarray(array.values).reshape(-1)
        key = array.ctype, values.dtype.str.encode() + values.tobytes()
        if key not in self._known:
            prefix = "w" if weights else "c"
            name = f"{prefix}_{len(self._known)}"
            self._known[key] = name
            size = max(values.size, 1)
            self._add(name, f"static const _Alignas(8) {array.ctype} {name}[{size}] =", values)
        return self._known[key]

    def struct(self, struct: Struct, *, number: int) -> str:
        """The name of the constant that holds the parameters of call `number`."""
        name, body = f"p_{number}", self._struct(struct, "    ")
        self.names.append(name)
        self.texts.append(f"static const {struct.ctype} {name} = {body};\n")
        return name

    def _add(self, name: str, declaration: str, values: np.ndarray[Any, Any]) -> None:
        items = [_literal(value) for value in values.tolist()] or ["0"]
        rows = (
            "    " + ", ".join(items[start : start + _PER_LINE]) + ",\n"
            for start in range(0, len(items), _PER_LINE)
        )
        self.names.append(name)
        self.texts.append(f"{declaration} {{\n{''.join(rows)}}};\n")

    def _struct(self, struct: Struct, indent: str) -> str:
        rows = (
            f"{indent}.{key} = {self._value(key, value, indent)},\n"
            for key, value in struct.fields.items()
        )
        return f"{{\n{''.join(rows)}{indent[4:]}}}"

    def _value(self, key: str, value: Value, indent: str) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, Array):
            return self.array(value, weights=key.startswith("weights"))
        if isinstance(value, Struct):
            return self._struct(value, indent + "    ")
        if isinstance(value, tuple):
            return "{" + ", ".join(map(_literal, value)) + "}"
        return _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if math.isfinite(value):
            return cgen.float32(float(value))
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
    number = int(value)
    if number == _INT64_MIN:
        return f"({number + 1} - 1)"
    return str(number)


def model_c(planned: Schedule, *, name: str, sha: str, backend: str) -> str:
    """The text of model.c for a model called `name` whose `.tflite` has the SHA-256 `sha`."""
    constants = _Constants()
    steps = [step if not step.reverse else _reversed(step) for step in planned.steps]
    calls = [_call(planned, constants, number, step) for number, step in enumerate(steps)]
    program = planned.program
    families = sorted({step.call.family for step in steps})
    texts = "\n".join(constants.texts)
    return _MODEL_C.substitute(
        banner=cgen.banner(backend, name=name, sha=sha, settings={"arena": planned.plan.bytes}),
        includes="".join(f'#include "{family}.h"\n' for family in families),
        math="#include <math.h>\n" if "INFINITY" in texts or "NAN" in texts else "",
        constants=texts,
        kinds=_kinds(program.ops),
        op_count=len(program.ops),
        arena=max(planned.plan.bytes, 1),
        inputs="".join(describe.tensor_infos(program, program.inputs)),
        outputs="".join(describe.tensor_infos(program, program.outputs)),
        name=cgen.string(name),
        sha=cgen.string(sha),
        backend=cgen.string(backend),
        model_bytes="\n        + ".join(f"sizeof({one})" for one in constants.names) or "0",
        input_count=len(program.inputs),
        output_count=len(program.outputs),
        input_offsets=cgen.int_list(tuple(planned.offsets[i] for i in program.inputs)),
        output_offsets=cgen.int_list(tuple(planned.offsets[i] for i in program.outputs)),
        clear="".join(_clear(planned)),
        calls="".join(_operators(planned, steps, calls)),
    )


def _reversed(step: Step) -> Step:
    return replace(step, call=reversed_call(step.call))


def _kinds(ops: tuple[Op, ...]) -> str:
    return "".join(f"    {cgen.string(op.title)},\n" for op in ops)


def _operators(planned: Schedule, steps: list[Step], calls: list[str]) -> Iterator[str]:
    """Each operator: a comment, its calls, the hook."""
    made: dict[int, list[str]] = {}
    for step, call in zip(steps, calls, strict=True):
        made.setdefault(step.op, []).append(call)
    for number, op in enumerate(planned.ops):
        yield f"\n    {cgen.comment(f'{number}: {describe.where(planned.program, op)}')}\n"
        yield from (f"    {call}\n" for call in made.get(number, ()))
        yield f"    if (ec_model_hook != NULL) ec_model_hook({number});\n"


def _call(planned: Schedule, constants: _Constants, number: int, step: Step) -> str:
    call = step.call
    parts = [] if call.params is None else [f"&{constants.struct(call.params, number=number)}"]
    parts += [_address(planned, constants, call, index) for index in (*call.inputs, *call.outputs)]
    if step.scratch is not None:
        parts.append(f"(void *)(ec_arena + {step.scratch})")
    return f"{call.function}({', '.join(parts)});"


def _address(planned: Schedule, constants: _Constants, call: Call, index: int) -> str:
    if index < 0:
        return "NULL"
    if index in planned.offsets:
        return f"(void *)(ec_arena + {planned.offsets[index]})"
    tensor = planned.program.tensors[index]
    assert tensor.data is not None, f"{call.function}: tensor {index} has no place"
    kind = DTYPES[tensor.dtype].numpy
    values = np.frombuffer(tensor.data, kind if kind != "?" else "u1")
    return constants.array(Array(_C_TYPES[tensor.dtype], values), weights=True)


def _clear(planned: Schedule) -> Iterator[str]:
    """Variable tensors start at zero, which is stored as their zero point."""
    for index, tensor in enumerate(planned.program.tensors):
        if tensor.variable and index in planned.offsets:
            zero = tensor.zero_points[0] if tensor.zero_points else 0
            yield f"    memset(ec_arena + {planned.offsets[index]}, {zero}, {tensor.nbytes});\n"


_MODEL_C = Template("""\
${banner}#include "ec_model.h"

${math}#include <stddef.h>
#include <stdint.h>
#include <string.h>

${includes}
${constants}
static _Alignas(16) uint8_t ec_arena[${arena}];

static const char *const c_op_kinds[] = {
${kinds}};

static const ec_tensor_info_t c_inputs[] = {
${inputs}};

static const ec_tensor_info_t c_outputs[] = {
${outputs}};

static const uint32_t c_input_offsets[] = ${input_offsets};
static const uint32_t c_output_offsets[] = ${output_offsets};

const ec_model_info_t ec_model_info = {
    .name = ${name},
    .sha256 = ${sha},
    .backend = ${backend},
    .model_bytes = (uint32_t)(${model_bytes}),
    .arena_bytes = sizeof(ec_arena),
    .input_count = ${input_count},
    .output_count = ${output_count},
    .inputs = c_inputs,
    .outputs = c_outputs,
    .op_count = ${op_count},
    .op_kinds = c_op_kinds,
};

ec_model_hook_t ec_model_hook = NULL;

static uint8_t ready = 0;

ec_model_status_t ec_model_init(void) {
${clear}    ready = 1;
    return EC_MODEL_OK;
}

void *ec_model_input(uint32_t index) {
    return ready && index < ${input_count} ? ec_arena + c_input_offsets[index] : NULL;
}

const void *ec_model_output(uint32_t index) {
    return ready && index < ${output_count} ? ec_arena + c_output_offsets[index] : NULL;
}

uint32_t ec_model_arena_used(void) { return ready ? sizeof(ec_arena) : 0; }

ec_model_status_t ec_model_invoke(void) {
    if (!ready) return EC_MODEL_ERR_STATE;
${calls}    return EC_MODEL_OK;
}
""")
