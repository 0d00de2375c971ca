"""What an operator becomes: calls of C kernels, constants in flash, scratch in the arena."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from edgecompress.errors import UnsupportedError
from edgecompress.tflite import Op, Program, Tensor
from edgecompress.vocabulary import Core

Values: TypeAlias = npt.NDArray[Any]

DECODERS = ("ec_decode", "ec_unpack")
"""The files of firmware/kernels that write weights to scratch before another kernel runs."""
SPARSE = ("ec_conv_sparse", "ec_decode", "ec_fully_connected_sparse")
"""Those that read weights without zeros, or as places in a list of values."""

HELIUM = 4
"""Dense kernels take so many times fewer instructions with Helium than on a Cortex-M4."""


def scalar(instructions: int, core: Core) -> int:
    """What counts for `instructions` of a Cortex-M4 that Helium does not speed up: estimates are
    those of a Cortex-M4 on every core, so that on one with Helium these weigh more."""
    return instructions * HELIUM if core == "mve" else instructions


@dataclass(frozen=True, eq=False)
class Array:
    """A constant array in flash: `values` flattened, elements of the C type `ctype`.

    Equal arrays of one type are written once.
    """

    ctype: str
    values: Values


Value: TypeAlias = (
    "int | float | bool | None | Array | Unpacked | Struct | tuple[int, ...] | tuple[float, ...]"
)
"""A field of a C struct: a number, NULL, the address of an array, a struct, or a short array."""


@dataclass(frozen=True, eq=False)
class Struct:
    """A `static const` struct of the C type `ctype`: its fields in any order, by name."""

    ctype: str
    fields: Mapping[str, Value]


@dataclass(frozen=True, eq=False)
class Unpacked:
    """A constant array that `function(&params, scratch)` writes before the call, `size` bytes (a
    multiple of 16) at the front of the call's scratch; what the kernel itself uses comes behind."""

    function: str
    params: Struct
    size: int


@dataclass(frozen=True)
class Reuse:
    """How far output number `output` of a call may lie over input number `input`, in bytes.

    `forward` is the least offset(input) - offset(output) when the kernel works from the first
    element to the last, `backward` the least end(output) - end(input) when it works from the last
    row to the first (its field `reverse` is then 1); None: not in this direction. Both may be
    negative. It counts only where the input is not read afterwards. With `exact` the output lies
    over the input byte for byte (both have one size) or apart from it, and the distances do not
    count.
    """

    input: int
    output: int
    forward: int | None = 0
    backward: int | None = None
    exact: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One call `function(&params, inputs..., outputs..., scratch)` of a kernel.

    `family` is the file of firmware/kernels that holds it (ec_conv), `uses` are others whose code
    it may do without in other calls. `inputs` and `outputs` are
    tensor indexes; a constant input is passed by its address in flash. `scratch` is the bytes of
    working memory (16-byte aligned), None where the kernel takes none. `params` is None where the
    kernel takes none; a field `reverse` in it is set by the memory plan. `instructions` is what
    the call takes on a Cortex-M4, as far as its lowering can tell (None: unknown).
    """

    function: str
    family: str
    params: Struct | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scratch: int | None = None
    reuses: tuple[Reuse, ...] = ()
    instructions: int | None = None
    uses: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """The files of firmware/kernels whose code the call needs."""
        return (self.family, *self.uses)

    @property
    def is_packed(self) -> bool:
        """Whether the call unpacks its weights each time it runs."""
        return any(family in DECODERS for family in self.uses)

    @property
    def is_sparse(self) -> bool:
        """Whether the weights in flash are fewer, or stored as places in a list of values."""
        return any(family in SPARSE for family in self.families)

    @property
    def unpacked(self) -> Unpacked | None:
        """What is written to the front of the scratch before the call, if anything."""
        fields = () if self.params is None else self.params.fields.values()
        return next((value for value in fields if isinstance(value, Unpacked)), None)


@dataclass(frozen=True)
class View:
    """The operator moves nothing: tensor `target` is tensor `source` under another shape."""

    source: int
    target: int


@dataclass(frozen=True, eq=False)
class Choice:
    """Calls that compute the same bits, of which one will run: at least one, in any order."""

    alternatives: tuple[Call, ...]


Lowered: TypeAlias = "tuple[Call, ...] | View | Choice"
"""Calls that all run, one after the other; or nothing to run; or one of several calls."""


@dataclass(frozen=True)
class Site:
    """An operator in its program and the core it is to run on, as a lowering function sees them."""

    program: Program
    op: Op
    core: Core = "dsp"

    def has(self, place: int) -> bool:
        """Whether input `place` is given."""
        return place < len(self.op.inputs) and self.op.inputs[place] >= 0

    def arg(self, place: int) -> Tensor:
        """Input `place`. Raises UnsupportedError where it is left out."""
        self.require(self.has(place), f"input {place} is missing")
        return self.program.tensors[self.op.inputs[place]]

    def result(self, place: int = 0) -> Tensor:
        """Output `place`. Raises UnsupportedError where there is none."""
        self.require(place < len(self.op.outputs), f"output {place} is missing")
        return self.program.tensors[self.op.outputs[place]]

    def constant(self, place: int) -> Values:
        """The values of input `place`, a constant. Raises UnsupportedError for anything else."""
        tensor = self.arg(place)
        array = tensor.array
        if array is None:
            raise UnsupportedError(
                f"input {place} {tensor.name!r} is computed at run time; a constant is needed there"
            )
        return array

    def require(self, holds: bool, reason: str) -> None:
        """Raise UnsupportedError with `reason` (which says what is supported) unless `holds`."""
        if not holds:
            raise UnsupportedError(reason)


Lowering: TypeAlias = Callable[[Site], Lowered]
"""Lowers one operator kind. Raises UnsupportedError with the reason, without naming the operator:
the caller adds its kind, layer and shapes."""
