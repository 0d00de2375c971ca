"""Operators with one input that work element by element: the checks and the calls they share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgecompress.backends.aot.calls import Array, Call, Lowered, Reuse, Site, Struct, Value
from edgecompress.backends.aot.tables import Values
from edgecompress.tflite import DTYPES, Tensor


def operands(site: Site, *, inputs: int = 1) -> tuple[Tensor, ...]:
    """The `inputs` inputs and the output; there are no others, and none of them is empty.

    Raises UnsupportedError.
    """
    site.require(
        len(site.op.inputs) == inputs and len(site.op.outputs) == 1,
        f"{len(site.op.inputs)} inputs and {len(site.op.outputs)} outputs;"
        f" supported: {inputs} and 1",
    )
    found = (*(site.arg(place) for place in range(inputs)), site.result())
    for tensor in found:
        site.require(tensor.elements > 0, f"{tensor.name!r} is empty")
    return found


def same_size(site: Site) -> tuple[Tensor, Tensor]:
    """The input and the output, with as many elements each. Raises UnsupportedError."""
    source, target = operands(site)
    site.require(
        source.elements == target.elements,
        f"{source.elements} elements become {target.elements}; the numbers must be equal",
    )
    return source, target


def forward(count: int, *, source: int, target: int) -> int:
    """`Reuse.forward` of `count` elements of `source` bytes that become `target` bytes each."""
    return max(target - source, 0) * (count - 1)


def call(site: Site, *, function: str, family: str, **fields: Value) -> Lowered:
    """The call of a kernel over all elements; its parameters are `count` and `fields`.

    Raises UnsupportedError where input and output differ in their number of elements.
    """
    source, target = same_size(site)
    width = tuple(DTYPES[tensor.dtype].bits // 8 for tensor in (source, target))
    count = source.elements
    reuse = Reuse(0, 0, forward(count, source=width[0], target=width[1]))
    made = Call(
        function=function,
        family=family,
        params=Struct(_PARAMS.get(function, f"{family}_t"), {"count": count, **fields}),
        inputs=site.op.inputs,
        outputs=site.op.outputs,
        reuses=(reuse,),
    )
    return (made,)


_PARAMS: Mapping[str, str] = {
    "ec_dequantize_s8_f32": "ec_dequantize_t",
    "ec_dequantize_u8_f32": "ec_dequantize_t",
    "ec_dequantize_s16_f32": "ec_dequantize_t",
    "ec_logistic_s16": "ec_sigmoid_s16_t",
    "ec_tanh_s16": "ec_sigmoid_s16_t",
    "ec_leaky_relu_s16": "ec_leaky_relu_s16_t",
}
"""The parameters of kernels that are not called after their file."""


def lookup(site: Site, values: Values) -> Lowered:
    """The call that takes each 8-bit element from a table: `values` in the order of its bits."""
    table = Array("uint8_t", (values & 255).astype(np.uint8))
    return call(site, function="ec_lut_8", family="ec_lut", table=table)
