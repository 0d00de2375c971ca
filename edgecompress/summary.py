"""What is in a model: layers or operators, MACs, memory, and what a backend cannot run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgecompress import zoo
from edgecompress.artifact import Artifact
from edgecompress.errors import UnsupportedError


@dataclass(frozen=True)
class Line:
    """One layer (Keras) or operator (`.tflite`).

    `memory` is in bytes: of the activations alive while an operator runs; for a Keras layer of
    its output as int8, batch 1, None where its shape is not static.
    """

    layer: str
    kind: str
    shape: tuple[int | None, ...]
    macs: int | None
    params: int
    memory: int | None


@dataclass(frozen=True)
class Summary:
    """A model, line by line; `groups` are its coupled channels where they were asked for."""

    HEADINGS: ClassVar[tuple[str, ...]] = (
        "layer",
        "kind",
        "output",
        "parameters",
        "MACs",
        "memory bytes",
    )

    name: str
    format: str
    input: str
    size: int
    lines: tuple[Line, ...]
    params: int
    macs: int | None
    groups: tuple[str, ...]
    unsupported: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The table under HEADINGS, with a last row of totals."""
        body = [
            (
                line.layer,
                line.kind,
                _shape(line.shape),
                f"{line.params:,}",
                _number(line.macs),
                _number(line.memory),
            )
            for line in self.lines
        ]
        known = [line.memory for line in self.lines if line.memory is not None]
        word = "largest" if self.format == "Keras" else "peak"
        peak = f"{word} {max(known):,}" if known else ""
        return [*body, ("total", "", "", f"{self.params:,}", _number(self.macs), peak)]

    def notes(self) -> list[str]:
        """The coupled channels, and what the backends cannot run."""
        blockers = [f"tflm cannot run: {reason}" for reason in self.unsupported]
        return [*self.groups, *blockers]


def summarise(model: str | Path, *, channels: bool = False) -> Summary:
    """The summary of a zoo model or a model file; raises the errors of loading it.

    With `channels` the coupled-channel groups are listed, an unknown layer as a barrier.
    """
    file = zoo.model_file(str(model)) if str(model) in zoo.names() else Path(model)
    artifact = zoo.load(model)
    size = _file_bytes(file)
    if artifact.keras is None:
        return _of_program(artifact, size)
    from edgecompress import cost
    from edgecompress.channels import groups

    network = artifact.keras
    layers, total = cost.layers(network), cost.total(network)
    found = groups(network, unknown="barrier") if channels else ()
    return Summary(
        name=artifact.name,
        format="Keras",
        input=", ".join(_shape(tensor.shape) for tensor in network.inputs),
        size=size,
        lines=tuple(
            Line(
                layer.layer,
                layer.kind,
                tuple(layer.output_shape),
                layer.macs,
                layer.params,
                _elements(layer.output_shape[1:]),
            )
            for layer in layers
        ),
        params=total.params,
        macs=total.macs,
        groups=tuple(str(group) for group in found),
        unsupported=_unsupported(artifact),
    )


def _unsupported(artifact: Artifact) -> tuple[str, ...]:
    """What TFLM cannot run of a Keras model, asked on its float32 conversion."""
    from edgecompress.backends import tflm
    from edgecompress.quantization import quantize
    from edgecompress.tflite import read

    try:
        converted = quantize(artifact, mode="float32").need_tflite("inspect")
    except UnsupportedError as error:
        return (str(error),)
    return tuple(tflm.supports(read(converted)))


def _of_program(artifact: Artifact, size: int) -> Summary:
    from edgecompress.backends import tflm
    from edgecompress.tflite import read
    from edgecompress.tflite.account import accounts

    program = read(artifact.need_tflite("inspect"))
    lines = [
        Line(each.layer, each.kind, each.shape, each.macs, each.params, each.live_bytes)
        for each in accounts(program)
    ]
    inputs = [program.tensors[i] for i in program.inputs]
    return Summary(
        name=artifact.name,
        format="TensorFlow Lite",
        input=", ".join(f"{_shape(tensor.shape)} {tensor.dtype}" for tensor in inputs),
        size=size,
        lines=tuple(lines),
        params=sum(line.params for line in lines),
        macs=program.macs,
        groups=(),
        unsupported=tuple(tflm.supports(program)),
    )


def _file_bytes(path: Path) -> int:
    """Bytes of a model file, or of all files of a SavedModel folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _elements(shape: Sequence[int | None]) -> int | None:
    known = [extent for extent in shape if extent is not None]
    return math.prod(known) if len(known) == len(shape) else None


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _shape(shape: Sequence[int | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)
