"""Kernels over a grid of shapes, modes and cores: instructions per MAC, cycles, flash, RAM."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks.aot import TFLM, Row, amount, given, show, span
from benchmarks.networks import Network
from edgecompress.artifact import Artifact
from edgecompress.building import deployment
from edgecompress.building.firmware import Image
from edgecompress.measuring import measurement
from edgecompress.measuring.results import Run
from edgecompress.vocabulary import OPTIMIZE, Optimize

CORES = ("qemu_m4", "qemu_m55", "qemu_m3")


def networks() -> dict[str, Network]:
    """The grid: each operator of these is a point of it."""
    return {
        "convolutions": Network()
        .start(48, 48, 3)
        .conv(16, 3, 2)
        .conv(16, 3)
        .conv(32, 3, 2)
        .conv(32, 3)
        .conv(64, 3, 2)
        .conv(64, 3)
        .conv(32, 5)
        .conv(64, 1)
        .conv(17, 1)
        .conv(9, 3),
        "depthwise": Network()
        .start(48, 48, 8)
        .depthwise(3)
        .depthwise(3, 2)
        .conv(32, 1)
        .depthwise(5)
        .depthwise(3, 2, multiplier=2)
        .depthwise(7),
        "element-wise": Network()
        .start(32, 32, 16)
        .conv(16, 1)
        .conv(16, 1)
        .add()
        .mul()
        .pool("MAX_POOL_2D", 2)
        .pool("AVERAGE_POOL_2D", 16),
        "autoencoder": Network().start(640).dense(128).dense(128).dense(8).dense(128).dense(640),
        "int16": Network("int16")
        .start(24, 24, 8)
        .conv(16, 3)
        .depthwise(3)
        .conv(32, 1)
        .pool("MAX_POOL_2D", 2)
        .dense(32),
    }


def measured(
    name: str, model: bytes, *, board: str = "qemu_m4", optimize: Optimize = "balanced"
) -> tuple[Image, Run]:
    """`model` built for the board and measured there."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = Artifact(name, tflite=model)
        image = deployment.build(artifact, board=board, optimize=optimize, out=Path(folder))
        return image, measurement.measure(image, runs=1)


def whole(label: str, image: Image, run: Run) -> Row:
    """One row: a model in one mode on one core."""
    footprint, bits = image.footprint, run.bits
    assert footprint is not None and bits is not None
    return (
        label,
        amount(run.per_inference),
        span(run.cycles),
        amount(footprint.flash.total),
        amount(footprint.ram.total),
        amount(run.arena),
        f"{bits.exact:,} of {bits.elements:,}",
    )


WHOLE = ("", "instructions", "est. cycles", "flash bytes", "RAM bytes", "arena", "TFLM's bits")


def main() -> None:
    """The models by mode and core, then the grid."""
    known = tomllib.loads(TFLM.read_text(encoding="utf-8"))
    models = {name: given(name, table) for name, table in known.items()}
    print("## Modes and cores\n")
    print("The same models under every `--optimize` on the Cortex-M4, and `balanced` elsewhere.")
    for name, model in models.items():
        rows = [
            whole(mode, *measured(name, model, optimize=mode))
            for mode in sorted(OPTIMIZE, key=lambda mode: mode != "balanced")
        ]
        rows += [whole(board, *measured(name, model, board=board)) for board in CORES[1:]]
        print(f"\n### {name}, by mode and core\n")
        show(WHOLE, rows)
        print(f"{name} done", file=sys.stderr)
    print("\n## Kernels over a grid of shapes\n")
    print("Random weights; `speed` on the Cortex-M4, every operator with the kernel chosen for it.")
    for name, network in networks().items():
        image, run = measured(name.replace("-", "_"), network.bytes(), optimize="speed")
        print(f"\n### {name}\n")
        rows = [
            (
                f"{op.kind} {_shapes(network, op.op)}",
                amount(op.macs or None),
                amount(op.amount),
                "" if op.per_mac is None else f"{op.per_mac:.2f}",
                span(op.cycles),
                op.kernel,
            )
            for op in run.ops
        ]
        show(("operator", "MACs", "instructions", "per MAC", "est. cycles", "kernel"), rows)
        row = whole("", image, run)
        print(
            f"\nAll of it: {row[1]} instructions, flash {row[3]}, RAM {row[4]}; outputs {row[6]}."
        )
        print(f"{name} done", file=sys.stderr)


def _shapes(network: Network, number: int) -> str:
    """Window and map of an operator: 3x3 48x48x8 -> 48x48x8."""
    op = network.ops[number]
    sides = [network.tensors[i].shape[1:] for i in (op.inputs[0], op.outputs[0])]
    window = ""
    if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        window = "x".join(map(str, network.tensors[op.inputs[1]].shape[1:3])) + " "
    return window + " -> ".join("x".join(map(str, side)) for side in sides)


if __name__ == "__main__":
    main()
