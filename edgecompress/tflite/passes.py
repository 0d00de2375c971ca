"""Passes that make a Program smaller and keep every bit of what it computes.

Each is a pure function from Program to Program; `lossless` runs them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgecompress.errors import UnsupportedError
from edgecompress.tflite.program import Op, Options, Program, Tensor, layer_in
from edgecompress.tflite.read import read
from edgecompress.tflite.write import write


def lossless(program: Program) -> Program:
    """`program` without what no output depends on and no runtime reads.

    What it computes is the same, bit by bit; inputs and outputs keep their order, names, shapes
    and types. `Program.layer_of` finds the same layers, except of an operator that now computes an
    output which a copy gave before.
    """
    while True:
        smaller = program
        for step in _REPEATED:
            smaller = step(smaller)
        if len(smaller.ops) == len(program.ops):
            break
        program = smaller
    for step in _ONCE:
        smaller = step(smaller)
    return smaller


def slimmed(data: bytes) -> bytes:
    """A flatbuffer without the bytes that no runtime reads; what it computes stays, bit by bit.

    One that holds what a Program does not stays as it is.
    """
    try:
        return min(data, write(lossless(read(data))), key=len)
    except UnsupportedError:
        return data


def drop_unused_ops(program: Program) -> Program:
    """Without the operators whose results no output needs.

    Operators with a state or an effect of their own stay, and so do those that read a variable.
    """
    needed = set(program.outputs)
    kept = []
    for op in reversed(program.ops):
        stateful = op.kind in _EFFECTS or op.kind.startswith("STABLEHLO_")
        stateful = stateful or any(t is not None and t.variable for t in program.args(op))
        if stateful or not needed.isdisjoint(op.outputs):
            kept.append(op)
            needed.update(op.inputs)
    return program.edit(ops=tuple(reversed(kept)))


def drop_unused_tensors(program: Program) -> Program:
    """Without the tensors that nobody mentions; the others are numbered afresh, in their order."""
    used = {*program.inputs, *program.outputs}
    for op in program.ops:
        used.update((*op.inputs, *op.outputs, *op.intermediates))
    used.discard(_ABSENT)
    kept = sorted(used)
    numbers = {old: new for new, old in enumerate(kept)}
    return program.edit(
        tensors=tuple(program.tensors[index] for index in kept),
        inputs=_turned(program.inputs, numbers),
        outputs=_turned(program.outputs, numbers),
        ops=tuple(
            replace(
                op,
                inputs=_turned(op.inputs, numbers),
                outputs=_turned(op.outputs, numbers),
                intermediates=_turned(op.intermediates, numbers),
            )
            for op in program.ops
        ),
    )


def merge_constants(program: Program) -> Program:
    """Every constant once: operators read the first of those that differ in their names alone."""
    first: dict[Tensor, int] = {}
    same = {
        index: first.setdefault(replace(tensor, name=""), index)
        for index, tensor in enumerate(program.tensors)
        if tensor.data is not None
        and not tensor.variable
        and index not in program.inputs
        and index not in program.outputs
    }
    ops = (replace(op, inputs=_turned(op.inputs, same)) for op in program.ops)
    return program.edit(ops=tuple(ops))


def drop_identities(program: Program) -> Program:
    """Without the operators that copy their input.

    These are RESHAPE, SQUEEZE and TRANSPOSE to what there is already, QUANTIZE to the same
    parameters, PAD by nothing. The operator stays where input and output are both given from
    outside, and where its output's shape or quantisation is not exactly its input's.
    """
    made = {index for op in program.ops for index in op.outputs}
    stands_for: dict[int, int] = {}
    instead: dict[int, int] = {}
    kept = []
    for op in program.ops:
        op = replace(op, inputs=_turned(op.inputs, stands_for))
        if not _copies(program, op):
            kept.append(op)
            continue
        source, target = op.inputs[0], op.outputs[0]
        if target not in program.outputs:
            stands_for[target] = source
        elif source in made and source not in program.outputs and source not in instead:
            instead[source] = target
        else:
            kept.append(op)
    ops = (
        replace(op, inputs=_turned(op.inputs, instead), outputs=_turned(op.outputs, instead))
        for op in kept
    )
    return program.edit(ops=tuple(ops))


def join_reshapes(program: Program) -> Program:
    """A RESHAPE, SQUEEZE or EXPAND_DIMS of what another one made becomes one RESHAPE of its input.

    Where nobody else reads what lies between, and one of the two is a RESHAPE already, so that no
    operator is needed that was not there. The first of the two is then of no use to anybody.
    """
    uses = Counter([index for op in program.ops for index in op.inputs])
    uses.update(program.outputs)
    makers = {op.outputs[0]: op for op in program.ops if _reshapes(program, op)}
    tensors = list(program.tensors)
    ops = []
    for op in program.ops:
        before = makers.get(op.inputs[0]) if op.outputs and op.outputs[0] in makers else None
        if before is not None and uses[before.outputs[0]] == 1:
            if "RESHAPE" in (op.kind, before.kind):
                op = _reshape(tensors, op, before.inputs[0])
                makers[op.outputs[0]] = op
        ops.append(op)
    return program.edit(ops=tuple(ops), tensors=tuple(tensors))


def shorten_names(program: Program) -> Program:
    """Only the names that somebody reads: those of inputs and outputs, and each operator's layer.

    `Program.layer_of` finds the same layer as before in what is left of an operator's first
    output; everything else has no name.
    """
    kept = {*program.inputs, *program.outputs}
    layers = {op.outputs[0]: program.layer_of(op) for op in program.ops if op.outputs}
    return program.edit(
        tensors=tuple(
            tensor
            if index in kept
            else replace(tensor, name=_short(tensor.name, layers.get(index, "")))
            for index, tensor in enumerate(program.tensors)
        )
    )


_ABSENT = -1
_Pass = Callable[[Program], Program]
_REPEATED: tuple[_Pass, ...] = (join_reshapes, drop_identities, drop_unused_ops)
_ONCE: tuple[_Pass, ...] = (merge_constants, drop_unused_tensors, shorten_names)

_EFFECTS = frozenset(
    "CUSTOM DELEGATE IF WHILE CALL CALL_ONCE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE HASHTABLE"
    " HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE RANDOM_STANDARD_NORMAL RANDOM_UNIFORM"
    " MULTINOMIAL".split()
)
_RESHAPING = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_REQUANTISED = ("int8", "uint8", "int16")


def _short(name: str, layer: str) -> str:
    """The shortest name in which `Program.layer_of` finds `layer` again."""
    return next((short for short in (layer, f"/{layer}/") if layer_in(short) == layer), name)


def _turned(indexes: Iterable[int], numbers: Mapping[int, int]) -> tuple[int, ...]:
    """`indexes` with those that `numbers` knows replaced."""
    return tuple(numbers.get(index, index) for index in indexes)


def _copies(program: Program, op: Op) -> bool:
    """Whether `op` gives its input back, bit by bit and under the same description."""
    rule = _IDENTITY.get(op.kind)
    if rule is None or len(op.outputs) != 1 or not _given(op, 0):
        return False
    source, target = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    described = replace(source, name="", data=None) == replace(target, name="")
    return described and not source.variable and rule(program, op)


def _fixed(program: Program, op: Op, place: int) -> tuple[int, ...] | None:
    """The numbers of a constant input, flattened; None where it is absent or not a constant."""
    tensor = _argument(program, op, place)
    if tensor is None or tensor.data is None or tensor.dtype not in ("int32", "int64"):
        return None
    return tuple(np.frombuffer(tensor.data, f"<i{4 if tensor.dtype == 'int32' else 8}").tolist())


def _argument(program: Program, op: Op, place: int) -> Tensor | None:
    return program.tensors[op.inputs[place]] if _given(op, place) else None


def _given(op: Op, place: int) -> bool:
    return place < len(op.inputs) and op.inputs[place] >= 0


def _shape_known(program: Program, op: Op) -> bool:
    """Whether nothing but the file decides the output's shape, and it is the one the file says."""
    made = program.tensors[op.outputs[0]].shape
    if op.kind == "SQUEEZE":
        return True
    if op.kind == "EXPAND_DIMS":
        return _fixed(program, op, 1) is not None
    wanted = _fixed(program, op, 1) if _given(op, 1) else op.options.get("new_shape", ())
    if not isinstance(wanted, tuple) or len(wanted) != len(made) or wanted.count(-1) > 1:
        return False
    return all(size in (-1, there) for size, there in zip(wanted, made, strict=True))


def _same_quantisation(program: Program, op: Op) -> bool:
    tensor = program.tensors[op.inputs[0]]
    return tensor.dtype in _REQUANTISED and len(tensor.scales) == 1


def _same_order(program: Program, op: Op) -> bool:
    rank = len(program.tensors[op.inputs[0]].shape)
    return _fixed(program, op, 1) == tuple(range(rank))


def _adds_nothing(program: Program, op: Op) -> bool:
    paddings = _fixed(program, op, 1)
    return paddings is not None and not any(paddings)


_IDENTITY: dict[str, Callable[[Program, Op], bool]] = {
    "RESHAPE": _shape_known,
    "SQUEEZE": _shape_known,
    "QUANTIZE": _same_quantisation,
    "TRANSPOSE": _same_order,
    "PAD": _adds_nothing,
    "PADV2": _adds_nothing,
    "MIRROR_PAD": _adds_nothing,
}
"""Operators that may copy their input, and what must hold besides equal descriptions."""


def _reshapes(program: Program, op: Op) -> bool:
    """Whether `op` gives the elements of its input another shape, one that the file fixes."""
    if op.kind not in _RESHAPING or len(op.outputs) != 1 or not _given(op, 0):
        return False
    source, target = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    return (
        source.dtype == target.dtype
        and source.elements == target.elements
        and not (source.variable or source.signature or target.signature)
        and _shape_known(program, op)
    )


def _reshape(tensors: list[Tensor], op: Op, source: int) -> Op:
    """`op` as a RESHAPE of tensor `source`; its shape is appended to `tensors`."""
    shape = tensors[op.outputs[0]].shape
    data = np.asarray(shape, "<i4").tobytes()
    tensors.append(Tensor("", (len(shape),), "int32", data=data))
    return Op(
        "RESHAPE",
        (source, len(tensors) - 1),
        op.outputs,
        Options({"new_shape": shape}),
    )
