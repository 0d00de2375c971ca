"""What each operator of a Program holds and computes: weights, bits, zeros, MACs, activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.tflite.lifetimes import live_bytes
from edgecompress.tflite.program import DTYPES, Op, Program, Tensor


@dataclass(frozen=True)
class Account:
    """One operator: the Keras layer it comes from ("" where unknown), its kind, the shape of its
    first output, and its multiply-accumulates.

    `params` are the elements of its weights and biases, `weights` those of its weights alone (the
    constants of two dimensions or more), `zeros` how many of these stand for 0; `weight_bytes` is
    what weights and biases take in the file, `bits` the fewest that hold every weight (two's
    complement; None without weights or for float ones). What several operators read counts for the
    first of them. `activation_bytes` is what its outputs take, `live_bytes` all activations that
    are alive while it runs.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    params: int
    weights: int
    zeros: int
    weight_bytes: int
    bits: int | None
    activation_bytes: int
    live_bytes: int


def accounts(program: Program) -> tuple[Account, ...]:
    """One Account for each operator of `program`, in execution order."""
    counted: set[int] = set()
    found = []
    for op, live in zip(program.ops, live_bytes(program), strict=True):
        fresh = {index for index in op.inputs if index >= 0} - counted
        held = {index for index in fresh if is_parameter(program.tensors[index])}
        counted |= held
        found.append(_account(program, op, [program.tensors[i] for i in sorted(held)], live))
    return tuple(found)


def is_parameter(tensor: Tensor) -> bool:
    """A weight or a bias: not an activation, nor a whole-number constant such as a shape."""
    plain_integer = tensor.dtype in ("int32", "int64") and not tensor.scales
    return tensor.data is not None and not plain_integer


def _account(program: Program, op: Op, held: list[Tensor], live: int) -> Account:
    weights = [tensor for tensor in held if len(tensor.shape) > 1 and DTYPES[tensor.dtype].numpy]
    results = program.results(op)
    return Account(
        layer=program.layer_of(op),
        kind=op.title,
        shape=results[0].shape if results else (),
        macs=program.macs_of(op),
        params=sum(tensor.elements for tensor in held),
        weights=sum(tensor.elements for tensor in weights),
        zeros=sum(_zeros(tensor) for tensor in weights),
        weight_bytes=sum(tensor.nbytes for tensor in held),
        bits=max((_bits(tensor) for tensor in weights), default=0) or None,
        activation_bytes=sum(tensor.nbytes for tensor in results if tensor.data is None),
        live_bytes=live,
    )


def _zeros(tensor: Tensor) -> int:
    stored = tensor.array
    return 0 if stored is None else int(np.count_nonzero(tensor.dequantize(stored) == 0))


def _bits(tensor: Tensor) -> int:
    """The fewest bits that hold every value of `tensor`; 0 for floats."""
    stored = tensor.array
    if stored is None or not stored.size or stored.dtype.kind not in "iu":
        return 0
    low, high = int(stored.min()), int(stored.max())
    sign = int(stored.dtype.kind == "i")
    return max((~low if low < 0 else low).bit_length(), high.bit_length(), 1 - sign) + sign
