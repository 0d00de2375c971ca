"""Schedule -> the text of model.c: constants, one arena, and a call per operator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from string import Template
from typing import Any

import numpy as np

from edgecompress.backends import cgen, describe
from edgecompress.backends.aot.calls import Array, Call, Struct, Unpacked, Value
from edgecompress.backends.aot.loops import Line, Turn, rolled
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
    """Constants, each written once: `w_*` weights, `p_*` parameters of a call, `c_*` others.

    `readers` are the operators that each one is there for. `reading` are those of the call at work,
    `inner` those that a struct within its parameters is for.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names: list[str] = []
        self.readers: dict[str, set[int]] = {}
        self.reading: tuple[int, ...] = ()
        self.inner: tuple[int, ...] = ()
        self._known: dict[tuple[str, bytes], str] = {}
        self._structs: dict[tuple[str, str], str] = {}

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
        return self._read(self._known[key], self.reading)

    def struct(self, struct: Struct, *, name: str, scratch: int | None) -> str:
        """The name of the constant that holds a call's parameters: `name`, or that of one alike.
        The call's scratch is at `scratch`."""
        body = self._struct(struct, "    ", scratch)
        known = self._structs.setdefault((struct.ctype, body), name)
        if known == name:
            self.names.append(name)
            self.texts.append(f"static const {struct.ctype} {name} = {body};\n")
        return self._read(known, (*self.inner, *self.reading))

    def _read(self, name: str, operators: tuple[int, ...]) -> str:
        self.readers.setdefault(name, set()).update(operators)
        return name

    def _add(self, name: str, declaration: str, values: np.ndarray[Any, Any]) -> None:
        items = [_literal(value) for value in values.tolist()] or ["0"]
        rows = (
            "    " + ", ".join(items[start : start + _PER_LINE]) + ",\n"
            for start in range(0, len(items), _PER_LINE)
        )
        self.names.append(name)
        self.texts.append(f"{declaration} {{\n{''.join(rows)}}};\n")

    def _struct(self, struct: Struct, indent: str, scratch: int | None) -> str:
        rows = (
            f"{indent}.{key} = {self._value(key, value, indent, scratch)},\n"
            for key, value in struct.fields.items()
        )
        return f"{{\n{''.join(rows)}{indent[4:]}}}"

    def _value(self, key: str, value: Value, indent: str, scratch: int | None) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, Unpacked):
            return f"(const void *)(ec_arena + {scratch})"
        if isinstance(value, Array):
            return self.array(value, weights=key.startswith(("weights", "packed")))
        if isinstance(value, Struct):
            outer, self.reading = self.reading, self.inner
            text = self._struct(value, indent + "    ", scratch)
            self.reading = outer
            return text
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
    constants, calls = _emitted(planned)
    program = planned.program
    families = sorted({family for step in planned.steps for family in step.call.families})
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
        calls="".join(_operators(planned, calls)),
    )


def readers(planned: Schedule) -> dict[str, set[int]]:
    """The constants in model.c -> the numbers of the operators that each is there for."""
    return _emitted(planned)[0].readers


def served(planned: Schedule) -> list[tuple[int, ...]]:
    """For each step the operators that it computes: its own, behind one that shares the call."""
    busy = {step.op for step in planned.steps}
    shared = {
        op.outputs[0]: number
        for number, op in enumerate(planned.ops)
        if number not in busy and op.outputs[0] not in planned.offsets
    }
    return [
        (*(shared[i] for i in planned.ops[step.op].inputs if i in shared), step.op)
        for step in planned.steps
    ]


def _emitted(planned: Schedule) -> tuple[_Constants, list[tuple[int, Line]]]:
    """The constants, and the calls with the numbers of their operators."""
    constants = _Constants()
    calls = []
    for number, (step, operators) in enumerate(zip(planned.steps, served(planned), strict=True)):
        constants.reading, constants.inner = operators[-1:], operators[:1]
        made = _reversed(step) if step.reverse else step
        calls += [(step.op, line) for line in _lines(planned, constants, number, made)]
    return constants, calls


def _reversed(step: Step) -> Step:
    return replace(step, call=reversed_call(step.call))


def _kinds(ops: tuple[Op, ...]) -> str:
    return "".join(f"    {cgen.string(op.title)},\n" for op in ops)


def _operators(planned: Schedule, calls: Sequence[tuple[int, Line]]) -> Iterator[str]:
    """Each operator: a comment, its calls, the hook; those of a stream take turns, in loops."""
    turns = [
        Turn(number, tuple(line for _, line in run))
        for number, run in groupby(calls, key=lambda item: item[0])
    ]
    for number in sorted(set(range(len(planned.ops))) - {turn.op for turn in turns}):
        place = next((i for i, turn in enumerate(turns) if turn.op > number), len(turns))
        turns.insert(place, Turn(number, ()))
    told: set[int] = set()
    for loop in rolled(turns):
        indent = "    "
        if loop.times > 1:
            yield f"\n    for (uint32_t i = 0; i < {loop.times}; i++) {{\n"
            indent = "        "
        for turn, steps in zip(loop.turns, loop.steps, strict=True):
            if turn.op not in told:
                told.add(turn.op)
                text = f"{turn.op}: {describe.where(planned.program, planned.ops[turn.op])}"
                yield f"\n{indent}{cgen.comment(text)}\n"
            for line, added in zip(turn.lines, steps, strict=True):
                yield f"{indent}{_text(line, added)}\n"
            yield f"{indent}if (ec_model_hook != NULL) ec_model_hook({turn.op});\n"
        if loop.times > 1:
            yield "    }\n"


def _text(line: Line, steps: Sequence[int]) -> str:
    """A call as C; `steps` are what each argument grows by in a loop."""
    arguments = [
        f"(void *)(ec_arena + {part}{f' + {step} * i' if step > 0 else f' - {-step} * i'})"
        if step
        else f"(void *)(ec_arena + {part})"
        if isinstance(part, int)
        else part
        for part, step in zip(line, steps, strict=True)
    ]
    return f"{arguments[0]}({', '.join(arguments[1:])});"


def _lines(planned: Schedule, constants: _Constants, number: int, step: Step) -> Iterator[Line]:
    """The call of a step, and before it what unpacks its weights."""
    call, at, name = step.call, step.scratch, f"p_{number}"
    parts: list[str | int] = [call.function]
    if call.params is not None:
        parts.append(f"&{constants.struct(call.params, name=name, scratch=at)}")
    parts += [_place(planned, constants, call, index) for index in (*call.inputs, *call.outputs)]
    unpacked = call.unpacked
    if at is not None and unpacked is not None:
        params = constants.struct(unpacked.params, name=f"{name}_unpacked", scratch=None)
        yield unpacked.function, f"&{params}", at
        at = at + unpacked.size if call.scratch != unpacked.size else None
    if at is not None:
        parts.append(at)
    yield tuple(parts)


def _place(planned: Schedule, constants: _Constants, call: Call, index: int) -> str | int:
    """Where a tensor lies in the arena, or the name of a constant."""
    if index < 0:
        return "NULL"
    if index in planned.offsets:
        return planned.offsets[index]
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
static _Alignas(16) uint8_t ec_arena[${arena}];

${constants}
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
